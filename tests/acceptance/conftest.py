"""The real service, as ``headway up`` starts it, in processes of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

START_SECONDS = 60.0


class Service:
    """One ``headway up`` on a data directory, restartable."""

    def __init__(self, directory: Path, port: int = 0, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.port = port
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._log = directory.with_suffix(".log")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self, *options: str) -> "Service":
        """Start it; returns when it is ready."""
        argv = [
            sys.executable,
            "-m",
            "headway",
            "up",
            "--data",
            str(self.directory),
            "--port",
            str(self.port),
            *options,
        ]
        env = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")} | self._environment
        offset = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("a") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, text=True, env=env, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log
            said = self._log.read_text()[offset:]
            if "Headway is up on http://127.0.0.1:" in said:
                self.port = int(said.split("Headway is up on http://127.0.0.1:")[1].split()[0])
                if self._is_ready():
                    return self
            time.sleep(0.1)
        raise AssertionError(self.log)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop it as Ctrl-C does; returns its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(60)

    def family(self) -> list[int]:
        """Return the ids of the service and of all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
        found, pending = [], [self.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += children.get(pid, [])
        return found

    def kill_everything(self) -> None:
        """kill -9 every process of it, the database's included, all at once."""
        assert self._process is not None
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def get(self, path: str, **options: Any) -> Any:
        """Return the body of a GET under /api/v1."""
        answer = requests.get(f"{self.url}/api/v1{path}", timeout=30, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def command(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a headway command on the same data directory."""
        whole = [sys.executable, "-m", "headway", *argv, "--data", str(self.directory)]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False, **options)

    def begin(self, *argv: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        """Begin a headway command on the same data directory, with more in its environment."""
        whole = [sys.executable, "-m", "headway", *argv, "--data", str(self.directory)]
        env = {**os.environ, **environment}
        return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False


@pytest.fixture
def make_service() -> Iterator[Callable[..., Service]]:
    """Return a maker of services on fresh data directories; they are stopped and removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="headway-acceptance-"))
    root.chmod(0o755)
    made: list[Service] = []

    def make(**options: Any) -> Service:
        made.append(Service(root / f"data-{len(made)}", **options))
        return made[-1]

    try:
        yield make
    finally:
        for service in made:
            service.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """Return a running service."""
    return make_service().start()
