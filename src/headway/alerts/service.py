"""Makes, changes and removes alert rules."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from headway.access.principal import Principal
from headway.alerts import queries, rules
from headway.alerts.models import AlertRule
from headway.alerts.schemas import AlertRuleChanges, NewAlertRule
from headway.clients import queries as clients
from headway.core import clock, ids
from headway.core.errors import InvalidInputError, Issue, NotFoundError
from headway.pipelines import queries as pipelines

_NULLABLE = {"threshold", "window_minutes"}


class UnknownRuleError(NotFoundError):
    """Alert rule not found."""

    code = "alert_rule_not_found"


async def get_rule(session: AsyncSession, *, rule_id: UUID, principal: Principal, lock: bool = False) -> AlertRule:
    """Return a rule.

    Raises:
        UnknownRuleError: there is none that this caller may see.
    """
    found = await queries.find_rule(session, rule_id=rule_id, client_id=principal.client_id, lock=lock)
    if found is None:
        raise UnknownRuleError("there is no such alert rule")
    return found


async def create_rule(session: AsyncSession, *, new: NewAlertRule, principal: Principal) -> AlertRule:
    """Store a new rule.

    Raises:
        InvalidInputError: its scope is unknown, or its parameters or destination do not fit.
        ConflictError: an active rule tells the same to the same place.
    """
    now = clock.now()
    values = new.model_dump(exclude={"is_enabled"})
    rule = AlertRule(id=ids.new_id(), is_enabled=new.is_enabled is not False, created_at=now, updated_at=now, **values)
    _refuse(await _scope_issues(session, new, principal) + _issues(rule))
    session.add(rule)
    await session.flush()
    return rule


async def change_rule(session: AsyncSession, *, rule: AlertRule, changes: AlertRuleChanges) -> AlertRule:
    """Apply changes: what is absent stays, null empties threshold and window_minutes.

    Raises:
        InvalidInputError: what comes out does not fit together.
        ConflictError: an active rule tells the same to the same place.
    """
    given = {name: getattr(changes, name) for name in changes.model_fields_set}
    with session.no_autoflush:
        for name, value in given.items():
            if (value is not None or name in _NULLABLE) and getattr(rule, name) != value:
                setattr(rule, name, value)
                rule.updated_at = clock.now()
        _refuse(_issues(rule))
    await session.flush()
    return rule


def _issues(rule: AlertRule) -> list[Issue]:
    parameters = rules.check_parameters(rule.rule_type, rule.threshold, rule.window_minutes)
    return parameters + rules.check_destination(rule.channel, rule.destination)


async def _scope_issues(session: AsyncSession, new: NewAlertRule, principal: Principal) -> list[Issue]:
    if new.client_id is None and new.pipeline_id is None:
        return [Issue("/client_id", "missing", "client_id or pipeline_id is required")]
    found = []
    if new.client_id is not None and (
        not principal.sees(new.client_id) or await clients.find_client(session, client=new.client_id) is None
    ):
        found.append(Issue("/client_id", "unknown_client", "is no client"))
    if new.pipeline_id is not None:
        pipeline = await pipelines.find_pipeline(
            session, pipeline_id=new.pipeline_id, client_id=new.client_id or principal.client_id
        )
        if pipeline is None or not principal.sees(pipeline.client_id):
            found.append(Issue("/pipeline_id", "unknown_pipeline", "is no pipeline of this client"))
    return found


def _refuse(issues: list[Issue]) -> None:
    if issues:
        raise InvalidInputError(f"{issues[0].pointer} {issues[0].detail}", issues=issues)
