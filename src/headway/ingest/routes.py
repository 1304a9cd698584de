"""The push doors: each protocol's requests become observations, stored by the shared writer."""

from typing import Annotated

from fastapi import Path, Request, Response

from headway.access.gate import Caller, needs, router
from headway.access.principal import Principal, Scope
from headway.clients import queries as clients
from headway.clients import service as clients_service
from headway.clients.service import UnknownClientError
from headway.core import body, clock, json_text, validation
from headway.core.errors import ConflictError, InvalidInputError, Issue
from headway.ingest import openlineage
from headway.pipelines import registry
from headway.runs.observation import RunObservation
from headway.runs.writer import Submission

# Parsed in one piece: a larger event would hold the event loop for longer than anybody should wait.
EVENT_BYTES = 2 * 1024 * 1024

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
    async with request.app.state.database.session() as session:
        known = await clients.find_client(session, client=clients_service.reference(client))
    may_make = caller.may_make_clients or client == registry.DEFAULT_CLIENT
    if known is None and (not may_make or validation.UUID_PATTERN.fullmatch(client)):
        raise UnknownClientError
    slug = client if known is None else known.slug
    if caller.client_slug not in (None, slug):
        raise UnknownClientError
    return await _take_lineage(request, caller, slug)


async def _take_lineage(request: Request, caller: Principal, client: str) -> Response:
    state = request.app.state
    with body.Reservation(state.in_flight) as held:
        document = await body.read(request, limit=EVENT_BYTES, reservation=held)
        json_text.check_depth(document)
        event = json_text.decode(document)
        if not isinstance(event, dict):
            raise InvalidInputError("an event is an object", issues=[Issue("", "invalid_type", "must be an object")])
        keep_tasks = state.settings.openlineage_keep_tasks
        for observation in openlineage.map_event(event, client=client, now=clock.now(), keep_tasks=keep_tasks):
            if not openlineage.is_known_word(observation.status_reason):
                state.metrics.unknown_words.labels(openlineage.SOURCE).inc()
            await _store(request, caller, openlineage.SOURCE, observation)
    return Response(status_code=200)


async def _store(request: Request, caller: Principal, source: str, observation: RunObservation) -> None:
    """Store what a door saw; returns after the commit.

    Raises:
        UnknownClientError: the client does not exist and this caller may not make it.
    """
    state = request.app.state
    submission = Submission(caller, register=True)
    submission.add(observation)
    try:
        stored = await state.shared_writer.submit(submission)
    except ConflictError:  # the inventory was edited under a registration: once more, on what it is now
        stored = await state.shared_writer.submit(submission)
    lag_seconds = submission.lag_seconds(clock.now())
    state.metrics.count_observations(source, stored.outcome.counts(), lag_seconds=lag_seconds)
    if stored.outcome.refused:
        raise UnknownClientError
