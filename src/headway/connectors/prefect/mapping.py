"""What a Prefect 3 flow run says, as an observation. Pure; the api adds the names of the flow and the deployment.

Where a rule is not in Prefect's documentation it is read in its server (3.8, ``server/orchestration/global_policy.py``)
and held to the real one by ``tests/acceptance/platforms/test_prefect.py``. Rule not to break: parameters, variables and
results of a run may hold secrets and are never taken (``tests/connectors/prefect/test_mapping.py``).
"""

from datetime import datetime
from typing import Any
from urllib.parse import quote

from headway.connectors import contract
from headway.connectors.config import Source
from headway.connectors.contract import Payload, Report
from headway.core import reading
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import TERMINAL, Status, observe

# Under this key the api adds what Prefect has elsewhere: {"flow": name, "deployment": name}.
NAMES = "headway_names"
ATTEMPT_MAX = 2**31 - 1
TEXT_CHARS = 512
TAGS = 50

# state.type; the name of a state is free text, which users choose as well.
WORDS = {
    "SCHEDULED": Status.QUEUED,
    "PENDING": Status.QUEUED,
    "RUNNING": Status.RUNNING,
    "PAUSED": Status.RUNNING,
    "CANCELLING": Status.RUNNING,
    "COMPLETED": Status.SUCCESS,
    "FAILED": Status.FAILED,
    "CRASHED": Status.FAILED,
    "CANCELLED": Status.CANCELED,
}


def report(payload: Payload, *, source: Source, ui: str, now: datetime) -> Report | None:
    """Return what a flow run says; None for one that is not imported.

    That is: a run that another flow's run started, one planned for later than now, one of a pipeline that is left out.
    ``ui`` is where the pages of the user interface are.

    Raises:
        OddPayloadError: it has no id, or neither deployment nor flow.
    """
    run_id = contract.identity(payload, "id")
    planned_for = reading.time_at(payload, "expected_start_time", latest=contract.latest_plan(now))
    word = reading.text_at(payload, "state_type")
    count = min(reading.count_at(payload, "run_count") or 0, ATTEMPT_MAX)
    if reading.text_at(payload, "parent_task_run_id") is not None:
        return None
    if word == "SCHEDULED" and count == 0 and _is_later(payload, planned_for, now):
        return None
    latest = contract.latest_fact(now)
    ended_at = reading.time_at(payload, "end_time", latest=latest)
    changed_at = reading.time_at(payload, "state", "timestamp", latest=latest)
    status, is_unknown = _status(payload, word, count, has_ended=ended_at is not None)
    pipeline = _pipeline(payload, source)
    if not source.takes(pipeline.name, pipeline.external_id):
        return None
    return Report(
        observe(
            pipeline=pipeline,
            external_run_id=run_id,
            status=status,
            source=source.name,
            attempt=max(count, 1),
            observed_at=changed_at,
            scheduled_for=planned_for,
            started_at=_started_at(payload, word, count, changed_at, latest),
            finished_at=ended_at or changed_at,  # counts on ends alone
            error_message=_error_message(payload, status),
            status_reason=word if is_unknown else reading.text_at(payload, "state_name") or word,
            url=f"{ui}/runs/flow-run/{quote(run_id, safe='')}",
            payload=_payload(payload),
        ),
        is_unknown,
    )


def _is_later(payload: Payload, planned_for: datetime | None, now: datetime) -> bool:
    """Tell whether a run that never ran is planned for later; a plan too far ahead to be one of ours is later, too."""
    if planned_for is not None:
        return planned_for > now
    return reading.text_at(payload, "expected_start_time") is not None


def _status(payload: Payload, word: str | None, count: int, *, has_ended: bool) -> tuple[Status, bool]:
    status, is_unknown = contract.status_of(word, WORDS, has_ended=has_ended)
    if status is Status.SUCCESS and reading.text_at(payload, "state_name") == "Skipped":
        return Status.SKIPPED, False
    # It waits for its next try (AwaitingRetry, Resuming): as a whole it is under way. The number of the try grows only
    # when it starts, so a finished run that is retried by hand stays at its end until then.
    if status is Status.QUEUED and count > 0:
        return Status.RUNNING, False
    return status, is_unknown


def _pipeline(payload: Payload, source: Source) -> PipelineRef:
    """Return the deployment that was run, the flow where there is none; an unknown name is the id."""
    flow = reading.text_at(payload, NAMES, "flow")
    deployment = reading.text_at(payload, NAMES, "deployment")
    if reading.id_at(payload, "deployment_id") is not None:
        external_id = contract.identity(payload, "deployment_id")
        name = f"{flow}/{deployment}" if flow and deployment else external_id
    else:
        external_id = contract.identity(payload, "flow_id")
        name = flow or external_id
    return contract.pipeline_ref(
        client=source.client,
        platform=source.platform,
        name=name,
        external_id=external_id,
        environment=source.environment,
    )


def _started_at(
    payload: Payload, word: str | None, count: int, changed_at: datetime | None, latest: datetime
) -> datetime | None:
    """Return when this attempt started, None where Prefect does not tell.

    ``start_time`` is the start of the first attempt for ever; a run that ends before it ever ran gets its end there. A
    later attempt says when it started only while it runs, as the time of that state: seen then, it is kept; not seen,
    no start is better than the first attempt's, which would count the pause between them as run time.
    """
    if count > 1:
        return changed_at if word == "RUNNING" else None
    return reading.time_at(payload, "start_time", latest=latest) if count == 1 else None


def _error_message(payload: Payload, status: Status) -> str | None:
    """Return why it ended so, or why it must be tried again; what other states say is no error."""
    if (status in TERMINAL and status is not Status.SUCCESS) or reading.text_at(
        payload, "state_name"
    ) == "AwaitingRetry":
        return reading.text_at(payload, "state", "message")
    return None


def _payload(payload: Payload) -> dict[str, Any]:
    """Return what a reader wants to know besides: nothing that changes while the state stays."""
    seconds = reading.at(payload, "total_run_time")
    tags = reading.at(payload, "tags")
    said = {
        "name": _excerpt(payload, "name"),
        "state_type": _excerpt(payload, "state_type"),
        "run_count": reading.count_at(payload, "run_count"),
        "total_run_seconds": seconds if type(seconds) in {int, float} and 0 <= seconds < 1e12 else None,  # type: ignore[operator]
        "auto_scheduled": reading.flag_at(payload, "auto_scheduled") or None,
        "flow_version": _excerpt(payload, "flow_version"),
        "deployment_version": _excerpt(payload, "deployment_version"),
        "work_pool": _excerpt(payload, "work_pool_name"),
        "work_queue": _excerpt(payload, "work_queue_name"),
        "tags": [reading.mended(tag)[:TEXT_CHARS] for tag in tags[:TAGS] if isinstance(tag, str)]
        if isinstance(tags, list)
        else None,
    }
    return {name: value for name, value in said.items() if value not in (None, [])}


def _excerpt(payload: Payload, *path: str) -> str | None:
    text = reading.text_at(payload, *path)
    return None if text is None else text[:TEXT_CHARS]
