"""The service under test: ``headway up`` on a temporary directory, as shipped, and what it costs.

Only processes that were started here are looked at or ended; all of it listens on 127.0.0.1.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

from headway.embedded.server import read_running
from headway.supervisor import signal_at_parent_death

API = "/api/v1"
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 120
KEPT_SETTINGS = ("HEADWAY_PG_BIN", "HEADWAY_PG_OS_USER", "HEADWAY_PROCESSES")


class Cpu(NamedTuple):
    """Processor seconds used so far, by all API processes and by all of PostgreSQL."""

    api: float
    postgres: float


class Service:
    """A running ``headway up``; a context manager that stops it and removes its data."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="headway-bench-"))
        self.directory.chmod(0o711)  # as root, PostgreSQL runs as another user who must pass through
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        env = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_") or k in KEPT_SETTINGS}
        data, log = self.directory / "data", self.directory / "up.log"
        env["HEADWAY_METRICS_DIR"] = str(self.directory / "metrics")
        argv = [sys.executable, "-m", "headway", "up", "--data", str(data), "--port", str(self.port)]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us alone; we stop it in order
                    preexec_fn=signal_at_parent_death(signal.SIGTERM),  # noqa: PLW1509 - no thread runs yet
                )
            self._wait_ready(self._process, log)
            running = read_running(data)
            assert running is not None  # noqa: S101 - it is ready
            self.database_url, self._postmaster = running.superuser_url("headway"), running.pid
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and kind is not KeyboardInterrupt:
            print((self.directory / "up.log").read_text(errors="replace")[-4000:], file=sys.stderr)
        self._stop()

    def _wait_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), contextlib.closing(self.connect()) as connection:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
            time.sleep(0.05)
        sys.exit(f"the service did not become ready:\n{log.read_text(errors='replace')[-4000:]}")

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()  # the kernel then tells PostgreSQL and the API to stop
                self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is kept alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def api_pids(self) -> list[int]:
        """Return the API processes."""
        assert self._process is not None  # noqa: S101 - it is started
        own = self._process.pid
        return [pid for pid in _children(own) if b"serve-process" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def memory_mb(self, field: str) -> float:
        """Return the largest of a memory field (VmRSS, VmHWM) of the API processes, in 10^6 bytes."""
        kib = []
        for pid in self.api_pids():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kib += [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
        return max(kib) * 1024 / 1e6

    def cpu(self) -> Cpu:
        """Return what was used so far; backends that ended count by their postmaster."""
        postgres = sum(_seconds(pid) for pid in _children(self._postmaster))
        own = _seconds(self._postmaster, with_ended_children=True)
        return Cpu(sum(_seconds(pid) for pid in self.api_pids()), postgres + own)


def call(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    """Send one request and return the JSON of its answer; anything but a success ends the benchmark."""
    connection.request(method, path, body or None, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    answer = response.read()
    if response.status >= http.HTTPStatus.BAD_REQUEST:
        sys.exit(f"{method} {path}: {response.status} {answer[:2000]!r}")
    return json.loads(answer)


def _fields(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if int(_fields(entry.name)[1]) == parent:
                    found.append(int(entry.name))
    return found


def _seconds(pid: int, *, with_ended_children: bool = False) -> float:
    with contextlib.suppress(OSError):
        fields = _fields(pid)
        return sum(map(int, fields[11 : 15 if with_ended_children else 13])) / os.sysconf("SC_CLK_TCK")
    return 0.0
