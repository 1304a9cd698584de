"""The API of pipelines."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from headway.access.gate import Caller, router
from headway.access.principal import Principal
from headway.clients import service as clients
from headway.core import paging
from headway.core.db import Session
from headway.core.paging import Cursor, Limit, Page
from headway.core.validation import FilterText, Slug, Uuid
from headway.pipelines import queries, service
from headway.pipelines.models import Pipeline
from headway.pipelines.queries import PipelineFilter
from headway.pipelines.schemas import (
    Environment,
    NewPipeline,
    PipelineChanges,
    PipelineType,
    PipelineView,
    PutPipeline,
)

routes = router("pipelines")


class _Filters:
    """The filters that both lists of pipelines take."""

    def __init__(
        self,
        platform: FilterText = None,
        pipeline_type: PipelineType | None = None,
        environment: Environment | None = None,
        tag: FilterText = None,
        external_id: FilterText = None,
        slug: FilterText = None,
        is_active: bool = True,
        q: Annotated[FilterText, Query(description="name contains, whatever the case")] = None,
    ) -> None:
        self.narrowed = PipelineFilter(None, platform, pipeline_type, environment, tag, external_id, slug, q, is_active)


Filters = Annotated[_Filters, Depends()]


async def _list(
    session: AsyncSession, caller: Principal, narrowed: PipelineFilter, limit: int, cursor: str | None
) -> Page[PipelineView]:
    asked = paging.question("pipelines", **narrowed._asdict())
    after = paging.decode(cursor, asked, (str, UUID))
    rows = await queries.list_pipelines(
        session, narrowed=narrowed, after=None if after is None else (after[0], after[1]), limit=limit + 1
    )

    def key(pipeline: Pipeline) -> tuple[str, UUID]:
        return pipeline.name, pipeline.id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=lambda p: PipelineView.of(p, caller))


@routes.post("/clients/{client}/pipelines", status_code=201)
async def create_pipeline(client: str, new: NewPipeline, session: Session, caller: Caller) -> PipelineView:
    """Make a pipeline of a client."""
    owner = await clients.get_client(session, client=client, principal=caller, lock=True)
    return PipelineView.of(await service.create_pipeline(session, client_id=owner.id, new=new), caller)


@routes.get("/clients/{client}/pipelines")
async def list_client_pipelines(
    client: str,
    session: Session,
    caller: Caller,
    filters: Filters,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[PipelineView]:
    """List a client's pipelines by name in code-point order, then id."""
    owner = await clients.get_client(session, client=client, principal=caller)
    return await _list(session, caller, filters.narrowed._replace(client_id=owner.id), limit, cursor)


@routes.get("/pipelines")
async def list_pipelines(
    session: Session,
    caller: Caller,
    filters: Filters,
    client: FilterText = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[PipelineView]:
    """List pipelines by name in code-point order, then id."""
    client_id = caller.client_id
    if client is not None:
        client_id = (await clients.get_client(session, client=client, principal=caller)).id
    return await _list(session, caller, filters.narrowed._replace(client_id=client_id), limit, cursor)


@routes.put("/clients/{client}/pipelines/{slug}", responses={201: {"model": PipelineView, "description": "Made"}})
async def put_pipeline(
    client: str,
    slug: Annotated[Slug, Path()],
    wanted: PutPipeline,
    session: Session,
    caller: Caller,
    response: Response,
) -> PipelineView:
    """Make or update a pipeline, for inventories kept as code: 201 for a new one, else 200."""
    owner = await clients.get_client(session, client=client, principal=caller, lock=True)
    pipeline, is_new = await service.put_pipeline(session, client_id=owner.id, slug=slug, wanted=wanted)
    response.status_code = 201 if is_new else 200
    return PipelineView.of(pipeline, caller)


@routes.get("/pipelines/{pipeline_id}")
async def get_pipeline(pipeline_id: Uuid, session: Session, caller: Caller) -> PipelineView:
    """Return a pipeline."""
    return PipelineView.of(await service.get_pipeline(session, pipeline_id=pipeline_id, principal=caller), caller)


@routes.patch("/pipelines/{pipeline_id}")
async def change_pipeline(
    pipeline_id: Uuid, changes: PipelineChanges, session: Session, caller: Caller
) -> PipelineView:
    """Change a pipeline: what is absent stays, null empties what can be empty."""
    found = await service.get_pipeline(session, pipeline_id=pipeline_id, principal=caller, lock=True)
    return PipelineView.of(await service.change_pipeline(session, pipeline=found, changes=changes), caller)


@routes.delete("/pipelines/{pipeline_id}", status_code=204)
async def deactivate_pipeline(pipeline_id: Uuid, session: Session, caller: Caller) -> Response:
    """Deactivate a pipeline: it still takes its runs, but is out of health and standard lists."""
    found = await service.get_pipeline(session, pipeline_id=pipeline_id, principal=caller, lock=True)
    await service.deactivate_pipeline(session, pipeline=found)
    return Response(status_code=204)
