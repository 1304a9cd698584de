"""What runs on a cluster: reads postmaster.pid, and believes it only after a look at the process itself.

The server asks whether it is ready and ends what an earlier life left behind; other commands find the server of
a running `headway up` by `read_running`. The rule not to break: no signal is sent to a process that was not seen
to be a PostgreSQL of this very cluster.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from headway.embedded.data_dir import DataDir
from headway.embedded.errors import EmbeddedServerError

SUPERUSER = "postgres"
LOOK_EVERY_SECONDS = 0.02
# With a signal at our death it is already stopping, and a second one would change nothing for some seconds.
LEFTOVER_UNDISTURBED_SECONDS = 5.0 if sys.platform == "linux" else 0.0
LEFTOVER_SECONDS_MAX = 60.0


def connection_url(port: int, user: str, password: str, database: str) -> str:
    """The URL of a database on a server of this machine."""
    parts = [quote(part, safe="") for part in (user, password, database)]
    return f"postgresql://{parts[0]}:{parts[1]}@127.0.0.1:{port}/{parts[2]}"


@dataclass(frozen=True)
class RunningServer:
    """A server that another process of ours runs."""

    port: int
    pid: int
    password: str = field(repr=False)

    def url(self, user: str, password: str, database: str) -> str:
        """The URL of a database for one of its users."""
        return connection_url(self.port, user, password, database)

    def superuser_url(self, database: str = "postgres") -> str:
        """The URL of a database for the superuser."""
        return self.url(SUPERUSER, self.password, database)


@dataclass(frozen=True)
class Postmaster:
    """What postmaster.pid says; the port is 0 and the status empty as long as it does not say."""

    pid: int
    port: int
    is_ready: bool


def read_running(data_dir: Path) -> RunningServer | None:
    """The server that runs on this data directory, if one does and is ready."""
    data = DataDir(data_dir.expanduser().resolve())
    try:
        for major in data.majors():
            found = find_postmaster(data.cluster(major))
            password = data.password()
            if found and found.is_ready and password:
                return RunningServer(port=found.port, pid=found.pid, password=password)
    except PermissionError as error:
        raise EmbeddedServerError(
            f"The data directory {data.path} belongs to somebody else ({error}): run this as the user who runs "
            "`headway up` on it."
        ) from error
    return None


def read_postmaster(cluster: Path) -> Postmaster | None:
    """What the file says, whoever wrote it; None where there is none."""
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    lines = [line.strip() for line in lines] + [""] * 8
    if not lines[0].isdecimal():
        return None
    return Postmaster(int(lines[0]), int(lines[3]) if lines[3].isdecimal() else 0, is_ready=lines[7] == "ready")


def find_postmaster(cluster: Path) -> Postmaster | None:
    """The postmaster that lives on this cluster; a file left by one that died, or a reused pid, does not count."""
    found = read_postmaster(cluster)
    return found if found and _is_postgres_of(found.pid, cluster) else None


def _is_postgres_of(pid: int, cluster: Path) -> bool:
    if sys.platform != "linux":
        return _is_postgres_of_by_ps(pid, cluster)
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return Path(os.fsdecode(argv[0])).name == "postgres" and os.fsencode(cluster) in argv


def _is_postgres_of_by_ps(pid: int, cluster: Path) -> bool:
    command = subprocess.run(  # noqa: S603 - a number is its only variable part
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    ).stdout
    return b"postgres" in command and os.fsencode(cluster) in command


def end_leftover(cluster: Path) -> None:
    """Wait for a postmaster of an earlier life to be gone; after a while ask it to stop."""
    started = time.monotonic()
    is_asked = False
    while (found := find_postmaster(cluster)) is not None:
        waited = time.monotonic() - started
        if waited > LEFTOVER_SECONDS_MAX:
            raise EmbeddedServerError(
                f"A PostgreSQL of an earlier start (process {found.pid}) still runs on {cluster} and did not stop "
                f"within {LEFTOVER_SECONDS_MAX:.0f} s. Stop it with `kill -QUIT {found.pid}` and start again."
            )
        if not is_asked and waited >= LEFTOVER_UNDISTURBED_SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGINT)
            is_asked = True
        time.sleep(LOOK_EVERY_SECONDS)
