"""``nodedb-ring demo``: a year of real row changes through the bus, and an exact check of what came out.

::

    flights.py  the data        -> database.py  two SQLite files, written by SQL and captured
                                      | one ring a core
    report.py   tables, verdict <- view.py      totals by carrier, from the events' columns

``run.py`` is the threads between and ``processes.py`` the processes between; both end in an outcome (``outcome.py``).
``command.py`` is what the command line calls. Needs the extra ``nodedb_ring[demo]``.
"""
