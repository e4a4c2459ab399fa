"""The command line, ``nodedb-ring``: list, inspect, unlink, top, bench and demo.

============================  ======================================================================================
file                          what it does
============================  ======================================================================================
``cli.py``                    reads the command line, runs the command, turns errors into exit codes; lists all commands
``subcommand.py``             what a command is: its name, help, arguments, function and errors
``arguments.py``              arguments that several commands share, and their checks
``buses.py``                  the commands list, inspect and unlink
``top/``, ``bench/``,         one command each: its arguments are in ``cli.py`` there, what it does in ``command.py``
``demo/``
``inspection.py``             a bus as text and as JSON, for list, inspect and top
``child_process.py``          starting, stopping and naming the processes of bench and demo
``termination.py``            SIGTERM and SIGHUP for commands that must clean up
============================  ======================================================================================

What a library call needs does not belong here, and nothing outside this folder imports from it. To add a command, write
a `Subcommand` and add it to ``SUBCOMMANDS`` in ``cli.py``. The module of a command that needs an extra, or is slow to
import, is imported inside its function.
"""
