"""The table of alert rules."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from headway.core.db import Base, one_of

CHANNELS = ("email", "slack", "webhook", "apprise")

# What each kind of rule takes: (threshold, window_minutes).
RULE_TYPES = {
    "on_failure": (False, False),
    "consecutive_failures": (True, False),
    "failures_in_window": (True, True),
    "failure_rate": (True, True),
}


def _parameters(column: str, place: int) -> str:
    """Return the condition that a parameter stands just where its kind of rule takes it."""
    kinds = tuple(kind for kind, takes in RULE_TYPES.items() if takes[place])
    return f"({column} IS NOT NULL) = ({one_of('rule_type', kinds)})"


class AlertRule(Base):
    """When to tell whom."""

    __tablename__ = "alert_rules"
    __table_args__ = (
        CheckConstraint("client_id IS NOT NULL OR pipeline_id IS NOT NULL", name="scope"),
        CheckConstraint(one_of("rule_type", tuple(RULE_TYPES)), name="rule_type"),
        CheckConstraint(one_of("channel", CHANNELS), name="channel"),
        CheckConstraint(_parameters("threshold", 0), name="threshold_given"),
        CheckConstraint(_parameters("window_minutes", 1), name="window_given"),
        CheckConstraint("threshold >= 1 AND (rule_type <> 'failure_rate' OR threshold <= 100)", name="threshold"),
        CheckConstraint("window_minutes BETWEEN 1 AND 44640", name="window_minutes"),
        # two active rules never tell the same thing to the same place; the pipeline is the scope where both are set
        Index(
            "uq_alert_rules_active",
            text("coalesce(pipeline_id, client_id)"),
            "rule_type",
            "channel",
            "destination",
            unique=True,
            postgresql_where=text("is_enabled"),
        ),
        {"comment": "When to tell whom about what"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Identity")
    client_id: Mapped[UUID | None] = mapped_column(ForeignKey("clients.id"), comment="All pipelines of this client")
    pipeline_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("pipelines.id"), comment="This pipeline alone; wins where both are set"
    )
    rule_type: Mapped[str] = mapped_column(Text, comment="What is watched for")
    threshold: Mapped[float | None] = mapped_column(Double, comment="How many failures, or percent for failure_rate")
    window_minutes: Mapped[int | None] = mapped_column(comment="How far back is counted")
    channel: Mapped[str] = mapped_column(Text, comment="How to tell: email, slack, webhook or apprise")
    destination: Mapped[str] = mapped_column(
        Text, comment="Whom to tell: an address, a plain URL or @name of the configuration"
    )
    is_enabled: Mapped[bool] = mapped_column(server_default=text("true"), comment="False while switched off")
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was made")
    updated_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was last changed")
