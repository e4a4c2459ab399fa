# cython: language_level=3, auto_pickle=False, autotestdict=False
"""The captured changes of a connection's open transaction, undone where SQLite undoes them.

SQLite tells a preupdate hook of every row change, and tells nobody when it takes one back: not on ``ROLLBACK TO``, not
when a statement aborts half-way. It does tell its virtual tables, each time it opens, releases or rolls back a
savepoint, its own savepoints around a statement included, and once more when a commit is done. So this object is both:
the hook that records, and a virtual table of no rows that takes part in every transaction in which it recorded.

    first change of a transaction -> record() -> a DELETE of nothing from the virtual table -> Begin()
    SAVEPOINT, or a statement that may have to be undone -> Savepoint(level): note how much is recorded
    ROLLBACK TO, or a statement aborts                   -> RollbackTo(level): forget what was recorded since
    about to commit, first of all                        -> Sync(): write the events to the log, if there is one
    about to commit                                      -> commit_hook(): refuse, if a change could not be recorded
    committed, in any journal mode                       -> Commit(): emit
    rolled back, for whatever reason                     -> forget(): everything

Compiled, because a signal handler may run, and raise, wherever a Python function begins: a hook in Python would lose
the change that it was called for whenever Ctrl-C arrives during a long statement.
"""

import logging
import time

import apsw

cimport cython

from ._event cimport WriteEvent

from .errors import CaptureError, EventTooLargeError
from .events import EventSource, WriteOp

__all__ = ["OpenTransaction", "rows"]

cdef int _SQLITE_DELETE = 9
cdef int _SQLITE_INSERT = 18
cdef object _INSERT = WriteOp.INSERT
cdef object _UPDATE = WriteOp.UPDATE
cdef object _DELETE = WriteOp.DELETE
cdef object _HEARTBEAT = WriteOp.HEARTBEAT
cdef object _USER = EventSource.USER
cdef object _TRIGGER = EventSource.TRIGGER
cdef object _LOGGER = logging.getLogger("nodedb_ring")


def rows(connection, sql, bindings=()):
    """Runs SQL of our own, unseen by the tracers and the cursor factory that the connection's user has set."""
    cursor = apsw.Cursor(connection)
    cursor.exec_trace = _let_pass
    cursor.row_trace = _as_it_is
    return list(cursor.execute(sql, bindings))


def _let_pass(cursor, sql, bindings):
    return True


def _as_it_is(cursor, row):
    return row


@cython.final
cdef class OpenTransaction:
    """What a connection changed since its transaction began, for one capture. SQLite calls every method of it.

    Parameters
    ----------
    producer : EventProducer
    module : str
        Under this name the connection has this object as a virtual table.
    read_table : Callable[[apsw.Connection, str], Table | None]
        How the rows of a table read; None if they are not captured.
    pack : Callable[[dict], bytes]
        Encodes a row.
    chosen : frozenset of str, or None
        The tables to capture, in lower case; None leaves it to ``read_table``.
    left_out : frozenset of str
        The tables of a log. They are written while the transaction commits, when nobody can join it any more.
    log : TransactionLog or None
    first_lsn, tenant_id, vshard_id : int
    """

    cdef object _producer, _read_table, _pack, _chosen, _left_out, _log, _tenant_id, _vshard_id
    cdef str _join
    cdef dict _tables       # name -> Table or None, as of schema version _version
    cdef object _version    # None: unknown, because a change of the schema may have been undone
    cdef bint _doubtful     # a statement may have changed the schema since _version was read
    cdef list _changes      # (op, collection, row_id, new_value, old_value, source), or the exception that refused one
    cdef dict _marks        # savepoint level -> how many changes were recorded when it opened
    cdef bint _joined       # SQLite tells us of this transaction's savepoints and of its end
    cdef bint _refused      # _changes may hold an exception
    cdef list _logged       # the events that this transaction has written to the log; None: it has not, or in part
    cdef Py_ssize_t _logged_changes  # of how many changes those are
    cdef object _logged_from  # their first number; None: nothing was written
    cdef object _join_error
    cdef object _next_sequence
    cdef readonly object lsn
    cdef readonly object emitted
    cdef readonly object dropped

    def __init__(self, producer, *, module, read_table, pack, chosen, left_out, log, first_lsn, tenant_id, vshard_id):
        self._producer = producer
        # It changes nothing; but before SQLite runs it, it takes the virtual table into the transaction.
        self._join = f"DELETE FROM {module} WHERE 0"
        self._read_table = read_table
        self._pack = pack
        self._chosen = chosen
        self._left_out = left_out
        self._log = log
        self._tenant_id = tenant_id
        self._vshard_id = vshard_id
        self._next_sequence = 0
        self.lsn = first_lsn - 1
        self.emitted = 0
        self.dropped = 0
        self._tables = {}
        self._version = None
        self._doubtful = True
        self._clear()

    cdef int _clear(self) except -1:
        self._changes = []
        self._marks = {}
        self._joined = False
        self._refused = False
        self._join_error = None
        self._logged = None
        self._logged_from = None
        return 0

    @property
    def pending(self):
        return len(self._changes)

    # The preupdate hook.

    def record(self, change):
        if self._join_error is not None:
            return
        try:
            try:
                self._record(change)
            except UnicodeDecodeError as error:
                raise CaptureError(
                    f"table {change.table_name}, row {change.rowid}: its text is not UTF-8 ({error}); store it as a BLOB"
                ) from error
        except BaseException as error:
            # It stands where the change would: a rollback that undoes the change takes the refusal back too.
            self._changes.append(error)
            self._refused = True
            raise

    cdef int _record(self, change) except -1:
        cdef int opcode
        if change.database_name != "main":
            return 0
        name = change.table_name
        if self._chosen is not None and name.lower() not in self._chosen:
            return 0
        if name in self._left_out:
            return 0
        if not self._joined:
            try:
                rows(change.connection, self._join)
            except BaseException as error:
                # Without the virtual table nobody tells us what is undone: only a rollback of everything helps.
                self._join_error = error
                raise
        table = self._table(change.connection, name)
        if table is None:
            return 0
        opcode = change.opcode
        source = _USER if change.depth == 0 else _TRIGGER
        if opcode == _SQLITE_INSERT:
            new = change.new
            self._changes.append(
                (_INSERT, table.name, self._row_id(table, change.rowid, new), self._row(table, new), None, source)
            )
        elif opcode == _SQLITE_DELETE:
            if change.blob_write >= 0:
                raise CaptureError(
                    f"table {name}, row {change.rowid}: incremental writes to a blob cannot be captured, because SQLite"
                    " does not tell what is written; write the column with UPDATE"
                )
            old = change.old
            self._changes.append(
                (_DELETE, table.name, self._row_id(table, change.rowid, old), None, self._row(table, old), source)
            )
        else:
            old = change.old
            new = change.new
            row_id = self._row_id(table, change.rowid, old)
            new_row_id = self._row_id(table, change.rowid_new, new)
            old_value = self._row(table, old)
            new_value = self._row(table, new)
            if row_id == new_row_id:
                self._changes.append((_UPDATE, table.name, row_id, new_value, old_value, source))
            else:
                self._changes.append((_DELETE, table.name, row_id, None, old_value, source))
                self._changes.append((_INSERT, table.name, new_row_id, new_value, None, source))
        return 0

    cdef object _table(self, connection, str name):
        if self._doubtful:
            [(version,)] = rows(connection, "PRAGMA main.schema_version")
            if version != self._version:
                self._tables = {}
                self._version = version
            self._doubtful = False
        try:
            return self._tables[name]
        except KeyError:
            table = self._tables[name] = self._read_table(connection, name)
            return table

    cdef str _row_id(self, table, long long rowid, tuple values):
        if table.key is None:
            return f"{rowid}"  # of a C integer: str() of an object would serve signals
        return table.key.row_id(values)

    cdef bytes _row(self, table, tuple values):
        cdef tuple columns = table.columns
        if len(columns) != len(values):
            raise CaptureError(
                f"table {table.name}: {len(values)} values in a row of {len(columns)} columns: {', '.join(columns)}"
            )
        return self._pack(dict(zip(columns, values)))

    # The virtual table. SQLite numbers savepoints from 0; -1 is the whole transaction, begun by an outermost SAVEPOINT.

    def BestIndex(self, constraints, orderbys):
        return None

    def Disconnect(self):
        pass

    def Begin(self):
        self._joined = True
        self._doubtful = True

    def Savepoint(self, level):
        self._marks[level] = len(self._changes)
        # Every statement that changes the schema opens a savepoint, so this is when names may have changed.
        self._doubtful = True

    def RollbackTo(self, level):
        # A savepoint that we were not told of was open when the first change came: there was nothing before it.
        del self._changes[self._marks.get(level, 0):]
        self._unlearn()

    cdef void _unlearn(self):
        # A version number that was undone is given again, perhaps to another schema.
        self._version = None
        self._doubtful = True

    def Sync(self):
        """Writes the events to the log: first of all in a commit, while the transaction can still be written to.

        Again, if the commit found the database busy and is repeated: what was written is in the open transaction.
        """
        cdef list changes = self._changes
        if self._log is None:
            return
        self._check()
        if self._logged_from is not None:
            self._log.take_back(self._logged_from)
            self._logged = None
            self._logged_from = None
        if changes:
            sequence = max(self._next_sequence, self._producer.next_sequence, self._log.next_sequence())
            events = self._events(changes, sequence)
            self._logged_from = sequence
            self._log.append(events)
            self._logged = events
            self._logged_changes = len(changes)

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

    def Commit(self):
        cdef list changes = self._changes
        cdef list logged = self._logged
        self._clear()
        if changes:
            self.lsn += 1
            self._emit(changes, logged)

    # The hooks of the connection.

    def commit_hook(self):
        """Refuses a commit that has a change which could not be recorded. False lets it go ahead."""
        self._check()
        if self._log is not None and self._changes:
            if self._logged is None or self._logged_changes != len(self._changes):
                raise CaptureError(
                    "the transaction cannot be committed: rows were changed after its events went into the log, by"
                    " the xSync of another virtual table or by a commit hook; change them before the commit"
                )
        return False

    cdef int _check(self) except -1:
        if self._join_error is not None:
            raise CaptureError(
                "the transaction cannot be committed: the capture could not take part in it"
                f" ({self._join_error!r}); run it again"
            ) from self._join_error
        if self._refused:
            for change in self._changes:
                if isinstance(change, BaseException):
                    reason = change if isinstance(change, CaptureError) else repr(change)
                    raise CaptureError(
                        f"the transaction cannot be committed, because a change in it was not captured: {reason}"
                    ) from change
            self._refused = False
        return 0

    def forget(self):
        self._clear()
        self._unlearn()

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
            _LOGGER.warning("commit %d: %d row changes dropped, because %s", lsn, oversize, reason)
        return 0


cdef WriteEvent _heartbeat(sequence, lsn, now):
    return WriteEvent(sequence=sequence, collection="", op=_HEARTBEAT, row_id="", lsn=lsn, system_time_ms=now)
