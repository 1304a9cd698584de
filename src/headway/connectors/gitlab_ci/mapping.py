"""What a GitLab pipeline says, as an observation. Pure; it takes the API's pipeline and a ``Pipeline Hook`` alike.

To the API's answer the api adds ``project`` (its id and path) and, of failed pipelines, ``jobs``; a hook brings both
along. A retry keeps the id of a pipeline and counts nothing, so the attempt is left open: the one writer numbers it, and
what is under way is dated by ``updated_at``, which tells that it lives on after the end that is stored. Rule not to
break: variables may hold secrets and are never taken (``tests/connectors/gitlab_ci/test_mapping.py``).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from headway.connectors import contract
from headway.connectors.config import Source
from headway.connectors.contract import Payload, Report
from headway.core import reading
from headway.runs.observation import OPEN_ATTEMPT, TERMINAL, Status, observe

PROJECT, JOBS = "project", "jobs"
TEXT_CHARS = 512
NAMED_JOBS = 20
CHILD = "parent_pipeline"
LONGEST_QUEUE_SECONDS = 366 * 86_400

# https://docs.gitlab.com/api/pipelines: status
WORDS = {
    "created": Status.QUEUED,
    "waiting_for_resource": Status.QUEUED,
    "waiting_for_callback": Status.QUEUED,
    "preparing": Status.QUEUED,
    "pending": Status.QUEUED,
    "scheduled": Status.QUEUED,
    "manual": Status.QUEUED,  # it waits for somebody to press a button
    "running": Status.RUNNING,
    "canceling": Status.RUNNING,
    "success": Status.SUCCESS,
    "failed": Status.FAILED,
    "canceled": Status.CANCELED,
    "skipped": Status.SKIPPED,
}
_READ = (
    "id", "iid", "project_id", "name", "status", "source", "ref", "sha", "tag", "web_url", "created_at", "updated_at",
    "started_at", "finished_at", "duration", "queued_duration", "yaml_errors",
)  # fmt: skip


class _Pipeline(NamedTuple):
    """What both shapes tell. ``told_at`` is the latest time at which the pipeline is known to have been like this."""

    attributes: Payload
    project_id: str
    started_at: datetime | None
    told_at: datetime | None
    url: str | None
    jobs: Iterable[Payload]
    user: str | None


def report(payload: Payload, *, source: Source, now: datetime) -> Report | None:
    """Return what a pipeline says; None for a child pipeline, which is a part of its parent.

    Our pipeline is the project, by its id: that stays when the project is renamed or moved.

    Raises:
        OddPayloadError: it lacks its id or its project's.
    """
    latest = contract.latest_fact(now)
    found = _from_hook(payload, latest) if "object_attributes" in payload else _from_api(payload, latest)
    attributes = found.attributes
    run_id = contract.identity(attributes, "id")
    if reading.text_at(attributes, "source") == CHILD:
        return None
    finished_at = reading.loose_time_at(attributes, "finished_at", latest=latest)
    word = reading.text_at(attributes, "status")
    status, is_unknown = contract.status_of(word, WORDS, has_ended=finished_at is not None)
    has_ended = status in TERMINAL
    # A retried pipeline keeps its first start and, until it ends, its last end: that start is not the one of this try.
    is_retried = not has_ended and finished_at is not None
    return Report(
        observe(
            pipeline=contract.pipeline_ref(
                client=source.client,
                platform=source.platform,
                name=reading.text_at(payload, PROJECT, "path_with_namespace") or found.project_id,
                external_id=found.project_id,
                environment=source.environment,
            ),
            external_run_id=run_id,
            status=status,
            source=source.name,
            attempt=OPEN_ATTEMPT,
            observed_at=(finished_at or found.told_at) if has_ended else found.told_at,
            started_at=None if is_retried else found.started_at,
            finished_at=finished_at,  # counts on ends alone
            error_message=_error_message(found) if status is Status.FAILED else None,
            status_reason=word,
            url=found.url,
            payload=_payload(found),
        ),
        is_unknown,
    )


def slim(pipeline: Payload) -> dict[str, Any]:
    """Return what the mapping reads of a pipeline of the API."""
    return {
        **{key: pipeline.get(key) for key in _READ},
        "user": {"username": reading.at(pipeline, "user", "username")},
        "detailed_status": {"label": reading.at(pipeline, "detailed_status", "label")},
    }


def slim_job(job: Payload) -> dict[str, Any]:
    """Return what the mapping reads of a job."""
    return {key: job.get(key) for key in ("name", "stage", "status", "allow_failure", "failure_reason")}


def has_failed(pipeline: Payload) -> bool:
    """Tell whether a pipeline failed, so that its jobs know the reason."""
    return reading.text_at(pipeline, "status") == "failed"


def _from_api(payload: Payload, latest: datetime) -> _Pipeline:
    return _Pipeline(
        payload,
        reading.id_at(payload, PROJECT, "id") or contract.identity(payload, "project_id"),
        reading.loose_time_at(payload, "started_at", latest=latest),
        reading.loose_time_at(payload, "updated_at", latest=latest),
        reading.url_at(payload, "web_url"),
        reading.objects_at(payload, JOBS),
        _excerpt(payload, "user", "username"),
    )


def _from_hook(payload: Payload, latest: datetime) -> _Pipeline:
    """Return what a hook tells: no start but the time in the queue, and no last change but that of its jobs."""
    attributes = reading.object_at(payload, "object_attributes")
    builds = list(reading.objects_at(payload, "builds"))
    created_at = reading.loose_time_at(attributes, "created_at", latest=latest)
    queued = reading.count_at(attributes, "queued_duration")
    started_at = None
    if created_at is not None and queued is not None and queued <= LONGEST_QUEUE_SECONDS:
        started_at = created_at + timedelta(seconds=queued)
    times = [
        time
        for build in builds
        for key in ("created_at", "started_at", "finished_at")
        if (time := reading.loose_time_at(build, key, latest=latest)) is not None
    ]
    return _Pipeline(
        attributes,
        contract.identity(payload, PROJECT, "id"),
        started_at if started_at is None or started_at <= latest else None,
        max([*times, *([] if created_at is None else [created_at])], default=None),
        reading.url_at(attributes, "url"),
        builds,
        _excerpt(payload, "user", "username"),
    )


def _error_message(found: _Pipeline) -> str | None:
    """Return which jobs failed and why, or what is wrong with the configuration; more is in the logs alone."""
    failed = [
        job
        for job in found.jobs
        if reading.text_at(job, "status") == "failed" and not reading.flag_at(job, "allow_failure")
    ]
    said = [_failure(job) for job in failed[:NAMED_JOBS]]
    if len(failed) > NAMED_JOBS:
        said.append(f"and {len(failed) - NAMED_JOBS} more jobs")
    return "; ".join(said) or reading.text_at(found.attributes, "yaml_errors")


def _failure(job: Payload) -> str:
    reason = _excerpt(job, "failure_reason")
    stage = _excerpt(job, "stage")
    name = (_excerpt(job, "name") or "a job") + (f" (stage {stage})" if stage else "")
    return name if reason in {None, "unknown_failure"} else f"{name}: {str(reason).replace('_', ' ')}"


def _payload(found: _Pipeline) -> dict[str, Any]:
    """Return what a reader wants to know besides. ``duration_seconds`` is the time that jobs ran, as GitLab has it."""
    attributes = found.attributes
    detail = _excerpt(attributes, "detailed_status", "label") or _excerpt(attributes, "detailed_status")
    seconds = reading.at(attributes, "duration")
    said = {
        "source": _excerpt(attributes, "source"),
        "name": _excerpt(attributes, "name"),
        "ref": _excerpt(attributes, "ref"),
        "sha": _excerpt(attributes, "sha"),
        "is_tag": reading.flag_at(attributes, "tag") or None,
        "iid": reading.count_at(attributes, "iid"),
        "detailed_status": detail,
        "created_at": _excerpt(attributes, "created_at"),
        "duration_seconds": seconds if type(seconds) in {int, float} and 0 <= seconds < 1e12 else None,  # type: ignore[operator]
        "queued_seconds": reading.count_at(attributes, "queued_duration"),
        "user": found.user,
    }
    return {name: value for name, value in said.items() if value is not None}


def _excerpt(value: object, *path: str) -> str | None:
    text = reading.text_at(value, *path)
    return None if text is None else text[:TEXT_CHARS]
