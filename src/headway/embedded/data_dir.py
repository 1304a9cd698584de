"""The directory that holds everything of one embedded server: what lies where, and whose it is.

    postgres-<major>/   the cluster            postgres.log     what the server said
    secrets/superuser   its password, 0600     port             so that it stays the same
    run/                the socket             binaries/        a copy, where the wheel is out of reach
    lock                held while it is used

The server uses it. As root all of it stays root's but the cluster, the socket and the password. The rule not to
break: permissions of directories that were there before are left alone (`tests/embedded/test_server.py`).
"""

import fcntl
import os
import re
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from headway.embedded.errors import EmbeddedServerError
from headway.embedded.os_user import OsUser

LOG_BYTES_MAX, LOGS_KEPT = 10_000_000, 3
# 104 bytes with the final zero on macOS, 108 on Linux.
SOCKET_PATH_BYTES_MAX = 103


def default_data_dir() -> Path:
    """Where data goes unless told otherwise: a system directory as root, the user's data directory else."""
    if os.geteuid() == 0:
        return Path("/var/lib/headway")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "headway"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "headway"


@dataclass(frozen=True)
class DataDir:
    """Paths below one data directory, and the files that are read and written as a whole."""

    path: Path

    @property
    def log(self) -> Path:
        """What the server said."""
        return self.path / "postgres.log"

    @property
    def password_file(self) -> Path:
        """The superuser's password."""
        return self.path / "secrets" / "superuser"

    @property
    def run(self) -> Path:
        """The directory of the socket."""
        return self.path / "run"

    @property
    def binaries(self) -> Path:
        """Where the wheel's programs are copied to if they must be."""
        return self.path / "binaries"

    def cluster(self, major: int) -> Path:
        """PostgreSQL's own data directory."""
        return self.path / f"postgres-{major}"

    def majors(self) -> list[int]:
        """The versions of the clusters that are there."""
        if not self.path.is_dir():
            return []
        matches = (re.fullmatch(r"postgres-(\d+)", entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def owner_uid(self) -> int | None:
        """Whom the data belongs to, if there is any."""
        return next((self.cluster(major).stat().st_uid for major in self.majors()), None)

    def prepare(self, user: OsUser) -> None:
        """Make the directories that are missing; refuse a place that the user cannot reach, before anything is made."""
        if not user.is_self:
            self._refuse_unreachable(user)
        missing = [place for place in (self.path, *self.path.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir()
            place.chmod(0o700 if user.is_self and place == self.path else 0o755)
        if not self.run.is_dir():
            self.run.mkdir()
            self.run.chmod(0o755)
            user.take(self.run)
        if not self.password_file.parent.is_dir():
            self.password_file.parent.mkdir()
            self.password_file.parent.chmod(0o700 if user.is_self else 0o710)
            if not user.is_self:
                os.chown(self.password_file.parent, -1, user.gid)

    def _refuse_unreachable(self, user: OsUser) -> None:
        there = [place for place in (*reversed(self.path.parents), self.path) if place.exists()]
        closed = user.first_closed(there)
        if closed is not None:
            raise EmbeddedServerError(
                f"PostgreSQL refuses to run as root, and OS user {user.name!r}, whom it would run as, cannot reach "
                f"{self.path}, because {closed} is closed to it. Choose another data directory, such as "
                f"`--data /var/lib/headway`; Headway does not change the permissions of directories it did not make."
            )

    def lock(self) -> int:
        """Take the directory for this process; the descriptor holds the lock until it is closed."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EmbeddedServerError(
                f"The data directory {self.path} is in use by process {holder} (another `headway up`?): stop that "
                "first, or choose another data directory with --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def password(self) -> str | None:
        """The superuser's password, if it has one yet."""
        return _read(self.password_file) or None

    def make_password(self, user: OsUser) -> str:
        """Give the superuser a new password, in a file that the user alone (and root) can read."""
        password = secrets.token_urlsafe(32)
        _write(self.password_file, password, mode=0o600, owner=user)
        return password

    def port(self) -> int | None:
        """The port of the last time."""
        text = _read(self.path / "port")
        return int(text) if text.isdecimal() else None

    def keep_port(self, port: int) -> None:
        """Have the port stay the same the next time."""
        _write(self.path / "port", str(port), mode=0o644)

    def socket_dir(self) -> Path | None:
        """The directory for the socket; None where its path is longer than a socket's may be."""
        longest = os.fsencode(self.run / ".s.PGSQL.65535")
        return self.run if len(longest) <= SOCKET_PATH_BYTES_MAX else None

    def open_log(self) -> IO[bytes]:
        """The log, to append to; one that has grown large is put aside first, and the oldest goes."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            names = [self.log, *(self.log.with_name(f"{self.log.name}.{number}") for number in range(1, LOGS_KEPT + 1))]
            for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
                if newer.exists():
                    newer.replace(older)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "ab")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str, *, mode: int, owner: OsUser | None = None) -> None:
    """Write a file as a whole or not at all, whenever we are killed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(descriptor)
    new = Path(name)
    new.chmod(mode)
    if owner is not None:
        owner.take(new)
    new.replace(path)
