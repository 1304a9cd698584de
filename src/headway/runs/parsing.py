"""From the bytes of one item of a batch to an observation, or to what is wrong with it.

Pure. Each item is validated straight from its own bytes, so that one that the parser refuses is told from its
neighbours. ``runs/ingestion.py`` calls ``parse_item`` for the batch doors, ``runs/routes.py`` uses ``ObservationBody``
for a single run. The wire fields are those of the OpenAPI document; ``source`` is the door's to set.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import Field, Strict, ValidationError
from pydantic_core import PydanticCustomError

from headway.core import json_text, validation
from headway.core.errors import BadRequestError, InvalidInputError, Issue
from headway.core.validation import INT64_MAX, ClientSlug, Wire
from headway.pipelines.models import ENVIRONMENTS
from headway.pipelines.reference import PipelineRef, Reference
from headway.runs import splitting
from headway.runs.observation import RunObservation, Status, observe

YEAR = timedelta(days=366)

Platform = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
# Times stay text in the model: they are parsed below, where each way to be wrong has its own code.
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class PipelineReference(Wire):
    """A pipeline by its natural name; looked up by external_id where given, else by name."""

    client: ClientSlug = Field(description="slug of its client")
    name: Name
    platform: Platform
    external_id: Name | None = None
    environment: str | None = Field(None, pattern=f"^({'|'.join(ENVIRONMENTS)})$", description="prod where not given")


class ObservationBody(Wire):
    """A report about a run, its pipeline and identity aside."""

    status: Annotated[Status, Strict(False)]
    status_reason: str | None = Field(None, description="what the source calls the status")
    attempt: int | None = Field(None, ge=1, le=2**31 - 1, description="which try of the run this is; 1 where not given")
    scheduled_for: TimeText | None = None
    started_at: TimeText | None = None
    finished_at: TimeText | None = Field(None, description="counts on ends alone")
    observed_at: TimeText | None = Field(
        None, description="the source's own time for the fact; finished_at of an end or started_at where not given"
    )
    rows_processed: int | None = Field(None, ge=0, le=INT64_MAX)
    error_message: str | None = Field(None, description="cut to 8 KiB")
    url: str | None = Field(None, max_length=4096, description="the run's page; http or https")
    payload: dict[str, Any] | None = Field(None, description="further facts; replaced with a marker beyond 64 KiB")


ExternalRunId = Annotated[str, Field(min_length=1, max_length=512, description="the source's identity of the run")]


class Observation(ObservationBody):
    """A report about a run of a pipeline, named by pipeline_id or by a natural reference."""

    pipeline_id: str | None = Field(None, json_schema_extra={"format": "uuid"})
    pipeline: PipelineReference | None = None
    external_run_id: ExternalRunId


class SingleRun(ObservationBody):
    """One run by hand."""

    external_run_id: ExternalRunId | None = Field(
        None, description="without it the identity comes from an Idempotency-Key header, or else a new one is made"
    )


class Batch(Wire):
    """Up to 50,000 observations."""

    runs: list[Observation]


class RefusedItem(NamedTuple):
    """An item that could not be taken; pointers are relative to the item."""

    issues: list[Issue]


class BrokenItem(NamedTuple):
    """An item that is no JSON at all."""

    issues: list[Issue]


_NOT_JSON = BrokenItem([Issue("", "invalid_json", "is not JSON in UTF-8")])
_TOO_DEEP = BrokenItem([Issue("", "too_deep", f"is nested beyond {validation.MAX_DEPTH} levels")])
_uuid = lru_cache(maxsize=4096)(UUID)  # a batch names the same pipelines again and again
_validate = Observation.__pydantic_validator__.validate_json


def parse_item(raw: bytes, *, source: str, now: datetime) -> RunObservation | RefusedItem | BrokenItem:
    """Turn one item of a batch into an observation, or say what is wrong with it."""
    try:
        if len(raw) > splitting.OUTSIZED:
            raw = splitting.slim(raw)
        json_text.check_depth(raw)
        item: Observation = _validate(raw)
        issues = validation.check_json(json_text.decode(raw)) if b"\\u0000" in raw else []
    except ValidationError as error:
        return _refused(raw, error)
    except InvalidInputError as error:
        return RefusedItem(list(error.issues))
    except BadRequestError as error:
        return _TOO_DEEP if error.problem_code == "too_deep" else _NOT_JSON
    pipeline = _pipeline(item)
    if isinstance(pipeline, Issue):
        issues.append(pipeline)
    if issues or isinstance(pipeline, Issue):
        return RefusedItem(issues)
    return to_observation(item, pipeline=pipeline, external_run_id=item.external_run_id, source=source, now=now)


def _pipeline(item: Observation) -> Reference | Issue:
    """Return the pipeline that an item names, or what is wrong with how it does."""
    if item.pipeline_id is not None:
        if item.pipeline is not None:
            return Issue("/pipeline", "ambiguous_pipeline", "give pipeline_id or pipeline, not both")
        if not validation.UUID_PATTERN.fullmatch(item.pipeline_id):
            return Issue("/pipeline_id", "invalid_uuid", "must be a UUID")
        return _uuid(item.pipeline_id)
    named = item.pipeline
    if named is None:
        return Issue("/pipeline_id", "missing", "pipeline_id or pipeline is required")
    return PipelineRef(named.client, named.platform, named.name, named.external_id, named.environment or "prod")


def to_observation(
    item: ObservationBody, *, pipeline: UUID | PipelineRef, external_run_id: str, source: str, now: datetime
) -> RunObservation | RefusedItem:
    """Make the observation of a body whose types are right, after the checks that types do not make."""
    issues: list[Issue] = []
    scheduled_for = _time(item.scheduled_for, "/scheduled_for", now + YEAR, issues)
    started_at = _time(item.started_at, "/started_at", now + validation.FUTURE, issues)
    finished_at = _time(item.finished_at, "/finished_at", now + validation.FUTURE, issues)
    observed_at = _time(item.observed_at, "/observed_at", now + validation.FUTURE, issues)
    if item.url is not None and not validation.is_http_url(item.url):
        issues.append(Issue("/url", "invalid_url", "must be an http:// or https:// URL"))
    if item.payload is not None:
        issues += validation.check_json(item.payload, ("payload",))
    if issues:
        return RefusedItem(issues)
    return observe(
        pipeline=pipeline,
        external_run_id=external_run_id,
        status=item.status,
        source=source,
        attempt=item.attempt or 1,
        observed_at=observed_at,
        scheduled_for=scheduled_for,
        started_at=started_at,
        finished_at=finished_at,
        rows_processed=item.rows_processed,
        error_message=item.error_message,
        status_reason=item.status_reason,
        url=item.url,
        payload=item.payload,
    )


def _time(text: str | None, pointer: str, latest: datetime, issues: list[Issue]) -> datetime | None:
    if text is None:
        return None
    try:
        time = validation.parse_time(text)
        validation.check_not_after(time, latest)
    except PydanticCustomError as error:
        issues.append(Issue(pointer, error.type, error.message()))
        return None
    return time


def _refused(raw: bytes, error: ValidationError) -> RefusedItem | BrokenItem:
    """Word what the validator refused.

    Where that is the JSON itself, the lenient parser finds out why; where it is a type, whether it was NaN and the like.
    """
    try:
        issues = validation.check_json(json_text.decode_leniently(raw))
    except (ValueError, RecursionError):
        return _NOT_JSON
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return RefusedItem(issues) if issues else _NOT_JSON
    named = {issue.pointer for issue in issues}
    return RefusedItem(issues + [issue for issue in validation.issues_of(errors) if issue.pointer not in named])
