/* The two waits of one ring together: the consumer sleeps until there is an event, the producer until there is room.
   `.ci/model` runs it.

   Each side's position goes through a store buffer, as on x86: the other side sees `*_seen`, which catches up whenever the
   machine likes, at once when the writer does something locked, and when the other side calls membarrier. What comes of
   `published` alone, with rows, drops and a close, is ring.pml's.

   Each BREAK_* takes one line of the algorithm away; each must make a property fail. */

#define CAPACITY 2
#define EVENTS 4

byte published, published_seen, released, released_seen, taken;
bool waiting, woken;                      /* the consumer's futex */
bool room_waiting, room_woken;            /* the producer's */
byte room_released;                       /* from which position on there is the room that it waits for */
bool all_sent, all_received;

active proctype memory_system() {
end:
  do
  :: atomic { published_seen != published -> published_seen = published }
  :: atomic { released_seen != released -> released_seen = released }
  od
}

#define room(n) (published + n <= released_seen + CAPACITY)

active proctype producer() {
  byte wanted;
  do
  :: published < EVENTS && room(1) ->
     published++;
     /* ring_notify: a compiler fence only, then a plain load. */
     if
     :: waiting -> atomic { published_seen = published; if :: waiting -> waiting = false; woken = true :: else fi }
     :: else
     fi
  :: published < EVENTS && !room(1) ->
     /* A batch lets room gather. */
     if :: wanted = 1 :: wanted = CAPACITY fi;
announce:
#ifndef BREAK_PUBLISHED_LATE
     room_released = published + wanted - CAPACITY;
#endif
     atomic { published_seen = published; room_waiting = true };
#ifndef BREAK_NO_MEMBARRIER
     released_seen = released;
#endif
#ifdef BREAK_PUBLISHED_LATE
     room_released = published + wanted - CAPACITY;
#endif
     if
#ifndef BREAK_NO_CHECK_AFTER
     :: room(wanted) -> skip
#endif
     :: else ->
        if
        :: !room_waiting -> skip
        :: room_waiting ->
end_asleep:
           if
           :: room_woken -> skip
#ifndef BREAK_NO_HURRY
           :: !room_woken && wanted > 1 -> wanted = 1; goto announce   /* its time is over */
#endif
           fi
        fi
     fi;
     atomic { room_waiting = false; room_woken = false }
  :: published == EVENTS -> break
  od;
  all_sent = true
}

/* ring_release_run, and ring_wake_producer. */
inline give_back(upto) {
  released = upto;
#ifdef BREAK_NO_WAKE
  skip
#else
  if
  :: room_waiting ->
     if
     :: room_released <= released ->
        atomic {
          released_seen = released;
          if :: room_waiting -> room_waiting = false; room_woken = true :: else fi
        }
     :: else
     fi
  :: else
  fi
#endif
}

active proctype consumer() {
  do
  :: published_seen != taken ->
     taken++;
     /* Released at once, or leased and released with a later one. */
     if
     :: give_back(taken)
     :: released + 1 == taken -> skip
     fi
  :: published_seen == taken && taken < EVENTS ->
     atomic { released_seen = released; waiting = true };
     published_seen = published;
     if
     :: published_seen != taken -> skip
     :: else ->
        if
        :: !waiting -> skip
        :: waiting ->
end_asleep: woken -> skip
        fi
     fi;
     atomic { waiting = false; woken = false }
  :: taken == EVENTS -> break
  od;
  give_back(taken);
  all_received = true
}

/* When nothing moves any more, everything has gone through. */
active proctype witness() {
end:
  timeout -> assert(all_sent && all_received)
}

/* Liveness, checked apart. */
ltl through { <> (all_sent && all_received) }
