"""The table of pipelines."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from headway.clients.models import CODE_POINT_ORDER, SLUG_PATTERN
from headway.core.db import Base, one_of

PIPELINE_TYPES = ("ingestion", "transform", "quality", "export", "healthcheck", "other")
ENVIRONMENTS = ("dev", "staging", "prod")


class Pipeline(Base):
    """One job on one platform, of one client."""

    __tablename__ = "pipelines"
    __table_args__ = (
        UniqueConstraint("client_id", "slug"),
        UniqueConstraint("client_id", "environment", "platform", "name"),
        Index(
            # look-up of a pipeline by the platform's own name for it
            "uq_pipelines_client_id_platform_external_id",
            "client_id",
            "platform",
            "external_id",
            unique=True,
            postgresql_where=text("external_id IS NOT NULL"),
        ),
        # the worker's next slots and the late read: pipelines in the order in which they are due
        Index(
            "ix_pipelines_next_due_at", "next_due_at", postgresql_where=text("next_due_at IS NOT NULL AND is_active")
        ),
        CheckConstraint(f"slug ~ '{SLUG_PATTERN}'", name="slug"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 512", name="name"),
        CheckConstraint("platform ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'", name="platform"),
        CheckConstraint(one_of("pipeline_type", PIPELINE_TYPES), name="pipeline_type"),
        CheckConstraint(one_of("environment", ENVIRONMENTS), name="environment"),
        CheckConstraint("char_length(external_id) BETWEEN 1 AND 512", name="external_id"),
        CheckConstraint("schedule IS NULL OR (schedule ? 'cron') <> (schedule ? 'every_seconds')", name="schedule"),
        CheckConstraint("success_target BETWEEN 0 AND 100", name="success_target"),
        {"comment": "Jobs on any platform, each of one client"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Identity")
    client_id: Mapped[UUID] = mapped_column(ForeignKey("clients.id"), comment="Whose pipeline it is; never changes")
    slug: Mapped[str] = mapped_column(CODE_POINT_ORDER, comment="Short name, unique in its client")
    name: Mapped[str] = mapped_column(CODE_POINT_ORDER, comment="Name as the platform shows it")
    platform: Mapped[str] = mapped_column(Text, comment="What runs it: airflow, dbt, cron, … (lower case)")
    pipeline_type: Mapped[str] = mapped_column(Text, server_default="other", comment="What it is for")
    external_id: Mapped[str | None] = mapped_column(CODE_POINT_ORDER, comment="The platform's own identity of it")
    environment: Mapped[str] = mapped_column(Text, server_default="prod", comment="dev, staging or prod")
    description: Mapped[str | None] = mapped_column(Text, comment="What it does")
    url: Mapped[str | None] = mapped_column(Text, comment="Its page on the platform")
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"), comment="Free labels")
    owner: Mapped[str | None] = mapped_column(Text, comment="Who looks after it")
    schedule: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="When runs are expected: {cron, timezone, grace_seconds} or {every_seconds, grace_seconds}",
    )
    success_target: Mapped[float | None] = mapped_column(Double, comment="Wanted success rate in percent")
    is_active: Mapped[bool] = mapped_column(
        server_default=text("true"),
        comment="False once deactivated: still takes runs, is out of health and standard lists",
    )
    ping_uuid: Mapped[UUID] = mapped_column(unique=True, comment="Credential of its ping URL")
    next_due_at: Mapped[datetime | None] = mapped_column(
        TIMESTAMP(timezone=True), comment="Earliest expected start that no run has met yet; kept by the worker"
    )
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was made")
    updated_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was last changed")
