# Functions in C alone: _bulk.pxd declares them.

__all__: list[str] = []
