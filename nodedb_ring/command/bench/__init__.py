"""The command ``nodedb-ring bench``: measures a ring between two processes on this machine.

``cli.py`` has its options and ``command.py`` runs it. ``run.py`` measures round by round what ``settings.py`` says:
``throughput.py`` and ``latency.py`` are the two kinds of ``measurement.py``, which ``pair.py`` runs in two processes.
``workload.py`` and ``sending.py`` make, send and check the events. ``results.py`` and ``machine.py`` hold the figures
and the machine; ``report.py``, ``plot.py`` and ``progress.py`` show them.
"""
