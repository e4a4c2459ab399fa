# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``Decoder``: messages of ``pgoutput``, protocol version 1, into a block of changes.

In this version a transaction is sent when it has been committed, and begins with the position and the time of its
commit. So its events are complete at once, and a transaction of any size passes through in blocks.

Messages are decoded without the GIL. They come from a network: every length is checked, and a message that is not as it
must be is a ``CaptureError``, of which no part becomes an event.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport UINT32_MAX
from libc.string cimport memcmp

from ...core.layout cimport NO_TIME, EventField, EventRow
from ...core.schema cimport (
    FIELD_COLLECTION,
    FIELD_NEW_VALUE,
    FIELD_OLD_VALUE,
    FIELD_ROW_ID,
    FIELD_STATEMENT_DIGEST,
    FIELD_USER_ID,
)
from .._change_block cimport OP_BULK_DELETE, OP_DELETE, OP_INSERT, OP_UPDATE, clear_field, next_row
from .pgoutput cimport (
    PG_BAD_ARRAY,
    PG_BAD_ORDER,
    PG_BAD_RELATION,
    PG_BAD_TUPLE,
    PG_BAD_VALUE,
    PG_NO_MEMORY,
    PG_NOT_UTF8,
    PG_OK,
    PG_TOO_LARGE,
    PG_TRAILING,
    PG_TRUNCATED,
    PG_UNKNOWN_MESSAGE,
    PG_UNKNOWN_RELATION,
    PostgresColumn,
    PostgresInput,
    PostgresOutput,
    postgres_left,
    postgres_make_locale,
    postgres_put,
    postgres_put_map,
    postgres_put_row_id,
    postgres_read_relation,
    postgres_read_tuple,
    postgres_read_u8,
    postgres_read_u32,
    postgres_read_u64,
    postgres_relation_find,
    postgres_relations_clear,
)

from ...batch._event_batch import EventBatch
from ...errors import CaptureError

__all__ = ["Decoder"]

if not postgres_make_locale():
    raise MemoryError

cdef enum:
    # Messages that are read before they are decoded.
    MOST_MESSAGES = 256
    # A block that has as much is delivered, whether its transaction has ended or not.
    LARGE_ROWS = 8192
    LARGE_BYTES = 4 * 1024 * 1024
    # Milliseconds from 1970 to 2000, where PostgreSQL's clock begins.
    EPOCH_MS = 946684800000

cdef dict _REASONS = {
    PG_TRUNCATED: "ends before its last field",
    PG_TRAILING: "has bytes behind its last field",
    PG_UNKNOWN_MESSAGE: "is of a kind that protocol version 1 does not have",
    PG_UNKNOWN_RELATION: "is about a table that was not described",
    PG_BAD_RELATION: "describes a table with too many columns, or with a name that is not UTF-8",
    PG_BAD_TUPLE: "has a row that does not fit its table's description",
    PG_BAD_VALUE: "has a value that its type does not have",
    PG_BAD_ARRAY: "has an array with braces or quotes that do not match",
    PG_BAD_ORDER: "does not belong where it comes, inside of a transaction or outside",
}


@cython.final
cdef class Decoder:
    """Messages to events. Not safe for two threads at once.

    Parameters
    ----------
    next_sequence : int
        The number of the first event.
    tenant_id, vshard_id : int
    """

    def __init__(self, uint64_t next_sequence, *, uint64_t tenant_id=0, uint32_t vshard_id=0):
        self.next_sequence = next_sequence
        self.tenant_id = tenant_id
        self.vshard_id = vshard_id
        self.block = ChangeBlock.__new__(ChangeBlock)
        self.messages = []

    def __dealloc__(self):
        postgres_relations_clear(&self.relations)

    def start(self, *, uint64_t after_lsn, uint64_t after_events):
        """Forgets what a connection has sent, for a new one.

        Commits below `after_lsn`, and the first `after_events` events of the commit there, become no events.
        """
        postgres_relations_clear(&self.relations)
        self.relation = NULL
        self.messages.clear()
        self.in_transaction = False
        self.events = 0
        self.end_lsn = 0
        self.resume_lsn = after_lsn
        self.resume_events = after_events

    @property
    def received(self):
        """Row changes and truncated tables that were read, skipped or not."""
        return self.received

    @property
    def pending(self):
        """Events that ``take`` would return."""
        return self.block.count

    @property
    def is_large(self):
        """Whether it is time to ``take``, although more of the transaction follows."""
        return self.block.count >= LARGE_ROWS or self.block.payload_bytes >= LARGE_BYTES

    @property
    def is_inside(self):
        """Whether the end of a transaction that has begun is still to come."""
        return self.in_transaction

    @property
    def is_drained(self):
        """Whether ``read`` ended because there was nothing more to read."""
        return self.drained and len(self.messages) == 0

    @property
    def has_messages(self):
        """Whether messages wait for ``take``."""
        return len(self.messages) != 0

    @property
    def end_lsn(self):
        """Where the last commit ends that was read to its end; 0 before the first of a connection."""
        return self.end_lsn

    @property
    def lsn(self):
        """Of the commit whose events were read last."""
        return self.lsn

    @property
    def time_ms(self):
        """Of that commit."""
        return self.time_ms

    @property
    def events(self):
        """Of that commit so far, with those that were skipped."""
        return self.events

    def read(self, read_message):
        """Reads and decodes messages until there are none, or the block is large; returns how many were read.

        `read_message` returns an object with ``payload``, or None.

        Raises
        ------
        CaptureError
            A message is not as it must be.
        """
        cdef Py_ssize_t count = 0
        self.drained = False
        while len(self.messages) < MOST_MESSAGES:
            message = read_message()
            if message is None:
                self.drained = True
                break
            self.messages.append(message.payload)
            count += 1
        self.decode_messages()
        return count

    def decode_messages(self):
        """Decodes those that are there, until the block is large."""
        cdef const uint8_t* starts[MOST_MESSAGES]
        cdef Py_ssize_t sizes[MOST_MESSAGES]
        cdef Py_ssize_t count = min(len(self.messages), <Py_ssize_t>MOST_MESSAGES), done = 0
        cdef PostgresResult result = PG_OK
        for i in range(count):
            message = self.messages[i]
            if not PyBytes_CheckExact(message):
                raise TypeError(f"message {message!r}: must be bytes, not {type(message).__name__}")
            starts[i] = <const uint8_t*>PyBytes_AS_STRING(message)
            sizes[i] = PyBytes_GET_SIZE(message)
        with nogil:
            while done < count and self.block.count < LARGE_ROWS and self.block.payload_bytes < LARGE_BYTES:
                result = self.decode(starts[done], <uint64_t>sizes[done])
                if result != PG_OK:
                    break
                done += 1
        if result != PG_OK:
            raise refusal(self, result, self.messages[done])
        del self.messages[:done]

    def start_snapshot(self, uint64_t lsn):
        """What follows is rows of the tables as they stood there, which have no time of a commit."""
        self.start(after_lsn=0, after_events=0)
        self.in_transaction = True
        self.lsn = lsn
        self.time_ms = NO_TIME

    def describe(self, bytes message not None):
        """Decodes one message by itself."""
        cdef PostgresResult result = self.decode(<const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        if result != PG_OK:
            raise refusal(self, result, message)

    def take(self):
        """The events that were read, as a batch; a new block begins."""
        block = self.block
        self.block = ChangeBlock.__new__(ChangeBlock)
        return EventBatch._over(block)

    cdef PostgresResult decode(self, const uint8_t* message, uint64_t size) except? <PostgresResult>-1 nogil:
        cdef PostgresInput input
        cdef uint64_t count = self.block.count, bytes = self.block.payload_bytes, received = self.received
        cdef uint64_t events = self.events, next_sequence = self.next_sequence
        cdef PostgresResult result
        input.at = message
        input.end = message + size
        self.relation = NULL
        self.bad_column = UINT32_MAX
        result = decode_message(self, &input)
        if result != PG_OK:
            # Without the events that were made of its beginning.
            self.block.count = count
            self.block.payload_bytes = self.block.used = bytes
            self.received = received
            self.events = events
            self.next_sequence = next_sequence
        return result

    cdef PostgresResult write_event(
        self, uint8_t op, const PostgresField* keyed, const PostgresField* key_before, const PostgresField* new,
        const PostgresField* old, bint old_is_key
    ) except? <PostgresResult>-1 nogil:
        cdef PostgresRelation* relation = self.relation
        cdef EventRow* row
        cdef EventField* field
        cdef PostgresOutput output
        cdef PostgresResult result
        self.events += 1
        if self.lsn < self.resume_lsn or (self.lsn == self.resume_lsn and self.events <= self.resume_events):
            return PG_OK
        row = next_row(self.block)
        field = row.field
        output.bytes = self.block.bytes
        output.used = self.block.used
        output.room = self.block.byte_room
        row.op = op
        row.count = 0 if op == OP_BULK_DELETE else 1
        row.sequence = self.next_sequence
        row.lsn = self.lsn
        row.system_time_ms = self.time_ms
        row.tenant_id = self.tenant_id
        row.vshard_id = self.vshard_id
        clear_field(field + FIELD_COLLECTION, output.used)
        result = postgres_put(&output, relation.collection, relation.collection_size)
        field[FIELD_COLLECTION].length = <uint32_t>(output.used - field[FIELD_COLLECTION].offset)
        clear_field(field + FIELD_ROW_ID, output.used)
        if result == PG_OK and keyed != NULL:
            result = postgres_put_row_id(&output, relation, keyed, key_before, &self.bad_column)
        field[FIELD_ROW_ID].length = <uint32_t>(output.used - field[FIELD_ROW_ID].offset)
        clear_field(field + FIELD_USER_ID, output.used)
        clear_field(field + FIELD_STATEMENT_DIGEST, output.used)
        clear_field(field + FIELD_NEW_VALUE, output.used)
        if result == PG_OK and new != NULL:
            result = postgres_put_map(&output, relation, new, False, &self.bad_column)
            field[FIELD_NEW_VALUE].length = <uint32_t>(output.used - field[FIELD_NEW_VALUE].offset)
        clear_field(field + FIELD_OLD_VALUE, output.used)
        if result == PG_OK and old != NULL:
            result = postgres_put_map(&output, relation, old, old_is_key, &self.bad_column)
            field[FIELD_OLD_VALUE].length = <uint32_t>(output.used - field[FIELD_OLD_VALUE].offset)
        # Also where it failed: it may have moved.
        self.block.bytes = output.bytes
        self.block.byte_room = output.room
        if result != PG_OK:
            return result
        self.block.used = output.used
        self.block.written += 1
        self.block.keep()
        self.next_sequence += 1
        return PG_OK


cdef str column_name(Decoder self):
    """Of the column that is wrong, out of its MessagePack."""
    cdef PostgresColumn* column = &self.relation.columns[self.bad_column]
    cdef bytes packed = self.relation.names[column.name_at:column.name_at + column.name_size]
    # PostgreSQL's names have less than 64 bytes, but whoever sends them need not know.
    return packed[{0xD9: 2, 0xDA: 3, 0xDB: 5}.get(packed[0], 1):].decode()


cdef object refusal(Decoder self, PostgresResult result, bytes message):
    cdef object where = ""
    if result == PG_NO_MEMORY:
        return MemoryError(f"no memory for the events of a message of {len(message)} bytes")
    if self.relation != NULL:
        where = (<bytes>self.relation.collection[:self.relation.collection_size]).decode()
        if self.bad_column < self.relation.count:
            where = f"{where}, column {column_name(self)}"
        where = f"table {where}: "
    if result == PG_NOT_UTF8:
        return CaptureError(
            f"{where}has text that is not UTF-8, as a database of the encoding SQL_ASCII may; store it as bytea"
        )
    if result == PG_TOO_LARGE:
        return CaptureError(f"{where}a change of {len(message)} bytes is more than an event can hold; make it shorter")
    return CaptureError(
        f"{where}message {message[:1]!r} of {len(message)} bytes at commit {self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"
        f" {_REASONS[result]}: what answers is not PostgreSQL's pgoutput, or the connection corrupts what it carries"
    )


cdef PostgresResult decode_message(Decoder self, PostgresInput* input) except? <PostgresResult>-1 nogil:
    cdef uint8_t kind = 0
    cdef PostgresResult result = postgres_read_u8(input, &kind)
    if result != PG_OK:
        return result
    if kind == 73 or kind == 85 or kind == 68 or kind == 84:  # I, U, D, T
        if not self.in_transaction:
            return PG_BAD_ORDER
        if kind == 84:
            return decode_truncate(self, input)
        return decode_change(self, kind, input)
    if kind == 66:  # B
        return decode_begin(self, input)
    if kind == 67:  # C
        return decode_commit(self, input)
    if kind == 82:  # R
        return postgres_read_relation(&self.relations, input)
    # Types are known by their numbers, and origins and messages of the application become no events.
    return PG_OK if kind == 89 or kind == 79 or kind == 77 else PG_UNKNOWN_MESSAGE  # Y, O, M


cdef PostgresResult decode_begin(Decoder self, PostgresInput* input) except? <PostgresResult>-1 nogil:
    cdef uint64_t lsn = 0, time = 0
    cdef uint32_t xid
    cdef PostgresResult result = postgres_read_u64(input, &lsn)
    if result == PG_OK:
        result = postgres_read_u64(input, &time)
    if result == PG_OK:
        result = postgres_read_u32(input, &xid)
    if result != PG_OK:
        return result
    if postgres_left(input) != 0:
        return PG_TRAILING
    if self.in_transaction:
        return PG_BAD_ORDER
    self.in_transaction = True
    self.lsn = lsn
    # Down to the millisecond before, whatever the sign.
    self.time_ms = <int64_t>time // 1000 - (<int64_t>time % 1000 < 0) + EPOCH_MS
    self.events = 0
    return PG_OK


cdef PostgresResult decode_commit(Decoder self, PostgresInput* input) except? <PostgresResult>-1 nogil:
    cdef uint8_t flags
    cdef uint64_t lsn = 0, end = 0, time
    cdef PostgresResult result = postgres_read_u8(input, &flags)
    if result == PG_OK:
        result = postgres_read_u64(input, &lsn)
    if result == PG_OK:
        result = postgres_read_u64(input, &end)
    if result == PG_OK:
        result = postgres_read_u64(input, &time)
    if result != PG_OK:
        return result
    if postgres_left(input) != 0:
        return PG_TRAILING
    if not self.in_transaction or lsn != self.lsn:
        return PG_BAD_ORDER
    self.in_transaction = False
    self.end_lsn = end
    return PG_OK


cdef PostgresResult decode_truncate(Decoder self, PostgresInput* input) except? <PostgresResult>-1 nogil:
    cdef uint32_t count = 0, oid = 0, i
    cdef uint8_t options
    cdef PostgresInput tables
    cdef PostgresResult result = postgres_read_u32(input, &count)
    if result == PG_OK:
        result = postgres_read_u8(input, &options)
    if result != PG_OK:
        return result
    if postgres_left(input) != 4 * <uint64_t>count:
        return PG_TRUNCATED if postgres_left(input) < 4 * <uint64_t>count else PG_TRAILING
    # All of them are known before the first becomes an event.
    tables = input[0]
    for i in range(count):
        postgres_read_u32(&tables, &oid)
        if postgres_relation_find(&self.relations, oid) == NULL:
            return PG_UNKNOWN_RELATION
    for i in range(count):
        postgres_read_u32(input, &oid)
        self.relation = postgres_relation_find(&self.relations, oid)
        self.received += 1
        result = self.write_event(OP_BULK_DELETE, NULL, NULL, NULL, NULL, False)
        if result != PG_OK:
            return result
    return PG_OK


cdef PostgresResult decode_change(Decoder self, uint8_t kind, PostgresInput* input) except? <PostgresResult>-1 nogil:
    cdef uint32_t oid = 0
    cdef uint8_t part = 0, identity = 0
    cdef bint same = False
    cdef PostgresField* before = self.before
    cdef PostgresField* after = self.after
    cdef PostgresResult result = postgres_read_u32(input, &oid)
    if result != PG_OK:
        return result
    self.relation = postgres_relation_find(&self.relations, oid)
    if self.relation == NULL:
        return PG_UNKNOWN_RELATION
    result = postgres_read_u8(input, &part)
    if result == PG_OK and kind != 73 and (part == 75 or part == 79):  # K: the key of the old row; O: all of it
        identity = part
        result = postgres_read_tuple(input, self.relation, before)
        if result == PG_OK and kind == 85:
            result = postgres_read_u8(input, &part)
    if result == PG_OK and kind == 68 and identity == 0:
        return PG_BAD_TUPLE
    if result == PG_OK and kind != 68:
        if part != 78:  # N: the new row
            return PG_BAD_TUPLE
        result = postgres_read_tuple(input, self.relation, after)
    if result != PG_OK:
        return result
    if postgres_left(input) != 0:
        return PG_TRAILING
    self.received += 1
    if kind == 73:
        return self.write_event(OP_INSERT, after, NULL, after, NULL, False)
    if kind == 68:
        return self.write_event(OP_DELETE, before, NULL, NULL, before, identity == 75)
    if identity == 0:
        return self.write_event(OP_UPDATE, after, NULL, after, NULL, False)
    result = compare_keys(self, &same)
    if result != PG_OK:
        return result
    if same:
        return self.write_event(OP_UPDATE, after, before, after, before if identity == 79 else NULL, False)
    result = self.write_event(OP_DELETE, before, NULL, NULL, before, identity == 75)
    if result != PG_OK:
        return result
    return self.write_event(OP_INSERT, after, before, after, NULL, False)


cdef PostgresResult compare_keys(Decoder self, bint* same) noexcept nogil:
    """Whether both rows have the same row id. They are written behind the block's events, where the next one goes."""
    cdef PostgresOutput output
    cdef uint64_t start = self.block.used, middle = 0
    cdef PostgresResult result
    output.bytes = self.block.bytes
    output.used = start
    output.room = self.block.byte_room
    result = postgres_put_row_id(&output, self.relation, self.before, NULL, &self.bad_column)
    middle = output.used
    if result == PG_OK:
        result = postgres_put_row_id(&output, self.relation, self.after, self.before, &self.bad_column)
    self.block.bytes = output.bytes
    self.block.byte_room = output.room
    same[0] = middle - start == output.used - middle and memcmp(
        output.bytes + start, output.bytes + middle, middle - start
    ) == 0
    return result
