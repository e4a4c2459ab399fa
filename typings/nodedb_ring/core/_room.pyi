# Functions in C alone: _room.pxd declares them.
