"""What a run of Dagster says: the ``Run`` type of its GraphQL API to an observation.

Pure; ``api.py`` asks for the fields and adds, for runs that have ended, ``eventConnection`` (failures alone) and
``assetMaterializations`` in the shape that the type itself has. Rule not to break: what is said of a run in one state
at one time must not differ between two looks, so nothing that a run counts on its way is told before its end
(``tests/connectors/dagster/test_mapping.py``). Facts are those of Dagster 1.13.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from headway.connectors.config import Source
from headway.connectors.contract import Payload, Report, identity, latest_fact, pipeline_ref, status_of
from headway.core import reading, validation
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import TERMINAL, Status, observe

PLATFORM = "dagster"
# RunStatus. CANCELING is asked to end and has not yet.
WORDS: Mapping[str, Status] = {
    "QUEUED": Status.QUEUED,
    "NOT_STARTED": Status.QUEUED,
    "MANAGED": Status.RUNNING,
    "STARTING": Status.RUNNING,
    "STARTED": Status.RUNNING,
    "SUSPENDED": Status.RUNNING,
    "CANCELING": Status.RUNNING,
    "SUCCESS": Status.SUCCESS,
    "FAILURE": Status.FAILED,
    "CANCELED": Status.CANCELED,
}
# The repository that a code location with one Definitions object has; its name tells nothing.
_ONLY_REPOSITORY = "__repository__"
# Jobs that Dagster makes up: for assets that are materialised by hand, by a schedule or sensor, or by a script.
_ASSETS_BY_HAND = "__ASSET_JOB"
_ASSETS_OF = "__anonymous_asset_job_"
_ASSETS_OF_SCRIPT = "__ephemeral_asset_job__"
# The tags of a run that say where it came from; those that change after its end are left out.
_TAGS = (
    "schedule_name",
    "sensor_name",
    "partition",
    "partition_set",
    "asset_partition_range_start",
    "asset_partition_range_end",
    "backfill",
    "from_automation_condition",
    "auto_materialize",
    "retry_number",
    "is_resume_retry",
    "run_key",
    "failure_reason",
)
_TEXT_CHARS = 512


def report(payload: Payload, *, source: Source, now: datetime) -> Report | None:
    """Return what a run says; None where the source leaves its job out.

    Raises:
        OddPayloadError: it has no id or no job.
    """
    run_id = identity(payload, "runId")
    pipeline = pipeline_of(payload, source=source)
    if not source.takes(pipeline.name, pipeline.external_id):
        return None
    word = reading.text_at(payload, "status")
    ended = _time(payload, "endTime", now)
    status, is_unknown = status_of(word, WORDS, has_ended=ended is not None)
    started = None if status is Status.QUEUED else _started(payload, ended, now)
    observation = observe(
        pipeline=pipeline,
        external_run_id=run_id,
        status=status,
        source=source.name,
        observed_at=_observed(payload, word, status, now),
        started_at=started,
        finished_at=ended,
        rows_processed=_rows(payload) if status in TERMINAL else None,
        error_message=_error(payload) if status is Status.FAILED else None,
        status_reason=word,
        url=reading.url_at({"url": f"{source.url}/runs/{quote(run_id, safe='')}"}, "url"),
        payload=_payload(payload),
    )
    return Report(observation, is_unknown)


def pipeline_of(payload: Payload, *, source: Source) -> PipelineRef:
    """Return the job of a run: in Dagster its code location, repository and name identify it.

    Raises:
        OddPayloadError: it has none.
    """
    job = identity(payload, "jobName")
    return pipeline_ref(
        client=source.client,
        platform=PLATFORM,
        name=readable(job),
        external_id=external_id(_location(payload), _repository(payload), job),
        environment=source.environment,
    )


def external_id(location: str | None, repository: str | None, job: str) -> str:
    """Return ``location/job``, with the repository between them where a location has named ones.

    A run that was executed by a script, without a code location, has its job's name alone.
    """
    named = None if repository == _ONLY_REPOSITORY else repository
    return "/".join(part for part in (location, named, job) if part)


def readable(job: str) -> str:
    """Return the name of a job, or a phrase for one that Dagster made up."""
    if job == _ASSETS_BY_HAND:
        return "assets, ad hoc"
    if job == _ASSETS_OF_SCRIPT:
        return "assets, by script"
    if job.startswith(_ASSETS_OF) and job != _ASSETS_OF:
        return f"assets of {job.removeprefix(_ASSETS_OF)}"
    return job


def _location(payload: Payload) -> str | None:
    origin = reading.text_at(payload, "repositoryOrigin", "repositoryLocationName")
    return origin or tags_of(payload).get("dagster/code_location")


def _repository(payload: Payload) -> str | None:
    name = reading.text_at(payload, "repositoryOrigin", "repositoryName")
    return None if name == _ONLY_REPOSITORY else name


def tags_of(payload: Payload) -> dict[str, str]:
    """Return the tags of a run."""
    pairs = (
        (reading.text_at(tag, "key"), reading.text_at(tag, "value")) for tag in reading.objects_at(payload, "tags")
    )
    return {key: value for key, value in pairs if key is not None and value is not None}


def _time(payload: Payload, field: str, now: datetime) -> datetime | None:
    return reading.epoch_at(payload, field, latest=latest_fact(now))


def _started(payload: Payload, ended: datetime | None, now: datetime) -> datetime | None:
    """Return the start; Dagster shows the end as the start of a run that ended without one."""
    started = _time(payload, "startTime", now)
    return None if started == ended else started


def _observed(payload: Payload, word: str | None, status: Status, now: datetime) -> datetime | None:
    """Return when the state was reached: by its own time, or by the last update where it has none (STARTING)."""
    own = "creationTime" if status is Status.QUEUED else "endTime" if status in TERMINAL else "startTime"
    has_own = status is not Status.RUNNING or word == "STARTED"
    fields = (own, "updateTime") if has_own else ("updateTime", own)
    return next((time for field in fields if (time := _time(payload, field, now)) is not None), None)


def _rows(payload: Payload) -> int | None:
    """Return the rows that the run's materialisations tell, together: of a partition, else of its table."""
    counts = [
        count
        for event in reading.objects_at(payload, "assetMaterializations")
        if (count := _row_count(event)) is not None
    ]
    return sum(counts) if counts and sum(counts) <= validation.INT64_MAX else None


def _row_count(event: Mapping[str, Any]) -> int | None:
    entries = {reading.text_at(entry, "label"): entry for entry in reading.objects_at(event, "metadataEntries")}
    for label in ("dagster/partition_row_count", "dagster/row_count"):
        # intValue is null for numbers above 32 bits, intRepr is a text.
        text = reading.id_at(entries.get(label), "intRepr") or reading.id_at(entries.get(label), "intValue")
        if text is not None and text.isascii() and text.isdecimal() and len(text) < 19:
            return int(text)
    return None


def _error(payload: Payload) -> str | None:
    """Return what the first failed step says, with its key; else what the run's failure says."""
    events = list(reading.objects_at(payload, "eventConnection", "events"))
    steps = [event for event in events if reading.text_at(event, "__typename") == "ExecutionStepFailureEvent"]
    for event in steps:
        said = _innermost(reading.object_at(event, "error"))
        if said is not None:
            step = reading.text_at(event, "stepKey")
            more = f" (and {len(steps) - 1} more)" if len(steps) > 1 else ""
            return f"{step}: {said}{more}" if step else said + more
    failures = (event for event in events if reading.text_at(event, "__typename") == "RunFailureEvent")
    said_of_run = (_innermost(reading.object_at(e, "error")) or reading.text_at(e, "message") for e in failures)
    return next((said for said in said_of_run if said), None)


def _innermost(error: Mapping[str, Any]) -> str | None:
    """Return the message of the last cause that has one: the outer ones say "Error occurred while executing op"."""
    return next(reversed([said for each in _chain(error) if (said := _stripped(each))]), None)


def _chain(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    while error:
        yield error
        error = reading.object_at(error, "cause")


def _stripped(error: Mapping[str, Any]) -> str:
    return (reading.text_at(error, "message") or "").strip()


def _payload(payload: Payload) -> dict[str, Any]:
    """Return what a reader wants to know besides the run; never its configuration."""
    tags = tags_of(payload)
    told = {
        "job": reading.text_at(payload, "jobName"),
        "location": _location(payload),
        "repository": _repository(payload),
        "parent_run_id": reading.text_at(payload, "parentRunId"),
        "root_run_id": reading.text_at(payload, "rootRunId"),
        **{name: tags.get(f"dagster/{name}") for name in _TAGS},
    }
    return {name: value[:_TEXT_CHARS] for name, value in told.items() if value is not None}
