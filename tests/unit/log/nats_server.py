"""A real nats-server with JetStream, on a free loopback port and a store of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest

__all__ = ["NatsServer", "find_nats_server", "free_port", "require_nats_server"]

_START_SECONDS = 10.0


def find_nats_server() -> str | None:
    """The program, where Debian puts it or in the path."""
    return shutil.which("nats-server", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


def require_nats_server() -> str:
    """The program; without it the test that asks is skipped, and fails in CI."""
    found = find_nats_server()
    if found is None:
        why = "nats-server is not installed: apt-get install nats-server"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


class NatsServer:
    """A server that can be killed, and started again on the same port and store."""

    def __init__(self, directory: Path, *, max_payload: int = 1 << 20) -> None:
        program = find_nats_server()
        if program is None:
            raise FileNotFoundError("nats-server: not in the path; apt-get install nats-server")
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [program, "-c", str(directory / "nats.conf")]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f"max_payload: {max_payload}\n"
            f'jetstream: {{ store_dir: "{directory / "store"}" }}\n'
            f'log_file: "{directory / "nats.log"}"\n'
        )

    def start(self) -> None:
        """Starts it; returns when it takes connections."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + _START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                log = self._directory / "nats.log"
                said = log.read_text() if log.exists() else ""
                raise RuntimeError(f"nats-server on port {self.port} does not start: {said}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: it has no time to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Asks it to end, and waits until it has."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP, and waits until it has stopped: the connection exists, but nothing is answered."""
        self._signal(signal.SIGSTOP)
        process = self._process
        assert process is not None
        # A thread on another core may answer still, until the signal is there.
        while {stat.read_text().rpartition(")")[2].split()[0] for stat in _tasks(process.pid)} != {"T"}:
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait(_START_SECONDS)
            self._process = None


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*/stat"))


def free_port() -> int:
    """Of the loopback address, at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2) as connection:
            connection.settimeout(1.0)
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
