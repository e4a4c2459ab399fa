// The virtual table through which SQLite reports savepoints, the commit and the rollback to a capture.
//
// It has no rows and is in no schema (it is eponymous). It is C, because SQLite must reach it whatever Python is doing:
// apsw does not pass RollbackTo and Release on while a Python exception is pending, and just then a statement is
// undone.
//
// It counts. The changes themselves are the owner's; this table knows how many of them stand. A savepoint notes the
// count, and a rollback to it restores the count. That takes no GIL. What needs Python is a call of the owner, under
// the GIL: at the begin, where a savepoint finds that the schema may be another, at Sync, and at a commit of changes.
//
// Thread safety: SQLite calls it under the connection's mutex, in the thread that runs the statement. Another thread
// may end the capture meanwhile: so a call holds a reference to the owner. It is taken and cleared with the GIL, or
// under a lock where there is none.

#ifndef NODEDB_RING_TRANSACTION_TABLE_H
#define NODEDB_RING_TRANSACTION_TABLE_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "nodedb_own_statements.h"
#include "nodedb_sqlite_interface.h"

// What the owner does when SQLite calls. Called with the GIL held and no exception pending; -1 leaves one pending.
typedef struct OwnerMethods {
    int (*check_schema)(void *owner);
    int (*sync)(void *owner);
    int (*commit)(void *owner);
} OwnerMethods;

typedef struct TransactionTable {
    int holders; // the owner, and SQLite's registrations of the module and of the function
    void *owner; // a Python object, or NULL when the capture has ended; the table then does nothing
#ifdef Py_GIL_DISABLED
    PyMutex owner_lock;
#endif
    const OwnerMethods *methods;
    int connected;       // virtual tables that SQLite has of it; the statements live as long as one does
    int writes_log;      // Sync is the owner's business
    int joined;          // SQLite reports this transaction's savepoints and its end
    int schema_doubtful; // a statement may have changed the schema since the owner read it
    int schema_read;     // the owner read the schema in this transaction
    int schema_unsure;   // what it read was undone: the same version number may now stand for another schema
    int marks_lost;      // there was no memory to note a savepoint: this transaction cannot be followed
    uint64_t rollbacks;  // of whole transactions, so far
    int64_t standing;    // changes that are recorded and not undone; stored whole, since other threads ask for it
    int64_t *marks;      // by savepoint level + 1: how many changes stood when it was opened
    int open_levels;     // that `marks` knows
    int room;            // of `marks`
    OwnStatements statements;
    declare_vtab_function declare_vtab;
    vtab_config_function vtab_config;
    char name[64];
} TransactionTable;

static TransactionTable *transaction_table_new(void *owner, const OwnerMethods *methods, const char *name) {
    TransactionTable *table = calloc(1, sizeof *table);
    if (table == NULL || strlen(name) >= sizeof table->name) {
        free(table);
        return NULL;
    }
    table->holders = 1;
    table->owner = owner;
#ifdef Py_GIL_DISABLED
    PyUnstable_EnableTryIncRef(owner);
#endif
    table->methods = methods;
    table->schema_doubtful = 1;
    strcpy(table->name, name);
    return table;
}

// From here on the owner may go.
static void transaction_table_disown(TransactionTable *table) {
#ifdef Py_GIL_DISABLED
    PyMutex_Lock(&table->owner_lock);
#endif
    __atomic_store_n(&table->owner, NULL, __ATOMIC_RELAXED);
#ifdef Py_GIL_DISABLED
    PyMutex_Unlock(&table->owner_lock);
#endif
}

// A reference to it; NULL when it is gone, or is just being freed.
static PyObject *transaction_table_owner(TransactionTable *table) {
#ifdef Py_GIL_DISABLED
    PyMutex_Lock(&table->owner_lock);
    PyObject *owner = table->owner;
    if (owner != NULL && !PyUnstable_TryIncRef(owner))
        owner = NULL;
    PyMutex_Unlock(&table->owner_lock);
    return owner;
#else
    return Py_XNewRef((PyObject *)table->owner);
#endif
}

// The last holder may be a connection that is closed in any thread, without the GIL.
static void transaction_table_release(void *table) {
    if (__atomic_sub_fetch(&((TransactionTable *)table)->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        free(((TransactionTable *)table)->marks);
        free(table);
    }
}

// The transaction, and all that was known of it, is over.
static void transaction_table_clear(TransactionTable *table) {
    __atomic_store_n(&table->standing, 0, __ATOMIC_RELAXED);
    table->open_levels = 0;
    table->joined = 0;
    table->marks_lost = 0;
    table->schema_read = 0;
}

// It was undone, and with it the schema that was read in it.
static void transaction_table_undone(TransactionTable *table) {
    table->rollbacks++;
    if (table->schema_read)
        table->schema_unsure = 1;
    transaction_table_clear(table);
}

// Calls a method of the owner. An exception that is pending already, of whatever made SQLite end the transaction, is
// set aside meanwhile; one that the method raises has it as its context, as if raised while it was handled. Where the
// caller must not fail, what the method raises is left out.
static int transaction_table_call(TransactionTable *table, int (*method)(void *), int may_fail) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyObject *owner = transaction_table_owner(table);
    int result = owner == NULL ? 0 : method(owner);
    if (result != 0 && !may_fail) {
        if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
            PyErr_SetInterrupt(); // again, later
        PyErr_Clear();
        result = 0;
    }
    if (result == 0) {
        PyErr_Restore(kind, error, trace);
    } else if (kind != NULL) {
        PyObject *new_kind, *new_error, *new_trace;
        PyErr_NormalizeException(&kind, &error, &trace);
        PyErr_Fetch(&new_kind, &new_error, &new_trace);
        PyErr_NormalizeException(&new_kind, &new_error, &new_trace);
        if (trace != NULL)
            PyException_SetTraceback(error, trace);
        PyException_SetContext(new_error, error); // takes the reference
        PyErr_Restore(new_kind, new_error, new_trace);
        Py_XDECREF(kind);
        Py_XDECREF(trace);
    }
    Py_XDECREF(owner);
    PyGILState_Release(gil);
    return result == 0 ? SQLITE_OK : SQLITE_ERROR;
}

// The virtual table as SQLite sees it: a connection makes one for each time that it reads its schema again.
typedef struct ConnectedTable {
    sqlite3_vtab base;
    TransactionTable *table;
} ConnectedTable;

static TransactionTable *table_of(sqlite3_vtab *connected) { return ((ConnectedTable *)connected)->table; }

static int table_connect(sqlite3 *db, void *table, int count, const char *const *names, sqlite3_vtab **out,
                         char **error) {
    TransactionTable *self = table;
    (void)count, (void)names, (void)error;
    // A statement that joins asks for the row of this column's value, of which there is at most one. SQLite then needs
    // no savepoint of the statement's own, so that none can be rolled back beneath the statement that is running.
    int result = self->declare_vtab(db, "CREATE TABLE x(nodedb_ring_nothing)");
    if (result == SQLITE_OK) {
        // Triggers may write to it, whatever PRAGMA trusted_schema says: a write does nothing.
        result = self->vtab_config(db, SQLITE_VTAB_INNOCUOUS);
    }
    if (result != SQLITE_OK)
        return result;
    ConnectedTable *connected = calloc(1, sizeof *connected);
    if (connected == NULL)
        return SQLITE_NOMEM;
    connected->table = self;
    self->statements.db = db;
    self->connected++;
    *out = &connected->base;
    self->schema_unsure = 1; // deserialize() brings another schema, perhaps of the same version
    return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *connected) {
    TransactionTable *table = table_of(connected);
    // SQLite disconnects tables before it looks whether a connection that is to be closed has statements left.
    if (--table->connected == 0)
        own_statements_finalize(&table->statements);
    free(connected);
    return SQLITE_OK;
}

static int table_best_index(sqlite3_vtab *connected, sqlite3_index_info *info) {
    (void)connected;
    info->cost = 1;
    for (int i = 0; i < info->constraint_count; i++) {
        if (info->constraints[i].column == 0 && info->constraints[i].op == SQLITE_INDEX_CONSTRAINT_EQ &&
            info->constraints[i].usable) {
            info->usage[i].argument = 1;
            info->usage[i].omit = 1;
            info->flags = SQLITE_INDEX_SCAN_UNIQUE;
            break;
        }
    }
    return SQLITE_OK;
}

static int table_open(sqlite3_vtab *connected, sqlite3_vtab_cursor **out) {
    (void)connected;
    *out = calloc(1, sizeof **out);
    return *out == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

static int table_close(sqlite3_vtab_cursor *cursor) {
    free(cursor);
    return SQLITE_OK;
}

static int table_filter(sqlite3_vtab_cursor *cursor, int number, const char *text, int count, sqlite3_value **values) {
    (void)cursor, (void)number, (void)text, (void)count, (void)values;
    return SQLITE_OK;
}

static int table_next(sqlite3_vtab_cursor *cursor) {
    (void)cursor;
    return SQLITE_OK;
}

static int table_eof(sqlite3_vtab_cursor *cursor) {
    (void)cursor;
    return 1;
}

static int table_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column) {
    (void)cursor, (void)context, (void)column;
    return SQLITE_OK;
}

static int table_rowid(sqlite3_vtab_cursor *cursor, int64_t *rowid) {
    (void)cursor;
    *rowid = 0;
    return SQLITE_OK;
}

// It makes the table one that can be written to; of no row nothing is deleted, and nobody may insert one.
static int table_update(sqlite3_vtab *connected, int count, sqlite3_value **values, int64_t *rowid) {
    (void)connected, (void)count, (void)values, (void)rowid;
    return SQLITE_READONLY;
}

// The transaction's first statement that has to do with us begins. SQLite has taken the write lock.
static int table_begin(sqlite3_vtab *connected) {
    TransactionTable *table = table_of(connected);
    table->schema_doubtful = 1;
    if (table->schema_read) // before it joined: an undone savepoint was not reported
        table->schema_unsure = 1;
    int result = transaction_table_call(table, table->methods->check_schema, 1);
    if (result == SQLITE_OK) {
        table->open_levels = 0;
        table->joined = 1;
    }
    return result;
}

static int table_sync(sqlite3_vtab *connected) {
    TransactionTable *table = table_of(connected);
    return table->writes_log ? transaction_table_call(table, table->methods->sync, 1) : SQLITE_OK;
}

static int table_commit(sqlite3_vtab *connected) {
    TransactionTable *table = table_of(connected);
    int result = SQLITE_OK;
    if (table->standing != 0)
        result = transaction_table_call(table, table->methods->commit, 1);
    transaction_table_clear(table);
    return result; // SQLite ignores it; apsw finds the exception
}

static int table_rollback(sqlite3_vtab *connected) {
    transaction_table_undone(table_of(connected));
    return SQLITE_OK;
}

// Savepoints are numbered from 0; -1 is the whole transaction, begun by an outermost SAVEPOINT. When the table joins,
// SQLite reports the newest that is open. Others that are not recorded, of a statement beneath which a function has
// rolled back to an older one, go with the next that is: so SQLite's pager has it, too.
static int table_savepoint(sqlite3_vtab *connected, int level) {
    TransactionTable *table = table_of(connected);
    if (level + 1 >= table->room) {
        int room = 2 * (level + 8);
        int64_t *marks = realloc(table->marks, (size_t)room * sizeof *marks);
        if (marks == NULL) {
            table->marks_lost = 1; // the commit is refused
            return SQLITE_OK;
        }
        table->marks = marks;
        table->room = room;
    }
    while (table->open_levels < level + 1)
        table->marks[table->open_levels++] = table->standing;
    table->marks[level + 1] = table->standing;
    table->open_levels = level + 2;
    // Before the statement changes the schema itself: what is known after this is undone with the savepoint, or stands.
    // This must not fail: SQLite would not report the savepoint to the tables behind this one, and still has them
    // roll back to it; a full-text table loses what it had not written yet. The schema stays doubtful then, and
    // whoever needs it next reads it.
    if (table->schema_doubtful)
        transaction_table_call(table, table->methods->check_schema, 0);
    return SQLITE_OK;
}

static int64_t table_mark(const TransactionTable *table, int level) {
    if (level < 0)
        return 0;
    return level + 1 < table->open_levels ? table->marks[level + 1] : table->standing;
}

// Every statement that changes the schema has a savepoint of its own, in which it changes no captured row; dropping a
// table may delete rows first, but does not give another one its name.
static int table_release(sqlite3_vtab *connected, int level) {
    TransactionTable *table = table_of(connected);
    if (table_mark(table, level) == table->standing)
        table->schema_doubtful = 1;
    if (table->open_levels > level + 1)
        table->open_levels = level + 1;
    return SQLITE_OK;
}

static int table_rollback_to(sqlite3_vtab *connected, int level) {
    TransactionTable *table = table_of(connected);
    __atomic_store_n(&table->standing, table_mark(table, level), __ATOMIC_RELAXED);
    table->schema_doubtful = 1;
    if (table->schema_read)
        table->schema_unsure = 1;
    if (table->open_levels > level + 2)
        table->open_levels = level + 2;
    return SQLITE_OK;
}

// What the functions of SQLite are that a SQL function needs: of the one copy of SQLite that apsw has. Each capture
// stores the same when it begins.
static user_data_function sqlite_user_data;
static context_db_function sqlite_context_db;
static txn_state_function sqlite_txn_state;
static result_int_function sqlite_result_int;
static result_int_function sqlite_result_error_code;

// The WHEN of our triggers, asked before a row of a captured table is written: 0, always, so that they never fire.
//
// A SQL function of the application's may roll the transaction back beneath the statement that calls it. SQLite then
// ends the statement by its open cursors; but where a table has a trigger all rows are computed first, with no cursor
// open, and it would continue to write outside any transaction. So the end that it would have had comes from here.
static void table_is_lost(sqlite3_context *context, int count, sqlite3_value **values) {
    const TransactionTable *table = sqlite_user_data(context);
    (void)count, (void)values;
    if (table->joined || __atomic_load_n(&table->owner, __ATOMIC_RELAXED) == NULL ||
        sqlite_txn_state(sqlite_context_db(context), "main") == SQLITE_TXN_WRITE)
        sqlite_result_int(context, 0);
    else
        sqlite_result_error_code(context, SQLITE_ABORT_ROLLBACK);
}

static const sqlite3_module TRANSACTION_MODULE = {
    .version = 2,
    .connect = table_connect,
    .best_index = table_best_index,
    .disconnect = table_disconnect,
    .open = table_open,
    .close = table_close,
    .filter = table_filter,
    .next = table_next,
    .eof = table_eof,
    .column = table_column,
    .rowid = table_rowid,
    .update = table_update,
    .begin = table_begin,
    .sync = table_sync,
    .commit = table_commit,
    .rollback = table_rollback,
    .savepoint = table_savepoint,
    .release = table_release,
    .rollback_to = table_rollback_to,
};

// The table that this thread is about to register: SQLite hands an extension nothing of its caller's.
static _Thread_local TransactionTable *transaction_table_registering;

static void transaction_table_register_next(TransactionTable *table) { transaction_table_registering = table; }

// The entry point, found by its name. A connection loads this module as an extension to be given SQLite's functions:
// apsw's copy of SQLite exports none.
__attribute__((visibility("default"))) int nodedb_ring_capture_init(sqlite3 *db, char **error, void *const *functions) {
    TransactionTable *table = transaction_table_registering;
    (void)error;
    if (table == NULL)
        return SQLITE_ERROR;
    table->declare_vtab = (declare_vtab_function)functions[PLACE_DECLARE_VTAB];
    table->vtab_config = (vtab_config_function)functions[PLACE_VTAB_CONFIG];
    sqlite_user_data = (user_data_function)functions[PLACE_USER_DATA];
    sqlite_context_db = (context_db_function)functions[PLACE_CONTEXT_DB];
    sqlite_txn_state = (txn_state_function)functions[PLACE_TXN_STATE];
    sqlite_result_int = (result_int_function)functions[PLACE_RESULT_INT];
    sqlite_result_error_code = (result_int_function)functions[PLACE_RESULT_ERROR_CODE];
    own_statements_load(&table->statements, functions);
    create_module_function create_module = (create_module_function)functions[PLACE_CREATE_MODULE_V2];
    create_function_function create_function = (create_function_function)functions[PLACE_CREATE_FUNCTION_V2];
    char function_name[sizeof table->name + 8];
    strcat(strcpy(function_name, table->name), "_lost");
    // SQLite releases it when the connection is closed, and also if this fails.
    __atomic_add_fetch(&table->holders, 1, __ATOMIC_ACQ_REL);
    int result = create_module(db, table->name, &TRANSACTION_MODULE, table, transaction_table_release);
    if (result != SQLITE_OK)
        return result;
    __atomic_add_fetch(&table->holders, 1, __ATOMIC_ACQ_REL);
    return create_function(db, function_name, 0, SQLITE_UTF8 | SQLITE_INNOCUOUS, table, table_is_lost, NULL, NULL,
                           transaction_table_release);
}

#endif
