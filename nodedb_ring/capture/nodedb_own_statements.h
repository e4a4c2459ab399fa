// The statements that a capture runs in each transaction, prepared once: what SQLite's own full-text tables do.
//
// They run in xBegin, xSavepoint and xSync of a virtual table, where SQLite allows it. Each is reset before its
// function returns, so that none holds a lock. A function returns SQLite's result code; the connection has its message.

#ifndef NODEDB_RING_OWN_STATEMENTS_H
#define NODEDB_RING_OWN_STATEMENTS_H

#include "nodedb_sqlite_interface.h"

#include <stddef.h>
#include <string.h>

enum OwnStatement {
    SCHEMA_VERSION,
    DATA_VERSION,
    LAST_LOGGED,
    LAST_TRIMMED,
    LAST_COMMIT,
    TRIMMED_COMMIT,
    APPEND,
    OWN_STATEMENT_COUNT
};

// SQLite's functions, of the copy of SQLite that the connection is of.
typedef struct OwnFunctions {
    prepare_function prepare;
    statement_function step, reset, finalize, clear_bindings;
    bind_int64_function bind_int64;
    bind_blob64_function bind_blob64;
    column_int64_function column_int64;
    last_insert_rowid_function last_insert_rowid;
    set_last_insert_rowid_function set_last_insert_rowid;
    errmsg_function errmsg;
    errcode_function extended_errcode;
    file_control_function file_control;
} OwnFunctions;

typedef struct OwnStatements {
    sqlite3 *db;
    OwnFunctions call;
    sqlite3_stmt *prepared[OWN_STATEMENT_COUNT]; // NULL: not yet
    int running;                                 // functions that use one now
    int unwanted;                                // to finalize when none does
} OwnStatements;

// What one row of the log stores.
typedef struct LogRow {
    int64_t core_id, first, last, count, checksum, batch_id, commit;
    const void *rows, *payload;
    uint64_t rows_bytes, payload_bytes;
} LogRow;

static inline void own_statements_load(OwnStatements *statements, void *const *functions) {
    OwnFunctions *call = &statements->call;
    call->prepare = (prepare_function)functions[PLACE_PREPARE_V3];
    call->step = (statement_function)functions[PLACE_STEP];
    call->reset = (statement_function)functions[PLACE_RESET];
    call->finalize = (statement_function)functions[PLACE_FINALIZE];
    call->clear_bindings = (statement_function)functions[PLACE_CLEAR_BINDINGS];
    call->bind_int64 = (bind_int64_function)functions[PLACE_BIND_INT64];
    call->bind_blob64 = (bind_blob64_function)functions[PLACE_BIND_BLOB64];
    call->column_int64 = (column_int64_function)functions[PLACE_COLUMN_INT64];
    call->last_insert_rowid = (last_insert_rowid_function)functions[PLACE_LAST_INSERT_ROWID];
    call->set_last_insert_rowid = (set_last_insert_rowid_function)functions[PLACE_SET_LAST_INSERT_ROWID];
    call->errmsg = (errmsg_function)functions[PLACE_ERRMSG];
    call->extended_errcode = (errcode_function)functions[PLACE_EXTENDED_ERRCODE];
    call->file_control = (file_control_function)functions[PLACE_FILE_CONTROL];
}

static inline void own_statements_finalize(OwnStatements *statements) {
    statements->unwanted = statements->running != 0;
    for (int i = 0; i < OWN_STATEMENT_COUNT && !statements->unwanted; i++) {
        statements->call.finalize(statements->prepared[i]);
        statements->prepared[i] = NULL;
    }
}

static inline int own_statement_done(OwnStatements *statements, int result) {
    statements->running--;
    if (statements->unwanted)
        own_statements_finalize(statements);
    return result;
}

static const char *const OWN_SQL[OWN_STATEMENT_COUNT] = {
    [SCHEMA_VERSION] = "PRAGMA main.schema_version",
    [DATA_VERSION] = "PRAGMA main.data_version",
    [LAST_LOGGED] =
        "SELECT last_sequence FROM main.nodedb_ring_log WHERE core_id = ?1 ORDER BY first_sequence DESC LIMIT 1",
    [LAST_TRIMMED] = "SELECT last_sequence FROM main.nodedb_ring_core WHERE core_id = ?1",
    [LAST_COMMIT] = "SELECT commit_number FROM main.nodedb_ring_log ORDER BY rowid DESC LIMIT 1",
    [TRIMMED_COMMIT] = "SELECT trimmed_commit FROM main.nodedb_ring_core",
    [APPEND] = ("INSERT INTO main.nodedb_ring_log(core_id, first_sequence, last_sequence, count, checksum, batch_id,"
                " commit_number, rows, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
};

static inline int own_statement(OwnStatements *statements, enum OwnStatement which, sqlite3_stmt **statement) {
    int result = SQLITE_OK;
    if (statements->prepared[which] == NULL)
        result = statements->call.prepare(statements->db, OWN_SQL[which], -1, SQLITE_PREPARE_PERSISTENT,
                                          &statements->prepared[which], NULL);
    *statement = statements->prepared[which];
    return result;
}

// Another number whenever somebody has committed, this connection too: 0 if it is not known. Far cheaper than a
// statement.
static inline uint32_t own_file_version(OwnStatements *statements) {
    uint32_t version = 0;
    if (statements->call.file_control(statements->db, "main", SQLITE_FCNTL_DATA_VERSION, &version) != SQLITE_OK)
        version = 0;
    return version;
}

static inline const char *own_message(OwnStatements *statements) { return statements->call.errmsg(statements->db); }

// The highest number in the first column of all rows; `found` says whether there is one. SQLite's max() is not used:
// the application may have another function of that name.
static inline int own_number(OwnStatements *statements, enum OwnStatement which, int64_t core_id, int64_t *number,
                             int *found) {
    sqlite3_stmt *statement;
    *found = 0;
    statements->running++;
    int result = own_statement(statements, which, &statement);
    if (result != SQLITE_OK)
        return own_statement_done(statements, result);
    if (which == LAST_LOGGED || which == LAST_TRIMMED)
        statements->call.bind_int64(statement, 1, core_id);
    while ((result = statements->call.step(statement)) == SQLITE_ROW) {
        int64_t next = statements->call.column_int64(statement, 0);
        *number = *found && *number > next ? *number : next;
        *found = 1;
    }
    result = result == SQLITE_DONE ? SQLITE_OK : statements->call.extended_errcode(statements->db);
    statements->call.reset(statement);
    return own_statement_done(statements, result);
}

// The highest number that the log has of a core, or had before it was trimmed; -1 before the first. What is trimmed
// lies below what is left.
static inline int own_last_sequence(OwnStatements *statements, int64_t core_id, int64_t *last) {
    int found;
    int result = own_number(statements, LAST_LOGGED, core_id, last, &found);
    if (result == SQLITE_OK && !found)
        result = own_number(statements, LAST_TRIMMED, core_id, last, &found);
    if (!found)
        *last = -1;
    return result;
}

// The number of the database's last captured commit, 0 before the first: that of the row that was stored last, or of
// one that was trimmed. log/sqlite/schema.py says what the numbers mean.
static inline int own_last_commit(OwnStatements *statements, int64_t *last) {
    int64_t number = 0;
    int found;
    *last = 0;
    int result = own_number(statements, LAST_COMMIT, 0, &number, &found);
    if (result == SQLITE_OK && found)
        *last = number < 0 ? -number : number;
    if (result == SQLITE_OK)
        result = own_number(statements, TRIMMED_COMMIT, 0, &number, &found);
    if (result == SQLITE_OK && found && number > *last)
        *last = number;
    return result;
}

// Appends one row. It reads the memory of `row`, and keeps nothing of it. The rowid that the application inserted last
// stays the last one.
static inline int own_append(OwnStatements *statements, const LogRow *row) {
    sqlite3_stmt *statement;
    statements->running++;
    int result = own_statement(statements, APPEND, &statement);
    if (result != SQLITE_OK)
        return own_statement_done(statements, result);
    int64_t numbers[] = {row->core_id, row->first, row->last, row->count, row->checksum, row->batch_id, row->commit};
    for (int i = 0; i < 7; i++)
        statements->call.bind_int64(statement, i + 1, numbers[i]);
    result = statements->call.bind_blob64(statement, 8, row->rows, row->rows_bytes, NULL); // NULL: it makes no copy
    if (result == SQLITE_OK)
        result = statements->call.bind_blob64(statement, 9, row->payload, row->payload_bytes, NULL);
    if (result == SQLITE_OK) {
        int64_t last_rowid = statements->call.last_insert_rowid(statements->db);
        result = statements->call.step(statement);
        result = result == SQLITE_DONE ? SQLITE_OK : statements->call.extended_errcode(statements->db);
        statements->call.set_last_insert_rowid(statements->db, last_rowid);
    }
    statements->call.reset(statement);
    statements->call.clear_bindings(statement);
    return own_statement_done(statements, result);
}

#endif
