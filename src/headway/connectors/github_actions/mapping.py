"""What a GitHub Actions workflow run says, as an observation. Pure; it takes the API's run and a webhook's alike.

Both give the same object (``workflow_run`` of the event). Two things stand beside it where they are at hand:
``workflow`` (the event has it next to the run; the api adds it), as a run's own name may be that of the single run, and
``jobs``, which the api asks for where ``needs_jobs`` says so. Rule not to break: ``updated_at`` is no end time, since it
moves later (13 months in a recorded sample); what cannot be the end is not taken for it
(``tests/connectors/github_actions/test_mapping.py``).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from headway.connectors import contract
from headway.connectors.config import Source
from headway.connectors.contract import Payload, Report
from headway.core import reading
from headway.runs.observation import TERMINAL, Status, observe

WORKFLOW, JOBS = "workflow", "jobs"
ATTEMPT_MAX = 2**31 - 1
TEXT_CHARS = 512
NAMED_JOBS = 20
# A run ends a second or two before it is updated for the last time. What was updated longer than this after its start
# ran that long, or was touched later: its jobs tell.
DOUBTFUL_AFTER = timedelta(hours=1)
# No run takes longer, approvals included (docs.github.com, "Usage limits": a workflow run is cancelled then).
LONGEST = timedelta(days=35)

ANY_TIME = datetime.max.replace(tzinfo=UTC)

# https://docs.github.com/rest/actions/workflow-runs: status, and the conclusion of what is completed.
STATUSES = {
    "requested": Status.QUEUED,
    "queued": Status.QUEUED,
    "waiting": Status.QUEUED,
    "pending": Status.QUEUED,
    "in_progress": Status.RUNNING,
}
CONCLUSIONS = {
    "success": Status.SUCCESS,
    "neutral": Status.SUCCESS,
    "failure": Status.FAILED,
    "timed_out": Status.FAILED,
    "startup_failure": Status.FAILED,
    "cancelled": Status.CANCELED,
    "skipped": Status.SKIPPED,
    "stale": Status.SKIPPED,
    "action_required": Status.QUEUED,  # it waits for somebody's approval
}
_READ = (
    "id",
    "workflow_id",
    "run_attempt",
    "run_number",
    "event",
    "status",
    "conclusion",
    "name",
    "path",
    "display_title",
    "head_branch",
    "head_sha",
    "html_url",
    "created_at",
    "updated_at",
    "run_started_at",
)


class _Standing(NamedTuple):
    status: Status
    is_unknown: bool
    word: str | None


def report(payload: Payload, *, source: Source, now: datetime) -> Report:
    """Return what a workflow run says.

    Its pipeline is the workflow, by ``REPOSITORY_ID/WORKFLOW_ID``: both stay when a repository or a workflow is renamed
    or moved, both are in every webhook, and the first tells where a run that we hold can be asked for.

    Raises:
        OddPayloadError: it lacks its id, its workflow's or its repository's.
    """
    run_id = contract.identity(payload, "id")
    external_id = f"{contract.identity(payload, 'repository', 'id')}/{contract.identity(payload, 'workflow_id')}"
    latest = contract.latest_fact(now)
    standing = _standing(payload)
    attempt = _attempt(payload)
    has_ended = standing.status in TERMINAL
    started_at = _started_at(payload, attempt, latest)
    return Report(
        observe(
            pipeline=contract.pipeline_ref(
                client=source.client,
                platform=source.platform,
                name=_name(payload),
                external_id=external_id,
                environment=source.environment,
            ),
            external_run_id=run_id,
            status=standing.status,
            source=source.name,
            attempt=attempt,
            # An end is dated by itself: a later touch of a finished run is no news of it.
            observed_at=None if has_ended else reading.time_at(payload, "updated_at", latest=latest),
            # It is set when a run is queued; only a run that went on has started.
            started_at=None if standing.status is Status.QUEUED else started_at,
            finished_at=_finished_at(payload, started_at, latest) if has_ended else None,
            error_message=_error_message(payload) if standing.status is Status.FAILED else None,
            status_reason=standing.word,
            url=reading.url_at(payload, "html_url"),
            payload=_payload(payload),
        ),
        standing.is_unknown,
    )


def slim(run: Payload) -> dict[str, Any]:
    """Return what the mapping reads of a run of the API: a tenth of it, so that some can be kept."""
    return {
        **{key: run.get(key) for key in _READ},
        "repository": {key: reading.at(run, "repository", key) for key in ("id", "full_name")},
        "actor": {"login": reading.at(run, "actor", "login")},
        "triggering_actor": {"login": reading.at(run, "triggering_actor", "login")},
    }


def slim_job(job: Payload) -> dict[str, Any]:
    """Return what the mapping reads of a job."""
    failed = (step for step in reading.objects_at(job, "steps") if _has_failed(step))
    return {
        **{key: job.get(key) for key in ("name", "conclusion", "completed_at")},
        "steps": [{key: step.get(key) for key in ("name", "conclusion")} for step in failed][:1],
    }


def has_failed(run: Payload) -> bool:
    """Tell whether a run failed, so that its jobs know the reason."""
    return _standing(run).status is Status.FAILED


def is_end_doubtful(run: Payload) -> bool:
    """Tell whether the last update of a finished run may be long after its end, so that its jobs must tell."""
    if _standing(run).status not in TERMINAL:
        return False
    started_at = _started_at(run, _attempt(run), ANY_TIME)
    updated_at = reading.time_at(run, "updated_at", latest=ANY_TIME)
    return started_at is None or updated_at is None or updated_at - started_at > DOUBTFUL_AFTER


def is_finished(run: Payload) -> bool:
    """Tell whether a run, as far as GitHub is concerned, goes on no more."""
    return reading.text_at(run, "status") == "completed"


def name_of(repository: str | None, workflow: str) -> str:
    """Return the name of a pipeline."""
    return f"{repository}: {workflow}" if repository else workflow


def _standing(payload: Payload) -> _Standing:
    word = reading.text_at(payload, "status")
    if word != "completed":
        return _Standing(*contract.status_of(word, STATUSES, has_ended=False), word)
    conclusion = reading.text_at(payload, "conclusion")
    if conclusion is None:
        # A moment between two writes at GitHub. As an end it would be a failure that no later word could undo.
        return _Standing(Status.RUNNING, True, word)
    return _Standing(*contract.status_of(conclusion, CONCLUSIONS, has_ended=True), conclusion)


def _attempt(payload: Payload) -> int:
    """Return the number of the attempt; answers from before 2021 have none."""
    return min(max(reading.count_at(payload, "run_attempt") or 1, 1), ATTEMPT_MAX)


def _started_at(payload: Payload, attempt: int, latest: datetime) -> datetime | None:
    """Return when this attempt started; ``created_at`` stays that of the first one."""
    found = reading.time_at(payload, "run_started_at", latest=latest)
    return reading.time_at(payload, "created_at", latest=latest) if found is None and attempt == 1 else found


def _finished_at(payload: Payload, started_at: datetime | None, latest: datetime) -> datetime | None:
    """Return the end of the last job, else the last update if it can be the end, else None.

    Jobs from before the start belong to an earlier attempt: a re-run of what failed takes over what did not.
    """
    ends = [
        end
        for job in reading.objects_at(payload, JOBS)
        if (end := reading.time_at(job, "completed_at", latest=latest)) is not None
        and (started_at is None or end >= started_at)
    ]
    if ends:
        return max(ends)
    updated_at = reading.time_at(payload, "updated_at", latest=latest)
    if updated_at is None or (started_at is not None and updated_at - started_at > LONGEST):
        return None
    return updated_at


def _name(payload: Payload) -> str:
    """Return ``owner/repo: workflow``; a run's own name may be empty, and its path, too."""
    candidates = (
        reading.text_at(payload, WORKFLOW, "name"),
        reading.text_at(payload, "name"),
        reading.text_at(payload, WORKFLOW, "path"),
        reading.text_at(payload, "path"),
        contract.identity(payload, "workflow_id"),
    )
    return name_of(reading.text_at(payload, "repository", "full_name"), next(name for name in candidates if name))


def _error_message(payload: Payload) -> str | None:
    """Return which jobs failed, and in which step: GitHub's API has no text of an error outside the logs."""
    failed = [job for job in reading.objects_at(payload, JOBS) if _has_failed(job)]
    said = [_failure(job) for job in failed[:NAMED_JOBS]]
    if len(failed) > NAMED_JOBS:
        said.append(f"and {len(failed) - NAMED_JOBS} more jobs")
    return "; ".join(said) or None


def _failure(job: Payload) -> str:
    name = _excerpt(job, "name") or "a job"
    conclusion = (_excerpt(job, "conclusion") or "failure").replace("_", " ")
    step = next((_excerpt(step, "name") for step in reading.objects_at(job, "steps") if _has_failed(step)), None)
    return f"{name}: {conclusion}" + (f" in step {step}" if step else "")


def _has_failed(job_or_step: Payload) -> bool:
    word = reading.text_at(job_or_step, "conclusion")
    return word is not None and CONCLUSIONS.get(word) is Status.FAILED


def _payload(payload: Payload) -> dict[str, Any]:
    """Return what a reader wants to know besides."""
    said = {
        "event": _excerpt(payload, "event"),
        "display_title": _excerpt(payload, "display_title"),
        "head_branch": _excerpt(payload, "head_branch"),
        "head_sha": _excerpt(payload, "head_sha"),
        "path": _excerpt(payload, "path"),
        "run_number": reading.count_at(payload, "run_number"),
        "created_at": _excerpt(payload, "created_at"),
        "actor": _excerpt(payload, "actor", "login"),
        "triggering_actor": _excerpt(payload, "triggering_actor", "login"),
    }
    return {name: value for name, value in said.items() if value is not None}


def _excerpt(value: object, *path: str) -> str | None:
    text = reading.text_at(value, *path)
    return None if text is None else text[:TEXT_CHARS]
