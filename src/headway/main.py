"""Puts the service together: the only place where routers, handlers and lifespan are wired.

``create_app`` is called by the API processes (``serve.py``) and by the tests, with the settings and the database's
URL; it makes no decision of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from headway import __version__, openapi
from headway.access import gate
from headway.access import service as access
from headway.access.service import KeyRing
from headway.alerts.routes import routes as alert_routes
from headway.clients.routes import routes as client_routes
from headway.connectors.routes import routes as source_routes
from headway.core import clock, docs_page, problems
from headway.core.body import InFlight
from headway.core.db import Database
from headway.core.locality import LocalOnlyMiddleware
from headway.core.metrics import Metrics
from headway.core.middleware import RequestMiddleware
from headway.health.routes import routes as health_routes
from headway.ingest.routes import lineage
from headway.operations import routes as operation_routes
from headway.pipelines.routes import routes as pipeline_routes
from headway.runs import sql
from headway.runs.routes import routes as run_routes
from headway.runs.shared_writer import SharedWriter
from headway.settings import Settings

DESCRIPTION = "Sees and trusts every run of every data pipeline, on any platform."


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """Return the service on a database."""
    app = FastAPI(
        title="Headway",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=_operation_id,
    )
    state = app.state
    state.settings = settings
    state.database = Database(
        database_url,
        pool_size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        on_connect=sql.STAGING,
    )
    state.key_ring = KeyRing(state.database)
    state.shared_writer = SharedWriter(state.database)
    state.in_flight = InFlight(settings.max_bytes_in_flight)
    state.metrics = Metrics(shared_dir=None if settings.metrics_dir is None else str(settings.metrics_dir))
    for routes in (client_routes, pipeline_routes, run_routes, alert_routes, health_routes, source_routes):
        app.include_router(routes)
    app.include_router(lineage)
    app.include_router(operation_routes)
    problems.install(app, admit=gate.admit_unmatched)
    docs_page.install(app)
    openapi.install(app)
    if settings.auth == "none":
        app.add_middleware(LocalOnlyMiddleware)
    app.add_middleware(RequestMiddleware)
    return app


def _operation_id(route: Any) -> str:
    return str(route.name)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    key = app.state.settings.bootstrap_key
    if key is not None:
        async with app.state.database.transaction() as connection:
            await access.ensure_bootstrap_key(connection, key=key.get_secret_value(), now=clock.now())
    yield
    await app.state.shared_writer.drained()
    await app.state.database.dispose()
