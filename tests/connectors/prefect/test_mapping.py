"""What recorded flow runs of Prefect 3.8.8 say."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.contract import OddPayloadError, Report
from headway.connectors.prefect import mapping
from headway.connectors.prefect.api import PrefectSource
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import Status
from tests.connectors.prefect.subject import recorded

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SOURCE = PrefectSource(name="flows", platform="prefect", client="acme", url="http://prefect.example:4200")
RUNS = recorded()


def _report(payload: dict[str, Any], now: datetime = NOW) -> Report | None:
    return mapping.report(payload, source=SOURCE, ui=SOURCE.ui, now=now)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("label", "status", "reason", "attempt", "started", "finished", "error"),
    [
        ("succeeded", Status.SUCCESS, "Completed", 1, "start", "end", None),
        ("failed-bare", Status.FAILED, "Failed", 1, "start", "end", "Flow run encountered an exception: ValueError"),
        ("partial-failure", Status.FAILED, "PartialFailure", 1, "start", "end", "3 of 10 files were bad"),
        ("timed-out", Status.FAILED, "TimedOut", 1, "start", "end", "Flow run exceeded timeout of 2.0 second(s)"),
        ("crashed", Status.FAILED, "Crashed", 1, "start", "end", "Process exited with status code: 137."),
        ("skipped", Status.SKIPPED, "Skipped", 1, "start", "end", "nothing to do"),
        ("returned-cancelled", Status.CANCELED, "Cancelled", 1, "start", "end", "stopped by a rule"),
        ("cancelled", Status.CANCELED, "Cancelled", 1, "start", "end", "Flow run was cancelled successfully."),
        ("cancelling", Status.RUNNING, "Cancelling", 1, "start", None, None),
        ("suspended", Status.RUNNING, "Suspended", 1, "start", None, None),
        ("running", Status.RUNNING, "Running", 1, "start", None, None),
        (
            "awaiting-retry",
            Status.RUNNING,
            "AwaitingRetry",
            1,
            "start",
            None,
            "Flow run encountered an exception: Conn",
        ),
        ("retrying", Status.RUNNING, "Running", 2, "state", None, None),
        ("retried-to-success", Status.SUCCESS, "Completed", 3, None, "end", None),
        ("pending", Status.QUEUED, "Pending", 1, None, None, None),
        ("late", Status.QUEUED, "Late", 1, None, None, None),
        ("cancelled-before-start", Status.CANCELED, "Cancelled", 1, None, "end", "not today"),
        ("rerun-scheduled", Status.RUNNING, "Scheduled", 1, "start", None, None),
        ("rerun-running", Status.RUNNING, "Running", 2, "state", None, None),
        ("rerun-failed", Status.FAILED, "Failed", 2, None, "end", "disk full again"),
    ],
)
def test_recorded_run_says(
    label: str, status: Status, reason: str, attempt: int, started: str | None, finished: str | None, error: str | None
) -> None:
    run = RUNS[label]
    said = _report(run)
    assert said is not None
    assert not said.is_unknown_word
    o = said.observation
    assert (o.status, o.status_reason, o.attempt, o.external_run_id) == (status, reason, attempt, run["id"])
    assert o.observed_at == _time(run["state"]["timestamp"])
    assert o.scheduled_for == _time(run["expected_start_time"])
    assert o.started_at == _time({"start": run["start_time"], "state": run["state"]["timestamp"]}.get(started or ""))
    assert o.finished_at == _time(run["end_time"] if finished else None)
    assert (o.error_message or "").startswith(error or "")
    assert (o.error_message is None) == (error is None)
    assert o.url == f"http://prefect.example:4200/runs/flow-run/{run['id']}"
    assert o.source == "flows"


def test_pipeline_is_the_deployment_else_the_flow() -> None:
    deployed, bare = _report(RUNS["succeeded"]), _report(RUNS["failed-bare"])
    assert deployed is not None
    assert bare is not None
    assert deployed.observation.pipeline == PipelineRef(
        "acme", "prefect", "orders-load/nightly", RUNS["succeeded"]["deployment_id"], "prod"
    )
    assert bare.observation.pipeline == PipelineRef(
        "acme", "prefect", "inventory-sync", RUNS["failed-bare"]["flow_id"], "prod"
    )


@pytest.mark.parametrize("label", ["succeeded", "failed-bare"])
def test_pipeline_without_a_known_name_goes_by_its_id(label: str) -> None:
    run = {key: value for key, value in RUNS[label].items() if key != mapping.NAMES}
    said = _report(run)
    assert said is not None
    assert isinstance(said.observation.pipeline, PipelineRef)
    assert said.observation.pipeline.name == (run["deployment_id"] or run["flow_id"])


def test_run_planned_for_later_is_none_until_it_is_due() -> None:
    run = RUNS["planned"]
    assert _report(run) is None
    due = _report(run, datetime(2026, 12, 24, 5, 0, 1, tzinfo=UTC))
    assert due is not None
    assert due.observation.status is Status.QUEUED
    assert _report({**run, "expected_start_time": "2399-01-01T00:00:00Z"}) is None


def test_run_of_a_child_flow_is_none() -> None:
    assert _report(RUNS["child"]) is None


def test_unknown_type_of_state_is_running_and_with_an_end_failed() -> None:
    run = {**RUNS["succeeded"], "state_type": "EVAPORATED", "state_name": "Completed"}
    ended = _report(run)
    live = _report({**run, "end_time": None})
    assert ended is not None
    assert live is not None
    assert (ended.observation.status, ended.observation.status_reason) == (Status.FAILED, "EVAPORATED")
    assert (live.observation.status, live.is_unknown_word, ended.is_unknown_word) == (Status.RUNNING, True, True)


def test_parameters_and_variables_are_never_taken() -> None:
    secret = "s3cr3t-in-a-parameter"
    run = RUNS["succeeded"] | {
        "parameters": {"dsn": secret},
        "job_variables": {"env": {"KEY": secret}},
        "context": {"a": secret},
        "state": {**RUNS["succeeded"]["state"], "data": {"result": secret}},
    }
    assert secret not in str(_report(run))


def test_payload_is_small_and_the_same_while_the_state_stays() -> None:
    run = RUNS["running"]
    said = _report(run)
    later = _report({**run, "estimated_run_time": 99.0, "updated": "2026-11-23T11:00:00Z"})
    assert said is not None
    assert later is not None
    assert said.observation.rank == later.observation.rank
    assert said.observation.payload is not None
    shown = json.loads(said.observation.payload)
    assert shown["run_count"] == 1
    assert len(said.observation.payload) < 500


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["SCHEDULED", "x" * 600]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = sorted({*RUNS["succeeded"], mapping.NAMES})


@given(st.sampled_from(sorted(RUNS)), st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6))
def test_arbitrary_json_raises_nothing_but_odd_payload(label: str, changes: dict[str, Any]) -> None:
    with contextlib.suppress(OddPayloadError):
        _report({**RUNS[label], **changes})


@given(_JSON)
def test_arbitrary_state_raises_nothing(state: Any) -> None:
    _report({**RUNS["failed-bare"], "state": state})
    _report({**RUNS["failed-bare"], mapping.NAMES: state})


@pytest.mark.parametrize("missing", [{"id": None}, {"flow_id": None}, {"id": "x" * 600}, {"id": ""}])
def test_run_without_identity_is_odd(missing: dict[str, Any]) -> None:
    with pytest.raises(OddPayloadError):
        _report({**RUNS["failed-bare"], **missing})
