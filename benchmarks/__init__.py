"""What the package costs, measured: ``core.py`` in one process, ``processes.py`` between two."""
