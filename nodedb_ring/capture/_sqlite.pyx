# cython: language_level=3, auto_pickle=False, autotestdict=False
"""The captured changes of a connection's open transaction, undone where SQLite undoes them.

SQLite calls a preupdate hook for every row change, but not when it undoes one: neither on ``ROLLBACK TO`` nor when a
statement aborts half-way. It does call its virtual tables each time it opens, releases or rolls back a savepoint, its
own savepoints around statements included, and again when a commit is done. So there are two parts: this object, whose
hook records, and an empty virtual table (``nodedb_transaction_table.h``), which counts the changes that remain.

    a statement on a captured table begins  -> the table joins the transaction; check_schema(): what the columns are
    a row changes                           -> record(): one more change
    SAVEPOINT, or a statement that may fail -> the table notes how many changes there are
    ROLLBACK TO, or a statement aborts      -> the table goes back to that number
    about to commit, first of all           -> sync(): write the events to the log, if there is one
    about to commit                         -> commit_hook(): refuse, if a change could not be recorded
    committed, in any journal mode          -> commit(): emit
    rolled back, for whatever reason        -> forget(): everything

SQLite forbids a hook to use the connection that it is called from, so the table has joined before: each captured table
has triggers that never fire and would write to it (``capture.py`` makes them). A table that was made later has none; for
its first change of a transaction alone, record() runs the statement that joins, in a form that can undo nothing.

Compiled, because a signal handler may run, and raise, wherever a Python function begins: a hook in Python would lose
the change that it was called for whenever Ctrl-C arrives during a long statement.
"""

import logging
import time
import weakref

import apsw

cimport cython
from cpython.exc cimport PyErr_SetInterrupt
from libc.stdint cimport uint64_t

from ..batch._event cimport WriteEvent
from ._row_writer cimport RowWriter
from .transaction_table cimport (
    OwnerMethods,
    TransactionTable,
    transaction_table_clear,
    transaction_table_release,
    transaction_table_new,
    transaction_table_register_next,
    transaction_table_undone,
)

from ..errors import CaptureError, EventTooLargeError
from ..batch.schema import EventSource, WriteOp
from ..ends.logger import log_safely

__all__ = ["OpenTransaction", "fold", "rows"]

cdef int _SQLITE_DELETE = 9, _SQLITE_INSERT = 18
cdef object _INSERT = WriteOp.INSERT, _UPDATE = WriteOp.UPDATE, _DELETE = WriteOp.DELETE
cdef object _HEARTBEAT = WriteOp.HEARTBEAT
cdef object _USER = EventSource.USER, _TRIGGER = EventSource.TRIGGER


def rows(connection, sql, bindings=(), *, can_cache=True):
    """Runs SQL of our own, unseen by the tracers and the cursor factory that the connection's user has set."""
    cursor = apsw.Cursor(connection)
    cursor.exec_trace = _let_pass
    cursor.row_trace = _as_it_is
    return list(cursor.execute(sql, bindings, can_cache=can_cache))


def _let_pass(cursor, sql, bindings):
    return True


def _as_it_is(cursor, row):
    return row


def fold(str name):
    """The name as SQLite compares it: without case, but of ASCII letters only."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


cdef dict _LOWER = {upper: upper + 32 for upper in range(65, 91)}


@cython.final
cdef class OpenTransaction:
    """What a connection changed since its transaction began, for one capture. SQLite calls the methods of it.

    Parameters
    ----------
    connection : apsw.Connection
    producer : EventProducer
    module : str
        Under this name the connection has the virtual table.
    read_tables : Callable[[apsw.Connection], Mapping[str, Table | CaptureError | None]]
        How the rows of every table read; why one cannot be captured; None for one that is left out.
    chosen : frozenset of str, or None
        The tables to capture, in lower case; None leaves it to ``read_tables``.
    log : TransactionLog or None
    first_lsn, tenant_id, vshard_id : int
    """

    cdef TransactionTable* _table
    cdef object _connection  # a weak reference: the connection's hooks hold this object
    cdef object _producer, _read_tables, _chosen, _log, _tenant_id, _vshard_id
    cdef str _module
    cdef RowWriter _writer
    # name -> Table, the CaptureError of each change, or None for one that is left out; as of schema version _version
    cdef object _tables
    cdef object _version
    # (op, collection, row_id, new_value, old_value, source), or the exception that refused one. Those behind
    # _table.standing were undone.
    cdef list _changes
    cdef bint _refused      # _changes may hold an exception
    cdef object _unfollowed  # why this transaction's undone changes are not reported to us; it cannot be committed
    cdef list _logged       # the events that this transaction has written to the log; None: it has not, or in part
    cdef Py_ssize_t _logged_changes  # of how many changes those are
    cdef object _logged_from  # their first number; None: nothing was written
    cdef object _next_sequence
    cdef readonly object lsn
    cdef readonly object emitted
    cdef readonly object dropped

    def __cinit__(self, *args, str module, **options):
        self._table = transaction_table_new(<void*>self, &_METHODS, module.encode())
        if self._table == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._table != NULL:
            self._table.owner = NULL
            transaction_table_release(self._table)

    def __init__(
        self, connection, producer, *, module, read_tables, chosen, log, first_lsn, tenant_id, vshard_id
    ):
        self._connection = weakref.ref(connection)
        self._producer = producer
        self._module = module
        self._writer = RowWriter()
        self._read_tables = read_tables
        self._chosen = chosen
        self._log = log
        self._table.writes_log = log is not None
        self._tenant_id = tenant_id
        self._vshard_id = vshard_id
        self._next_sequence = 0
        self.lsn = first_lsn - 1
        self.emitted = 0
        self.dropped = 0
        self._tables = {}
        self._version = None
        self._clear()

    def attach(self):
        """Makes the virtual table of the connection, for good: a trigger that a rollback brings back may need it."""
        connection = self._connection()
        config = connection.config
        before = config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, -1)
        config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)
        transaction_table_register_next(self._table)
        try:
            connection.load_extension(__file__, "nodedb_ring_capture_init")
        finally:
            transaction_table_register_next(NULL)
            config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, before)

    def detach(self):
        """From now on the virtual table does nothing."""
        self._table.owner = NULL
        self.forget()

    cdef int _clear(self) except -1:
        self._changes = []
        self._refused = False
        self._unfollowed = None
        self._logged = None
        self._logged_from = None
        transaction_table_clear(self._table)
        return 0

    @property
    def pending(self):
        return self._table.standing

    # The preupdate hook.

    def record(self, change):
        cdef uint64_t rollbacks = self._table.rollbacks
        if self._unfollowed is not None:
            return
        try:
            self._record(change)
        except BaseException as error:
            if isinstance(error, UnicodeDecodeError):
                at = f"table {change.table_name}, row {change.rowid}"
                error = CaptureError(f"{at}: its text is not UTF-8 ({error}); store it as a BLOB")
            if self._table.rollbacks != rollbacks:
                raise error  # the transaction is gone, and this with it: the next one has nothing to do with it
            if self._table.joined:
                # It stands where the change would: a rollback that undoes the change takes the refusal back too.
                self._add(error)
                self._refused = True
            else:
                self._unfollowed = error
            if self._tables.get(change.table_name, self) is not None:
                raise error
            # A row of a virtual table's own. One that cannot write it may continue malformed, as a full-text table is
            # where a savepoint begins. So it is written, and the commit refused.
            if isinstance(error, KeyboardInterrupt):
                PyErr_SetInterrupt()  # again, later

    cdef int _add(self, change) except -1:
        if len(self._changes) != self._table.standing:
            del self._changes[self._table.standing:]
        self._changes.append(change)
        self._table.standing += 1
        return 0

    cdef int _record(self, change) except -1:
        cdef int opcode
        if change.database_name != "main":
            return 0
        name = change.table_name
        if self._chosen is not None and fold(name) not in self._chosen:
            return 0
        table = self._tables.get(name)
        if table is None or not self._table.joined or self._table.schema_doubtful:
            table = self._look_up(name)
            if table is None:
                return 0
        if isinstance(table, CaptureError):
            raise CaptureError(str(table))
        opcode = change.opcode
        source = _USER if change.depth == 0 else _TRIGGER
        if opcode == _SQLITE_INSERT:
            new = change.new
            self._add((_INSERT, table.name, self._row_id(table, change.rowid, new), self._row(table, new), None, source))
        elif opcode == _SQLITE_DELETE:
            if change.blob_write >= 0:
                raise CaptureError(
                    f"table {name}, row {change.rowid}: incremental writes to a blob cannot be captured, because SQLite"
                    " does not report what is written; write the column with UPDATE"
                )
            old = change.old
            self._add((_DELETE, table.name, self._row_id(table, change.rowid, old), None, self._row(table, old), source))
        else:
            old = change.old
            new = change.new
            row_id = self._row_id(table, change.rowid, old)
            new_row_id = self._row_id(table, change.rowid_new, new)
            old_value = self._row(table, old)
            new_value = self._row(table, new)
            if row_id == new_row_id:
                self._add((_UPDATE, table.name, row_id, new_value, old_value, source))
            else:
                self._add((_DELETE, table.name, row_id, None, old_value, source))
                self._add((_INSERT, table.name, new_row_id, new_value, None, source))
        return 0

    cdef object _look_up(self, str name):
        """A table that no trigger of ours is on, or that a statement may have made or changed since."""
        if name.lower().startswith("sqlite_"):
            return None
        if name not in self._tables:
            self._table.schema_doubtful = True
            self._table.schema_unsure = True
        if not self._table.joined:
            if self._tables.get(name) is None:
                self._read_schema()
                if self._tables.get(name) is None:
                    return None  # a virtual table, or a capture, writes it in its xSync, when nobody can join any more
            self._join()
        if self._table.schema_doubtful:
            self._read_schema()
        return self._tables.get(name)

    cdef int _join(self) except -1:
        """Runs a statement that writes to the virtual table, and so takes it into the transaction.

        Inside the hook, where SQLite does not want it: so it is one that can fail without harm. Prepared under the
        present schema, never taken from a cache, it is not prepared again; it has no savepoint of its own, so that
        it either does nothing or takes back the whole transaction, after which SQLite does not write the row.
        """
        connection = self._connection()
        if connection.txn_state("main") != apsw.SQLITE_TXN_WRITE:
            # To begin one here would make durable what this statement writes outside any. There is none to refuse.
            self._table.rollbacks += 1
            raise CaptureError(
                "a SQL function has rolled back the transaction during the statement that called it; roll back after"
                " the statement"
            )
        rows(connection, f"DELETE FROM {self._module} WHERE nodedb_ring_nothing = 0", can_cache=False)
        if not self._table.joined:
            raise CaptureError(
                f"a table named {self._module} hides the capture's own virtual table; rename it, and run the transaction"
                " again"
            )
        return 0

    cdef object _schema_version(self):
        [(version,)] = rows(self._connection(), "PRAGMA main.schema_version")
        return version

    cdef int _read_schema(self) except -1:
        version = self._schema_version()
        if self._table.schema_unsure or version != self._version:
            self._table.schema_read = True
            self._tables = self._read_tables(self._connection())
            self._version = version
            self._table.schema_unsure = False
        self._table.schema_doubtful = False
        return 0

    cdef str _row_id(self, table, long long rowid, tuple values):
        if table.key is None:
            return f"{rowid}"  # of a C integer: str() of an object would serve signals
        return table.key.row_id(values)

    cdef bytes _row(self, table, tuple values):
        cdef tuple keys = table.keys
        if len(keys) != len(values):
            # A function that writes, called by the statement that alters the table.
            self._table.schema_unsure = True
            self._read_schema()
            table = self._tables.get(table.name)
            if not hasattr(table, "keys") or len(table.keys) != len(values):
                raise CaptureError(f"a row of {len(values)} values is not of {table!r}; run the transaction again")
            keys = table.keys
        return self._writer.row(table.header, keys, table.real, values)

    # What the virtual table calls.

    cdef int _sync(self) except -1:
        """Writes the events to the log: first of all in a commit, while the transaction can still be written to.

        Again, if the commit found the database busy and is repeated: what was written is in the open transaction.
        """
        self._check()
        if self._logged_from is not None:
            self._log.take_back(self._logged_from)
            self._logged = None
            self._logged_from = None
        if self._table.standing != 0:
            changes = self._standing()
            sequence = max(self._next_sequence, self._producer.next_sequence, self._log.next_sequence())
            events = self._events(changes, sequence)
            self._logged_from = sequence
            self._log.append(events)
            self._logged = events
            self._logged_changes = len(changes)
        return 0

    cdef list _standing(self):
        del self._changes[self._table.standing:]
        return self._changes

    cdef list _events(self, list changes, sequence):
        """The events of this transaction, and a HEARTBEAT if the last of them will not be seen in the ring."""
        cdef list events = []
        cdef WriteEvent event = None
        lsn = self.lsn + 1
        now = time.time_ns() // 1_000_000
        for change in changes:
            event = self._event(change, sequence, lsn, now)
            events.append(event)
            sequence += 1
        if event.row.span_length > self._producer.ring.arena_bytes:
            events.append(_heartbeat(sequence, lsn, now))
        return events

    cdef int _commit(self) except -1:
        cdef list changes = self._standing()
        cdef list logged = self._logged
        self._clear()
        self.lsn += 1
        return self._emit(changes, logged)

    # The hooks of the connection.

    def commit_hook(self):
        """Refuses a commit that has a change which could not be recorded. False lets it go ahead."""
        self._check()
        if self._log is not None and self._table.standing != 0:
            if self._logged is None or self._logged_changes != self._table.standing:
                raise CaptureError(
                    "the transaction cannot be committed: rows were changed after its events went into the log, by"
                    " the xSync of another virtual table or by a commit hook; change them before the commit"
                )
        return False

    cdef int _check(self) except -1:
        if self._table.marks_lost:
            raise CaptureError("the transaction cannot be committed: no memory was left to follow it; run it again")
        if self._unfollowed is not None:
            raise CaptureError(
                "the transaction cannot be committed: the capture could not take part in it"
                f" ({self._unfollowed!r}); run it again"
            ) from self._unfollowed
        if self._refused:
            for change in self._standing():
                if isinstance(change, BaseException):
                    reason = change if isinstance(change, CaptureError) else repr(change)
                    raise CaptureError(
                        f"the transaction cannot be committed, because a change in it was not captured: {reason}"
                    ) from change
            self._refused = False
        return 0

    def forget(self):
        """The rollback hook; also of a transaction that the virtual table could not join."""
        transaction_table_undone(self._table)
        self._clear()

    # After the commit.

    cdef WriteEvent _event(self, tuple change, sequence, lsn, now):
        op, collection, row_id, new_value, old_value, source = change
        return WriteEvent(
            sequence=sequence,
            collection=collection,
            op=op,
            row_id=row_id,
            lsn=lsn,
            tenant_id=self._tenant_id,
            vshard_id=self._vshard_id,
            source=source,
            new_value=new_value,
            old_value=old_value,
            system_time_ms=now,
        )

    cdef int _emit(self, list changes, list logged) except -1:
        """Emits one event a change: those that are in the log already, or new ones."""
        cdef Py_ssize_t tried = 0
        cdef bint accepted = True
        cdef Py_ssize_t oversize = 0
        cdef bint hidden = False
        cdef WriteEvent event
        emit = self._producer.emit
        lsn = self.lsn
        if logged is None:
            now = time.time_ns() // 1_000_000
            sequence = max(self._next_sequence, self._producer.next_sequence)
            self._next_sequence = sequence + len(changes)
        else:
            self._next_sequence = logged[-1].sequence + 1
        try:
            for change in changes:
                if logged is None:
                    event = self._event(change, sequence, lsn, now)
                    sequence += 1
                else:
                    event = logged[tried]
                try:
                    accepted = emit(event)
                    hidden = False
                except EventTooLargeError as error:
                    # The row is committed and a reader of the log will find it; here it is one more dropped event.
                    accepted = False
                    hidden = True
                    oversize += 1
                    reason = str(error)
                tried += 1
                if accepted:
                    self.emitted += 1
                else:
                    self.dropped += 1
        finally:
            self.dropped += len(changes) - tried
        if hidden:
            # The ring never saw the last number, so no consumer could miss it. One number more shows the hole.
            if logged is None:
                self._next_sequence = sequence + 1
                emit(_heartbeat(sequence, lsn, now))
            else:
                emit(logged[-1])
        if oversize:
            log_safely(logging.WARNING, "commit %d: %d row changes dropped, because %s", lsn, oversize, reason)
        return 0


cdef WriteEvent _heartbeat(sequence, lsn, now):
    return WriteEvent(sequence=sequence, collection="", op=_HEARTBEAT, row_id="", lsn=lsn, system_time_ms=now)


cdef int _check_schema_of(void* owner) except -1:
    return (<OpenTransaction>owner)._read_schema()


cdef int _sync_of(void* owner) except -1:
    return (<OpenTransaction>owner)._sync()


cdef int _commit_of(void* owner) except -1:
    return (<OpenTransaction>owner)._commit()


cdef OwnerMethods _METHODS = OwnerMethods(_check_schema_of, _sync_of, _commit_of)
