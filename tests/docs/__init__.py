"""The documentation: its code runs, its tables are right, and every public name has a place in it."""
