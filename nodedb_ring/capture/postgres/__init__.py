"""Capture of PostgreSQL: the committed changes of a publication, by logical replication, as write events.

Three threads take part::

    server ──stream.py──► receiver.py ──► _pgoutput.pyx ──► outbox.py ──► delivery.py ──► log, and then the ring
               ▲               messages to events              a batch at a time
               └── keepalive.py, while the others wait

``PostgresCapture`` (``capture.py``) begins and ends them. ``position.py`` finds out what a log has already,
``snapshot.py`` sends the rows that are there, and ``slot.py`` has what is asked of the server.

It needs the extra ``[postgres]``: psycopg2.
"""

from .capture import PostgresCapture
from .stats import PostgresStats

__all__ = ["PostgresCapture", "PostgresStats"]
