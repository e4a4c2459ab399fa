# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
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

import weakref

import apsw

cimport cython
from cpython.exc cimport PyErr_SetInterrupt
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..core.atomic cimport load_relaxed
from ._change_block cimport OP_DELETE, OP_INSERT, OP_UPDATE, ChangeBlock
from ._commit_emitter cimport CommitEmitter
from ._pending_changes cimport PendingChanges
from ._sqlite_changes cimport same_key, write_change
from ._table cimport Table
from ._transaction_log cimport TransactionLog, data_version, schema_version
from .change_attributes cimport (
    BLOB_WRITE,
    DATABASE_NAME,
    DEPTH,
    NEW_VALUES,
    OLD_VALUES,
    OPCODE,
    ROWID,
    ROWID_NEW,
    TABLE_NAME,
    change_attribute,
    change_attributes_find,
    values_after,
)
from .own_statements cimport own_file_version
from .transaction_table cimport (
    OwnerMethods,
    TransactionTable,
    transaction_table_clear,
    transaction_table_disown,
    transaction_table_release,
    transaction_table_new,
    transaction_table_register_next,
    transaction_table_undone,
)

from ..errors import CaptureError
from ._own_sql import fold, rows

__all__ = ["OpenTransaction"]

cdef int _SQLITE_DELETE = 9, _SQLITE_INSERT = 18
cdef enum:  # EventSource
    USER = 0
    TRIGGER = 1

if hasattr(apsw, "PreUpdate"):  # otherwise SqliteCapture refuses this apsw
    change_attributes_find(apsw.PreUpdate)


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
    logged_core : int or None
        The core whose log the database has, to write it.
    first_lsn, tenant_id, vshard_id : int
    foreign : ForeignCommits or None
        To tell that other connections have committed.
    """

    cdef TransactionTable* _table
    cdef object _connection  # a weak reference: the connection's hooks hold this object
    cdef CommitEmitter _emitter
    cdef object _read_tables, _chosen
    cdef TransactionLog _log
    cdef uint64_t _tenant_id, _vshard_id
    cdef str _module
    # name -> Table, the CaptureError of each change, or None for one that is left out; as of schema version _version
    cdef object _tables
    cdef Table _latest  # the one of them that changed last, or None
    cdef object _version
    cdef PendingChanges _changes
    cdef object _unfollowed  # why this transaction's undone changes are not reported to us; it cannot be committed
    cdef bint _logged        # the changes, _logged_changes of them, have numbers and are in the log
    cdef int64_t _logged_changes
    cdef object _logged_from  # their first number; None: nothing was written
    cdef object _next_sequence  # this and _lsn: replaced, and read elsewhere, in a critical section of this object
    cdef object _lsn            # of the last commit
    cdef object _first_lsn
    cdef int64_t _commit_number  # of what was logged
    cdef object _foreign      # ForeignCommits, or None: nobody wants to know
    cdef uint32_t _file_version  # when this connection committed last; 0: not known
    cdef int64_t _data_version   # when it last began

    def __cinit__(self, *args, str module, **options):
        self._table = transaction_table_new(<void*>self, &_METHODS, module.encode())
        if self._table == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._table != NULL:
            transaction_table_disown(self._table)
            transaction_table_release(self._table)

    def __init__(
        self, connection, producer, *, module, read_tables, chosen, logged_core, first_lsn, tenant_id, vshard_id,
        foreign=None
    ):
        self._connection = weakref.ref(connection)
        self._emitter = CommitEmitter(producer)
        self._module = module
        self._read_tables = read_tables
        self._chosen = chosen
        if logged_core is not None:
            self._log = TransactionLog.__new__(TransactionLog)
            self._log.statements = &self._table.statements
            self._log.connection = self._connection
            self._log.core_id = logged_core
            self._table.writes_log = True
        self._tenant_id = tenant_id
        self._vshard_id = vshard_id
        self._next_sequence = 0
        self._foreign = foreign
        self._file_version = 0
        [(self._data_version,)] = rows(connection, "PRAGMA main.data_version")
        self._first_lsn = first_lsn
        self._lsn = first_lsn - 1
        self._tables = {}
        self._version = None
        self._changes = PendingChanges()
        self._changes.standing = &self._table.standing
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
        transaction_table_disown(self._table)
        self.forget()

    cdef int _clear(self) except -1:
        self._changes.clear()
        self._unfollowed = None
        self._logged = False
        self._logged_from = None
        transaction_table_clear(self._table)
        return 0

    @property
    def lsn(self):
        """The number of the last commit."""
        with cython.critical_section(self):
            return self._lsn

    @property
    def emitted(self):
        return load_relaxed(&self._emitter.emitted)

    @property
    def dropped(self):
        return load_relaxed(&self._emitter.dropped)

    @property
    def pending(self):
        return <int64_t>load_relaxed(<uint64_t*>&self._table.standing)

    @property
    def last_sequence(self):
        """The last number that was given; 0 before the first."""
        with cython.critical_section(self):
            sequence = self._next_sequence
        return max(sequence, self._emitter.producer.next_sequence, 1) - 1

    # The preupdate hook.

    # Called for every row: a C function of one argument, without what makes it look like one in Python.
    @cython.binding(False)
    @cython.always_allow_keywords(False)
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
                try:
                    self._changes.refuse(error)
                except MemoryError:
                    self._unfollowed = error
            else:
                self._unfollowed = error
            if self._tables.get(change.table_name, self) is not None:
                raise error
            # A row of a virtual table's own. One that cannot write it may continue malformed, as a full-text table is
            # where a savepoint begins. So it is written, and the commit refused.
            if isinstance(error, KeyboardInterrupt):
                PyErr_SetInterrupt()  # again, later

    cdef int _record(self, change) except -1:
        cdef int opcode
        cdef uint8_t source
        cdef int64_t rowid, new_rowid
        cdef tuple new, old
        cdef Table columns = self._latest
        cdef ChangeBlock block
        cdef str name
        if <str>change_attribute(change, DATABASE_NAME) != "main":
            return 0
        name = <str>change_attribute(change, TABLE_NAME)
        if columns is None or name != columns.name or not self._table.joined or self._table.schema_doubtful:
            columns = self._latest = self._find(name)
            if columns is None:
                return 0
        opcode = change_attribute(change, OPCODE)
        source = USER if <int>change_attribute(change, DEPTH) == 0 else TRIGGER
        rowid = change_attribute(change, ROWID)
        if opcode == _SQLITE_INSERT:
            new = change_attribute(change, NEW_VALUES)
            if PyTuple_GET_SIZE(new) != columns.count:
                columns = self._table_of_width(name, PyTuple_GET_SIZE(new))
            write_change(self._changes.room(), columns, OP_INSERT, source, rowid, new, new, None)
        elif opcode == _SQLITE_DELETE:
            if <int>change_attribute(change, BLOB_WRITE) >= 0:
                raise CaptureError(
                    f"table {name}, row {rowid}: incremental writes to a blob cannot be captured, because SQLite"
                    " does not report what is written; write the column with UPDATE"
                )
            old = change_attribute(change, OLD_VALUES)
            if PyTuple_GET_SIZE(old) != columns.count:
                columns = self._table_of_width(name, PyTuple_GET_SIZE(old))
            write_change(self._changes.room(), columns, OP_DELETE, source, rowid, old, None, old)
        else:
            old = change_attribute(change, OLD_VALUES)
            new = values_after(change, old)
            new_rowid = change_attribute(change, ROWID_NEW)
            if PyTuple_GET_SIZE(old) != columns.count:
                columns = self._table_of_width(name, PyTuple_GET_SIZE(old))
            block = self._changes.room()
            if rowid == new_rowid if columns.key_count == 0 else same_key(block, columns, old, new):
                write_change(block, columns, OP_UPDATE, source, rowid, old, new, old)
            else:
                write_change(block, columns, OP_DELETE, source, rowid, old, None, old)
                write_change(block, columns, OP_INSERT, source, new_rowid, new, new, old)
        self._changes.keep()
        return 0

    cdef Table _find(self, str name):
        """The table, or None if its changes are not captured. Each change of one that cannot be is refused."""
        if self._log is not None and name == "nodedb_ring_log":
            return None
        if self._chosen is not None and fold(name) not in self._chosen:
            return None
        table = self._tables.get(name)
        if table is None or not self._table.joined or self._table.schema_doubtful:
            table = self._look_up(name)
        if isinstance(table, CaptureError):
            raise CaptureError(str(table))
        return table

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
        if self._table.connected != 0:
            return schema_version(&self._table.statements)
        [(version,)] = rows(self._connection(), "PRAGMA main.schema_version")
        return version

    cdef int _read_schema(self) except -1:
        version = self._schema_version()
        if self._table.schema_unsure or version != self._version:
            self._table.schema_read = True
            self._latest = None
            self._tables = self._read_tables(self._connection())
            self._version = version
            self._table.schema_unsure = False
        self._table.schema_doubtful = False
        return 0

    cdef Table _table_of_width(self, str name, Py_ssize_t count):
        """The table whose rows have `count` values, which are not as many as it had columns.

        A function that writes was called by the statement that alters the table.
        """
        self._table.schema_unsure = True
        self._read_schema()
        table = self._tables.get(name)
        if not isinstance(table, Table) or (<Table>table).count != count:
            raise CaptureError(f"a row of {count} values is not of {table!r}; run the transaction again")
        return table

    # What the virtual table calls.

    cdef int _begin(self) except -1:
        """Looks for commits of other connections: the write lock is held, and nothing is changed yet."""
        cdef uint32_t file_version
        cdef int64_t version
        if self._foreign is None:
            return 0
        file_version = own_file_version(&self._table.statements)
        if file_version != 0 and file_version == self._file_version:
            return 0
        version = data_version(&self._table.statements)
        if version != self._data_version:
            self._data_version = version
            self._foreign.changed(self._connection(), self._lsn)
        return 0

    cdef int _sync(self) except -1:
        """Writes the events to the log: first of all in a commit, while the transaction can still be written to.

        Again, if the commit found the database busy and is repeated: what was written is in the open transaction.
        """
        self._check()
        if self._logged_from is not None:
            self._log.take_back(self._logged_from, self._commit_number)
            self._logged = False
            self._logged_from = None
        if self._table.standing != 0:
            sequence = max(self._next_sequence, self._emitter.producer.next_sequence, self._log.next_sequence())
            self._commit_number = max(self._first_lsn, self._log.next_commit())
            self._number(sequence, self._commit_number)
            self._logged_from = sequence
            for block in self._changes.full:
                self._log.append(block, self._commit_number)
            self._log.append(self._changes.block, self._commit_number)
            self._logged = True
            self._logged_changes = self._table.standing
        return 0

    cdef int _number(self, sequence, lsn) except -1:
        return self._changes.number(sequence, lsn, self._tenant_id, self._vshard_id, self._emitter.arena_bytes)

    cdef int _commit(self) except -1:
        cdef int64_t standing = self._table.standing
        cdef list blocks
        lsn = self._commit_number if self._logged else self._lsn + 1
        try:
            if not self._logged:
                self._number(max(self._next_sequence, self._emitter.producer.next_sequence), lsn)
            with cython.critical_section(self):
                self._next_sequence = self._changes.end_sequence
        except BaseException:
            self._emitter.drop(standing)
            raise
        finally:
            blocks = self._changes.take()
            with cython.critical_section(self):
                self._lsn = lsn
            self._file_version = own_file_version(&self._table.statements)
            self._clear()
        self._emitter.emit(blocks, standing, lsn)
        return self._changes.give_back(blocks)

    # The hooks of the connection.

    def commit_hook(self):
        """Refuses a commit that has a change which could not be recorded. False lets it go ahead."""
        self._check()
        if self._log is not None and self._table.standing != 0:
            if not self._logged or self._logged_changes != self._table.standing:
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
        error = self._changes.first_refusal()
        if error is not None:
            reason = error if isinstance(error, CaptureError) else repr(error)
            raise CaptureError(
                f"the transaction cannot be committed, because a change in it was not captured: {reason}"
            ) from error
        return 0

    def forget(self):
        """The rollback hook; also of a transaction that the virtual table could not join."""
        transaction_table_undone(self._table)
        self._clear()


cdef int _check_schema_of(void* owner) except -1:
    if not (<OpenTransaction>owner)._table.joined:
        (<OpenTransaction>owner)._begin()
    return (<OpenTransaction>owner)._read_schema()


cdef int _sync_of(void* owner) except -1:
    return (<OpenTransaction>owner)._sync()


cdef int _commit_of(void* owner) except -1:
    return (<OpenTransaction>owner)._commit()


cdef OwnerMethods _METHODS = OwnerMethods(_check_schema_of, _sync_of, _commit_of)
