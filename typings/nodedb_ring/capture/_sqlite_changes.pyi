# Functions in C alone: _sqlite_changes.pxd declares them.

__all__: list[str] = []
