# Functions in C alone: _room.pxd declares them.

__all__: list[str] = []
