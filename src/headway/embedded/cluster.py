"""Makes a cluster, and decides which one a version of PostgreSQL may use.

The server calls it. A cluster is made under another name and gets its own when it is complete, so that one that
was interrupted (kill -9 in the middle) is made anew at the next start; `tests/embedded/test_server.py` guards it.
"""

import os
import shutil
import tempfile
from pathlib import Path

from headway.embedded.binaries import Binaries
from headway.embedded.data_dir import DataDir
from headway.embedded.errors import EmbeddedServerError
from headway.embedded.os_user import OsUser
from headway.embedded.postmaster import SUPERUSER
from headway.embedded.process import last_lines, run_as

FIRST_MAJOR_WITH_BUILTIN_LOCALE = 17


def refuse_other_major(data: DataDir, major: int) -> None:
    """Data of another version alone is neither read nor passed over in silence."""
    others = data.majors()
    if not others or major in others:
        return
    old = others[-1]
    raise EmbeddedServerError(
        f"{data.path} holds data of PostgreSQL {old}, and this is PostgreSQL {major}. To go on as before, set "
        f"HEADWAY_PG_BIN to the programs of PostgreSQL {old}. To upgrade, start so once more, save the database with "
        f"pg_dump, start PostgreSQL {major} on another data directory (--data) and load it there with psql; or run "
        f"pg_upgrade from {data.cluster(old)} to {data.cluster(major)}."
    )


def remove_interrupted(data: DataDir) -> None:
    """Clear away what an initdb that was killed left behind."""
    for leftover in data.path.glob("postgres-*.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def create_cluster(data: DataDir, binaries: Binaries, user: OsUser, *, is_synced: bool) -> None:
    """Run initdb; takes about a second. Without `is_synced` (tests) a crash of the machine may lose the cluster."""
    if data.password() is None:
        data.make_password(user)
    partial = Path(tempfile.mkdtemp(prefix=f"postgres-{binaries.major}.partial-", dir=data.path))
    user.take(partial)
    argv = [binaries.program("initdb"), *_options(binaries.major, partial, data.password_file)]
    code, output = run_as(user, argv if is_synced else [*argv, "--no-sync"], directory=data.path)
    if code != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise EmbeddedServerError(f"PostgreSQL could not make its data directory in {data.path}:\n{last_lines(output)}")
    partial.rename(data.cluster(binaries.major))
    _sync(data.path)


def _options(major: int, directory: Path, password_file: Path) -> list[str]:
    """UTF-8 that sorts the same on every system, passwords on every way in, checksums."""
    is_builtin = major >= FIRST_MAJOR_WITH_BUILTIN_LOCALE
    return [
        f"--pgdata={directory}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        *(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if is_builtin else ["--locale=C.UTF-8"]),
        "--data-checksums",
        "--no-instructions",
    ]


def _sync(directory: Path) -> None:
    """Have a rename in this directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
