# Functions in C alone: _waking.pxd declares them.

__all__: list[str] = []
