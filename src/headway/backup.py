"""Backup and restore with PostgreSQL's own tools, which come in the wheel.

A backup is one file in pg_dump's custom format: compressed, consistent, taken while the service goes on. Passwords go
to the tools in the environment, never on a command line.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import IO

import psycopg
from psycopg import conninfo

from headway.core.db import driver_url
from headway.embedded.binaries import wheel_bin_dir
from headway.migrations import runner


class BackupError(Exception):
    """A backup or restore failed; the message says why."""


def backup(url: str, file: Path, *, pg_bin: Path | None) -> int:
    """Write a backup of the database to a file, whole or not at all; returns its size in bytes."""
    partial = file.with_name(file.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            _run([_tool("pg_dump", pg_bin), "--format=custom", "--no-password"], url, stdout=out)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file.stat().st_size


def restore(url: str, file: Path, *, pg_bin: Path | None, replace: bool) -> None:
    """Bring a backup back in one transaction, then the schema to what this version needs.

    Raises:
        BackupError: the database holds data and ``replace`` is not set, or the tool failed.
    """
    if not file.is_file():
        msg = f"there is no file {file}"
        raise BackupError(msg)
    if not replace and _has_data(url):
        msg = "the database holds data; --replace puts the backup in its place"
        raise BackupError(msg)
    options = ["--clean", "--if-exists", "--single-transaction", "--no-owner", "--no-password"]
    database = str(driver_url(url).database)
    _run([_tool("pg_restore", pg_bin), *options, f"--role={runner.OWNER}", f"--dbname={database}", str(file)], url)
    runner.upgrade(url)


def _has_data(url: str) -> bool:
    with psycopg.connect(_plain(url)) as connection:
        if connection.execute("SELECT to_regclass('public.clients') IS NULL").fetchone() == (True,):
            return False
        found = connection.execute("SELECT EXISTS (SELECT FROM clients) OR EXISTS (SELECT FROM api_keys)").fetchone()
        return found == (True,)


def _tool(name: str, pg_bin: Path | None) -> str:
    """Return the path of a PostgreSQL program: of the setting, the wheel, or the system."""
    for directory in (pg_bin, wheel_bin_dir()):
        if directory is not None and (directory / name).is_file():
            return str(directory / name)
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not here: install PostgreSQL's client programs, or set HEADWAY_PG_BIN"
        raise BackupError(msg)
    return found


def _plain(url: str) -> str:
    """Return the URL as PostgreSQL's own programs read it."""
    return driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _run(argv: list[str], url: str, *, stdout: int | IO[bytes] | None = None) -> None:
    """Run a program on the database of a URL, whose every part goes by the environment."""
    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}
    parts = conninfo.conninfo_to_dict(_plain(url))
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
    env |= {names.get(name, f"PG{name.upper()}"): str(value) for name, value in parts.items()}
    done = subprocess.run(  # noqa: S603 - our own words and paths, no shell
        argv, env=env, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise BackupError("\n".join([f"{Path(argv[0]).name} failed:", *lines]))
