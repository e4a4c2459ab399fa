/* The sleep on several rings in one futex, the gate: no wake is lost. `.ci/model` runs it.

   What a producer publishes and its look at `waiting`, and the waiter's announcement and its look at what is published,
   are in order here: that is ring.pml's to show. The gate counts the wakes. The waiter reads the count before it
   announces its sleep, and the futex compares.

   Each BREAK_* changes one line of the algorithm; each must make a wake be lost. */

#define RINGS 2
#define EVENTS 2

byte published[RINGS], taken[RINGS];
byte gate;
bool waiting[RINGS];
bool asleep;
byte idle;

inline open_gate() {
#ifndef BREAK_NO_COUNT
  gate++;
#endif
  asleep = false                     /* futex_wake: nothing if nobody sleeps */
}

proctype producer(byte me) {
  byte sent = 0;
  bool was;
  do
  :: sent < EVENTS ->
     published[me]++;
     sent++;
     if
     :: waiting[me] ->
        /* Who takes the bit wakes. */
        atomic { was = waiting[me]; waiting[me] = false };
        if :: was -> open_gate() :: else fi
     :: else
     fi
  :: true -> break                   /* alive, and never to emit again */
  od;
  idle++
}

active proctype reader() {
  byte seen;
end:
  do
  :: published[0] != taken[0] -> taken[0]++
  :: published[1] != taken[1] -> taken[1]++
  :: published[0] == taken[0] && published[1] == taken[1] ->
#ifndef BREAK_READ_LAST
     seen = gate;
#endif
     waiting[0] = true;
#ifndef BREAK_ONE_ANNOUNCED
     waiting[1] = true;
#endif
     if
     :: published[0] == taken[0] && published[1] == taken[1] ->
#ifdef BREAK_READ_LAST
        seen = gate;
#endif
        /* The kernel compares and queues the waiter under one lock. */
        atomic { if :: gate == seen -> asleep = true :: else fi };
end_asleep:
        !asleep
     :: else
     fi;
     waiting[0] = false;
     waiting[1] = false
  od
}

/* When nothing moves any more the producers are idle, and everything was taken. */
active proctype witness() {
end:
  timeout -> assert(idle == RINGS && taken[0] == published[0] && taken[1] == published[1])
}

init { atomic { run producer(0); run producer(1) } }
