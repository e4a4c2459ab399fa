# Functions in C alone: _bulk.pxd declares them.
