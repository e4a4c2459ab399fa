// SQLite's interface for loadable extensions, as far as the capture uses it.
//
// apsw has a copy of SQLite of its own, which exports no functions. It hands them to an extension that it loads, in a
// table that only ever grows: a function's place in it is part of SQLite's stable interface.

#ifndef NODEDB_RING_SQLITE_INTERFACE_H
#define NODEDB_RING_SQLITE_INTERFACE_H

#include <stdint.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;
typedef struct sqlite3_stmt sqlite3_stmt;

enum {
    SQLITE_OK = 0,
    SQLITE_ERROR = 1,
    SQLITE_ROW = 100,
    SQLITE_DONE = 101,
    SQLITE_NOMEM = 7,
    SQLITE_READONLY = 8,
    SQLITE_ABORT_ROLLBACK = 4 | 2 << 8
};
enum { SQLITE_INDEX_CONSTRAINT_EQ = 2, SQLITE_INDEX_SCAN_UNIQUE = 1, SQLITE_VTAB_INNOCUOUS = 2 };
enum { SQLITE_UTF8 = 1, SQLITE_INNOCUOUS = 0x200000 };
enum { SQLITE_FCNTL_DATA_VERSION = 35 };
enum { PLACE_DECLARE_VTAB = 50, PLACE_RESULT_INT = 82, PLACE_USER_DATA = 101, PLACE_CREATE_MODULE_V2 = 119 };
enum { PLACE_CONTEXT_DB = 149, PLACE_RESULT_ERROR_CODE = 146, PLACE_CREATE_FUNCTION_V2 = 162 };
enum { PLACE_VTAB_CONFIG = 177, PLACE_TXN_STATE = 252, PLACE_FILE_CONTROL = 127 };
enum { SQLITE_TXN_WRITE = 2, SQLITE_PREPARE_PERSISTENT = 1 };
enum { PLACE_BIND_INT64 = 5, PLACE_COLUMN_INT64 = 29, PLACE_ERRMSG = 53, PLACE_FINALIZE = 57, PLACE_RESET = 77 };
enum { PLACE_LAST_INSERT_ROWID = 65, PLACE_STEP = 94, PLACE_CLEAR_BINDINGS = 118, PLACE_EXTENDED_ERRCODE = 166 };
enum { PLACE_BIND_BLOB64 = 193, PLACE_SET_LAST_INSERT_ROWID = 216, PLACE_PREPARE_V3 = 217 };

typedef struct sqlite3_module sqlite3_module;

typedef struct sqlite3_vtab {
    const sqlite3_module *module;
    int references;
    char *error;
} sqlite3_vtab;

typedef struct sqlite3_vtab_cursor {
    sqlite3_vtab *table;
} sqlite3_vtab_cursor;

typedef struct sqlite3_index_info {
    int constraint_count;
    struct {
        int column;
        unsigned char op;
        unsigned char usable;
        int term;
    } *constraints;
    int order_count;
    void *orders;
    struct {
        int argument;
        unsigned char omit;
    } *usage;
    int index_number;
    char *index_text;
    int free_index_text;
    int order_consumed;
    double cost;
    int64_t rows;
    int flags;
    uint64_t columns_used;
} sqlite3_index_info;

struct sqlite3_module {
    int version;
    int (*create)(sqlite3 *, void *, int, const char *const *, sqlite3_vtab **, char **);
    int (*connect)(sqlite3 *, void *, int, const char *const *, sqlite3_vtab **, char **);
    int (*best_index)(sqlite3_vtab *, sqlite3_index_info *);
    int (*disconnect)(sqlite3_vtab *);
    int (*destroy)(sqlite3_vtab *);
    int (*open)(sqlite3_vtab *, sqlite3_vtab_cursor **);
    int (*close)(sqlite3_vtab_cursor *);
    int (*filter)(sqlite3_vtab_cursor *, int, const char *, int, sqlite3_value **);
    int (*next)(sqlite3_vtab_cursor *);
    int (*eof)(sqlite3_vtab_cursor *);
    int (*column)(sqlite3_vtab_cursor *, sqlite3_context *, int);
    int (*rowid)(sqlite3_vtab_cursor *, int64_t *);
    int (*update)(sqlite3_vtab *, int, sqlite3_value **, int64_t *);
    int (*begin)(sqlite3_vtab *);
    int (*sync)(sqlite3_vtab *);
    int (*commit)(sqlite3_vtab *);
    int (*rollback)(sqlite3_vtab *);
    int (*find_function)(sqlite3_vtab *, int, const char *, void *, void *);
    int (*rename)(sqlite3_vtab *, const char *);
    int (*savepoint)(sqlite3_vtab *, int);
    int (*release)(sqlite3_vtab *, int);
    int (*rollback_to)(sqlite3_vtab *, int);
};

typedef int (*declare_vtab_function)(sqlite3 *, const char *);
typedef int (*create_module_function)(sqlite3 *, const char *, const sqlite3_module *, void *, void (*)(void *));
typedef int (*vtab_config_function)(sqlite3 *, int, ...);
typedef void (*sql_function)(sqlite3_context *, int, sqlite3_value **);
typedef int (*create_function_function)(sqlite3 *, const char *, int, int, void *, sql_function, sql_function,
                                        void (*)(sqlite3_context *), void (*)(void *));
typedef void *(*user_data_function)(sqlite3_context *);
typedef sqlite3 *(*context_db_function)(sqlite3_context *);
typedef int (*txn_state_function)(sqlite3 *, const char *);
typedef void (*result_int_function)(sqlite3_context *, int);

typedef int (*prepare_function)(sqlite3 *, const char *, int, unsigned, sqlite3_stmt **, const char **);
typedef int (*statement_function)(sqlite3_stmt *);
typedef int (*bind_int64_function)(sqlite3_stmt *, int, int64_t);
typedef int (*bind_blob64_function)(sqlite3_stmt *, int, const void *, uint64_t, void (*)(void *));
typedef int64_t (*column_int64_function)(sqlite3_stmt *, int);
typedef int64_t (*last_insert_rowid_function)(sqlite3 *);
typedef void (*set_last_insert_rowid_function)(sqlite3 *, int64_t);
typedef const char *(*errmsg_function)(sqlite3 *);
typedef int (*errcode_function)(sqlite3 *);
typedef int (*file_control_function)(sqlite3 *, const char *, int, void *);

#endif
