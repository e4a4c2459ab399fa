"""The event log in a SQLite file: ``SqliteEventLog``.

- ``event_log``: the public class;
- ``opening``: the file's settings, and tables that are made or migrated;
- ``reading``: stored batches, many at a time;
- ``schema``: the tables and the statements, with their version;
- ``append``: a batch as rows;
- ``drivers``: SQLite by the standard library or by apsw, and what a fork leaves to the parent;
- ``errors``: what SQLite's errors mean.

Not here: how rows and payload are encoded (``log/encoding.py``).
"""

from .append import append_statements
from .event_log import SqliteEventLog
from .opening import BUSY_SECONDS, CHECKPOINT_BYTES, PAGE_BYTES
from .schema import APPEND, CREATE_TABLES, LAST_SEQUENCE, LOG_TABLES

__all__ = [
    "APPEND",
    "BUSY_SECONDS",
    "CHECKPOINT_BYTES",
    "CREATE_TABLES",
    "LAST_SEQUENCE",
    "LOG_TABLES",
    "PAGE_BYTES",
    "SqliteEventLog",
    "append_statements",
]
