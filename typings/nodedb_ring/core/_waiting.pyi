# Functions in C alone: _waiting.pxd declares them.
