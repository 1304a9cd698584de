import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.airflow import mapping
from headway.connectors.airflow.mapping import AirflowSource
from headway.connectors.contract import OddPayloadError
from headway.core.validation import parse_time
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import OPEN_ATTEMPT, Status
from tests.connectors.airflow.subject import DATA, AirflowSubject

RUNS = {
    line["name"]: line["run"]
    for line in map(json.loads, (DATA / "runs.ndjson").read_text(encoding="utf-8").splitlines())
}
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
URL = "https://airflow.example.com/team"


def _source(**more: Any) -> AirflowSource:
    return AirflowSubject().source(URL, **more)


def _observed(payload: dict[str, Any], **more: Any) -> Any:
    report = mapping.report(payload, source=_source(**more), now=NOW)
    assert report is not None
    assert not report.is_unknown_word
    return report.observation


# name: status, observed_at, scheduled_for, started_at, finished_at
EXPECTED = {
    "scheduled_success": (
        Status.SUCCESS,
        "2026-11-22T21:36:02.880598Z",
        "2026-11-19T00:00:00Z",
        "2026-11-22T21:35:43.239903Z",
        "2026-11-22T21:36:02.880598Z",
    ),
    "manual_failed": (
        Status.FAILED,
        "2026-11-22T21:35:57.325108Z",
        "2026-11-22T21:35:43.098526Z",
        "2026-11-22T21:35:44.871312Z",
        "2026-11-22T21:35:57.325108Z",
    ),
    "timed_out": (
        Status.FAILED,
        "2026-11-22T21:35:53.105132Z",
        "2026-11-22T21:35:43.459365Z",
        "2026-11-22T21:35:44.972214Z",
        "2026-11-22T21:35:53.105132Z",
    ),
    "asset_triggered": (
        Status.SUCCESS,
        "2026-11-22T21:36:02.840974Z",
        "2026-11-22T21:35:56.712113Z",
        "2026-11-22T21:35:57.218072Z",
        "2026-11-22T21:36:02.840974Z",
    ),
    "running": (
        Status.RUNNING,
        "2026-11-22T21:35:44.981604Z",
        "2026-11-22T21:35:43.500402Z",
        "2026-11-22T21:35:44.981604Z",
        None,
    ),
    "queued_in_paused_dag": (
        Status.QUEUED,
        "2026-11-22T21:35:43.486386Z",
        "2026-11-22T21:35:43.482833Z",
        None,
        None,
    ),
    "cleared": (Status.QUEUED, "2026-11-23T10:34:33.628049Z", "2026-11-23T10:32:30.893636Z", None, None),
    "failed_by_hand_before_it_started": (
        Status.FAILED,
        "2026-11-23T10:32:40.840332Z",
        "2026-11-23T10:32:31.008416Z",
        None,
        "2026-11-23T10:32:40.840332Z",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_run_is_observed_with_its_own_times_and_an_open_attempt(name: str) -> None:
    run = RUNS[name]
    seen = _observed(run)
    assert seen.pipeline == PipelineRef(
        "acme", "airflow", run["dag_id"], f"default/{run['dag_id']}", environment="prod"
    )
    assert (seen.external_run_id, seen.attempt) == (run["dag_run_id"], OPEN_ATTEMPT)
    status, *times = EXPECTED[name]
    assert seen.status is status
    assert [seen.observed_at, seen.scheduled_for, seen.started_at, seen.finished_at] == [
        time and parse_time(time) for time in times
    ]
    assert (seen.status_reason, seen.source, seen.error_message) == (run["state"], "airflow-of-acme", None)


def test_recorded_runs_are_all_judged() -> None:
    assert RUNS.keys() == EXPECTED.keys() | {"planned"}


def test_run_planned_for_later_is_no_run_until_its_time_has_come() -> None:
    planned = RUNS["planned"]
    assert mapping.report(planned, source=_source(), now=NOW) is None
    later = mapping.report(planned, source=_source(), now=parse_time(planned["run_after"]))
    assert later is not None
    assert later.observation.status is Status.QUEUED
    assert mapping.report({**planned, "run_after": "2031-01-01T00:00:00Z"}, source=_source(), now=NOW) is None
    started = {**planned, "state": "running", "start_date": "2026-11-23T11:00:00Z"}
    assert _observed(started).scheduled_for == parse_time(planned["run_after"])


def test_link_and_identity_survive_signs_that_urls_and_filters_know() -> None:
    seen = _observed(RUNS["cleared"])
    assert seen.external_run_id == "fix+1:2~3"
    assert seen.url == f"{URL}/dags/fixable/runs/fix%2B1%3A2~3"


def test_payload_has_what_a_reader_wants_and_no_configuration_of_the_run() -> None:
    assert json.loads(_observed(RUNS["manual_failed"]).payload) == {
        "run_type": "manual",
        "triggered_by": "rest_api",
        "note": "first try",
        "dag_version": 1,
    }
    assert json.loads(_observed(RUNS["scheduled_success"]).payload) == {
        "run_type": "scheduled",
        "triggered_by": "timetable",
        "logical_date": "2026-11-19T00:00:00Z",
        "data_interval_start": "2026-11-19T00:00:00Z",
        "data_interval_end": "2026-11-19T00:00:00Z",
        "dag_version": 1,
    }


def test_failed_tasks_are_the_error_of_a_failed_run_alone() -> None:
    tasks = {mapping.FAILED_TASKS: ["load", "write"]}
    assert _observed({**RUNS["manual_failed"], **tasks}).error_message == "failed tasks: load, write"
    assert _observed({**RUNS["scheduled_success"], **tasks}).error_message is None
    many = {mapping.FAILED_TASKS: [f"t{number}" for number in range(25)]}
    assert _observed({**RUNS["manual_failed"], **many}).error_message.endswith("t19 and 5 more")


def test_run_of_airflow_2_goes_by_its_old_names() -> None:
    run = {
        "conf": {},
        "dag_id": "orders",
        "dag_run_id": "scheduled__2024-05-01T00:00:00+00:00",
        "data_interval_end": "2024-05-02T00:00:00+00:00",
        "data_interval_start": "2024-05-01T00:00:00+00:00",
        "end_date": "2024-05-02T00:01:00.5+00:00",
        "execution_date": "2024-05-01T00:00:00+00:00",
        "external_trigger": False,
        "logical_date": "2024-05-01T00:00:00+00:00",
        "note": None,
        "run_type": "scheduled",
        "start_date": "2024-05-02T00:00:00.5+00:00",
        "state": "success",
    }
    seen = _observed(run)
    assert seen.scheduled_for == datetime(2024, 5, 1, tzinfo=UTC)
    assert seen.observed_at == seen.finished_at == datetime(2024, 5, 2, 0, 1, 0, 500_000, UTC)
    assert seen.url == f"{URL}/dags/orders/grid?dag_run_id=scheduled__2024-05-01T00%3A00%3A00%2B00%3A00"
    queued = _observed({**run, "state": "queued", "start_date": None, "end_date": None})
    assert (queued.status, queued.observed_at) == (Status.QUEUED, None)


def test_unknown_word_is_shown_and_counted() -> None:
    for end, status in ((None, Status.RUNNING), ("2026-11-23T11:00:00Z", Status.FAILED)):
        report = mapping.report({**RUNS["running"], "state": "hatching", "end_date": end}, source=_source(), now=NOW)
        assert report is not None
        assert report.is_unknown_word
        assert (report.observation.status, report.observation.status_reason) == (status, "hatching")


def test_dag_that_is_left_out_gives_no_run() -> None:
    assert mapping.report(RUNS["running"], source=_source(exclude=["ml_*"]), now=NOW) is None
    assert mapping.report(RUNS["running"], source=_source(include=["orders*"]), now=NOW) is None
    assert mapping.report(RUNS["running"], source=_source(include=["default/ml_*"]), now=NOW) is not None


def test_namespace_and_environment_are_the_source_s() -> None:
    pipeline = _observed(RUNS["running"], namespace="prod-eu", environment="staging").pipeline
    assert (pipeline.external_id, pipeline.environment) == ("prod-eu/ml_training", "staging")


def test_time_of_a_clock_that_is_a_week_ahead_is_no_time() -> None:
    ahead = (NOW + timedelta(days=7)).isoformat()
    assert _observed({**RUNS["running"], "start_date": ahead}).started_at is None


@pytest.mark.parametrize("key", ["dag_id", "dag_run_id"])
@pytest.mark.parametrize("value", [None, "", [], 1.5, "x" * 513])
def test_run_without_identity_is_odd(key: str, value: object) -> None:
    with pytest.raises(OddPayloadError):
        mapping.report({**RUNS["running"], key: value}, source=_source(), now=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
KEYS = sorted({*RUNS["running"], mapping.FAILED_TASKS, "execution_date"})
TIMES = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)


@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON | TIMES, max_size=8), bare=st.booleans())
def test_hostile_payload_is_odd_at_most(changes: dict[str, Any], bare: bool) -> None:
    with contextlib.suppress(OddPayloadError):
        mapping.report(changes if bare else {**RUNS["manual_failed"], **changes}, source=_source(), now=NOW)
