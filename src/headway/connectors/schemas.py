"""What the API shows of a source: how far it is read and how it went; never its configuration's secrets."""

from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from pydantic import BaseModel, Field

from headway.core.validation import UtcTime

OVERDUE_INTERVALS = 3


class Backfill(BaseModel):
    """History that is being read, newest first."""

    since: UtcTime = Field(description="how far back it goes")
    until: UtcTime = Field(description="what is before this time is still to be read")


class SourceView(BaseModel):
    """A configured source."""

    name: str
    platform: str
    client_slug: str
    url: str
    environment: str
    interval_seconds: int
    is_active: bool = Field(description="whether it is configured now")
    is_overdue: bool = Field(description=f"no sync within {OVERDUE_INTERVALS} intervals")
    last_started_at: UtcTime | None
    last_synced_at: UtcTime | None = Field(description="end of the latest sync that read all changes")
    lag_seconds: float | None = Field(description="age of the latest change that may not have been read yet")
    history_since: UtcTime | None = Field(description="history from this time on has been read")
    backfill: Backfill | None
    failures: int = Field(description="failed syncs in a row")
    last_error_code: str | None = Field(description="what is wrong now; null where nothing is")
    last_error: str | None
    last_error_at: UtcTime | None = Field(description="when a sync failed last")
    next_try_at: UtcTime
    runs_read: int
    runs_imported: int
    runs_updated: int
    runs_outdated: int = Field(description="reports of an attempt before the stored one, dropped")
    runs_gone: int = Field(description="unfinished runs that vanished at the source")
    runs_odd: int = Field(description="runs that could not be understood")
    unknown_words: int = Field(description="reports with a status word that is not known")
    created_at: UtcTime
    updated_at: UtcTime

    @classmethod
    def of(cls, row: sa.Row[Any], *, now: datetime) -> Self:
        """Return the view of a row."""
        values = row._asdict()
        is_reading_history = row.backfill_since is not None
        backfill = Backfill(since=row.backfill_since, until=row.backfill_until) if is_reading_history else None
        return cls(
            **{name: values[name] for name in cls.model_fields if name in values},
            backfill=backfill,
            is_overdue=is_overdue(row, now=now),
            lag_seconds=None if row.watermark is None else max(0.0, (now - row.watermark).total_seconds()),
        )


def is_overdue(row: sa.Row[Any], *, now: datetime) -> bool:
    """Tell whether a source that is configured has not been read for three of its intervals."""
    last = row.last_synced_at or row.created_at
    return bool(row.is_active and (now - last).total_seconds() > OVERDUE_INTERVALS * row.interval_seconds)
