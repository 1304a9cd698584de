"""The push doors: each protocol's requests become observations, stored by the shared writer."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Path, Request, Response

from headway.access.gate import Caller, needs, router
from headway.access.principal import Principal, Scope
from headway.clients.service import UnknownClientError
from headway.core import body, clock, json_text, validation
from headway.core.errors import BadRequestError, ConflictError, InvalidInputError, Issue
from headway.ingest import openlineage
from headway.pipelines import registry
from headway.runs.observation import RunObservation
from headway.runs.writer import Submission

EVENT_BYTES = 8 * 1024 * 1024

lineage = router("push doors", prefix="")

_EVENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
Client = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]


@lineage.post("/api/v1/lineage", openapi_extra=needs(Scope.INGEST, **_EVENT), status_code=200)
async def post_lineage(request: Request, caller: Caller) -> Response:
    """Take one OpenLineage event; events that tell of no run are accepted and make none."""
    return await _take_lineage(request, caller, caller.client_slug or registry.DEFAULT_CLIENT)


@lineage.post("/in/{client}/api/v1/lineage", openapi_extra=needs(Scope.INGEST, **_EVENT), status_code=200)
async def post_client_lineage(request: Request, client: Client, caller: Caller) -> Response:
    """Take one OpenLineage event for a client, for `OPENLINEAGE_URL=http://hub/in/{client}/`."""
    if caller.client_slug not in (None, client):
        raise UnknownClientError
    return await _take_lineage(request, caller, client)


async def _take_lineage(request: Request, caller: Principal, client: str) -> Response:
    state = request.app.state
    with body.Reservation(state.in_flight) as held:
        document = await body.read(request, limit=EVENT_BYTES, reservation=held)
        if validation.is_too_deep(document):
            raise BadRequestError(f"the body is nested beyond {validation.MAX_DEPTH} levels", code="too_deep")
        event = json_text.decode(document)
        if not isinstance(event, dict):
            raise InvalidInputError("an event is an object", issues=[Issue("", "invalid_type", "must be an object")])

        def observe(now: Any) -> list[RunObservation]:
            return openlineage.map_event(
                event, client=client, now=now, keep_tasks=state.settings.openlineage_keep_tasks
            )

        await _store(request, caller, openlineage.SOURCE, observe)
    return Response(status_code=200)


async def _store(
    request: Request, caller: Principal, source: str, observe: Callable[[Any], list[RunObservation]]
) -> None:
    """Store what a door saw; returns after the commit.

    Raises:
        UnknownClientError: the client does not exist and this caller may not make it.
    """
    for observation in observe(clock.now()):
        submission = Submission(caller, register=True)
        submission.add(observation)
        try:
            stored = await request.app.state.shared_writer.submit(submission)
        except ConflictError:  # the inventory was edited under a registration: once more, on what it is now
            stored = await request.app.state.shared_writer.submit(submission)
        metrics = request.app.state.metrics
        if not openlineage.is_known_word(observation.status_reason):
            metrics.unknown_words.labels(source).inc()
        lag_seconds = submission.lag_seconds(clock.now())
        metrics.count_observations(source, stored.outcome.counts(), lag_seconds=lag_seconds)
        if stored.outcome.refused:
            raise UnknownClientError
