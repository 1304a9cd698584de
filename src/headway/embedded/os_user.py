"""Who PostgreSQL runs as, since it refuses root.

A plain user runs it as itself. Root gives it to another user of the system: the owner of data that is already
there, else the one asked for, else `postgres`, else a `headway` made for it, else `nobody`. The server and the
search for its binaries call this. Nothing here widens a permission: what the user cannot reach, it is told.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headway.embedded.errors import EmbeddedServerError

FIRST_CHOICE, OWN_NAME, LAST_CHOICE = "postgres", "headway", "nobody"

_FIRST_CLOSED = 'for path in "$@"; do test -x "$path" || { printf %s "$path"; exit 0; }; done'


@dataclass(frozen=True)
class OsUser:
    """The OS user of the database; `is_self` where no change of user is needed."""

    name: str
    uid: int
    gid: int
    is_self: bool

    def first_closed(self, directories: Iterable[Path]) -> Path | None:
        """The first of these directories that the user cannot pass through, asked of the system itself (ACLs count)."""
        answer = subprocess.run(  # noqa: S603 - a constant command
            ["/bin/sh", "-c", _FIRST_CLOSED, "sh", *map(str, directories)],
            check=True,
            capture_output=True,
            cwd="/",
            user=None if self.is_self else self.uid,
            group=None if self.is_self else self.gid,
            extra_groups=None if self.is_self else [],
        ).stdout
        return Path(os.fsdecode(answer)) if answer else None

    def take(self, path: Path) -> None:
        """Give a path that we made to the user."""
        if not self.is_self:
            os.chown(path, self.uid, self.gid)


def choose_os_user(name: str | None = None, *, owner_uid: int | None = None) -> OsUser:
    """The user to run PostgreSQL as; `owner_uid` is the owner of the data, where there is some already."""
    if os.geteuid() != 0:
        return _self(name)
    if owner_uid is not None:
        return _owner(owner_uid, name)
    if name is not None:
        user = _find(name)
        if user is None:
            raise EmbeddedServerError(f"There is no OS user {name!r} to run PostgreSQL as: create it or name another.")
        return user
    user = _find(FIRST_CHOICE) or _find(OWN_NAME) or _create(OWN_NAME) or _find(LAST_CHOICE)
    if user is None:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and there is no other OS user to run it as: create one, for example "
            f"with `useradd --system {OWN_NAME}`."
        )
    return user


def _self(name: str | None) -> OsUser:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedServerError(
            f"User id {uid} has no entry in the system's user database (/etc/passwd), and PostgreSQL does not start "
            "without one: run as a user that has one, or add it."
        ) from None
    if name not in {None, entry.pw_name}:
        raise EmbeddedServerError(f"Only root can run PostgreSQL as OS user {name!r}; this is {entry.pw_name!r}.")
    return OsUser(entry.pw_name, uid, os.getegid(), is_self=True)


def _owner(uid: int, name: str | None) -> OsUser:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedServerError(
            f"The data belongs to user id {uid}, which this system does not know: chown it to a user that exists."
        ) from None
    if name not in {None, entry.pw_name}:
        raise EmbeddedServerError(
            f"The data belongs to OS user {entry.pw_name!r}, not to {name!r}: leave the user as it was, or chown the data."
        )
    return _of(entry)


def _find(name: str) -> OsUser | None:
    try:
        return _of(pwd.getpwnam(name))
    except KeyError:
        return None


def _of(entry: pwd.struct_passwd) -> OsUser:
    if entry.pw_uid == 0:
        raise EmbeddedServerError("PostgreSQL refuses to run as root: name another OS user.")
    return OsUser(entry.pw_name, entry.pw_uid, entry.pw_gid, is_self=False)


def _create(name: str) -> OsUser | None:
    """Make a system user, or give None where that is not possible: the caller has another choice."""
    useradd = shutil.which("useradd")
    if useradd is None:
        return None
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false"]
    subprocess.run([useradd, *options, name], check=False, capture_output=True)  # noqa: S603 - constants only
    return _find(name)
