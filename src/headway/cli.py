"""The command line: parse, call, print. Exit codes are 0 done, 1 failed, 2 wrong usage.

Commands import what they need when they need it, so that ``--help`` is quick.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headway import __version__
from headway.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from headway.connectors.config import Source
    from headway.core.db import Database

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See and trust every run of every data pipeline, on any platform.",
    epilog="Settings come from the environment: docs/settings.md. Exit codes: 0 done, 1 failed, 2 wrong usage.",
)
keys = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")
db = typer.Typer(no_args_is_help=True, help="The database itself.")
sources = typer.Typer(no_args_is_help=True, help="Sources that are pulled from (HEADWAY_CONFIG): try them, list them.")
app.add_typer(keys, name="keys")
app.add_typer(sources, name="sources")
app.add_typer(db, name="db")

Data = Annotated[
    Path | None, typer.Option("--data", help="Data directory of the embedded database.", show_default=False)
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.", show_default="8000")]
Names = Annotated[list[str] | None, typer.Argument(help="Names of sources.", show_default="all")]
Processes = Annotated[int | None, typer.Option(min=1, max=64, help="API processes.", show_default="one a processor")]

T = TypeVar("T")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headway {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """See and trust every run of every data pipeline, on any platform."""


@contextmanager
def _told() -> Iterator[None]:
    """Turn expected trouble into a line on stderr and an exit code."""
    from headway.backup import BackupError
    from headway.core.errors import HeadwayError
    from headway.embedded.server import EmbeddedServerError
    from headway.migrations.runner import MigrationError
    from headway.targets import NoDatabaseError

    try:
        yield
    except SettingsError as error:
        _fail(str(error), code=2)
    except HeadwayError as error:
        _fail(error.detail)
    except (EmbeddedServerError, MigrationError, NoDatabaseError) as error:
        _fail(str(error))
    except BackupError as error:
        from headway.core.redaction import redact_text

        _fail(redact_text(str(error)))
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except Exception as error:
        if not _is_database_trouble(error):
            raise
        from headway.core.redaction import redact_text

        _fail(f"the database cannot be reached: {redact_text(str(error).strip().splitlines()[0])}")


def _is_database_trouble(error: Exception) -> bool:
    import psycopg
    import sqlalchemy.exc

    return isinstance(error, psycopg.OperationalError | sqlalchemy.exc.OperationalError)


def _fail(message: str, *, code: int = 1) -> None:
    sys.stderr.write(f"headway: {message}\n")
    raise typer.Exit(code)


def _settings(data: Path | None = None, **overrides: Any) -> Settings:
    return load_settings(data_dir=data, **overrides)


@app.command()
def up(
    data: Data = None,
    port: Port = None,
    host: Host = None,
    processes: Processes = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Also load a demo fleet: 3 clients, 30 pipelines, 90 days.")
    ] = False,
) -> None:
    """Start everything here: the embedded PostgreSQL, the API and the worker. Ctrl-C stops all of it."""
    from headway import up as everything

    with _told():
        settings = _settings(data, port=port, host=host, processes=processes)
        code = everything.run(settings, demo=demo)
    raise typer.Exit(code)


@app.command()
def serve(host: Host = None, port: Port = None, processes: Processes = None, data: Data = None) -> None:
    """Serve the API alone, on the database of HEADWAY_DATABASE_URL."""
    from headway import serve as serving
    from headway.supervisor import Supervisor
    from headway.targets import database_url

    with _told():
        settings = _settings(data, port=port, host=host, processes=processes)
        serving.check_exposure(settings)
        url = database_url(settings)
        with serving.listen(settings.host, settings.port) as listening, serving.metrics_dir(settings) as metrics:
            print(f"headway serves on {serving.base_url(settings, listening)}", flush=True)
            code = Supervisor(serving.children(settings, listening, url, metrics)).run()
    raise typer.Exit(code)


@app.command("serve-process", hidden=True)
def serve_process(fd: Annotated[int, typer.Option(help="Descriptor of the listening socket.")]) -> None:
    """Run one API process on an inherited socket."""
    from headway import serve as serving
    from headway.targets import database_url

    with _told():
        settings = _settings()
        serving.run_process(settings, database_url(settings), fd)


@app.command()
def worker(data: Data = None, supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False) -> None:
    """Do the background work alone, on the database of HEADWAY_DATABASE_URL."""
    from headway import worker as working
    from headway.connectors.registry import load_sources
    from headway.core import logging
    from headway.supervisor import exit_with_parent

    with _told():
        settings = _settings(data)
        logging.configure(settings.log_level, settings.log_format)
        if supervised:
            exit_with_parent()
        configured = load_sources(settings.config)
        _with_database(settings, lambda database: working.run(database, configured), pool_size=working.POOL_SIZE)


@app.command()
def sync(
    names: Names = None,
    since: Annotated[
        str | None,
        typer.Option(help="Read the history back to here, too: 90d, 2y. Then ends.", show_default="each source's own"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Sync once and end, not again at each source's interval.")
    ] = False,
    data: Data = None,
) -> None:
    """Read sources now, with progress; Ctrl-C stops, and the same command goes on from there."""
    from headway.connectors import console
    from headway.core import clock, logging

    length = _duration(since, "--since")
    with _told():
        settings = _settings(data)
        logging.configure("error" if settings.log_level == "info" else settings.log_level, settings.log_format)
        chosen = _sources(settings, names)
        begin = None if length is None else clock.now() - length

        async def run(database: "Database") -> bool:
            return await console.sync(database, chosen, since=begin, once=once or since is not None)

        went_well = _with_database(settings, run, pool_size=console.POOL_SIZE)
    raise typer.Exit(0 if went_well else 1)


@sources.command("check")
def check_sources(names: Names = None) -> None:
    """Try each source: is it there, does it let us in, and what would be imported?"""
    from headway.connectors import console

    with _told():
        chosen = _sources(_settings(), names)
        went_well = console.check(chosen)
    raise typer.Exit(0 if went_well else 1)


@sources.command("list")
def list_sources(names: Names = None, data: Data = None) -> None:
    """List sources with their last sync, and what is wrong with them."""
    from headway.connectors import console

    with _told():
        _with_database(_settings(data), lambda database: console.show(database, names or []))


def _sources(settings: Settings, names: list[str] | None) -> "dict[str, Source]":
    """Return the configured sources, or those of them that are named."""
    from headway.connectors.registry import load_sources

    if settings.config is None:
        raise SettingsError("HEADWAY_CONFIG is not set: it names the file of sources; see docs/connectors/README.md")
    configured = load_sources(settings.config)
    if not configured:
        raise SettingsError(f"{settings.config} has no sources; see docs/connectors/README.md")
    unknown = [name for name in names or [] if name not in configured]
    if unknown:
        known = ", ".join(sorted(configured))
        raise SettingsError(f"{settings.config} has no source {unknown[0]}; it has: {known}")
    return {name: configured[name] for name in names or configured}


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the database to the current schema; make missing roles, or print the SQL for whoever may."""
    from headway.core.db import driver_url
    from headway.migrations import runner
    from headway.migrations.runner import APP, READER
    from headway.targets import database_url

    with _told():
        settings = _settings(data)
        url = database_url(settings, "owner")
        passwords = {}
        for role, other in ((APP, settings.database_url), (READER, settings.reader_database_url)):
            known = driver_url(other.get_secret_value()) if other is not None else None
            if known is not None and known.username == role and known.password:
                passwords[role] = str(known.password)
        before, after = runner.upgrade(url, passwords=passwords)
        print(f"schema is at {after}" if before == after else f"schema went from {before or 'nothing'} to {after}")


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="Where to write it.")], data: Data = None) -> None:
    """Write a backup of the database to a file, while the service goes on."""
    from headway import backup as backups
    from headway.targets import database_url

    with _told():
        settings = _settings(data)
        size = backups.backup(database_url(settings, "owner"), file, pg_bin=settings.pg_bin)
        print(f"wrote {file} ({size:,} bytes); bring it back with: headway restore {file}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that headway backup wrote.")],
    data: Data = None,
    replace: Annotated[bool, typer.Option("--replace", help="Even where the database holds data: it is lost.")] = False,
) -> None:
    """Bring a backup back, all of it or nothing."""
    from headway import backup as backups
    from headway.targets import database_url

    with _told():
        settings = _settings(data)
        backups.restore(database_url(settings, "owner"), file, pg_bin=settings.pg_bin, replace=replace)
        print(f"restored {file}")


@db.command("url")
def db_url(
    role: Annotated[str, typer.Option(help="owner, app or reader.")] = "app",
    data: Data = None,
) -> None:
    """Print the connection URL, for psql, Grafana or Metabase."""
    from headway.targets import ROLES, database_url

    if role not in ROLES:
        raise typer.BadParameter("must be owner, app or reader", param_hint="--role")
    with _told():
        print(database_url(_settings(data), role))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is called.")],
    scope: Annotated[str, typer.Option(help="What it may do, with commas: ingest, read, admin.")],
    client: Annotated[str | None, typer.Option(help="Slug of the only client it sees.", show_default="all")] = None,
    expires: Annotated[str | None, typer.Option(help="How long it works: 90d, 12h.", show_default="for ever")] = None,
    data: Data = None,
) -> None:
    """Make a key. It is printed once, as the last word."""
    from headway.access import service
    from headway.access.principal import Scope
    from headway.core import clock

    words = [word.strip() for word in scope.split(",") if word.strip()]
    if not words or not set(words) <= set(Scope):
        raise typer.BadParameter("must be some of ingest, read, admin, with commas", param_hint="--scope")
    if not name.strip() or len(name) > 200:
        raise typer.BadParameter("must have 1 to 200 characters", param_hint="NAME")
    lasting = _duration(expires, "--expires")

    async def create(database: "Database") -> str:
        async with database.transaction() as connection:
            return await service.create_key(
                connection,
                name=name,
                scopes=[Scope(word) for word in words],
                client=client,
                expires_in=lasting,
                now=clock.now(),
            )

    with _told():
        made = _with_database(_settings(data), create)
        print(f"the key {name}, shown this once: {made}")


@keys.command("list")
def list_keys(data: Data = None) -> None:
    """List all keys, with their last use."""
    from rich.console import Console
    from rich.table import Table

    from headway.access import queries
    from headway.core import clock

    async def fetch(database: "Database") -> Any:
        async with database.transaction() as connection:
            return await queries.list_keys(connection)

    with _told():
        rows = _with_database(_settings(data), fetch)
        now = clock.now()
        table = Table(box=None, header_style="bold")
        for column in ("name", "key", "scopes", "client", "made", "last used", "state"):
            table.add_column(column, no_wrap=column != "name")
        for row in rows:
            state = (
                "revoked"
                if row.revoked_at
                else "expired"
                if row.expires_at and row.expires_at <= now
                else f"until {row.expires_at:%Y-%m-%d}"
                if row.expires_at
                else "active"
            )
            used = f"{row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never"
            made = f"{row.created_at:%Y-%m-%d}"
            table.add_row(row.name, f"{row.prefix}…", ",".join(row.scopes), row.client_slug or "all", made, used, state)
        Console(width=None if sys.stdout.isatty() else 160).print(table)


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="What the key is called.")], data: Data = None) -> None:
    """Revoke a key; it is refused everywhere within 5 seconds."""
    from headway.access import queries
    from headway.core import clock

    async def revoke(database: "Database") -> bool:
        async with database.transaction() as connection:
            return await queries.revoke_key(connection, name=name, now=clock.now())

    with _told():
        if not _with_database(_settings(data), revoke):
            _fail(f"there is no active key {name}; see: headway keys list")
        print(f"revoked {name}")


@keys.command("generate")
def generate_key() -> None:
    """Print a new key without storing it, for HEADWAY_BOOTSTRAP_KEY."""
    from headway.access.service import generate_key as generate

    print(generate())


def _with_database(
    settings: Settings, work: Callable[["Database"], Coroutine[Any, Any, T]], *, pool_size: int = 2
) -> T:
    """Do some work on the service's database."""
    from headway.core.db import Database
    from headway.runs.sql import STAGING
    from headway.targets import database_url

    url = database_url(settings)

    async def run() -> T:
        database = Database(url, pool_size=pool_size, on_connect=STAGING)
        try:
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(run())


def _duration(text: str | None, option: str) -> timedelta | None:
    """Parse 90d, 12h or 2y."""
    from headway.core.durations import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
