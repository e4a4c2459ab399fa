/* One ring between processes that may be killed between any two stores, and their successors. `.ci/model` runs it.

   The block is that of `nodedb_layout.h`: positions that only grow, an array of indices, rows, an arena whose laps may leave
   an end unused. Of each end one process lives at a time, as the kernel's lock has it. KILLS deaths fall to either end,
   at any store, those of a claim and of a recovery included, and CLOSES clean ends; what was local is forgotten, and
   sooner or later, or for a producer never, a successor comes. A kill falls between two instructions: what stands
   before it is stored, what stands behind it is not. Between the same two stores all deaths leave the same, so each
   store has one.

   Each side's stores reach the other side in the order they are made: x86 has them so, release stores elsewhere. What a
   store buffer does to a sleeper's last check is modelled in ring.pml, and so is the wake: here a sleeper checks when
   there is something to find, as the real one does ten times a second.

   The producer's claim word stands for both: a consumer's is claimed, marked and closed alike, and what a producer does
   that finds it marked, to drop, it does here when it finds no room.

   Each BREAK_* changes one line of the algorithm; each must make an assertion fail. */

#ifndef CAPACITY
#define CAPACITY 3
#endif
#ifndef EVENTS
#define EVENTS 4                     /* numbers to try */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#define ARENA 3
#define BIT(row) (1 << (row))
#define SLOT(position) ((position) % CAPACITY)

/* The block: the producer's words, then the consumer's. */
byte published, arena_head, arena_lap, arena_floor, intent, emitted;
byte row_position[CAPACITY], row_start[CAPACITY], row_offset[CAPACITY], row_bytes[CAPACITY];
byte taken, released, arena_released, index[CAPACITY];
byte claim;                          /* of the producer's end: how often, shifted by one, and bit 0: gone */
bool locked;                         /* the same end, for the kernel */

/* What only the properties read. */
byte kills = KILLS, closes = CLOSES;
byte outstanding;                    /* rows published and not released; of these: */
byte given, orphaned;                /* those that a consumer was given; those whose consumer has died since */
byte tried;                          /* the highest number that an intent was stored for */
byte published_at_claim;             /* what was published when the waiting consumer last read the claim */
bool settled;                        /* a producer lives, and has stored its claim */
bool reported_gone;                  /* the waiting consumer has reported that the producer is gone */
bool waits;                          /* a consumer lives, holds nothing and found nothing */

#define DIES :: atomic { kills > 0 -> kills--; goto died }
#define STORE(what) if :: what DIES fi

/* Each row is outstanding, or stands at one free position: never both, never twice, never neither. */
inline check_index() {
  k = published; rows = outstanding;
  do
  :: k < released + CAPACITY -> assert(!(rows & BIT(index[SLOT(k)]))); rows = rows | BIT(index[SLOT(k)]); k++
  :: else -> break
  od;
  assert(rows == BIT(CAPACITY) - 1);
  k = 0; rows = 0
}

init {
  byte i;
  atomic {
    do
    :: i < CAPACITY -> index[i] = i; i++
    :: else -> break
    od;
    run producer(); run consumer()
  }
}

/* ---- producer ---- */

inline start_lap() {
#ifdef BREAK_LAP_BEFORE_HEAD
  STORE(arena_lap = arena_lap + ARENA);
  STORE(arena_head = arena_lap)
#else
  STORE(arena_head = arena_lap + ARENA);
  STORE(arena_lap = arena_lap + ARENA)
#endif
}

/* As ring_make_room: `fits` if `count` rows and `bytes` bytes are free at the head. */
inline make_room() {
  seen_released = released;
  if
  :: seen_released == published ->
     if
     :: arena_head != arena_lap -> start_lap()
     :: else
     fi;
     STORE(arena_floor = arena_head);
     d_step { seen_tail = arena_head; limit = ARENA; fits = (count <= CAPACITY) }
  :: else ->
     d_step {
       if
       :: arena_released > seen_tail -> seen_tail = arena_released; assert(arena_head - seen_tail <= ARENA)
       :: else
       fi;
       fits = (published - seen_released + count <= CAPACITY);
       limit = ARENA;
       if
       :: !fits -> limit = 0
       :: fits && arena_lap > seen_tail ->
          limit = ARENA - (arena_lap - seen_tail);           /* of a byte, so below 0 it is a great room, as in C */
          fits = (arena_head - arena_lap + bytes <= limit)
       :: fits && arena_lap <= seen_tail && arena_head - arena_lap + bytes > ARENA ->
          limit = seen_tail - arena_lap;
          fits = (bytes <= limit)
       :: else
       fi
     };
     if
     :: fits && arena_head - arena_lap + bytes > limit -> start_lap()
     :: else
     fi
  fi
}

/* Rows and payload in one step, since the other side reads them only after publication, which is asserted. */
inline write_rows() {
  STORE(d_step {
    offset = arena_head - arena_lap;
    assert(offset + bytes <= ARENA);
    do
    :: k < CAPACITY ->
       assert(!(outstanding & BIT(k)) || offset + bytes <= row_offset[k] || offset >= row_offset[k] + row_bytes[k]);
       k++
    :: else -> k = 0; break
    od;
    do
    :: k < count ->
       row = index[SLOT(published + k)];
       assert(!(outstanding & BIT(row)));
       row_position[row] = published + k;
       row_bytes[row] = bytes / count;
       row_offset[row] = offset + k;
       row_start[row] = arena_head + k;
       k++
    :: else -> k = 0; break
    od;
    row = 0; offset = 0; start = arena_head
  })
}

inline take_arena() { STORE(arena_head = start + bytes) }

inline publish() {
  STORE(d_step {
    do
    :: k < count -> outstanding = outstanding | BIT(index[SLOT(published + k)]); k++
    :: else -> k = 0; break
    od;
    published = published + count;
    check_index()
  })
}

proctype producer() {
  byte next, count, bytes, seen_released, seen_tail, limit, start, offset, row, k, rows;
  bool fits;
unclaimed:
  if
  :: locked = true
  :: goto gone                       /* no other ever comes */
  fi;
  /* Recovery: everything as it stands. What is known of the consumer is read again. Its tail may lag, and by more than
     the arena has, behind laps that were started since with nothing outstanding: those are behind the floor. Whatever
     the checks of a shared block would call corrupt must not be what a death leaves: hence the two asserts. */
  seen_released = released;
#ifdef BREAK_FLOOR_IGNORED
  seen_tail = arena_released;
#else
  seen_tail = (arena_released > arena_floor -> arena_released : arena_floor);
  assert(arena_head - arena_lap <= ARENA);
  assert(seen_released == published || arena_head - seen_tail <= ARENA);
#endif
  if
  :: seen_released == published -> STORE(arena_floor = arena_head); seen_tail = arena_head
  :: else
  fi;
#ifndef BREAK_INTENT_IGNORED
  if :: intent > emitted -> STORE(emitted = intent) :: else fi;
#endif
  next = emitted + 1;
#ifdef BREAK_CLAIMS_NOT_COUNTED
  STORE(d_step { claim = 2; settled = true });
#else
  STORE(d_step { claim = ((claim >> 1) + 1) << 1; settled = true });
#endif
  do
  :: next <= EVENTS ->
     if
     :: d_step { count = 1; bytes = 1 }
     :: d_step { count = 1; bytes = 2 }
     :: d_step { next < EVENTS -> count = 2; bytes = 2 }
     fi;
     STORE(d_step { assert(next == tried + 1); next = next + count; tried = next - 1; intent = tried });
     /* Room by the positions loaded last, or a new load. The ring may load them although there is room. */
     if
     :: published - seen_released + count <= CAPACITY && arena_head - arena_lap + bytes <= limit -> fits = true
     :: make_room()
     fi;
     if
     :: fits ->
        write_rows();
#ifdef BREAK_HEAD_AFTER_PUBLISHED
        publish();
        take_arena()
#else
        take_arena();
        publish()
#endif
     :: else -> skip                 /* dropped */
     fi;
     STORE(emitted = next - 1);
     d_step { count = 0; bytes = 0; start = 0; fits = false }
  :: next > EVENTS -> goto idle      /* alive, and never to emit again */
  :: atomic { closes > 0 -> closes-- }; STORE(d_step { claim = claim | 1; settled = false }); goto died
  od;
died:
  skip;
  d_step {
    locked = false; settled = false; fits = false;
    next = 0; count = 0; bytes = 0; seen_released = 0; seen_tail = 0; limit = 0; start = 0
  };
  goto unclaimed;
idle:
gone:
  skip
}

/* ---- consumer ---- */

/* Which rows are outstanding, in order of position, into sorted[0 .. count). Only this end writes what it reads. */
inline find_outstanding() {
  d_step {
#ifdef BREAK_LAST_POSITIONS
    do
    :: k < CAPACITY ->
       if :: row_position[k] < released || row_position[k] >= seen -> rows = rows | BIT(k) :: else fi;
       k++
    :: else -> break
    od;
#else
    k = seen;
    do
    :: k < released + CAPACITY -> rows = rows | BIT(index[SLOT(k)]); k++
    :: else -> break
    od;
#endif
    do
    :: rows != BIT(CAPACITY) - 1 ->
       k = 0; row = CAPACITY;
       do
       :: k < CAPACITY ->
          if
          :: !(rows & BIT(k)) && row == CAPACITY -> row = k
#ifndef BREAK_NOT_SORTED
          :: !(rows & BIT(k)) && row != CAPACITY && row_position[k] < row_position[row] -> row = k
#endif
          :: else
          fi;
          k++
       :: else -> break
       od;
       assert(row_position[row] < seen);
       sorted[count] = row; rows = rows | BIT(row);
       count++
    :: else -> break
    od;
    k = 0; rows = 0; row = 0
  }
}

/* What lies in rows that are free is forgotten, which makes fewer states: nobody reads it, as is asserted. */
inline give_rows() {
  STORE(d_step {
    do
    :: k < count ->
       outstanding = outstanding & ~BIT(row + k);
       row_start[row + k] = 0; row_offset[row + k] = 0; row_bytes[row + k] = 0;
       k++
    :: else -> break
    od;
    given = given & outstanding; orphaned = orphaned & outstanding;
    released = released + count;
    check_index()
  })
}

inline give_indices() {
  if
  :: position != released ->
     do
     :: i < count -> STORE(index[SLOT(released + i)] = row + i); i++
     :: else -> i = 0; break
     od
  :: else
  fi
}

inline give_arena() {
  if
  :: tail != arena_released -> STORE(arena_released = tail)
  :: else
  fi
}

proctype consumer() {
  byte seen, arena_taken, leases, lease_row[CAPACITY], lease_count[CAPACITY], lease_position[CAPACITY];
  byte sorted[CAPACITY], row, count, position, tail, seen_claim, last, i, k, rows;
  bool held;
unclaimed:
  seen = published;
  find_outstanding();
#ifndef BREAK_INDEX_KEPT
  do
  :: i < count -> STORE(index[SLOT(released + i)] = sorted[i]); i++
  :: else -> i = 0; break
  od;
#endif
#ifdef BREAK_TAIL_MOVED
  if
  :: count == 0 -> tail = arena_head; give_arena(); tail = 0
  :: else
  fi;
#endif
#ifdef BREAK_TAKEN_KEPT
  skip;
#else
  STORE(taken = released);
#endif
  d_step {
    count = 0;
    do
    :: i < CAPACITY -> sorted[i] = 0; i++
    :: else -> i = 0; break
    od
  };
  do
  :: taken < seen ->                 /* lease one or two events that lie side by side */
     d_step { position = taken; row = index[SLOT(position)]; count = 1 };
     if
     :: position + 1 < seen && SLOT(position) + 1 < CAPACITY && index[SLOT(position + 1)] == row + 1 -> count = 2
     :: skip
     fi;
     STORE(taken = taken + count);
     d_step {
       do
       :: i < count ->
          assert(outstanding & BIT(row + i));
          assert(!(given & BIT(row + i)) || (orphaned & BIT(row + i)));
          given = given | BIT(row + i); orphaned = orphaned & ~BIT(row + i);
          assert(row_position[row + i] + 1 > last);
          last = row_position[row + i] + 1;
          i++
       :: else -> i = 0; break
       od;
       arena_taken = row_start[row + count - 1] + row_bytes[row + count - 1];
       lease_row[leases] = row; lease_count[leases] = count; lease_position[leases] = position;
       leases++;
       row = 0; count = 0; position = 0
     }
  :: leases > 0 ->                   /* end a lease, whichever */
     if
     :: i = 0
     :: leases > 1 -> i = 1
     :: leases > 2 -> i = 2
     fi;
     d_step {
       row = lease_row[i]; count = lease_count[i]; position = lease_position[i];
       leases--;
       do
       :: i < leases ->
          lease_row[i] = lease_row[i + 1];
          lease_count[i] = lease_count[i + 1];
          lease_position[i] = lease_position[i + 1];
          i++
       :: else -> break
       od;
       lease_row[i] = 0; lease_count[i] = 0; lease_position[i] = 0;
       i = 0;
       if
       :: leases > 0 -> tail = row_start[lease_row[0]]
       :: leases == 0 && taken != seen -> tail = row_start[index[SLOT(taken)]]
       :: else -> tail = arena_taken
       fi
     };
#ifdef BREAK_RELEASED_BEFORE_INDICES
     give_rows(); give_indices(); give_arena();
#else
#ifdef BREAK_ARENA_BEFORE_RELEASED
     give_indices(); give_arena(); give_rows();
#else
     give_indices(); give_rows(); give_arena();
#endif
#endif
     d_step { row = 0; count = 0; position = 0; tail = 0 }
  :: taken == seen && (leases == 0 || published != seen) ->
     seen = published;
     if
     :: taken != seen -> skip
     :: else ->
        /* It sleeps. To claim == 0 nobody has come yet. */
        waits = true;
end_asleep:
        (published != taken || (claim & 1) != reported_gone || (claim > 1 && !(claim & 1) && !locked));
        d_step { waits = false; reported_gone = false };
#ifdef BREAK_LOCK_BEFORE_CLAIM
        held = locked;
#endif
        d_step { seen_claim = claim; published_at_claim = published };
#ifndef BREAK_LOCK_BEFORE_CLAIM
        held = locked;
#endif
        if
        :: seen_claim & 1 ->
#ifndef BREAK_CLAIM_AFTER_CHECK
           seen = published;
#endif
           if
           :: seen == taken -> reported_gone = true; assert(published_at_claim == taken)
           :: else
           fi
        :: !(seen_claim & 1) && seen_claim > 1 && !held ->
#ifdef BREAK_PLAIN_MARK
           d_step { claim = seen_claim | 1; assert(!settled) }
#else
           d_step {
             if
             :: claim == seen_claim -> claim = seen_claim | 1; assert(!settled)
             :: else
             fi
           }
#endif
        :: else
        fi;
        d_step { seen_claim = 0; held = false; published_at_claim = 0 }
     fi
  :: atomic { closes > 0 && leases == 0 -> closes--; goto died }
  od;
died:
  skip;
  d_step {
    orphaned = given; waits = false; reported_gone = false; published_at_claim = 0; held = false;
    seen = 0; arena_taken = 0; leases = 0; row = 0; count = 0; position = 0; tail = 0; seen_claim = 0; last = 0;
    i = 0;
    do
    :: i < CAPACITY -> sorted[i] = 0; lease_row[i] = 0; lease_count[i] = 0; lease_position[i] = 0; i++
    :: else -> i = 0; break
    od
  };
  goto unclaimed
}

/* When nothing moves any more, a living consumer has been given all there was, all of it came back, and it knows that
   nobody is there to emit another. */
active proctype witness() {
end:
  timeout -> assert(waits && taken == published && outstanding == 0 && (locked || reported_gone || claim < 2))
}
