"""The API of runs: the batch door, one run by hand, lists, the latest, history."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Query, Request, Response

from headway.access.gate import Caller, needs, router
from headway.access.principal import Principal, Scope
from headway.clients.service import UnknownClientError, reference
from headway.core import body, clock, paging
from headway.core.db import Connection
from headway.core.errors import InvalidInputError, NotFoundError, UnsupportedEncodingError
from headway.core.ids import new_id
from headway.core.paging import Cursor, Limit, Page
from headway.core.validation import FilterText, Uuid
from headway.core.windows import OptionalWindow
from headway.pipelines.schemas import Environment
from headway.pipelines.service import UnknownPipelineError
from headway.runs import ingestion, parsing, queries, splitting
from headway.runs.ingestion import Batch
from headway.runs.observation import Status
from headway.runs.parsing import RefusedItem, SingleRun
from headway.runs.queries import RunFilter, RunRow
from headway.runs.schemas import BatchResult, Run, RunEvent
from headway.runs.writer import Submission

routes = router("runs")

_JSON, _NDJSON = "application/json", "application/x-ndjson"
_BATCH_BODY = {
    "required": True,
    "content": {
        _JSON: {"schema": {"$ref": "#/components/schemas/Batch"}},
        _NDJSON: {"schema": {"$ref": "#/components/schemas/Observation"}},
    },
}


class UnknownRunError(NotFoundError):
    """Run not found."""

    code = "run_not_found"


class NoRunsError(NotFoundError):
    """No runs yet."""

    code = "no_runs"


@routes.post("/runs/batch", openapi_extra=needs(Scope.INGEST, requestBody=_BATCH_BODY))
async def post_batch(request: Request, caller: Caller, register: bool = False, atomic: bool = False) -> BatchResult:
    """Take up to 50,000 observations, as JSON or NDJSON, plain, gzip or zstd.

    Valid items are stored, invalid ones are reported; with `atomic` it is all or nothing. With `register` unknown
    pipelines are made from their natural references.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in (_JSON, _NDJSON):
        raise UnsupportedEncodingError(f"Content-Type must be {_JSON} or {_NDJSON}", code="unsupported_media_type")
    state = request.app.state
    batch = Batch(caller, register=register, now=clock.now())
    with body.Reservation(state.in_flight) as held:
        if media == _NDJSON:
            pieces = body.stream(request, limit=splitting.MAX_BYTES, reservation=held)
            await ingestion.take_lines(batch, pieces)
        else:
            document = await body.read(request, limit=splitting.MAX_BYTES, reservation=held)
            await ingestion.take_document(batch, document)
            del document
        result = await ingestion.store(state.database, batch, atomic=atomic)
    lag_seconds = batch.submission.lag_seconds(clock.now())
    counts = result.model_dump(exclude={"received", "errors"})
    state.metrics.count_observations(ingestion.SOURCE, counts, lag_seconds=lag_seconds)
    return result


@routes.post(
    "/pipelines/{pipeline_id}/runs",
    openapi_extra=needs(Scope.INGEST),
    responses={201: {"model": Run, "description": "A new run"}},
)
async def post_run(
    pipeline_id: Uuid,
    run: SingleRun,
    request: Request,
    response: Response,
    caller: Caller,
    idempotency_key: Annotated[FilterText, Header()] = None,
) -> Run:
    """Take one observation of a run: 201 where the run is new, 200 where it was known, with the run as stored."""
    external_run_id = run.external_run_id or idempotency_key or str(new_id())
    observed = parsing.to_observation(
        run, pipeline=pipeline_id, external_run_id=external_run_id, source=ingestion.SOURCE, now=clock.now()
    )
    if isinstance(observed, RefusedItem):
        first = observed.issues[0]
        raise InvalidInputError(f"{first.pointer} {first.detail}", issues=observed.issues)
    submission = Submission(caller)
    submission.add(observed)
    outcome, stored = await request.app.state.shared_writer.submit(submission)
    if stored is None:
        raise UnknownPipelineError
    lag_seconds = submission.lag_seconds(clock.now())
    request.app.state.metrics.count_observations(ingestion.SOURCE, outcome.counts(), lag_seconds=lag_seconds)
    response.status_code = 201 if outcome.inserted else 200
    return Run.of(stored)


class _Narrowing:
    """The filters that both lists of runs take."""

    def __init__(
        self,
        window: OptionalWindow,
        status: Annotated[list[Status] | None, Query(description="repeatable: any of these")] = None,
        external_run_id: FilterText = None,
    ) -> None:
        self.narrowed = RunFilter(
            statuses=tuple(sorted(set(status or ()))),
            since=window.since,
            until=window.until,
            external_run_id=external_run_id,
        )


Narrowing = Annotated[_Narrowing, Depends()]
Order = Annotated[str, Query(pattern="^(asc|desc)$", description="desc: latest first; asc: its exact reverse")]


async def _list(connection: Connection, narrowed: RunFilter, order: str, limit: int, cursor: str | None) -> Page[Run]:
    asked = paging.question("runs", order=order, **narrowed._asdict())
    after = paging.decode(cursor, asked, (datetime, UUID))
    rows = await queries.list_runs(
        connection,
        narrowed=narrowed,
        descending=order == "desc",
        after=None if after is None else (after[0], after[1]),
        limit=limit + 1,
    )

    def key(row: RunRow) -> tuple[datetime, UUID]:
        return row.run_at, row.id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=Run.of)


@routes.get("/runs")
async def list_runs(
    connection: Connection,
    caller: Caller,
    narrowing: Narrowing,
    client: FilterText = None,
    platform: FilterText = None,
    environment: Environment | None = None,
    order: Order = "desc",
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Run]:
    """List runs by run_at, then id, latest first; `since` and `until` are half open on run_at."""
    client_id = caller.client_id
    if client is not None:
        client_id = await queries.find_client(connection, client=reference(client))
        if client_id is None or not caller.sees(client_id):
            raise UnknownClientError
    narrowed = narrowing.narrowed._replace(client_id=client_id, platform=platform, environment=environment)
    return await _list(connection, narrowed, order, limit, cursor)


@routes.get("/pipelines/{pipeline_id}/runs")
async def list_pipeline_runs(
    pipeline_id: Uuid,
    connection: Connection,
    caller: Caller,
    narrowing: Narrowing,
    order: Order = "desc",
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Run]:
    """List a pipeline's runs by run_at, then id, latest first."""
    await _check_pipeline(connection, pipeline_id, caller)
    return await _list(connection, narrowing.narrowed._replace(pipeline_id=pipeline_id), order, limit, cursor)


@routes.get("/pipelines/{pipeline_id}/runs/latest")
async def get_latest_run(pipeline_id: Uuid, connection: Connection, caller: Caller) -> Run:
    """Return a pipeline's latest run; 404 with code `no_runs` before the first."""
    await _check_pipeline(connection, pipeline_id, caller)
    row = await queries.find_latest(connection, pipeline_id=pipeline_id)
    if row is None:
        raise NoRunsError("this pipeline has no runs yet")
    return Run.of(row)


@routes.get("/runs/{run_id}")
async def get_run(run_id: Uuid, connection: Connection, caller: Caller) -> Run:
    """Return a run."""
    return Run.of(await _get_run(connection, run_id, caller))


@routes.get("/runs/{run_id}/events")
async def list_run_events(run_id: Uuid, connection: Connection, caller: Caller) -> list[RunEvent]:
    """Return a run's history: each attempt and the statuses it was seen in, by attempt, then phase."""
    run = await _get_run(connection, run_id, caller)
    return [RunEvent.of(row) for row in await queries.list_events(connection, run=run)]


async def _get_run(connection: Connection, run_id: UUID, caller: Principal) -> RunRow:
    row = await queries.find_run(connection, run_id=run_id, client_id=caller.client_id)
    if row is None:
        raise UnknownRunError("there is no such run")
    return row


async def _check_pipeline(connection: Connection, pipeline_id: UUID, caller: Principal) -> None:
    client_id = await queries.find_pipeline_client(connection, pipeline_id=pipeline_id)
    if client_id is None or not caller.sees(client_id):
        raise UnknownPipelineError
