"""``nodedb-ring demo``: a year of real row changes through the bus, and an exact check of the result.

::

    flights.py  the data        -> database.py  two SQLite files, written by SQL and captured
                                      | one ring per core
    report.py   tables, verdict <- view.py      totals by carrier, from the events' columns

There are four ways to run it, and each ends in an outcome (``outcome.py``). ``run.py`` uses threads. ``processes.py``
uses processes, which ``children.py`` starts. ``durable.py`` uses processes with logs behind the rings: any of them may
be killed, and the view continues from its ``snapshot.py``. ``postgres.py`` uses a PostgreSQL server in place of the
files, with what ``postgres_database.py`` makes there. All write the same ``transactions.py``.
``cli.py`` has the options and ``command.py`` runs the demo. Needs the extra ``nodedb_ring[demo]``, and for PostgreSQL
``[postgres]``.
"""
