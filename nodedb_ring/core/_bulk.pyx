# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Events in bulk: rows and payload copied in and out in as few pieces as they lie in."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ._claims cimport ring_consumer_corrupt
from ._room cimport ring_drop, ring_make_room
from .atomic cimport load_relaxed_u32, prefetch_to_write, unlikely
from .copy cimport nodedb_copy
from .layout cimport (
    CORRUPT_INDEX,
    CORRUPT_ROW,
    FIELD_COUNT,
    GONE,
    HEARTBEAT,
    PUSH_DISCONNECTED,
    PUSH_DONE,
    PUSH_FULL,
    SOUND,
    EventRow,
    ProducerSide,
    PushResult,
    Ring,
    ring_stamp,
    shift_checked,
    shift_fields,
)
from .push cimport ring_publish_stamped, ring_reserve
from .row cimport row_is_packed, row_lap, row_pack
from .sequence cimport ring_attempted, ring_intend
from .slot cimport ring_row, ring_run
from .take cimport ring_advance_rows, ring_available

__all__ = []  # C functions alone

cdef enum:
    # Rows published together: enough to pay for moving a cache line, few enough to stay in the cache.
    PUBLISH_ROWS = 256
    # Rows copied at once if a second pass over them follows: what fits the first-level cache beside their payload.
    CACHED_ROWS = 64

cdef enum:  # what _copy_span returns for a span that there is no room for
    SPAN_TOO_LONG = 0xFFFFFFFFFFFFFFFF


cdef inline void prefetch_row(EventRow* row) noexcept nogil:
    prefetch_to_write(row)
    prefetch_to_write(row.field)


cdef void ring_drop_rows(
    Ring* ring, const EventRow* rows, uint64_t done, uint64_t count, PushResult why
) noexcept nogil:
    """Counts the rows from `done` up to `count` as refused; the highest of their numbers was tried with them."""
    cdef uint64_t highest = 0, i
    for i in range(done, count):
        highest = max(highest, rows[i].sequence)
    ring_intend(ring, highest)
    ring_drop(ring, rows[done].sequence, rows[count - 1].sequence, count - done, why)
    ring_attempted(ring, highest)


cdef uint64_t ring_too_large(
    Ring* ring, const EventRow* rows, uint64_t count, uint64_t payload_bytes
) noexcept nogil:
    """What the first row that could never fit needs, of rows over `payload_bytes`; 0 where there is none."""
    cdef uint64_t need, i
    # No event can need more than all of its fields over the whole payload.
    if FIELD_COUNT * payload_bytes > ring.arena_bytes:
        for i in range(count):
            row_is_packed(rows + i, &need)
            if need > ring.arena_bytes:
                return need
    return 0


cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil:
    """Emits rows in order; returns how many went in. The rest, from the first without room on, is dropped and counted."""
    cdef PushResult why
    cdef uint64_t done = ring_fit_rows(ring, rows, count, payload, &why)
    if done < count and ring.local.producer.corrupt == SOUND:
        ring_drop_rows(ring, rows, done, count, why)
    return done


cdef uint64_t ring_fit_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, PushResult* why
) noexcept nogil:
    """Emits the rows that there is room for, in order; returns how many. The rest was not tried."""
    cdef ProducerSide* side = &ring.local.producer
    cdef const EventRow* row
    cdef EventRow* first
    cdef EventRow* to
    cdef uint64_t done = 0, highest = 0, head, offset, need, i
    cdef uint32_t run
    cdef bint packed
    why[0] = PUSH_DONE
    while done < count:
        if unlikely(load_relaxed_u32(&ring.header.consumer_claim) & GONE):
            why[0] = PUSH_DISCONNECTED
            break
        if done == 0:
            # With nothing outstanding, a batch starts where the arena is hot.
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        head = side.arena_head
        i = 0
        while i < run:
            row = rows + (done + i)
            to = first + i
            packed = row_is_packed(row, &need)
            offset = head - side.arena_lap
            if unlikely(offset + need > side.arena_limit):
                if i != 0 or not ring_make_room(ring, 1, need):
                    break
                head = side.arena_head
                offset = head - side.arena_lap
            memcpy(to, row, sizeof(EventRow))
            if packed:
                shift_fields(to, <uint32_t>offset - row.field[0].offset)
                memcpy(ring.arena + offset, payload + row.field[0].offset, need)
            else:
                row_pack(to, row, ring.arena, offset, payload)
            ring_stamp(to, side.published + i, head, <uint32_t>offset, <uint32_t>need)
            head += need
            highest = max(highest, row.sequence)
            i += 1
        if i == 0:
            why[0] = PUSH_FULL
            break
        ring_intend(ring, highest)
        ring_publish_stamped(ring, i, head, highest)
        done += i
    return done


cdef uint64_t ring_fit_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end, PushResult* why
) noexcept nogil:
    """As ring_fit_rows, for rows whose fields lie back to back, row after row, up to `end`: two copies a publication."""
    cdef ProducerSide* side = &ring.local.producer
    cdef EventRow* first
    cdef uint64_t done = 0, highest = 0, head, start, stop, at, behind, i
    cdef uint32_t run, fit, more, shift
    why[0] = PUSH_DONE
    while done < count:
        if unlikely(load_relaxed_u32(&ring.header.consumer_claim) & GONE):
            why[0] = PUSH_DISCONNECTED
            break
        if done == 0:
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        if run == 0:
            why[0] = PUSH_FULL
            break
        fit = run
        start = rows[done].field[0].offset
        stop = end if done + fit == count else rows[done + fit].field[0].offset
        if side.arena_head - side.arena_lap + (stop - start) > side.arena_limit:
            stop = end if done + 1 == count else rows[done + 1].field[0].offset
            if not ring_make_room(ring, 1, stop - start):
                why[0] = PUSH_FULL
                break
            # One event fits. Double the step while more do, then halve it: the most that fit, in few steps.
            fit = 1
            more = 1
            while more != 0:
                at = end if done + fit + more >= count else rows[done + fit + more].field[0].offset
                if fit + more <= run and side.arena_head - side.arena_lap + (at - start) <= side.arena_limit:
                    fit += more
                    stop = at
                    more *= 2
                else:
                    more //= 2
        head = side.arena_head
        for i in range(min(fit, <uint32_t>CACHED_ROWS)):
            # Rows that were last in this cache a lap ago, if not in the consumer's: they come while payload is copied.
            prefetch_row(first + i)
        nodedb_copy(ring.arena + (head - side.arena_lap), payload + start, stop - start)
        shift = <uint32_t>(head - side.arena_lap) - <uint32_t>start
        at = start
        for i in range(fit):
            if i % CACHED_ROWS == 0:
                nodedb_copy(first + i, rows + (done + i), min(fit - i, <uint32_t>CACHED_ROWS) * sizeof(EventRow))
            if i + CACHED_ROWS < fit:
                prefetch_row(first + i + CACHED_ROWS)
            highest = max(highest, first[i].sequence)
            # A row ends where the next one begins.
            behind = stop if i + 1 == fit else rows[done + i + 1].field[0].offset
            if shift != 0:
                shift_fields(first + i, shift)
            ring_stamp(first + i, side.published + i, head + (at - start), <uint32_t>at + shift, <uint32_t>(behind - at))
            at = behind
        ring_intend(ring, highest)
        ring_publish_stamped(ring, fit, head + (stop - start), highest)
        done += fit
    return done


cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil:
    """How many events wait, at most `most`, and how many bytes of arena they stretch over, a skipped end included."""
    cdef uint64_t taken = ring.local.consumer.taken
    cdef uint64_t count = min(ring_available(ring, most), most)
    cdef EventRow* first
    cdef EventRow* last
    payload_bytes[0] = 0
    if count != 0:
        first = ring_row(ring, taken)
        last = ring_row(ring, taken + count - 1)
        payload_bytes[0] = last.arena_start + last.span_length - first.arena_start
        if ring.shared and payload_bytes[0] > ring.arena_bytes:
            ring_consumer_corrupt(ring, CORRUPT_ROW, last.position)
            payload_bytes[0] = 0
            return 0
    return count


cdef uint64_t ring_copy_out(
    Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload, uint64_t payload_room
) noexcept nogil:
    """Copies `count` events that wait, and gives their rows back; returns the bytes of payload written.

    Rows are copied some at a time, and gone through while they are in cache; payload a lap at a time. ``is_plain_run`` of
    the consumer's side then says whether their numbers follow each other one by one and none is a heartbeat.
    """
    cdef uint64_t taken = ring.local.consumer.taken
    cdef uint64_t copied = 0, written = 0, stray = 0, lap, end, stop, i
    cdef EventRow* run_rows = NULL
    cdef EventRow* first = rows    # of the rows in this lap
    cdef const EventRow* ahead
    cdef uint32_t shift, run = 0, used = 0
    if count == 0:
        return 0
    while copied < count:
        if used == run:
            used = 0
            run = ring_run(ring, taken + copied, count - copied, &run_rows)
            if unlikely(run == 0):
                ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[(taken + copied) & ring.mask])
                return 0
        stop = copied + min(run - used, <uint32_t>CACHED_ROWS)
        nodedb_copy(rows + copied, run_rows + used, (stop - copied) * sizeof(EventRow))
        for i in range(copied, stop):
            stray |= (rows[i].sequence ^ (rows.sequence + i)) | (rows[i].op == HEARTBEAT)
        used += <uint32_t>(stop - copied)
        while copied < stop:
            lap = row_lap(rows + copied)
            if copied != 0 and lap != row_lap(first):
                # The lap before is complete: what its rows stretch over, in one piece.
                written = _copy_span(ring, first, rows + (copied - 1), payload, written, payload_room)
                first = rows + copied
            end = copied + 1
            while end < stop and row_lap(rows + end) == lap:
                end += 1
            shift = <uint32_t>written - first.span_offset
            if ring.shared:
                # Ahead are only rows that are published: the producer's lines are left to it.
                ahead = run_rows + used if used + (end - copied) <= run else rows + copied
                if unlikely(not shift_checked(rows + copied, rows + end, shift, payload_room, ahead)):
                    ring_consumer_corrupt(ring, CORRUPT_ROW, rows[copied].position)
                    return 0
            elif shift != 0:
                for i in range(copied, end):
                    shift_fields(rows + i, shift)
            copied = end
    written = _copy_span(ring, first, rows + (count - 1), payload, written, payload_room)
    if unlikely(written == <uint64_t>SPAN_TOO_LONG):
        ring_consumer_corrupt(ring, CORRUPT_ROW, first.position)
        return 0
    # All is read. Give the rows back a run at a time, in order.
    copied = 0
    while copied < count:
        run = ring_run(ring, taken + copied, count - copied, &run_rows)
        if unlikely(run == 0):
            ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[(taken + copied) & ring.mask])
            return 0
        end = rows[copied + run - 1].arena_start + rows[copied + run - 1].span_length
        ring_advance_rows(ring, run_rows, run, end)
        copied += run
    ring.local.consumer.is_plain_run = stray == 0
    return written


cdef inline uint64_t _copy_span(
    Ring* ring, const EventRow* first, const EventRow* last, uint8_t* payload, uint64_t written, uint64_t room
) noexcept nogil:
    """Copies what the rows from `first` to `last`, of one lap, stretch over; returns the bytes written until then."""
    cdef uint64_t size = last.arena_start + last.span_length - first.arena_start
    # Only rows of a corrupt block stretch over more than ring_measure found, or beyond the arena.
    if unlikely(size > room - min(written, room) or size > ring.arena_bytes - min(first.span_offset, ring.arena_bytes)):
        return <uint64_t>SPAN_TOO_LONG
    if size != 0:
        nodedb_copy(payload + written, ring.arena + first.span_offset, size)
    return written + size
