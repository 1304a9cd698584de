"""The core: clients, pipelines, runs and their history, alert rules, API keys, and the schema for reports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA reporting")
    op.execute("COMMENT ON SCHEMA reporting IS 'Stable views for Grafana and Metabase'")
    op.create_table(
        "clients",
        sa.Column("id", sa.Uuid(), nullable=False, comment="Identity"),
        sa.Column("slug", sa.Text(collation="C"), nullable=False, comment="Short name for URLs and configuration"),
        sa.Column("name", sa.Text(collation="C"), nullable=False, comment="Name as people read it"),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="False once deactivated: history stays, standard lists leave it out",
        ),
        sa.Column(
            "tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Free labels"
        ),
        sa.Column("ping_key", sa.Text(), nullable=False, comment="Credential of the client's ping URLs"),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was made"),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was last changed"
        ),
        sa.CheckConstraint("slug ~ '^[a-z0-9][a-z0-9_-]{0,99}$'", name=op.f("ck_clients_slug")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_clients_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("name", name=op.f("uq_clients_name")),
        sa.UniqueConstraint("ping_key", name=op.f("uq_clients_ping_key")),
        sa.UniqueConstraint("slug", name=op.f("uq_clients_slug")),
        comment="Tenants whose pipelines are watched",
    )
    op.create_table(
        "run_events",
        sa.Column("pipeline_id", sa.Uuid(), nullable=False, comment="The pipeline that ran"),
        sa.Column(
            "external_run_id", sa.Text(collation="C"), nullable=False, comment="The source's identity of the run"
        ),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="Which try, from 1"),
        sa.Column("status", sa.Text(), nullable=False, comment="The status that this attempt was seen in"),
        sa.Column(
            "occurred_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Earliest time at which the source saw it so",
        ),
        sa.Column(
            "last_occurred_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Latest time at which the source saw it so",
        ),
        sa.Column(
            "started_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Earliest start told by these reports",
        ),
        sa.Column(
            "finished_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Latest end told by these reports",
        ),
        sa.Column(
            "recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When we first learned of it"
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="The door or source of the earliest report"),
        sa.Column("error_message", sa.Text(), nullable=True, comment="Error of the greatest report that tells one"),
        sa.Column("error_rank", sa.LargeBinary(), nullable=True, comment="Rank of that report"),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'success', 'failed', 'canceled', 'skipped')",
            name=op.f("ck_run_events_status"),
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "external_run_id", "attempt", "status", name=op.f("pk_run_events")),
        comment="History: each status that each attempt of a run was seen in",
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False, comment="Identity"),
        sa.Column("name", sa.Text(), nullable=False, comment="What it is called"),
        sa.Column("prefix", sa.Text(), nullable=False, comment="First characters of the key, to tell it in lists"),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key"),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False, comment="What it may do: ingest, read, admin"),
        sa.Column("client_id", sa.Uuid(), nullable=True, comment="The only client it sees; null is all"),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was made"),
        sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="When it stops working"),
        sa.Column(
            "last_used_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="Last use, to the minute"
        ),
        sa.Column("revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="When it was revoked"),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin']", name=op.f("ck_api_keys_scopes")
        ),
        sa.CheckConstraint("octet_length(key_hash) = 32", name=op.f("ck_api_keys_key_hash")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_api_keys_name")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_api_keys_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
        comment="Who may call the API; keys are kept as SHA-256 alone",
    )
    op.create_index(
        "uq_api_keys_name", "api_keys", ["name"], unique=True, postgresql_where=sa.text("revoked_at IS NULL")
    )
    op.create_table(
        "pipelines",
        sa.Column("id", sa.Uuid(), nullable=False, comment="Identity"),
        sa.Column("client_id", sa.Uuid(), nullable=False, comment="Whose pipeline it is; never changes"),
        sa.Column("slug", sa.Text(collation="C"), nullable=False, comment="Short name, unique in its client"),
        sa.Column("name", sa.Text(collation="C"), nullable=False, comment="Name as the platform shows it"),
        sa.Column("platform", sa.Text(), nullable=False, comment="What runs it: airflow, dbt, cron, … (lower case)"),
        sa.Column("pipeline_type", sa.Text(), server_default="other", nullable=False, comment="What it is for"),
        sa.Column("external_id", sa.Text(collation="C"), nullable=True, comment="The platform's own identity of it"),
        sa.Column("environment", sa.Text(), server_default="prod", nullable=False, comment="dev, staging or prod"),
        sa.Column("description", sa.Text(), nullable=True, comment="What it does"),
        sa.Column("url", sa.Text(), nullable=True, comment="Its page on the platform"),
        sa.Column(
            "tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Free labels"
        ),
        sa.Column("owner", sa.Text(), nullable=True, comment="Who looks after it"),
        sa.Column(
            "schedule",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="When runs are expected: {cron, timezone, grace_seconds} or {every_seconds, grace_seconds}",
        ),
        sa.Column("success_target", sa.Double(), nullable=True, comment="Wanted success rate in percent"),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="False once deactivated: still takes runs, is out of health and standard lists",
        ),
        sa.Column("ping_uuid", sa.Uuid(), nullable=False, comment="Credential of its ping URL"),
        sa.Column(
            "next_due_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Earliest expected start that no run has met yet; kept by the worker",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was made"),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was last changed"
        ),
        sa.CheckConstraint("environment IN ('dev', 'staging', 'prod')", name=op.f("ck_pipelines_environment")),
        sa.CheckConstraint(
            "pipeline_type IN ('ingestion', 'transform', 'quality', 'export', 'healthcheck', 'other')",
            name=op.f("ck_pipelines_pipeline_type"),
        ),
        sa.CheckConstraint("platform ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'", name=op.f("ck_pipelines_platform")),
        sa.CheckConstraint(
            "schedule IS NULL OR (schedule ? 'cron') <> (schedule ? 'every_seconds')",
            name=op.f("ck_pipelines_schedule"),
        ),
        sa.CheckConstraint("slug ~ '^[a-z0-9][a-z0-9_-]{0,99}$'", name=op.f("ck_pipelines_slug")),
        sa.CheckConstraint("char_length(external_id) BETWEEN 1 AND 512", name=op.f("ck_pipelines_external_id")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 512", name=op.f("ck_pipelines_name")),
        sa.CheckConstraint("success_target BETWEEN 0 AND 100", name=op.f("ck_pipelines_success_target")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_pipelines_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipelines")),
        sa.UniqueConstraint(
            "client_id",
            "environment",
            "platform",
            "name",
            name=op.f("uq_pipelines_client_id_environment_platform_name"),
        ),
        sa.UniqueConstraint("client_id", "slug", name=op.f("uq_pipelines_client_id_slug")),
        sa.UniqueConstraint("ping_uuid", name=op.f("uq_pipelines_ping_uuid")),
        comment="Jobs on any platform, each of one client",
    )
    op.create_index(
        "ix_pipelines_next_due_at",
        "pipelines",
        ["next_due_at"],
        unique=False,
        postgresql_where=sa.text("next_due_at IS NOT NULL AND is_active"),
    )
    op.create_index(
        "uq_pipelines_client_id_platform_external_id",
        "pipelines",
        ["client_id", "platform", "external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_table(
        "alert_rules",
        sa.Column("id", sa.Uuid(), nullable=False, comment="Identity"),
        sa.Column("client_id", sa.Uuid(), nullable=True, comment="All pipelines of this client"),
        sa.Column("pipeline_id", sa.Uuid(), nullable=True, comment="This pipeline alone; wins where both are set"),
        sa.Column("rule_type", sa.Text(), nullable=False, comment="What is watched for"),
        sa.Column("threshold", sa.Double(), nullable=True, comment="How many failures, or percent for failure_rate"),
        sa.Column("window_minutes", sa.Integer(), nullable=True, comment="How far back is counted"),
        sa.Column("channel", sa.Text(), nullable=False, comment="How to tell: email, slack, webhook or apprise"),
        sa.Column(
            "destination",
            sa.Text(),
            nullable=False,
            comment="Whom to tell: an address, a plain URL or @name of the configuration",
        ),
        sa.Column(
            "is_enabled",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="False while switched off",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was made"),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was last changed"
        ),
        sa.CheckConstraint(
            "(threshold IS NOT NULL) = (rule_type IN ('consecutive_failures', 'failures_in_window', 'failure_rate'))",
            name=op.f("ck_alert_rules_threshold_given"),
        ),
        sa.CheckConstraint(
            "(window_minutes IS NOT NULL) = (rule_type IN ('failures_in_window', 'failure_rate'))",
            name=op.f("ck_alert_rules_window_given"),
        ),
        sa.CheckConstraint("channel IN ('email', 'slack', 'webhook', 'apprise')", name=op.f("ck_alert_rules_channel")),
        sa.CheckConstraint(
            "rule_type IN ('on_failure', 'consecutive_failures', 'failures_in_window', 'failure_rate')",
            name=op.f("ck_alert_rules_rule_type"),
        ),
        sa.CheckConstraint(
            "threshold >= 1 AND (rule_type <> 'failure_rate' OR threshold <= 100)",
            name=op.f("ck_alert_rules_threshold"),
        ),
        sa.CheckConstraint("client_id IS NOT NULL OR pipeline_id IS NOT NULL", name=op.f("ck_alert_rules_scope")),
        sa.CheckConstraint("window_minutes BETWEEN 1 AND 44640", name=op.f("ck_alert_rules_window_minutes")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_alert_rules_client_id")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"], name=op.f("fk_alert_rules_pipeline_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_rules")),
        comment="When to tell whom about what",
    )
    op.create_index(
        "uq_alert_rules_active",
        "alert_rules",
        [sa.text("coalesce(pipeline_id, client_id)"), "rule_type", "channel", "destination"],
        unique=True,
        postgresql_where=sa.text("is_enabled"),
    )
    op.create_table(
        "runs",
        sa.Column("pipeline_id", sa.Uuid(), nullable=False, comment="The pipeline that ran"),
        sa.Column(
            "external_run_id", sa.Text(collation="C"), nullable=False, comment="The source's identity of the run"
        ),
        sa.Column("id", sa.Uuid(), nullable=False, comment="Our identity of the run"),
        sa.Column(
            "run_at",
            postgresql.TIMESTAMP(timezone=True),
            sa.Computed(
                "coalesce(started_at, finished_at, observed_at, least(scheduled_for, created_at))", persisted=True
            ),
            nullable=False,
            comment="The run's time: lists, windows and latest go by (run_at, id)",
        ),
        sa.Column(
            "observed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="The source's time of the report that decides the status",
        ),
        sa.Column("scheduled_for", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="When it was to start"),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="When the current attempt started"
        ),
        sa.Column(
            "finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="When the current attempt ended"
        ),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When we first heard of it"
        ),
        sa.Column(
            "updated_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When what we know of it last changed",
        ),
        sa.Column("rows_processed", sa.BigInteger(), nullable=True, comment="Rows processed by the current attempt"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="Which try this is, from 1"),
        sa.Column("status", sa.Text(), nullable=False, comment="queued, running, success, failed, canceled or skipped"),
        sa.Column("status_reason", sa.Text(), nullable=True, comment="What the source calls its status"),
        sa.Column("source", sa.Text(), nullable=False, comment="The door or source whose report decides the status"),
        sa.Column("rank", sa.LargeBinary(), nullable=False, comment="Place of that report in the order of all reports"),
        sa.Column(
            "error_message",
            sa.Text(),
            nullable=True,
            comment="Latest error told; shown while the status is failed, canceled or skipped",
        ),
        sa.Column(
            "error_rank",
            sa.LargeBinary(),
            nullable=True,
            comment="Rank of the report that told it, where it is not the deciding one",
        ),
        sa.Column("url", sa.Text(), nullable=True, comment="The run's page on its platform"),
        sa.Column(
            "url_rank",
            sa.LargeBinary(),
            nullable=True,
            comment="Rank of the report that told it, where it is not the deciding one",
        ),
        sa.Column(
            "payload",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="Further facts from the source, redacted",
        ),
        sa.Column(
            "payload_rank",
            sa.LargeBinary(),
            nullable=True,
            comment="Rank of the report that told it, where it is not the deciding one",
        ),
        sa.CheckConstraint(
            "finished_at IS NULL OR status NOT IN ('queued', 'running')", name=op.f("ck_runs_finished_at")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'success', 'failed', 'canceled', 'skipped')", name=op.f("ck_runs_status")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_runs_attempt")),
        sa.CheckConstraint("char_length(external_run_id) BETWEEN 1 AND 512", name=op.f("ck_runs_external_run_id")),
        sa.CheckConstraint("rows_processed >= 0", name=op.f("ck_runs_rows_processed")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"], name=op.f("fk_runs_pipeline_id")),
        sa.PrimaryKeyConstraint("pipeline_id", "external_run_id", name=op.f("pk_runs")),
        comment="One row a run: the join of all reports ever received of it",
    )
    op.create_index(
        "ix_runs_pipeline_id_rare",
        "runs",
        ["pipeline_id", "status", "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("status <> 'success'"),
    )
    op.create_index("ix_runs_id", "runs", ["id"], unique=False)
    op.create_index(
        "ix_runs_pipeline_id_run_at",
        "runs",
        ["pipeline_id", "run_at", "id"],
        unique=False,
        postgresql_include=["status"],
    )
    op.create_index(
        "ix_runs_rare",
        "runs",
        ["status", "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("status <> 'success'"),
    )
    op.create_index(
        "ix_runs_reattempted",
        "runs",
        ["pipeline_id", "updated_at"],
        unique=False,
        postgresql_where=sa.text("attempt > 1"),
    )
    op.create_index("ix_runs_run_at", "runs", ["run_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_runs_run_at", table_name="runs")
    op.drop_index("ix_runs_reattempted", table_name="runs", postgresql_where=sa.text("attempt > 1"))
    op.drop_index("ix_runs_rare", table_name="runs", postgresql_where=sa.text("status <> 'success'"))
    op.drop_index("ix_runs_pipeline_id_run_at", table_name="runs", postgresql_include=["status"])
    op.drop_index("ix_runs_id", table_name="runs")
    op.drop_index("ix_runs_pipeline_id_rare", table_name="runs", postgresql_where=sa.text("status <> 'success'"))
    op.drop_table("runs")
    op.drop_index("uq_alert_rules_active", table_name="alert_rules", postgresql_where=sa.text("is_enabled"))
    op.drop_table("alert_rules")
    op.drop_index(
        "uq_pipelines_client_id_platform_external_id",
        table_name="pipelines",
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_pipelines_next_due_at",
        table_name="pipelines",
        postgresql_where=sa.text("next_due_at IS NOT NULL AND is_active"),
    )
    op.drop_table("pipelines")
    op.drop_index("uq_api_keys_name", table_name="api_keys", postgresql_where=sa.text("revoked_at IS NULL"))
    op.drop_table("api_keys")
    op.drop_table("run_events")
    op.drop_table("clients")
    op.execute("DROP SCHEMA reporting")
