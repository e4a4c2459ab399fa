"""Whether a captured database is whole, and what the tests of harm do to it."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from tests.unit.capture.captured import Core


class Boom(Exception):
    """Raised by a function of the application's."""


def module_name(core: Core) -> str:
    """What the capture's virtual table is called."""
    [name] = core.rows("SELECT name FROM pragma_module_list WHERE name LIKE 'nodedb_ring_capture_%'")
    assert isinstance(name, str)
    return name


def check_integrity(core: Core) -> None:
    assert core.rows("PRAGMA integrity_check") == ["ok"]
