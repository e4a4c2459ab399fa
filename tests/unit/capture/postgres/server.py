"""A real PostgreSQL in a folder of its own, on a free loopback port and a socket in that folder."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psycopg2
import psycopg2.extensions
import pytest

from ...log.nats_server import free_port

__all__ = ["Database", "PostgresServer", "find_postgres", "require_postgres"]

_START_SECONDS: Final = 60.0
_NUMBERS: Final = itertools.count(1)


def find_postgres() -> Path | None:
    """The folder of the server's programs: the newest of Debian's, or that of the one in the path."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    in_path = shutil.which("postgres")
    found = [*([Path(in_path).resolve()] if in_path else []), *places]
    return found[-1].parent if found else None


def require_postgres() -> Path:
    """The folder; without it the test that asks is skipped, and fails in CI."""
    found = find_postgres()
    if found is None:
        why = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


class _User(NamedTuple):
    user: int | None
    group: int | None
    groups: list[str | int] | None


def _unprivileged() -> _User:
    """PostgreSQL refuses to run as root: the user that its package makes runs it then."""
    if os.geteuid() != 0:
        return _User(None, None, None)
    user = pwd.getpwnam("postgres")
    return _User(user.pw_uid, user.pw_gid, [])


class Database:
    """One database of the server, and statements on it, each committed by itself."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self.dsn = f"host={server.directory} port={server.port} user=postgres dbname={name}"

    def connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(self.dsn)

    @contextlib.contextmanager
    def session(self) -> Generator[psycopg2.extensions.cursor, None, None]:
        """A connection in which each statement is committed at once, unless it begins a transaction."""
        connection = self.connect()
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Returns the rows of the last one."""
        with self.session() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []


class PostgresServer:
    """A server that can be killed, and started again on the same port and data; with a `primary`, its standby."""

    def __init__(self, *, primary: PostgresServer | None = None, **settings: str | int) -> None:
        self._programs = require_postgres()
        self._user = _unprivileged()
        # Not pytest's own folder, into which another user may not look. A socket's path is short, too.
        self.directory = Path(tempfile.mkdtemp(prefix="nodedb-pg-"))
        if self._user.user is not None:
            os.chown(self.directory, self._user.user, -1)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            trusting = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            self._run("initdb", "-D", self._data, *trusting)
        else:
            where = ("-h", primary.directory, "-p", primary.port, "-U", "postgres")
            self._run("pg_basebackup", "-D", self._data, *where, "-R", "-c", "fast", "--no-sync")
        given = {
            "wal_level": "logical",
            "fsync": "off",
            "max_replication_slots": 50,
            "max_wal_senders": 50,
            "max_connections": 100,
            "shared_buffers": "32MB",
            "unix_socket_directories": f"'{self.directory}'",
            "listen_addresses": "'127.0.0.1'",
            "port": self.port,
            "log_min_messages": "warning",
            **settings,
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in given.items())

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        user, group, groups = self._user
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", user=user, group=group, extra_groups=groups
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Starts it; returns when it takes statements."""
        with (self.directory / "log").open("ab") as log:
            command = [str(self._programs / "postgres"), "-D", str(self._data)]
            user, group, groups = self._user
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", user=user, group=group, extra_groups=groups
            )
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg2.connect(f"host={self.directory} port={self.port} user=postgres dbname=postgres").close()
            except psycopg2.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = (self.directory / "log").read_text()
                    raise RuntimeError(f"PostgreSQL on port {self.port} does not start: {error} {said}") from error
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL to all of its processes: none has time to write anything."""
        process = self._process
        if process is None:
            return
        # Stopped first, so that it starts no further ones meanwhile.
        process.send_signal(signal.SIGSTOP)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [*map(int, children), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(_START_SECONDS)
        # What has no parent any more is not ours to wait for, and holds the shared memory until it has gone.
        while any(_is_alive(int(pid)) for pid in children):
            time.sleep(0.005)
        self._process = None

    def stop(self) -> None:
        """Asks it to end at once, without waiting for its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        """Starts it, and removes it at the end."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.remove()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def database(self) -> Database:
        """A new one."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        Database(self, "postgres").execute(f"CREATE DATABASE {name}")
        return Database(self, name)

    def drop(self, database: Database) -> None:
        """With its slots, and whoever uses them."""
        administration = Database(self, "postgres")
        where = f"FROM pg_replication_slots WHERE database = '{database.name}'"
        until = time.monotonic() + _START_SECONDS
        while administration.execute(f"SELECT slot_name {where}"):
            administration.execute(f"SELECT pg_terminate_backend(active_pid) {where} AND active")
            with contextlib.suppress(psycopg2.errors.ObjectInUse):
                administration.execute(f"SELECT pg_drop_replication_slot(slot_name) {where} AND NOT active")
            if time.monotonic() > until:
                raise RuntimeError(f"database {database.name}: its slots cannot be dropped")
        administration.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
