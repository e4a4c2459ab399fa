"""Capture of PostgreSQL: the committed changes of a publication, by logical replication, as write events.

``PostgresCapture`` (``capture.py``) connects (``stream.py``), reads, and delivers to log and ring (``delivery.py``).
``_pgoutput.pyx`` and the headers beside it turn messages into events. ``position.py`` finds out what a log has already,
``snapshot.py`` sends the rows that are there, and ``slot.py`` has what is asked of the server.

It needs the extra ``[postgres]``: psycopg2.
"""

from .capture import PostgresCapture
from .stats import PostgresStats

__all__ = ["PostgresCapture", "PostgresStats"]
