# Functions in C alone: _claims.pxd declares them.

__all__: list[str] = []
