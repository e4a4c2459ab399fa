/* The signal to a waiter on a shared ring, who has a descriptor, a loop or a call that sleeps: its two steps, the way that
   it takes, the timer, and who fences. `.ci/model` runs it.

   The producer stores `published` through a store buffer of one entry and then loads `waiting`. Either side may have
   no membarrier. The producer may stop for good between any two steps (killed, or SIGSTOP), and may have no FIFO, since it
   claimed its end after unlink. TIMER: the waiter checks again whenever nothing else moves any more.

   Without TIMER the handshake stands alone; STOPS and NO_FIFO, which only the timer makes good, are left out then.
   Each BREAK_* takes one line of the algorithm away; each must make a property fail. */

#define EVENTS 3

#define THREAD 1
#define FD 2
#define FENCES 4

byte published;                      /* as memory has it */
byte buffered;                       /* what the producer's buffer adds to it */
byte waiting, taken;
bool fifo, woken, started, fenced, has_membarrier, has_fifo;

inline flush() { atomic { published = published + buffered; buffered = 0 } }

/* The processor writes the buffer out whenever it likes. */
active proctype memory_system() {
end:
  do
  :: atomic { buffered > 0 -> flush() }
  od
}

inline may_stop() {
#ifdef STOPS
  if :: true :: true -> goto done fi
#else
  skip
#endif
}

/* ring_wake */
inline wake() {
  if :: waiting & FENCES -> flush() :: else fi;
  take = waiting & (THREAD | FD);
#ifndef BREAK_FIFO_OPENED_LATE
  if :: !has_fifo -> take = take & THREAD :: else fi;
#endif
  if
  :: take != 0 ->
     flush();                        /* the exchange is locked, so the buffer goes first */
     atomic { take = take & waiting; waiting = waiting & ~take };
     may_stop();
     if :: take & THREAD -> woken = true :: else fi;
     may_stop();
#ifdef BREAK_FIFO_OPENED_LATE
     /* The bus was unlinked meanwhile, or no descriptor is free. */
     if :: true :: true -> take = 0 fi;
#endif
     if :: take & FD -> fifo = true :: else fi
  :: else
  fi
}

active proctype producer() {
  byte take, emitted;
  started;
  do
  :: emitted < EVENTS ->
     emitted++;
     buffered == 0 -> buffered = 1;
     may_stop();
     /* ring_notify */
     if :: fenced -> flush() :: else fi;
     if :: waiting != 0 -> wake() :: else fi;
     may_stop()
  :: emitted == EVENTS -> break
  od;
done:
  skip
}

/* _fence_both: a membarrier reaches a producer that is registered for it. */
inline fence_both() {
  if :: has_membarrier && !fenced -> flush() :: else fi
}

/* ring_arm, and ask_for_signal behind it */
inline ask_for_signal() {
  fifo = false;
  atomic { waiting = waiting | FD };
  fence_both();
  if
  :: published != taken -> atomic { waiting = waiting & ~FD }; fifo = true
  :: else
  fi
}

inline take_all() {
  do
  :: published != taken -> taken++
  :: else -> break
  od
}

active proctype consumer() {
  byte expected, announced, cancelled;
  atomic {
    if :: has_membarrier = true :: has_membarrier = false fi;
    if :: fenced = true :: fenced = false fi;
#ifdef NO_FIFO
    if :: has_fifo = true :: has_fifo = false fi;
#else
    has_fifo = true;
#endif
#ifndef BREAK_EACH_FOR_ITSELF
    if :: !has_membarrier -> waiting = FENCES :: else fi;
#endif
    started = true
  }
  ask_for_signal();                  /* fileno() */
  do
  :: true ->                         /* In select. */
#ifdef TIMER
     if :: fifo :: timeout fi;
#else
end_select:
     fifo;
#endif
     take_all();
     ask_for_signal();
  :: cancelled < 2 ->                /* An asynchronous wait that is cancelled at once. */
     cancelled++;
     atomic { waiting = waiting | FD };
     fence_both();
     atomic { waiting = waiting & ~FD };
     fifo = false;
#ifndef BREAK_DISARM_FORGETS
     ask_for_signal()
#endif
  :: true ->                         /* A call that sleeps; it takes, and asks for the next signal. */
     atomic { waiting = waiting | THREAD; announced = waiting };
     fence_both();
     if
     :: published != taken -> skip
     :: else ->
#ifdef BREAK_FUTEX_EXPECTS_ONE_BIT
        expected = THREAD;
#else
        expected = waiting;
#endif
        if
        :: (expected & THREAD) && waiting == expected ->
#ifdef TIMER
           if :: woken :: timeout fi
#else
end_asleep:
           woken
#endif
        :: else ->
           /* The futex does not sleep. So a bit must have been taken meanwhile, or it never would. */
           assert(waiting != announced)
        fi
     fi;
     atomic { waiting = waiting & ~THREAD; woken = false };
     take_all();
     ask_for_signal()
  od
}

/* When nothing moves any more, nothing is left behind that the waiter was not woken for. */
#ifndef TIMER
active proctype witness() {
end:
  timeout -> assert(published == taken)
}
#endif
