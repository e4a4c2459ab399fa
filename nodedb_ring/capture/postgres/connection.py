"""Connections to the server, in the settings that the decoder reads, and what an error of theirs means."""

from __future__ import annotations

from typing import Any, Final, cast

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from ...errors import CaptureError

__all__ = ["is_passing", "open_replication", "open_sql", "parsed_lsn", "refused", "shown_dsn", "shown_lsn"]

_SETTINGS: Final = {
    "bytea_output": "hex",
    "datestyle": "ISO",
    "extra_float_digits": "1",
    "intervalstyle": "postgres",
    "timezone": "UTC",
}
"""How the server writes values as text. The names of a session are its own, so nobody else is told to change."""

_CONNECT_SECONDS: Final = 10
_SILENT_MS: Final = 30_000
"""How long a server is waited for that does not answer: at the beginning, and later what was sent to it."""

_PASSING: Final = ("08", "53", "57P")
"""How the codes of errors begin that are of a connection, of a lack of room or memory, or of a server that stops."""


def _parameters(dsn: str) -> dict[str, Any]:
    try:
        parameters: dict[str, Any] = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError as error:
        raise CaptureError(f"dsn: {_text(error)}; write postgresql://user@host/database") from None
    parameters.setdefault("fallback_application_name", "nodedb_ring")
    # Without them a network that drops everything is noticed after a quarter of an hour.
    parameters.setdefault("connect_timeout", _CONNECT_SECONDS)
    parameters.setdefault("tcp_user_timeout", _SILENT_MS)
    # Behind those of the caller, so that ours count.
    options = [str(parameters.get("options") or ""), *(f"-c {name}={value}" for name, value in _SETTINGS.items())]
    parameters["options"] = " ".join(filter(None, options))
    parameters["client_encoding"] = "UTF8"
    return parameters


def open_sql(dsn: str) -> psycopg2.extensions.connection:
    """A connection for statements, each of which is a transaction."""
    connection: psycopg2.extensions.connection = psycopg2.connect(**_parameters(dsn))
    connection.autocommit = True
    return connection


def open_replication(dsn: str) -> psycopg2.extensions.connection:
    """A connection for logical replication, which takes statements too until it streams."""
    factory = cast("Any", psycopg2.extras.LogicalReplicationConnection)
    connection: psycopg2.extensions.connection = psycopg2.connect(connection_factory=factory, **_parameters(dsn))
    return connection


def is_passing(error: psycopg2.Error) -> bool:
    """Whether the connection was lost, or could not be made at the moment; trying again may help."""
    if error.pgcode is not None:
        return error.pgcode.startswith(_PASSING)
    return not isinstance(error, psycopg2.ProgrammingError)


def refused(what: str, error: psycopg2.Error) -> CaptureError:
    """The error of the server as ours."""
    return CaptureError(f"{what}: {_text(error)}")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())


def shown_dsn(dsn: str) -> str:
    """Without the password."""
    try:
        parameters = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        return "dsn"
    names = ("user", "host", "port", "dbname")
    return " ".join(f"{name}={parameters[name]}" for name in names if name in parameters) or "the default database"


def shown_lsn(lsn: int) -> str:
    """As PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parsed_lsn(shown: object) -> int:
    """The number that PostgreSQL writes so."""
    high, low = str(shown).split("/")
    return int(high, 16) << 32 | int(low, 16)
