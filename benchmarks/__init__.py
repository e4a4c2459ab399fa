"""What the package costs, measured: see ``core.py``."""
