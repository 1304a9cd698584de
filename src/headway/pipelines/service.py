"""Makes, changes and deactivates pipelines; keeps ``next_due_at`` right on every edit of a schedule."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from headway.access.principal import Principal
from headway.core import clock, ids
from headway.core.errors import NotFoundError
from headway.core.text import slugify
from headway.pipelines import queries
from headway.pipelines import schedule as rules
from headway.pipelines.models import Pipeline
from headway.pipelines.schemas import NewPipeline, PipelineChanges, PutPipeline, Schedule

# What a pipeline is where nothing is said, and what null empties.
DEFAULTS: dict[str, Any] = {"pipeline_type": "other", "environment": "prod", "tags": [], "is_active": True}
NULLABLE = {"description", "url", "owner", "schedule", "success_target", "external_id"}


class UnknownPipelineError(NotFoundError):
    """Pipeline not found."""

    code = "pipeline_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such pipeline")


async def get_pipeline(
    session: AsyncSession, *, pipeline_id: UUID, principal: Principal, lock: bool = False
) -> Pipeline:
    """Return a pipeline.

    Raises:
        UnknownPipelineError: there is none that this caller may see.
    """
    found = await queries.find_pipeline(session, pipeline_id=pipeline_id, client_id=principal.client_id, lock=lock)
    if found is None:
        raise UnknownPipelineError
    return found


async def create_pipeline(session: AsyncSession, *, client_id: UUID, new: NewPipeline) -> Pipeline:
    """Store a new pipeline.

    Raises:
        ConflictError: its slug, name or external_id is taken.
    """
    slug = new.slug or await _free_slug(session, client_id, new)
    return await _insert(session, client_id, _values(new) | {"slug": slug})


async def _free_slug(session: AsyncSession, client_id: UUID, new: NewPipeline) -> str:
    """Return a slug for the name; with the platform and a number where a namesake on another platform has it."""
    base = slugify(new.name, "pipeline")
    longer = f"{base[:60]}-{slugify(new.platform, 'platform')[:34]}"
    choices = [base, longer, *(f"{longer}-{number}" for number in range(2, 100))]
    return await queries.find_free_slug(session, client_id=client_id, choices=choices) or base


async def put_pipeline(
    session: AsyncSession, *, client_id: UUID, slug: str, wanted: PutPipeline
) -> tuple[Pipeline, bool]:
    """Make a client's pipeline of this slug just what is wanted; returns it and whether it is new.

    Raises:
        ConflictError: its name or external_id is another's.
    """
    values = dict.fromkeys(NULLABLE) | _values(wanted)
    found = await queries.find_by_slug(session, client_id=client_id, slug=slug)
    if found is None:
        return await _insert(session, client_id, values | {"slug": slug}), True
    return await _update(session, found, values), False


async def change_pipeline(session: AsyncSession, *, pipeline: Pipeline, changes: PipelineChanges) -> Pipeline:
    """Apply changes: what is absent stays, null empties what can be empty.

    Raises:
        ConflictError: its slug, name or external_id is another's.
    """
    given = {name: _stored(getattr(changes, name)) for name in changes.model_fields_set}
    values = {name: value for name, value in given.items() if value is not None or name in NULLABLE}
    return await _update(session, pipeline, values)


async def deactivate_pipeline(session: AsyncSession, *, pipeline: Pipeline) -> Pipeline:
    """Take a pipeline out of health and the standard lists; it still takes its runs."""
    return await _update(session, pipeline, {"is_active": False})


def _values(body: BaseModel) -> dict[str, Any]:
    """Return what a body says of a pipeline, with the defaults for what it leaves out."""
    said = {name: _stored(getattr(body, name)) for name in type(body).model_fields}
    return DEFAULTS | {name: value for name, value in said.items() if value is not None}


def _stored(value: Any) -> Any:
    return value.stored() if isinstance(value, Schedule) else value


async def _insert(session: AsyncSession, client_id: UUID, values: dict[str, Any]) -> Pipeline:
    now = clock.now()
    pipeline = Pipeline(
        id=ids.new_id(), client_id=client_id, ping_uuid=uuid4(), created_at=now, updated_at=now, **values
    )
    pipeline.next_due_at = _next_due(pipeline, now)
    session.add(pipeline)
    await session.flush()
    return pipeline


async def _update(session: AsyncSession, pipeline: Pipeline, values: dict[str, Any]) -> Pipeline:
    changed = {name: value for name, value in values.items() if getattr(pipeline, name) != value}
    for name, value in changed.items():
        setattr(pipeline, name, value)
    if changed:
        pipeline.updated_at = clock.now()
    if changed.keys() & {"schedule", "is_active"}:
        pipeline.next_due_at = _next_due(pipeline, pipeline.updated_at)
    await session.flush()
    return pipeline


def _next_due(pipeline: Pipeline, now: datetime) -> datetime | None:
    """Return when the next run is expected after an edit: nothing is late for a schedule that just began."""
    if pipeline.schedule is None or not pipeline.is_active:
        return None
    return rules.next_due(pipeline.schedule, now)
