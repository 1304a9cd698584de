"""``headway up``: the embedded PostgreSQL, the schema, the API and the worker, under one supervisor.

Ctrl-C stops all of it in order; after a kill -9 nothing outlives us, and the next start recovers.
"""

import asyncio
import sys
from pathlib import Path

from headway import serve, targets
from headway.connectors.registry import load_sources
from headway.embedded import bootstrap
from headway.embedded.server import EmbeddedServer, EmbeddedServerError, read_running
from headway.migrations.runner import APP
from headway.settings import Settings, SettingsError
from headway.supervisor import Child, Supervisor


def run(settings: Settings, *, demo: bool = False) -> int:
    """Run everything until a signal; returns the exit code.

    Raises:
        SettingsError, EmbeddedServerError, MigrationError: it cannot start.
    """
    if settings.database_url is not None:
        msg = "headway up brings its own database; with HEADWAY_DATABASE_URL run headway serve and headway worker"
        raise SettingsError(msg)
    if "auth" not in settings.model_fields_set:
        settings = settings.model_copy(update={"auth": "none"})
    serve.check_exposure(settings)
    load_sources(settings.config)  # what is wrong there is told before anything starts
    directory = targets.data_dir(settings)
    listening = serve.listen(settings.host, settings.port)
    with (
        listening,
        serve.metrics_dir(settings) as metrics,
        EmbeddedServer(
            directory, bin_dir=settings.pg_bin, os_user=settings.pg_os_user, port=settings.pg_port
        ) as server,
    ):
        running = read_running(directory)
        if running is None:
            msg = f"PostgreSQL ended as soon as it had started; see {directory / 'postgres.log'}"
            raise EmbeddedServerError(msg)
        before, after = bootstrap.prepare(running, directory)
        if before != after:
            _say(f"schema at {after}")
        url = bootstrap.role_url(running, directory, APP)
        if demo:
            _load_demo(url, serve.base_url(settings, listening))
        children = [*serve.children(settings, listening, url, metrics), _worker(settings, url)]
        _greet(settings, serve.base_url(settings, listening), directory)
        return Supervisor(children, watch={"PostgreSQL": server.process.poll}).run()


def _worker(settings: Settings, url: str) -> Child:
    argv = [sys.executable, "-m", "headway", "worker", "--supervised"]
    return Child("worker", argv, serve.child_environment(settings, url), stop_timeout_seconds=15)


def _load_demo(url: str, base: str) -> None:
    from headway import demo

    asyncio.run(demo.load(url, say=_say, api=f"{base}/api/v1"))


def _greet(settings: Settings, base: str, directory: Path) -> None:
    lines = [
        f"Headway is up on {base}",
        "",
        f"  API and its pages   {base}/docs",
        f"  what is failing     curl {base}/api/v1/health/failing",
        f"  send a run          see README.md, or POST {base}/api/v1/runs/batch?register=true",
        f"  OpenLineage         OPENLINEAGE_URL={base}",
        f"  data                {directory}",
    ]
    if settings.auth == "keys":
        lines.append("  keys are on         headway keys create NAME --scope ingest,read,admin")
    else:
        lines.append("  keys are off        for this machine alone; HEADWAY_AUTH=keys turns them on")
    _say("\n".join([*lines, "", "Ctrl-C stops it."]))


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201 - what the command tells whoever started it
