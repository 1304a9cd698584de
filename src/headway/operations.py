"""What operators ask the service itself: is it alive, is it ready, what does it count."""

import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from headway.access.gate import Caller, router
from headway.core.errors import HeadwayError, UnavailableError
from headway.health import exposition
from headway.migrations import runner

_open = APIRouter(tags=["operations"])
_kept = router("operations", prefix="")


@_open.get("/healthz")
async def healthz() -> JSONResponse:
    """Tell that the process is alive."""
    return JSONResponse({"status": "alive"})


@_open.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Tell whether the database can be reached and its schema is current; 503 with the reason where not."""
    try:
        async with request.app.state.database.transaction() as connection:
            found = (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
    except HeadwayError as error:
        raise UnavailableError(error.detail, code="not_ready") from None
    except sa.exc.ProgrammingError:
        found = None
    if found != runner.head():
        raise UnavailableError("the schema is not current; run: headway migrate", code="not_ready")
    return JSONResponse({"status": "ready", "schema": found})


@_kept.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, caller: Caller) -> Response:
    """Return metrics in Prometheus' text format; a bound key is shown its own client's pipelines alone."""
    state = request.app.state
    state.metrics.waiting.set(state.shared_writer.waiting)
    state.metrics.bytes_in_flight.set(state.in_flight.held)
    own = b"" if caller.client_id is not None else state.metrics.exposition()
    async with state.database.transaction() as connection:
        pipelines = await exposition.pipelines(connection, client_id=caller.client_id)
    return Response(own + pipelines, media_type="text/plain; version=0.0.4; charset=utf-8")


routes = APIRouter()
routes.include_router(_open)
routes.include_router(_kept)
