"""The OpenLineage door: one event of https://openlineage.io/spec/2-0-2 to what it says of a run.

Pure. The route behind ``POST /api/v1/lineage`` parses the body, names the client and calls ``map_event``; facets are
read through ``ingest/facets.py``. Rule not to break: facets are optional and free, so the wrong type of one is never
an error; the identity of the run and the time of the event are required
(``tests/ingest/test_openlineage_mapping.py``).
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from headway.core import reading, validation
from headway.core.errors import InvalidInputError, Issue
from headway.ingest import facets
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import RunObservation, Status, observe

SOURCE = "openlineage"
OTHER_PLATFORM = "openlineage"
IDENTITY_CHARS = 512
ATTEMPT_MAX = 2**31 - 1
PAYLOAD_TEXT_CHARS = 512
SCHEDULE_AHEAD = timedelta(days=366)

# RunEvent.eventType. OTHER, an unknown word and none at all say only that the source knows the run.
UNSAID = "unknown"
_STATUSES = {
    "OTHER": Status.RUNNING,
    UNSAID.upper(): Status.RUNNING,
    "START": Status.RUNNING,
    "RUNNING": Status.RUNNING,
    "COMPLETE": Status.SUCCESS,
    "FAIL": Status.FAILED,
    "ABORT": Status.CANCELED,
}

# Integrations in OpenLineage's own repository go by their folder there, and by the jobType facet; others by their own.
_INTEGRATIONS = frozenset({"airflow", "dagster", "dbt", "debezium", "flink", "hive", "spark", "trino"})
_REPOSITORIES = {
    "apache/airflow": "airflow",  # /tree/providers-openlineage/<version>
    "apache/flink": "flink",
    "apache/spark": "spark",
    "dagster-io/dagster": "dagster",
    "debezium/debezium": "debezium",
    "trinodb/trino": "trino",  # /plugin/trino-openlineage
}
_PRODUCER = re.compile(
    r"https?://github\.com/([^/?#]+/[^/?#]+)(?:/(?:tree|blob)/[^/]+/integration/([^/?#]+))?", re.IGNORECASE
)


class _Head(NamedTuple):
    """The required members of a run event, checked."""

    run_id: str
    namespace: str
    name: str
    time: datetime


def map_event(
    event: Mapping[str, Any], *, client: str, now: datetime, keep_tasks: bool = False
) -> list[RunObservation]:
    """Return what one OpenLineage event says of its run: one observation, or none.

    None for job and dataset events, which have no run, and, unless ``keep_tasks``, for runs within another run (the
    tasks of an Airflow DAG, the models of a dbt invocation). Raises ``InvalidInputError`` with an issue for each
    required member that is missing or cannot be used.
    """
    if isinstance(event, Mapping) and event.get("run") is None:
        return []
    head = _read_head(event, now)
    run_facets = reading.object_at(event, "run", "facets")
    job_type = reading.object_at(event, "job", "facets", "jobType")
    platform = _platform(event, job_type)
    is_task = _is_task(platform, run_facets, job_type, head.run_id)
    if is_task and not keep_tasks:
        return []
    dag_run_id, attempt = (None, 1) if is_task else _dag_run(event)
    word = reading.text_at(event, "eventType") or UNSAID
    status = _STATUSES.get(word.upper(), Status.RUNNING)
    return [
        observe(
            pipeline=PipelineRef(client, platform, _short(head.name), _short(f"{head.namespace}/{head.name}")),
            external_run_id=dag_run_id or head.run_id,
            status=status,
            source=SOURCE,
            attempt=attempt,
            observed_at=head.time,
            scheduled_for=reading.time_at(run_facets, "nominalTime", "nominalStartTime", latest=now + SCHEDULE_AHEAD),
            started_at=head.time if word.upper() == "START" else None,
            finished_at=head.time,  # counts on ends alone
            rows_processed=facets.rows_written(event),
            error_message=facets.error_message(run_facets, with_trace=status is Status.FAILED),
            status_reason=word,
            url=facets.log_url(run_facets) if is_task else None,
            payload=_payload(event, head, dag_run_id, now),
        )
    ]


def _read_head(event: Mapping[str, Any], now: datetime) -> _Head:
    """Return the required members, or raise with all that is wrong with them."""
    issues: list[Issue] = []
    run_id = _required_text(event, "run", "runId", issues=issues, limit=IDENTITY_CHARS)
    namespace = _required_text(event, "job", "namespace", issues=issues)
    name = _required_text(event, "job", "name", issues=issues)
    event_time = _required_text(event, "eventTime", issues=issues)
    time = now
    if event_time:
        try:
            time = validation.parse_time(event_time)
            validation.check_not_after(time, now + validation.FUTURE)
        except PydanticCustomError as error:
            issues.append(Issue("/eventTime", error.type, error.message()))
    if issues:
        raise _refusal(issues)
    return _Head(run_id.lower() if validation.UUID_PATTERN.fullmatch(run_id) else run_id, namespace, name, time)


def _required_text(event: object, *path: str, issues: list[Issue], limit: int | None = None) -> str:
    """Return the text at a path, or note what is wrong with it and return an empty one."""
    value, pointer = event, ""
    for key in path:
        if not isinstance(value, Mapping):
            issues.append(Issue(pointer, "invalid_type", "must be an object"))
            return ""
        value, pointer = value.get(key), f"{pointer}/{key}"
        if value is None or value == "":
            issues.append(Issue(pointer, "missing", "is required"))
            return ""
    if not isinstance(value, str):
        issues.append(Issue(pointer, "invalid_type", "must be a string"))
        return ""
    flaws = validation.check_json(value, path)
    if limit is not None and len(value) > limit:
        flaws.append(Issue(pointer, "too_long", f"must have at most {limit} characters"))
    issues.extend(flaws)
    return "" if flaws else value


def _refusal(issues: list[Issue]) -> InvalidInputError:
    return InvalidInputError("this is no usable OpenLineage run event", issues=list(dict.fromkeys(issues)))


def _platform(event: Mapping[str, Any], job_type: Mapping[str, Any]) -> str:
    """Return what sent the event: by its producer's URI, else by the jobType facet."""
    producer = _PRODUCER.match(reading.text_at(event, "producer") or "")
    home, folder = producer.groups(default="") if producer else ("", "")
    integration = reading.text_at(job_type, "integration") or ""
    candidates = (_REPOSITORIES.get(home.lower(), ""), folder.lower(), integration.lower())
    return next((name for name in candidates if name in _INTEGRATIONS), OTHER_PLATFORM)


def _is_task(platform: str, run_facets: Mapping[str, Any], job_type: Mapping[str, Any], run_id: str) -> bool:
    """Tell whether the run is a part of another one.

    The DAG run of an Airflow that was triggered by another one may name a parent and is a run in its own right, so
    there the jobType facet goes first.
    """
    if platform == "airflow" or reading.object_at(run_facets, "airflowDagRun"):
        kind = (reading.text_at(job_type, "jobType") or "").upper()
        if kind in {"DAG", "TASK"}:
            return kind == "TASK"
        airflow = reading.object_at(run_facets, "airflow")
        if reading.object_at(airflow, "task") or reading.object_at(airflow, "taskInstance"):
            return True
    parent_id = reading.text_at(facets.parent_of(run_facets), "run", "runId")
    return parent_id is not None and parent_id.lower() != run_id.lower()


def _dag_run(event: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return Airflow's own id of a DAG run and its attempt, (None, 1) where the event has no such facet.

    A clear gives a DAG run a new ``runId`` while Airflow keeps its ``run_id`` and raises ``clear_number``.
    """
    path = ("run", "facets", "airflowDagRun", "dagRun")
    if reading.text_at(event, *path, "run_id") is None:
        return None, 1
    issues: list[Issue] = []
    dag_run_id = _required_text(event, *path, "run_id", issues=issues, limit=IDENTITY_CHARS)
    if issues:
        raise _refusal(issues)
    cleared = reading.count_at(event, *path, "clear_number") or 0
    return dag_run_id, cleared + 1 if cleared < ATTEMPT_MAX else 1


def _short(name: str) -> str:
    """Return a name that fits, the same for the same name: its beginning and a digest of the whole."""
    if len(name) <= IDENTITY_CHARS:
        return name
    return f"{name[:495]}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def _payload(event: Mapping[str, Any], head: _Head, dag_run_id: str | None, now: datetime) -> dict[str, Any]:
    """Return what a reader wants to know of the event besides the run: no SQL, no schemas."""
    run_facets = reading.object_at(event, "run", "facets")
    job_type = reading.object_at(event, "job", "facets", "jobType")
    engine = reading.object_at(run_facets, "processing_engine")
    parent = facets.parent_of(run_facets)
    nominal_end = reading.time_at(run_facets, "nominalTime", "nominalEndTime", latest=now + 2 * SCHEDULE_AHEAD)
    return _told(
        namespace=head.namespace[:PAYLOAD_TEXT_CHARS],
        producer=_excerpt(event, "producer"),
        job_type=_told(
            processing_type=_excerpt(job_type, "processingType"),
            integration=_excerpt(job_type, "integration"),
            job_type=_excerpt(job_type, "jobType"),
        ),
        parent=_run_and_job(parent),
        root=_run_and_job(reading.object_at(parent, "root")),
        nominal_end=None if nominal_end is None else validation.format_time(nominal_end),
        processing_engine=_told(name=_excerpt(engine, "name"), version=_excerpt(engine, "version")),
        openlineage_run_id=head.run_id if dag_run_id else None,
        dag_run_state=_excerpt(run_facets, "airflowState", "dagRunState"),
    )


def _run_and_job(facet: Mapping[str, Any]) -> dict[str, Any]:
    return _told(
        run_id=_excerpt(facet, "run", "runId"),
        namespace=_excerpt(facet, "job", "namespace"),
        name=_excerpt(facet, "job", "name"),
    )


def _excerpt(value: object, *path: str) -> str | None:
    text = reading.text_at(value, *path)
    return None if text is None else text[:PAYLOAD_TEXT_CHARS]


def _told(**members: object) -> dict[str, Any]:
    """Return the members that have a value."""
    return {name: value for name, value in members.items() if value}


def is_known_word(word: str | None) -> bool:
    """Tell whether an event's type is one that the specification has; one that it has not counts as running."""
    return word is None or word.upper() in _STATUSES
