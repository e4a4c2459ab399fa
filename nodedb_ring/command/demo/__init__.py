"""``nodedb-ring demo``: a year of real row changes through the bus, and an exact check of what came out.

::

    flights.py  the data        -> database.py  two SQLite files, written by SQL and captured
                                      | one ring a core
    report.py   tables, verdict <- view.py      totals by carrier, from the events' columns

``run.py`` is the threads between and ``processes.py`` the processes between, which ``children.py`` starts and ends.
With logs behind the rings ``durable.py`` is the processes between: any of them may be killed, and the view starts again
from its ``snapshot.py``. All end in an outcome (``outcome.py``).
``command.py`` is what the command line calls. Needs the extra ``nodedb_ring[demo]``.
"""
