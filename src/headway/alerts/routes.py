"""The API of alert rules: they are kept here, the alert engine evaluates them."""

from datetime import datetime
from uuid import UUID

from fastapi import Response

from headway.access.gate import Caller, router
from headway.alerts import queries, service
from headway.alerts.models import AlertRule
from headway.alerts.queries import RuleFilter
from headway.alerts.schemas import AlertRuleChanges, AlertRuleView, NewAlertRule, RuleType
from headway.clients import service as clients
from headway.core import paging
from headway.core.db import Session
from headway.core.paging import Cursor, Limit, Page
from headway.core.validation import FilterText, Uuid
from headway.pipelines import service as pipelines

routes = router("alert rules")


@routes.post("/alert_rules", status_code=201)
async def create_alert_rule(new: NewAlertRule, session: Session, caller: Caller) -> AlertRuleView:
    """Make an alert rule for a client's pipelines or for one pipeline."""
    return AlertRuleView.model_validate(await service.create_rule(session, new=new, principal=caller))


@routes.get("/alert_rules")
async def list_alert_rules(
    session: Session,
    caller: Caller,
    client: FilterText = None,
    pipeline: Uuid | None = None,
    rule_type: RuleType | None = None,
    is_enabled: bool | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[AlertRuleView]:
    """List alert rules by created_at, then id; `client` finds those of its pipelines too, `pipeline` its own alone."""
    client_id = None
    if client is not None:
        client_id = (await clients.get_client(session, client=client, principal=caller)).id
    if pipeline is not None:
        await pipelines.get_pipeline(session, pipeline_id=pipeline, principal=caller)
    narrowed = RuleFilter(client_id, pipeline, rule_type, is_enabled)
    asked = paging.question("alert_rules", **narrowed._asdict())
    after = paging.decode(cursor, asked, (datetime, UUID))
    rows = await queries.list_rules(
        session,
        narrowed=narrowed,
        bound_to=caller.client_id,
        after=None if after is None else (after[0], after[1]),
        limit=limit + 1,
    )

    def key(rule: AlertRule) -> tuple[datetime, UUID]:
        return rule.created_at, rule.id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=AlertRuleView.model_validate)


@routes.get("/alert_rules/{rule_id}")
async def get_alert_rule(rule_id: Uuid, session: Session, caller: Caller) -> AlertRuleView:
    """Return an alert rule."""
    return AlertRuleView.model_validate(await service.get_rule(session, rule_id=rule_id, principal=caller))


@routes.patch("/alert_rules/{rule_id}")
async def change_alert_rule(
    rule_id: Uuid, changes: AlertRuleChanges, session: Session, caller: Caller
) -> AlertRuleView:
    """Change an alert rule: what is absent stays."""
    found = await service.get_rule(session, rule_id=rule_id, principal=caller, lock=True)
    return AlertRuleView.model_validate(await service.change_rule(session, rule=found, changes=changes))


@routes.delete("/alert_rules/{rule_id}", status_code=204)
async def delete_alert_rule(rule_id: Uuid, session: Session, caller: Caller) -> Response:
    """Remove an alert rule."""
    await session.delete(await service.get_rule(session, rule_id=rule_id, principal=caller, lock=True))
    return Response(status_code=204)
