"""What the API takes and shows of pipelines."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from headway.access.principal import Principal
from headway.clients.schemas import Tags
from headway.core.validation import HttpUrl, Slug, UtcTime, Wire
from headway.pipelines import schedule as rules
from headway.pipelines.models import Pipeline

Platform = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
PipelineName = Annotated[str, Field(min_length=1, max_length=512, pattern=r"\S")]
PipelineType = Literal["ingestion", "transform", "quality", "export", "healthcheck", "other"]
Environment = Literal["dev", "staging", "prod"]
GraceSeconds = Annotated[int, Field(ge=0, le=rules.MAX_GRACE_SECONDS)]
SuccessTarget = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
ShortText = Annotated[str, Field(max_length=200)]
LongText = Annotated[str, Field(max_length=10_000)]


def _known_zone(name: str) -> str:
    try:
        rules.zone(name)
    except rules.ScheduleError as error:
        raise PydanticCustomError("invalid_timezone", str(error)) from None
    return name


class Schedule(Wire):
    """When runs are expected: by cron in a time zone, or every so many seconds; late after the grace."""

    cron: str | None = Field(None, max_length=100, description="five fields: minute hour day month weekday")
    timezone: Annotated[str, AfterValidator(_known_zone)] | None = Field(
        None, max_length=64, description="IANA name; UTC where not given"
    )
    every_seconds: int | None = Field(None, ge=60, le=366 * 86_400)
    grace_seconds: GraceSeconds | None = Field(None, description=f"{rules.DEFAULT_GRACE_SECONDS} where not given")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.cron is None) == (self.every_seconds is None):
            raise PydanticCustomError("invalid_schedule", "must have cron or every_seconds, one of them")
        if self.cron is None:
            if self.timezone is not None:
                raise PydanticCustomError("invalid_schedule", "timezone belongs to cron")
            return self
        try:
            rules.check_cron(self.cron, self.timezone or "UTC")
        except rules.ScheduleError as error:
            raise PydanticCustomError("invalid_cron", "cron {reason}", {"reason": str(error)}) from None
        return self

    def stored(self) -> dict[str, Any]:
        """Return the schedule as it is kept and shown."""
        grace = {"grace_seconds": rules.DEFAULT_GRACE_SECONDS if self.grace_seconds is None else self.grace_seconds}
        if self.every_seconds is not None:
            return {"every_seconds": self.every_seconds, **grace}
        return {"cron": self.cron, "timezone": self.timezone or "UTC", **grace}


class _Details(Wire):
    description: LongText | None = None
    url: HttpUrl | None = None
    tags: Tags | None = None
    owner: ShortText | None = None
    schedule: Schedule | None = None
    success_target: SuccessTarget | None = Field(None, description="wanted success rate in percent")


class NewPipeline(_Details):
    """A pipeline to make."""

    name: PipelineName
    platform: Platform
    slug: Slug | None = Field(None, description="made from the name where not given")
    pipeline_type: PipelineType | None = Field(None, description="other where not given")
    external_id: PipelineName | None = Field(None, description="the platform's own identity of it")
    environment: Environment | None = Field(None, description="prod where not given")


class PipelineChanges(_Details):
    """What to change of a pipeline: what is absent stays; null empties what can be empty."""

    name: PipelineName | None = None
    platform: Platform | None = None
    slug: Slug | None = None
    pipeline_type: PipelineType | None = None
    external_id: PipelineName | None = None
    environment: Environment | None = None
    is_active: bool | None = None


class PutPipeline(_Details):
    """A pipeline as code: it becomes just this; what is absent takes its default."""

    name: PipelineName
    platform: Platform
    pipeline_type: PipelineType | None = None
    external_id: PipelineName | None = None
    environment: Environment | None = None
    is_active: bool | None = None


class PipelineView(BaseModel):
    """A pipeline."""

    id: UUID
    client_id: UUID
    slug: str
    name: str
    platform: str
    pipeline_type: PipelineType
    external_id: str | None
    environment: Environment
    description: str | None
    url: str | None
    tags: list[str]
    owner: str | None
    schedule: dict[str, Any] | None
    success_target: float | None
    is_active: bool
    ping_uuid: UUID | None = Field(description="shown to the scopes ingest and admin alone")
    created_at: UtcTime
    updated_at: UtcTime

    @classmethod
    def of(cls, pipeline: Pipeline, principal: Principal) -> Self:
        """Return what a caller may see of a pipeline."""
        shown = {name: getattr(pipeline, name) for name in cls.model_fields}
        if not principal.sees_ping_credentials:
            shown["ping_uuid"] = None
        return cls(**shown)
