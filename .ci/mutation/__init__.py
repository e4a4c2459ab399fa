"""The mutation gate, which `.ci/mutants` runs: one file a subject, the checks in `mutant.py`, the run in `gate.py`."""
