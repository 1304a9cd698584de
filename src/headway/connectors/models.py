"""The table of sources: how far each configured source has been read. Its configuration and secrets are in no table."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Integer, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from headway.clients.models import CODE_POINT_ORDER
from headway.core.db import Base

_TIME = TIMESTAMP(timezone=True)
_NONE_YET = text("0")


class SourceState(Base):
    """How far one source has been read, and how it went."""

    __tablename__ = "sources"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="name"),
        CheckConstraint("interval_seconds > 0", name="interval_seconds"),
        CheckConstraint("failures >= 0", name="failures"),
        CheckConstraint("(claim IS NULL) = (claimed_until IS NULL)", name="claim"),
        CheckConstraint("(backfill_since IS NULL) = (backfill_until IS NULL)", name="backfill"),
        CheckConstraint("(last_error IS NULL) = (last_error_code IS NULL)", name="last_error"),
        {"comment": "Configured sources of pull connectors: how far each is read, and how it went"},
    )

    name: Mapped[str] = mapped_column(CODE_POINT_ORDER, primary_key=True, comment="Its name in the configuration")
    platform: Mapped[str] = mapped_column(Text, comment="The connector that reads it")
    client_slug: Mapped[str] = mapped_column(Text, comment="The client whose runs it has")
    url: Mapped[str] = mapped_column(Text, comment="Where it is; another place is read from its beginning")
    environment: Mapped[str] = mapped_column(Text, comment="Environment of its pipelines")
    interval_seconds: Mapped[int] = mapped_column(Integer, comment="How often changes are asked for")
    is_active: Mapped[bool] = mapped_column(server_default=text("true"), comment="Whether it is configured now")
    watermark: Mapped[datetime | None] = mapped_column(_TIME, comment="Changes up to this time have been read")
    history_since: Mapped[datetime | None] = mapped_column(_TIME, comment="History from this time on has been read")
    backfill_since: Mapped[datetime | None] = mapped_column(_TIME, comment="How far back the backfill under way goes")
    backfill_from: Mapped[datetime | None] = mapped_column(_TIME, comment="Where the backfill under way began")
    backfill_until: Mapped[datetime | None] = mapped_column(
        _TIME, comment="History before this time is still to be read"
    )
    backfill_position: Mapped[str | None] = mapped_column(Text, comment="The source's own place within it")
    swept_at: Mapped[datetime | None] = mapped_column(_TIME, comment="Last reading anew of what may change late")
    reread_after: Mapped[UUID | None] = mapped_column(comment="Last unfinished run that was asked for by its id")
    claim: Mapped[UUID | None] = mapped_column(comment="Who reads it now")
    claimed_until: Mapped[datetime | None] = mapped_column(_TIME, comment="When that claim ends unless it is renewed")
    last_started_at: Mapped[datetime | None] = mapped_column(_TIME, comment="Start of the latest sync")
    last_synced_at: Mapped[datetime | None] = mapped_column(
        _TIME, comment="End of the latest sync that read all changes"
    )
    last_error_at: Mapped[datetime | None] = mapped_column(_TIME, comment="When the latest sync failed; kept after it")
    last_error_code: Mapped[str | None] = mapped_column(Text, comment="What was wrong; null once it works again")
    last_error: Mapped[str | None] = mapped_column(Text, comment="The same in words, redacted")
    failures: Mapped[int] = mapped_column(Integer, server_default=_NONE_YET, comment="Failed syncs in a row")
    next_try_at: Mapped[datetime] = mapped_column(_TIME, comment="When it is read next")
    runs_read: Mapped[int] = mapped_column(BigInteger, server_default=_NONE_YET, comment="Reports of runs read")
    runs_imported: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Of these, runs that were new"
    )
    runs_updated: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Of these, runs that changed"
    )
    runs_outdated: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Of these, dropped as of an attempt before the stored one"
    )
    runs_gone: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Runs that vanished at the source"
    )
    runs_odd: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Runs that could not be understood"
    )
    unknown_words: Mapped[int] = mapped_column(
        BigInteger, server_default=_NONE_YET, comment="Reports with a status word that is not known"
    )
    created_at: Mapped[datetime] = mapped_column(_TIME, comment="When it was first configured")
    updated_at: Mapped[datetime] = mapped_column(_TIME, comment="When this row last changed")
