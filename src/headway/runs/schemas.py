"""What the API shows of runs. What it takes is in ``runs/parsing.py``."""

from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from headway.core import clock
from headway.core.validation import UtcTime
from headway.runs.observation import Status
from headway.runs.queries import EventRow, RunRow

_TELLS_ERROR = {Status.FAILED, Status.CANCELED, Status.SKIPPED}


class Run(BaseModel):
    """A run as all reports of it say together."""

    id: UUID
    pipeline_id: UUID
    external_run_id: str
    status: Status
    status_reason: str | None = Field(description="what the source calls the status")
    attempt: int
    run_at: UtcTime = Field(
        description="the run's time: started_at, else finished_at, observed_at, or the earlier of scheduled_for and created_at"
    )
    scheduled_for: UtcTime | None
    started_at: UtcTime | None
    finished_at: UtcTime | None
    duration_ms: int | None
    rows_processed: int | None
    error_message: str | None = Field(description="while the status is failed, canceled or skipped")
    url: str | None
    payload: dict[str, Any] | None
    source: str
    observed_at: UtcTime | None
    created_at: UtcTime
    updated_at: UtcTime

    @classmethod
    def of(cls, row: RunRow) -> Self:
        """Return what is shown of a stored run."""
        duration_ms = None
        if row.started_at is not None and row.finished_at is not None and row.finished_at >= row.started_at:
            duration_ms = (row.finished_at - row.started_at) // (clock.MICROSECOND * 1000)
        values = row._asdict()
        if row.status not in _TELLS_ERROR:
            values["error_message"] = None
        return cls(**values, duration_ms=duration_ms)


class RunEvent(BaseModel):
    """One status that an attempt of a run was seen in."""

    model_config = ConfigDict(from_attributes=True)

    attempt: int
    status: Status
    occurred_at: UtcTime | None = Field(description="earliest time at which the source saw it so")
    last_occurred_at: UtcTime | None = Field(description="latest time at which the source saw it so")
    started_at: UtcTime | None
    finished_at: UtcTime | None
    error_message: str | None
    source: str
    recorded_at: UtcTime = Field(description="when we first learned of it")

    @classmethod
    def of(cls, row: EventRow) -> Self:
        """Return what is shown of a stored event."""
        return cls.model_validate(row)


class ItemError(BaseModel):
    """Why an item of a batch was not taken."""

    index: int
    pointer: str
    code: str
    detail: str


class BatchResult(BaseModel):
    """What became of a batch: received = inserted + updated + unchanged + rejected."""

    received: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    errors: list[ItemError] = Field(description="of the first 1,000 rejected items")
