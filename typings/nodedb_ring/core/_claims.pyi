# Functions in C alone: _claims.pxd declares them.
