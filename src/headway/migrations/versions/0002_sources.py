"""Sources: how far each configured source of a pull connector has been read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("name", sa.Text(collation="C"), nullable=False, comment="Its name in the configuration"),
        sa.Column("platform", sa.Text(), nullable=False, comment="The connector that reads it"),
        sa.Column("client_slug", sa.Text(), nullable=False, comment="The client whose runs it has"),
        sa.Column("url", sa.Text(), nullable=False, comment="Where it is; another place is read from its beginning"),
        sa.Column("environment", sa.Text(), nullable=False, comment="Environment of its pipelines"),
        sa.Column("interval_seconds", sa.Integer(), nullable=False, comment="How often changes are asked for"),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="Whether it is configured now",
        ),
        sa.Column(
            "watermark",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Changes up to this time have been read",
        ),
        sa.Column(
            "history_since",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="History from this time on has been read",
        ),
        sa.Column(
            "backfill_since",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="How far back the backfill under way goes",
        ),
        sa.Column(
            "backfill_from",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Where the backfill under way began",
        ),
        sa.Column(
            "backfill_until",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="History before this time is still to be read",
        ),
        sa.Column("backfill_position", sa.Text(), nullable=True, comment="The source's own place within it"),
        sa.Column(
            "swept_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Last reading anew of what may change late",
        ),
        sa.Column("reread_after", sa.Uuid(), nullable=True, comment="Last unfinished run that was asked for by its id"),
        sa.Column("claim", sa.Uuid(), nullable=True, comment="Who reads it now"),
        sa.Column(
            "claimed_until",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When that claim ends unless it is renewed",
        ),
        sa.Column(
            "last_started_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="Start of the latest sync"
        ),
        sa.Column(
            "last_synced_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="End of the latest sync that read all changes",
        ),
        sa.Column(
            "last_error_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the latest sync failed; kept after it",
        ),
        sa.Column("last_error_code", sa.Text(), nullable=True, comment="What was wrong; null once it works again"),
        sa.Column("last_error", sa.Text(), nullable=True, comment="The same in words, redacted"),
        sa.Column(
            "failures", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Failed syncs in a row"
        ),
        sa.Column("next_try_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it is read next"),
        sa.Column(
            "runs_read", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="Reports of runs read"
        ),
        sa.Column(
            "runs_imported",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, runs that were new",
        ),
        sa.Column(
            "runs_updated",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, runs that changed",
        ),
        sa.Column(
            "runs_outdated",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, dropped as of an attempt before the stored one",
        ),
        sa.Column(
            "runs_gone",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Runs that vanished at the source",
        ),
        sa.Column(
            "runs_odd",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Runs that could not be understood",
        ),
        sa.Column(
            "unknown_words",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Reports with a status word that is not known",
        ),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When it was first configured"
        ),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="When this row last changed"
        ),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name=op.f("ck_sources_name")),
        sa.CheckConstraint("(backfill_since IS NULL) = (backfill_until IS NULL)", name=op.f("ck_sources_backfill")),
        sa.CheckConstraint("(claim IS NULL) = (claimed_until IS NULL)", name=op.f("ck_sources_claim")),
        sa.CheckConstraint("(last_error IS NULL) = (last_error_code IS NULL)", name=op.f("ck_sources_last_error")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_sources_failures")),
        sa.CheckConstraint("interval_seconds > 0", name=op.f("ck_sources_interval_seconds")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sources")),
        comment="Configured sources of pull connectors: how far each is read, and how it went",
    )


def downgrade() -> None:
    op.drop_table("sources")
