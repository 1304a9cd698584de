"""Every statement on alert rules. The table is small; scopes are looked up in the inventory's indexes."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from headway.alerts.models import AlertRule
from headway.pipelines.models import Pipeline


class RuleFilter(NamedTuple):
    """What a list of rules is narrowed to; None is no matter."""

    client_id: UUID | None = None
    pipeline_id: UUID | None = None
    rule_type: str | None = None
    is_enabled: bool | None = None


def _of_client(client_id: UUID) -> sa.ColumnElement[bool]:
    """Return the condition that a rule is about a client: by itself, or through its pipeline."""
    pipelines = sa.select(Pipeline.id).where(Pipeline.client_id == client_id)
    return sa.or_(AlertRule.client_id == client_id, AlertRule.pipeline_id.in_(pipelines))


async def find_rule(
    session: AsyncSession, *, rule_id: UUID, client_id: UUID | None, lock: bool = False
) -> AlertRule | None:
    """Return a rule, of one client where given, locked for a change if asked. Index: pk_alert_rules."""
    statement = sa.select(AlertRule).where(AlertRule.id == rule_id)
    if client_id is not None:
        statement = statement.where(_of_client(client_id))
    if lock:
        statement = statement.with_for_update()
    return (await session.execute(statement)).scalar_one_or_none()


async def list_rules(
    session: AsyncSession,
    *,
    narrowed: RuleFilter,
    bound_to: UUID | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[AlertRule]:
    """Return a page of rules by created_at, then id."""
    statement = sa.select(AlertRule).order_by(AlertRule.created_at, AlertRule.id).limit(limit)
    for client_id in {narrowed.client_id, bound_to} - {None}:
        assert client_id is not None  # noqa: S101 - taken out above
        statement = statement.where(_of_client(client_id))
    if narrowed.pipeline_id is not None:
        statement = statement.where(AlertRule.pipeline_id == narrowed.pipeline_id)
    if narrowed.rule_type is not None:
        statement = statement.where(AlertRule.rule_type == narrowed.rule_type)
    if narrowed.is_enabled is not None:
        statement = statement.where(AlertRule.is_enabled.is_(narrowed.is_enabled))
    if after is not None:
        place = sa.tuple_(AlertRule.created_at, AlertRule.id)
        statement = statement.where(place > sa.tuple_(*(sa.literal(part) for part in after)))
    return (await session.execute(statement)).scalars().all()
