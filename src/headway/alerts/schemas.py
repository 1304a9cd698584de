"""What the API takes and shows of alert rules."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from headway.core.validation import UtcTime, Uuid, Wire

RuleType = Literal["on_failure", "consecutive_failures", "failures_in_window", "failure_rate"]
Channel = Literal["email", "slack", "webhook", "apprise"]

_THRESHOLD = "failures; for failure_rate percent, 1 to 100; not for on_failure"
_WINDOW = "how far back is counted; for failures_in_window and failure_rate alone"
_DESTINATION = "an e-mail address, a plain https:// URL (webhook), or @name of a destination in the configuration"


class NewAlertRule(Wire):
    """An alert rule to make."""

    client_id: Uuid | None = Field(None, description="all pipelines of this client")
    pipeline_id: Uuid | None = Field(None, description="this pipeline; wins where both are set")
    rule_type: RuleType
    threshold: float | None = Field(None, ge=1, le=1_000_000, allow_inf_nan=False, description=_THRESHOLD)
    window_minutes: int | None = Field(None, ge=1, le=44_640, description=_WINDOW)
    channel: Channel
    destination: str = Field(min_length=1, max_length=2000, description=_DESTINATION)
    is_enabled: bool | None = None


class AlertRuleChanges(Wire):
    """What to change of an alert rule: what is absent stays; null empties threshold and window_minutes."""

    rule_type: RuleType | None = None
    threshold: float | None = Field(None, ge=1, le=1_000_000, allow_inf_nan=False, description=_THRESHOLD)
    window_minutes: int | None = Field(None, ge=1, le=44_640, description=_WINDOW)
    channel: Channel | None = None
    destination: str | None = Field(None, min_length=1, max_length=2000, description=_DESTINATION)
    is_enabled: bool | None = None


class AlertRuleView(BaseModel):
    """An alert rule."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    client_id: UUID | None
    pipeline_id: UUID | None
    rule_type: RuleType
    threshold: float | None
    window_minutes: int | None
    channel: Channel
    destination: str
    is_enabled: bool
    created_at: UtcTime
    updated_at: UtcTime
