"""What a run of the example platform says, as an observation. Pure; recorded runs are mapped the same way."""

from collections.abc import Mapping
from datetime import datetime

from headway.connectors import contract
from headway.connectors.contract import Payload, Report
from headway.core import reading
from headway.runs import observation
from headway.runs.observation import OPEN_ATTEMPT, TERMINAL, Status
from tests.connectors.example.source import ExampleSource

WORDS: Mapping[str, Status] = {
    "WAITING": Status.QUEUED,
    "ACTIVE": Status.RUNNING,
    "DONE": Status.SUCCESS,
    "BROKEN": Status.FAILED,
    "STOPPED": Status.CANCELED,
    "LEFT_OUT": Status.SKIPPED,
}


def report(payload: Payload, source: ExampleSource, now: datetime) -> Report | None:
    """Return what a run says; None for one that is planned, or of a pipeline that is not to be imported."""
    latest = contract.latest_fact(now)
    pipeline = contract.identity(payload, "pipeline")
    planned = reading.time_at(payload, "planned", latest=contract.latest_plan(now))
    if not source.takes(pipeline) or (planned is not None and planned > now):
        return None
    word = reading.text_at(payload, "state")
    ended = reading.time_at(payload, "ended", latest=latest)
    status, is_unknown = contract.status_of(word, WORDS, has_ended=ended is not None)
    made = observation.observe(
        pipeline=contract.pipeline_ref(
            client=source.client,
            platform=source.platform,
            name=pipeline,
            external_id=pipeline,
            environment=source.environment,
        ),
        external_run_id=contract.identity(payload, "id"),
        status=status,
        source=source.name,
        attempt=OPEN_ATTEMPT,  # the platform runs a run again under its id, and does not count
        observed_at=reading.time_at(payload, "updated", latest=latest),
        scheduled_for=planned,
        started_at=None if status is Status.QUEUED else reading.time_at(payload, "started", latest=latest),
        finished_at=ended if status in TERMINAL else None,
        rows_processed=reading.count_at(payload, "rows"),
        error_message=reading.text_at(payload, "error"),
        status_reason=word,
        url=reading.url_at(payload, "page"),
    )
    return Report(made, is_unknown)
