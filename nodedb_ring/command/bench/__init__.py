"""The command ``nodedb-ring bench``: what a ring between two processes reaches on this machine, checked, then timed."""
