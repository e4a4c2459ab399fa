"""``nodedb-ring`` on the command line: list, inspect, top, bench and demo.

Each command is a module or a folder. Not here: anything that a library call needs, and nothing imports from here.
"""
