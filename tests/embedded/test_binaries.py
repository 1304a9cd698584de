"""Where the programs of PostgreSQL are found, and that finding them changes nothing of what was there."""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headway.embedded.binaries import BIN, LIBRARIES, PACKAGE, find_binaries
from headway.embedded.errors import EmbeddedServerError
from headway.embedded.os_user import OsUser, choose_os_user
from headway.embedded.server import EmbeddedServer

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about the change from root to another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the system can reach; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="headway-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def user() -> OsUser:
    return choose_os_user()


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


@pytest.fixture
def closed_site(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel installed once more, in an environment that only root can enter."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    installed = Path(spec.submodule_search_locations[0]).parent
    site = place / "closed" / "site"
    for part in (PACKAGE, LIBRARIES):
        if (installed / part).is_dir():
            shutil.copytree(installed / part, site / part, copy_function=link_or_copy)
    site.parent.chmod(0o700)
    monkeypatch.syspath_prepend(str(site))
    return site


def modes(tree: Path) -> dict[str, int]:
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in (tree, *tree.rglob("*"))}


def test_wheel_is_found_without_being_imported(user: OsUser, place: Path) -> None:
    found = find_binaries(None, user=user, copy_to=place / "binaries")

    assert found.major >= 18
    assert Path(found.program("postgres")).is_file()
    assert PACKAGE not in sys.modules


@needs_root
def test_wheel_out_of_reach_is_copied_once_and_runs_from_there(place: Path, closed_site: Path) -> None:
    before = modes(place)

    with (
        EmbeddedServer(place / "data", settings=FAST) as server,
        psycopg.connect(server.superuser_url()) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
        running = Path(f"/proc/{server.process.pid}/exe").readlink()
    copies = list((place / "data" / "binaries").iterdir())
    made = copies[0].stat().st_ctime_ns
    with EmbeddedServer(place / "data", settings=FAST):
        pass

    assert running.is_relative_to(place / "data" / "binaries")
    assert list((place / "data" / "binaries").iterdir()) == copies
    assert copies[0].stat().st_ctime_ns == made
    after = modes(place)
    assert {path: after[path] for path in before} == before


@needs_root
def test_copy_of_an_older_version_or_one_that_was_interrupted_goes(
    place: Path, closed_site: Path, user: OsUser
) -> None:
    for name in ("1.2.3", "partial-abc"):
        (place / "binaries" / name).mkdir(parents=True)

    found = find_binaries(None, user=user, copy_to=place / "binaries")

    assert [found.bin_dir] == [path / BIN for path in (place / "binaries").iterdir()]


@needs_root
def test_wheel_installed_under_a_strict_umask_is_copied_open(place: Path, closed_site: Path, user: OsUser) -> None:
    strict = place / "strict"
    shutil.copytree(closed_site, strict)
    subprocess.run(["chmod", "-R", "go=", str(strict)], check=True)
    sys.path.insert(0, str(strict))  # undone with the fixture's own entry

    found = find_binaries(None, user=user, copy_to=place / "binaries")

    assert found.bin_dir.is_relative_to(place / "binaries")
    assert stat.S_IMODE((strict / BIN / "postgres").stat().st_mode) == 0o700


@needs_root
def test_given_directory_out_of_reach_is_refused(place: Path, closed_site: Path, user: OsUser) -> None:
    with pytest.raises(EmbeddedServerError, match=r"cannot run the PostgreSQL programs .*HEADWAY_PG_BIN"):
        find_binaries(closed_site / BIN, user=user, copy_to=place / "binaries")

    assert not (place / "binaries").exists()


def test_given_directory_without_postgresql_is_refused(place: Path, user: OsUser) -> None:
    with pytest.raises(EmbeddedServerError, match=r"no PostgreSQL to run in .*HEADWAY_PG_BIN"):
        find_binaries(place, user=user, copy_to=place / "binaries")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'postgres (PostgreSQL) 14.9'", "needs PostgreSQL 15 or newer"),
        (
            "echo 'error while loading shared libraries: libicu.so'; exit 127",
            "does not run on this system:\nerror while",
        ),
    ],
)
def test_programs_that_will_not_do_are_refused(place: Path, user: OsUser, script: str, message: str) -> None:
    for name in ("postgres", "initdb"):
        program = place / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    with pytest.raises(EmbeddedServerError, match=message):
        find_binaries(place, user=user, copy_to=place / "binaries")


def test_missing_wheel_is_told_with_the_mend(place: Path, user: OsUser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(EmbeddedServerError, match=r"headway\[server\].*HEADWAY_PG_BIN.*HEADWAY_DATABASE_URL"):
        find_binaries(None, user=user, copy_to=place / "binaries")


@needs_root
def test_root_gives_the_server_to_another_user() -> None:
    chosen = choose_os_user()

    assert chosen.uid != 0
    assert pwd.getpwuid(chosen.uid).pw_name == chosen.name
