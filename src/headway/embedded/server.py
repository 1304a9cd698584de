"""One PostgreSQL server on one data directory, as a child of this process.

`headway up` and the tests start it alike. It listens on 127.0.0.1 alone, asks everybody for a password, keeps its
port over restarts, and ends with us, even after a kill -9 (then the kernel tells it to stop, and the next start
waits for that). Whatever cannot be done is an EmbeddedServerError that says the mend. The rule not to break: no
acknowledged write is lost, however we end; `tests/embedded/test_server.py` guards it.
"""

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from headway.embedded.binaries import Binaries, find_binaries
from headway.embedded.cluster import create_cluster, refuse_other_major, remove_interrupted
from headway.embedded.data_dir import DataDir, default_data_dir
from headway.embedded.errors import EmbeddedServerError
from headway.embedded.os_user import OsUser, choose_os_user
from headway.embedded.postmaster import (
    SUPERUSER,
    RunningServer,
    connection_url,
    end_leftover,
    read_postmaster,
    read_running,
)
from headway.embedded.process import last_lines, start_as

__all__ = ["EmbeddedServer", "EmbeddedServerError", "RunningServer", "default_data_dir", "read_running"]

LOOK_EVERY_SECONDS = 0.01
READY_SECONDS_MAX = 300.0  # after a crash it replays up to max_wal_size before it is ready
STOP_SIGNALS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 30.0))  # fast, then immediate, as PostgreSQL calls them
LAUNCHES_MAX = 10
# Below the ports that systems give to outgoing connections, so that it is free at the next start as well.
PORTS = range(20_000, 32_000)
PORT_TAKEN, OLD_MEMORY = "Address already in use", "is still in use"
# A killed postmaster keeps its pid until its parent, often PID 1 by then, has taken note of its end.
OLD_PID = 'lock file "postmaster.pid" already exists'

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "random_page_cost": "1.1",  # solid state disks
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    # Secrets and payloads are in statements, in their parameters and in the details of errors: none is logged.
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}


class EmbeddedServer:
    """A PostgreSQL server of our own; see the module's docstring."""

    port: int
    socket_dir: Path | None

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        os_user: str | None = None,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is touched before `start`.

        `bin_dir` replaces the programs that come with Headway; `os_user` is whom to run as when we are root; port 0
        is the one of the last time, or a free one; `settings` go over ours.
        """
        self._data = DataDir(data_dir.expanduser().resolve())
        self._bin_dir = bin_dir
        self._os_user = os_user
        self._wanted_port = port
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self.port = port
        self.socket_dir = self._data.socket_dir()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The postmaster, for whoever wants to notice its death."""
        if self._process is None:
            raise EmbeddedServerError("The embedded PostgreSQL is not started.")
        return self._process

    def url(self, user: str, password: str, database: str) -> str:
        """The URL of a database for one of its users."""
        return connection_url(self.port, user, password, database)

    def superuser_url(self, database: str = "postgres") -> str:
        """The URL of a database for the superuser; there is one from the first start on."""
        return self.url(SUPERUSER, self._data.password() or "", database)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the server takes connections: after about 1 s the first time, 0.1 s later; from the main thread."""
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedServerError("Start the embedded PostgreSQL from the main thread: it ends with its starter.")
        if self._process is not None:
            raise EmbeddedServerError("The embedded PostgreSQL is started already.")
        try:
            self._start()
        except OSError as error:
            self.stop()
            mend = " Start as the user whose it is, or choose another with --data." * isinstance(error, PermissionError)
            raise EmbeddedServerError(f"The data directory {self._data.path} cannot be used: {error}.{mend}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server in an orderly way and let go of the data; nothing to do is fine."""
        process, self._process = self._process, None
        try:
            if process is not None:
                _end(process)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _start(self) -> None:
        user = choose_os_user(self._os_user, owner_uid=self._data.owner_uid())
        self._data.prepare(user)
        self._lock = self._data.lock()
        binaries = find_binaries(self._bin_dir, user=user, copy_to=self._data.binaries)
        refuse_other_major(self._data, binaries.major)
        remove_interrupted(self._data)
        cluster = self._data.cluster(binaries.major)
        if cluster.is_dir():
            end_leftover(cluster)
            self._check_password()
        else:
            create_cluster(self._data, binaries, user, is_synced=self._settings.get("fsync") != "off")
        self._launch(binaries, user, cluster)
        self._data.keep_port(self.port)

    def _check_password(self) -> None:
        if self._data.password() is None:
            raise EmbeddedServerError(
                f"The superuser's password is missing: {self._data.password_file}. Put it back from a backup."
            )

    def _launch(self, binaries: Binaries, user: OsUser, cluster: Path) -> None:
        """Start the server, again where that can help: a port taken meanwhile, or backends of one that was killed."""
        for launch in range(1, LAUNCHES_MAX + 1):
            self.port = self._choose_port()
            argv = [binaries.program("postgres"), "-D", str(cluster), *self._arguments(binaries)]
            with self._data.open_log() as log:
                log_start = log.seek(0, os.SEEK_END)
                self._process = start_as(user, argv, directory=cluster, output=log, at_our_death=signal.SIGINT)
            if _becomes_ready(self._process, cluster):
                return
            said = self._logged_since(log_start)
            process, self._process = self._process, None
            _end(process)
            is_worth_it = (PORT_TAKEN in said and not self._wanted_port) or OLD_MEMORY in said or OLD_PID in said
            if not is_worth_it or launch == LAUNCHES_MAX:
                raise EmbeddedServerError(
                    f"PostgreSQL did not start on {cluster}. The end of {self._data.log}:\n{last_lines(said)}"
                )
            time.sleep(0.5)

    def _choose_port(self) -> int:
        if self._wanted_port:
            if not _is_free(self._wanted_port):
                raise EmbeddedServerError(f"Port {self._wanted_port} of 127.0.0.1 is taken: choose another, or none.")
            return self._wanted_port
        last = self._data.port()
        if last is not None and _is_free(last):
            return last
        candidates = random.SystemRandom().sample(PORTS, 100)  # a seeded order would be everybody's
        return next(port for port in candidates if _is_free(port))

    def _arguments(self, binaries: Binaries) -> list[str]:
        """Our settings and those over them, for the command line."""
        directory = str(self.socket_dir).replace('"', '""') if self.socket_dir else ""
        own = {
            **SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": f'"{directory}"' if directory else "",
            **({"wal_compression": "lz4"} if binaries.has_lz4 else {}),  # without lz4 it costs more than it saves
        }
        return [word for name, value in (own | self._settings).items() for word in ("-c", f"{name}={value}")]

    def _logged_since(self, position: int) -> str:
        with self._data.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")


def _becomes_ready(process: subprocess.Popen[bytes], cluster: Path) -> bool:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        found = read_postmaster(cluster)
        if found and found.pid == process.pid and found.is_ready:
            return True
        time.sleep(LOOK_EVERY_SECONDS)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in STOP_SIGNALS:
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
    raise EmbeddedServerError(f"PostgreSQL (process {process.pid}) does not stop: look what its disk is waiting for.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
