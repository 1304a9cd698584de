"""What operators ask the service itself: is it alive, is it ready, what does it count."""

import sqlalchemy as sa
from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response

from headway.access.gate import Caller, router
from headway.connectors import exposition as source_exposition
from headway.core import clock
from headway.core.errors import HeadwayError, UnavailableError
from headway.core.metrics import exposition_of
from headway.health import exposition
from headway.migrations import runner

_open = APIRouter(tags=["operations"])
_kept = router("operations", prefix="")


@_open.head("/healthz", include_in_schema=False)
@_open.get("/healthz")
async def healthz() -> JSONResponse:
    """Tell that the process is alive."""
    return JSONResponse({"status": "alive"})


@_open.head("/readyz", include_in_schema=False)
@_open.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Tell whether the database can be reached and its schema is current; 503 with the reason where not."""
    try:
        async with request.app.state.database.transaction() as connection:
            found = await _schema_revision(connection)
    except HeadwayError as error:
        raise UnavailableError(error.detail, code="not_ready") from None
    if found != runner.head():
        raise UnavailableError("the schema is not current; run: headway migrate", code="not_ready")
    return JSONResponse({"status": "ready", "schema": found})


async def _schema_revision(connection: AsyncConnection) -> str | None:
    """Return the revision that the schema is at; None before the first migration."""
    if (await connection.execute(sa.text("SELECT to_regclass('public.alembic_version')"))).scalar() is None:
        return None
    return (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()


@_kept.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, caller: Caller) -> Response:
    """Return metrics in Prometheus' text format; a bound key is shown its own client's alone."""
    state = request.app.state
    own = b"" if caller.client_id is not None else state.metrics.exposition()
    async with state.database.transaction() as connection:
        families = [
            *await exposition.pipelines(connection, client_id=caller.client_id),
            *await source_exposition.sources(connection, client_slug=caller.client_slug, now=clock.now()),
        ]
    return Response(own + exposition_of(families), media_type="text/plain; version=0.0.4; charset=utf-8")


routes = APIRouter()
routes.include_router(_open)
routes.include_router(_kept)
