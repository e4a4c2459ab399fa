# Functions in C alone: _waiting.pxd declares them.

__all__: list[str] = []
