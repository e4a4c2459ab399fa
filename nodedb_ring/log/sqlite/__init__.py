"""The event log in a SQLite file: ``SqliteEventLog``.

- ``event_log``: the public class;
- ``opening``: the file's settings, and tables that are made or migrated;
- ``upkeep``: cores, groups, checks and backups; ``reserve``: room for a trim on a full disk;
- ``claims``: that a group has one follower;
- ``commits``: the numbers of the commits that captures have stored;
- ``history``: positions, and whether they are those of this log;
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
from .upkeep import CoreRange, GroupPosition

__all__ = [
    "APPEND",
    "BUSY_SECONDS",
    "CHECKPOINT_BYTES",
    "CREATE_TABLES",
    "LAST_SEQUENCE",
    "LOG_TABLES",
    "PAGE_BYTES",
    "CoreRange",
    "GroupPosition",
    "SqliteEventLog",
    "append_statements",
]
