"""Coverage-guided fuzzing of what reads bytes of others: ``.ci/fuzz`` builds and runs it."""
