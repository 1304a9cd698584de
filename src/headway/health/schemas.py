"""What the API shows of health."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from headway.core.validation import UtcTime
from headway.pipelines.schemas import Environment
from headway.runs.observation import Status


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _OfPipeline(_Shown):
    pipeline_id: UUID
    pipeline_name: str
    client_id: UUID
    client_slug: str
    platform: str
    environment: Environment


class StatusCounts(_Shown):
    """How many runs are in each status."""

    queued: int
    running: int
    success: int
    failed: int
    canceled: int
    skipped: int


class Durations(BaseModel):
    """Durations in milliseconds."""

    p50: float
    p95: float
    max: float


class PipelineCounts(_Shown):
    """How many active pipelines are in each state of health."""

    total: int
    failing: int
    late: int
    healthy: int
    unknown: int


class LatestRun(_Shown):
    """A pipeline and its latest run before the end of the window; null without a run."""

    pipeline_id: UUID
    pipeline_name: str
    platform: str
    environment: Environment
    latest_status: Status | None
    latest_run_at: UtcTime | None
    latest_run_id: UUID | None
    consecutive_failures: int


class Summary(BaseModel):
    """How a client's active pipelines fared in a window, and how they stand."""

    client_id: UUID
    since: UtcTime
    until: UtcTime
    total_runs: int
    status_counts: StatusCounts
    success_rate: float | None = Field(description="success / (success + failed); null without either")
    duration_ms: Durations | None = Field(description="null without any")
    pipelines: PipelineCounts = Field(description="as they stand now")
    latest_by_pipeline: list[LatestRun] = Field(description="by name, the first 1,000")


class Failing(_OfPipeline):
    """A pipeline whose latest run that ended and was not skipped failed."""

    failing_since: UtcTime = Field(description="end of the first failed run of the streak")
    consecutive_failures: int = Field(description="counted to 1,000")
    last_error: str | None
    last_failed_run_id: UUID
    last_success_at: UtcTime | None


class Change(_OfPipeline):
    """A pipeline whose health differs from what it was."""

    change: Literal["newly_failing", "recovered", "new", "silent"]
    changed_at: UtcTime = Field(description="the end that changed it; for silent, the deadline that passed")
    run_id: UUID | None = Field(description="the run that changed it; null for silent")


class Flaky(_OfPipeline):
    """A pipeline that went back and forth between success and failure."""

    total_runs: int = Field(description="ends of attempts, skipped ones left out")
    failures: int
    failure_rate: float = Field(description="failures / total_runs")
    flips: int = Field(description="changes between success and failure in order of time")


class Late(_OfPipeline):
    """A pipeline whose expected run has not started within its grace."""

    expected_at: UtcTime
    deadline: UtcTime
    last_run_at: UtcTime | None


class Point(_Shown):
    """The runs of one group in one bucket."""

    time: UtcTime
    group: str
    total: int
    success: int
    failed: int
    canceled: int
    skipped: int
    running: int
    queued: int


class Timeseries(BaseModel):
    """Runs over time by run_at; empty buckets are left out."""

    bucket: Literal["hour", "day", "week"]
    group_by: Literal["status", "client", "platform", "pipeline"]
    points: list[Point]
