/* The handshakes of one ring: publication, sleeping and waking, disconnect. `.ci/model` runs it.

   The fence of the handshake is the consumer's membarrier, or once the consumer has asked for it by a bit that stays,
   `often`, the producer's own; the producer may take that bit back whenever it finds nobody waiting. When each does so is
   left open: the model tries all moments.

   Stores of the producer go through a store buffer of DEPTH entries, as on x86: a load may pass an older store, and that
   is what loses wakes. The consumer's are atomic (a fetch_or is locked, and index and `released` are in order with what
   the model asks of them). A membarrier empties the producer's buffer. What the weaker orderings of other machines could
   do to rows is ThreadSanitizer's to check.

   Each BREAK_* takes one line of the algorithm away; each must make a property fail. */

#define CAPACITY 2
#define EVENTS 4
#define DEPTH 2

#define PUBLISHED 0
#define CLOSED 1
#define ROW 2                        /* ROW + slot */

byte memory[ROW + CAPACITY];         /* what the consumer sees of the producer's words */
byte at[DEPTH], value[DEPTH];        /* the store buffer: oldest first */
byte buffered;
byte released, taken, dropped, received, last;
bool waiting, often, woken, producer_idle, consumer_ended;

inline flush_one() {
  memory[at[0]] = value[0];
  at[0] = at[1]; value[0] = value[1];
  at[1] = 0; value[1] = 0;
  buffered--
}

inline store(where, what) {
  atomic { buffered < DEPTH -> at[buffered] = where; value[buffered] = what; buffered++ }
}

/* The processor writes the buffer out whenever it likes. */
active proctype memory_system() {
end:
  do
  :: atomic { buffered > 0 -> flush_one() }
  od
}

inline wake() {
  /* An exchange: locked, so the buffer goes first. The futex wakes whoever sleeps. */
  buffered == 0;
  atomic { if :: waiting -> waiting = false; woken = true :: else fi }
}

inline answer() {
  /* ring_answer, which a plain load has led to. */
#ifndef BREAK_OFTEN_NOT_FENCED
  if :: asked -> buffered == 0 :: else fi;
#endif
  if
  :: waiting -> wake()
  :: else ->
     if
     :: asked && often ->
        buffered == 0;                 /* an exchange */
        often = false
     :: true -> skip
     fi
  fi
}

active proctype producer() {
  byte published = 0, sequence = 0;
  bool asked;
  do
  :: sequence < EVENTS ->
     sequence++;
     if
     :: published - released < CAPACITY ->
#ifdef BREAK_PUBLISH_FIRST
        store(PUBLISHED, published + 1);
        store(ROW + (published % CAPACITY), sequence);
#else
        store(ROW + (published % CAPACITY), sequence);
        store(PUBLISHED, published + 1);
#endif
        published++;
        /* ring_notify: a compiler fence only, then a plain load of `waiting`. */
        atomic { asked = often; if :: waiting || often -> skip :: else -> goto published_one fi };
        answer();
published_one:
        skip
     :: else -> dropped++
     fi
  :: true -> producer_idle = true; goto idle   /* alive, and never to emit again: nothing else will wake */
  :: sequence == EVENTS -> break
  od;
  store(CLOSED, 1);
  buffered == 0;                     /* fence */
#ifndef BREAK_CLOSE_WITHOUT_WAKE
  wake();
#endif
idle:
  skip
}

inline is_due(yes) {
  yes = (memory[PUBLISHED] != taken);
  if :: !yes -> yes = (memory[CLOSED] == 1) :: else fi
}

active proctype consumer() {
  bool due, gone, had;
  byte row;
  do
  :: memory[PUBLISHED] != taken ->
     row = memory[ROW + (taken % CAPACITY)];
     assert(row > last);             /* a row that was never written, or an older one, in its place */
     last = row;
     received++;
     taken++;
#ifdef BREAK_RELEASE_FIRST
     released = taken + 1
#else
     released = taken
#endif
  :: else ->
#ifdef BREAK_FLAG_AFTER_CHECK
     gone = (memory[PUBLISHED] == taken);
     gone = (gone && memory[CLOSED] == 1);
#else
     gone = (memory[CLOSED] == 1);
     gone = (gone && memory[PUBLISHED] == taken);
#endif
     if
     :: gone -> break
     :: else ->
        atomic {
          had = often;
          waiting = true;
          if :: often = true :: skip fi
#ifdef BREAK_OFTEN_WITHOUT_MEMBARRIER
          ; had = often
#endif
        }
#ifndef BREAK_NO_MEMBARRIER
        if :: had -> skip :: else -> buffered == 0 fi;
#endif
#ifdef BREAK_NO_CHECK_AFTER
        due = false;
#else
        is_due(due);
#endif
        /* The futex sleeps only while the word says that it waits. */
        if
        :: due -> skip
        :: else ->
           if
           :: !waiting -> skip
           :: waiting ->
end_asleep:   woken -> skip
           fi
        fi;
        atomic { waiting = false; woken = false }
     fi
  od;
  assert(received + dropped == EVENTS);
  consumer_ended = true
}

/* Safety: when nothing moves any more, nothing was left behind. After a lost wake, an event is never read. */
active proctype witness() {
end:
  timeout -> assert(consumer_ended || (producer_idle && taken == memory[PUBLISHED]))
}

/* Liveness, checked apart: the consumer ends, or has all that an idle producer ever published. */
ltl delivered { <> consumer_ended || (<> producer_idle && <>[] (taken == memory[PUBLISHED])) }
