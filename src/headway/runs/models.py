"""The tables of runs and of their history.

Hot: the keys begin with ``pipeline_id``, no trigger and no foreign key of the history stands in the way, and each
index names the query that it serves (``docs/decisions/0005-indexes-and-keys.md`` has what each costs).
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from headway.clients.models import CODE_POINT_ORDER
from headway.core.db import Base, one_of
from headway.runs.observation import Status

_TIME = TIMESTAMP(timezone=True)
_STATUSES = one_of("status", tuple(status.value for status in Status))

RUN_AT = "coalesce(started_at, finished_at, observed_at, least(scheduled_for, created_at))"

runs = Table(
    "runs",
    Base.metadata,
    Column("pipeline_id", Uuid, ForeignKey("pipelines.id"), nullable=False, comment="The pipeline that ran"),
    Column("external_run_id", CODE_POINT_ORDER, nullable=False, comment="The source's identity of the run"),
    Column("id", Uuid, nullable=False, comment="Our identity of the run"),
    Column(
        "run_at",
        _TIME,
        Computed(RUN_AT, persisted=True),
        nullable=False,
        comment="The run's time: lists, windows and latest go by (run_at, id)",
    ),
    Column("observed_at", _TIME, comment="The source's time of the report that decides the status"),
    Column("scheduled_for", _TIME, comment="When it was to start"),
    Column("started_at", _TIME, comment="When the current attempt started"),
    Column("finished_at", _TIME, comment="When the current attempt ended"),
    Column("created_at", _TIME, nullable=False, comment="When we first heard of it"),
    Column("updated_at", _TIME, nullable=False, comment="When what we know of it last changed"),
    Column("rows_processed", BigInteger, comment="Rows processed by the current attempt"),
    Column("attempt", Integer, nullable=False, comment="Which try this is, from 1"),
    Column("status", Text, nullable=False, comment="queued, running, success, failed, canceled or skipped"),
    Column("status_reason", Text, comment="What the source calls its status"),
    Column("source", Text, nullable=False, comment="The door or source whose report decides the status"),
    Column("rank", LargeBinary, nullable=False, comment="Place of that report in the order of all reports"),
    Column("error_message", Text, comment="Latest error told; shown while the status is failed, canceled or skipped"),
    Column("error_rank", LargeBinary, comment="Rank of the report that told it, where it is not the deciding one"),
    Column("url", Text, comment="The run's page on its platform"),
    Column("url_rank", LargeBinary, comment="Rank of the report that told it, where it is not the deciding one"),
    Column("payload", JSONB(none_as_null=True), comment="Further facts from the source, redacted"),
    Column("payload_rank", LargeBinary, comment="Rank of the report that told it, where it is not the deciding one"),
    PrimaryKeyConstraint("pipeline_id", "external_run_id"),
    CheckConstraint(_STATUSES, name="status"),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint("rows_processed >= 0", name="rows_processed"),
    CheckConstraint("char_length(external_run_id) BETWEEN 1 AND 512", name="external_run_id"),
    CheckConstraint("finished_at IS NULL OR status NOT IN ('queued', 'running')", name="finished_at"),
    # a run by our own id
    Index("ix_runs_id", "id"),
    # a pipeline's latest run, its pages, its windows; health reads per pipeline, which walk it by status alone
    Index("ix_runs_pipeline_id_run_at", "pipeline_id", "run_at", "id", postgresql_include=["status"]),
    # pages and windows of the fleet
    Index("ix_runs_run_at", "run_at", "id"),
    # pages by a rare status (the common one is found by the two above); failing, streaks
    Index(
        "ix_runs_pipeline_id_rare",
        "pipeline_id",
        "status",
        "run_at",
        "id",
        postgresql_where=text("status <> 'success'"),
    ),
    # pages of the fleet by a rare status
    Index("ix_runs_rare", "status", "run_at", "id", postgresql_where=text("status <> 'success'")),
    # attempts that a later one superseded: their ends stand in the history alone
    Index("ix_runs_reattempted", "pipeline_id", "updated_at", postgresql_where=text("attempt > 1")),
    comment="One row a run: the join of all reports ever received of it",
)

run_events = Table(
    "run_events",
    Base.metadata,
    Column("pipeline_id", Uuid, nullable=False, comment="The pipeline that ran"),
    Column("external_run_id", CODE_POINT_ORDER, nullable=False, comment="The source's identity of the run"),
    Column("attempt", Integer, nullable=False, comment="Which try, from 1"),
    Column("status", Text, nullable=False, comment="The status that this attempt was seen in"),
    Column("occurred_at", _TIME, comment="Earliest time at which the source saw it so"),
    Column("last_occurred_at", _TIME, comment="Latest time at which the source saw it so"),
    Column("started_at", _TIME, comment="Earliest start told by these reports"),
    Column("finished_at", _TIME, comment="Latest end told by these reports"),
    Column("recorded_at", _TIME, nullable=False, comment="When we first learned of it"),
    Column("source", Text, nullable=False, comment="The door or source of the earliest report"),
    Column("error_message", Text, comment="Error of the greatest report that tells one"),
    Column("error_rank", LargeBinary, comment="Rank of that report"),
    PrimaryKeyConstraint("pipeline_id", "external_run_id", "attempt", "status"),
    CheckConstraint(_STATUSES, name="status"),
    comment="History: each status that each attempt of a run was seen in",
)
