"""OpenLineage events to observations: https://openlineage.io/docs/spec/run-cycle and …/facets.

``tests/data/openlineage`` was recorded from openlineage-python 1.54 (``truth.ndjson`` says what really happened there)
and from dbt-ol 1.54. There is no recording of Airflow: its events are built here by hand, in the shape that its
provider 2.20 gives them.
"""

import base64
import copy
import gzip
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import InvalidInputError
from headway.ingest.openlineage import map_event
from headway.pipelines.reference import PipelineRef
from headway.runs.merge import RunRecord
from headway.runs.observation import RunObservation, Status

Event = dict[str, Any]

DATA = Path(__file__).parents[1] / "data" / "openlineage"
NOW = datetime(2026, 11, 22, 22, tzinfo=UTC)
PRODUCER = "https://github.com/OpenLineage/OpenLineage/tree/1.54.0"
AIRFLOW = "https://github.com/apache/airflow/tree/providers-openlineage/2.20.3"


def recorded(name: str) -> list[Event]:
    """Return the events of a recorded session in their order of arrival."""
    events = []
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        body = request.get("body") or gzip.decompress(base64.b64decode(request["body_base64"]))
        events.append(json.loads(body))
    return events


def truths() -> dict[str, Event]:
    lines = (DATA / "truth.ndjson").read_text(encoding="utf-8").splitlines()
    return {truth["case"]: truth for truth in map(json.loads, lines)}


SESSION = recorded("events.ndjson")
GZIPPED = recorded("gzip.ndjson")
DBT = recorded("run_one_model_fails.ndjson")
TRUTHS = truths()


def mapped(event: Any, *, keep_tasks: bool = False) -> RunObservation:
    (observation,) = map_event(event, client="acme", now=NOW, keep_tasks=keep_tasks)
    return observation


def shown(observation: RunObservation) -> dict[str, Any]:
    """Return what an observation says, without what every OpenLineage observation says alike."""
    fields = observation._asdict()
    assert fields.pop("source") == "openlineage"
    for name in ("rank", "payload"):
        del fields[name]
    return {name: value for name, value in fields.items() if value is not None}


def payload(observation: RunObservation) -> Event:
    assert observation.payload is not None
    document: Event = json.loads(observation.payload)
    return document


def at(clock: str, *, day: int = 22) -> datetime:
    return datetime.fromisoformat(f"2026-11-{day:02}T{clock}+00:00")


def folded(events: Iterable[Event], *, keep_tasks: bool = False) -> dict[str, RunRecord]:
    """Return the runs that events make, by their external ids."""
    runs: dict[str, RunRecord] = {}
    for event in events:
        for observation in map_event(event, client="acme", now=NOW, keep_tasks=keep_tasks):
            run_id = observation.external_run_id
            if run_id in runs:
                runs[run_id].add(observation)
            else:
                runs[run_id] = RunRecord(observation)
    return runs


def shop(name: str) -> PipelineRef:
    return PipelineRef("acme", "openlineage", name, f"shop-etl/{name}")


RECORDED = [
    pytest.param(
        SESSION[0],
        {
            "pipeline": shop("orders.load"),
            "external_run_id": "01a2052e-21bb-7363-a822-aada10ac4734",
            "status": "running",
            "status_reason": "START",
            "attempt": 1,
            "observed_at": at("21:33:59.100367"),
            "started_at": at("21:33:59.100367"),
            "scheduled_for": at("02:00:00"),
        },
        id="start-with-nominal-time",
    ),
    pytest.param(
        SESSION[2],
        {
            "pipeline": shop("orders.load"),
            "external_run_id": "01a2052e-21bb-7363-a822-aada10ac4734",
            "status": "running",
            "status_reason": "RUNNING",
            "attempt": 1,
            "observed_at": at("21:33:59.917129"),
        },
        id="running-is-no-start",
    ),
    pytest.param(
        SESSION[3],
        {
            "pipeline": shop("orders.load"),
            "external_run_id": "01a2052e-21bb-7363-a822-aada10ac4734",
            "status": "success",
            "status_reason": "COMPLETE",
            "attempt": 1,
            "observed_at": at("21:34:00.222471"),
            "scheduled_for": at("02:00:00"),
            "finished_at": at("21:34:00.222471"),
            "rows_processed": 1200,
        },
        id="complete-with-row-count",
    ),
    pytest.param(
        SESSION[5],
        {
            "pipeline": shop("inventory.load"),
            "external_run_id": "01a2052e-2623-7645-bc04-229f9c9cd920",
            "status": "failed",
            "status_reason": "FAIL",
            "attempt": 1,
            "observed_at": at("21:34:00.732504"),
            "finished_at": at("21:34:00.732504"),
            "error_message": (
                "KeyError: 'größe' – column missing\n"
                "Traceback (most recent call last):\n  File \"inventory.py\", line 12, in load\nKeyError: 'größe'\n"
            ),
        },
        id="fail-with-stack-trace",
    ),
    pytest.param(
        SESSION[7],
        {
            "pipeline": shop("ml.train"),
            "external_run_id": "01a2052e-2820-7828-93d4-68180016760b",
            "status": "canceled",
            "status_reason": "ABORT",
            "attempt": 1,
            "observed_at": at("21:34:00.941344"),
            "finished_at": at("21:34:00.941344"),
        },
        id="abort",
    ),
    pytest.param(
        SESSION[21],
        {
            "pipeline": shop("meta.only"),
            "external_run_id": "01a2052e-2a40-724a-a498-6f8676d505c4",
            "status": "running",
            "status_reason": "OTHER",
            "attempt": 1,
            "observed_at": at("21:34:01.280931"),
        },
        id="other",
    ),
    pytest.param(
        SESSION[23],
        {
            "pipeline": shop("report.mail"),
            "external_run_id": "01a2052e-2a44-7bc3-bcae-0beda7f1fc87",
            "status": "success",
            "status_reason": "COMPLETE",
            "attempt": 1,
            "observed_at": at("21:15:00.123456"),
            "finished_at": at("21:15:00.123456"),
        },
        id="offset-of-two-hours",
    ),
    pytest.param(
        DBT[7],
        {
            "pipeline": PipelineRef("acme", "dbt", "dbt-run-shop", "dbt-shop/dbt-run-shop"),
            "external_run_id": "01a20537-da64-7467-b60b-721d10f64dff",
            "status": "failed",
            "status_reason": "FAIL",
            "attempt": 1,
            "observed_at": at("21:44:41.854746"),
            "finished_at": at("21:44:41.854746"),
        },
        id="dbt-invocation",
    ),
]


@pytest.mark.parametrize(("event", "expected"), RECORDED)
def test_recorded_event_becomes_observation(event: Event, expected: dict[str, Any]) -> None:
    assert shown(mapped(event)) == expected


def test_payload_names_what_a_reader_wants_and_nothing_else() -> None:
    assert payload(mapped(SESSION[0])) == {
        "namespace": "shop-etl",
        "producer": "https://github.com/example/shop-etl/v1",
        "job_type": {"processing_type": "BATCH", "integration": "PYTHON", "job_type": "TASK"},
        "nominal_end": "2026-11-23T02:00:00Z",
        "processing_engine": {"name": "python", "version": "3.11.7"},
    }
    assert payload(mapped(DBT[6], keep_tasks=True)) == {
        "namespace": "dbt-shop",
        "producer": f"{PRODUCER}/integration/dbt",
        "job_type": {"processing_type": "BATCH", "integration": "DBT", "job_type": "MODEL"},
        "parent": {
            "run_id": "01a20537-da64-7467-b60b-721d10f64dff",
            "namespace": "dbt-shop",
            "name": "dbt-run-shop",
        },
        "root": {
            "run_id": "01a20537-da64-7467-b60b-721d10f64dff",
            "namespace": "dbt-shop",
            "name": "dbt-run-shop",
        },
        "processing_engine": {"name": "dbt", "version": "1.11.16"},
    }


# The recorded session against what really happened in it.

WITH_RUN = [truth for truth in TRUTHS.values() if "run_id" in truth]
OURS = {"unknown": Status.RUNNING}


def assert_true(run: RunRecord, truth: Event) -> None:
    state = run.state
    assert state.status == OURS.get(truth["true_outcome"], truth["true_outcome"])
    assert state.rows_processed == truth.get("rows_out")
    assert (state.error_message or "").partition("\n")[0] == truth.get("error", "")
    if "duration_s" in truth:
        assert state.started_at is not None
        assert state.finished_at is not None
        assert state.finished_at - state.started_at == timedelta(seconds=truth["duration_s"])
    if "ended_utc" in truth:
        assert state.finished_at == datetime.fromisoformat(truth["ended_utc"])


@pytest.mark.parametrize("order", [1, -1], ids=["as-sent", "reversed"])
@pytest.mark.parametrize("truth", WITH_RUN, ids=lambda truth: truth["case"])
def test_recorded_session_folds_to_the_truth(truth: Event, order: int) -> None:
    assert_true(folded(SESSION[::order])[truth["run_id"]], truth)


def test_recorded_session_makes_no_other_runs() -> None:
    assert folded(SESSION).keys() == {truth["run_id"] for truth in WITH_RUN}


def test_children_of_a_parent_make_runs_only_when_tasks_are_kept() -> None:
    children = TRUTHS["parent"]["children"]
    runs = folded(SESSION, keep_tasks=True)
    assert runs.keys() - folded(SESSION).keys() == {child["run_id"] for child in children}
    for child in children:
        assert_true(runs[child["run_id"]], child)


def test_job_and_dataset_events_make_no_runs() -> None:
    job_event, dataset_event = SESSION[28:]
    assert "run" not in job_event
    assert "run" not in dataset_event
    assert map_event(job_event, client="acme", now=NOW) == []
    assert map_event(dataset_event, client="acme", now=NOW) == []


def test_gzipped_session_tells_of_one_successful_run() -> None:
    (run,) = folded(GZIPPED).values()
    assert (run.state.status, run.state.rows_processed) == (Status.SUCCESS, 1200)


def test_dbt_invocation_is_one_run_and_its_models_are_tasks() -> None:
    (run,) = folded(DBT).values()
    assert (run.state.status, run.state.started_at) == (Status.FAILED, at("21:44:36.196872"))
    with_models = folded(DBT, keep_tasks=True).values()
    assert sorted(run.state.status for run in with_models) == ["failed", "failed", "success", "success"]


# Airflow, built by hand.


def airflow_event(
    event_type: str = "COMPLETE", *, clear_number: int | None = 0, time: str = "2026-11-22T02:03:00+00:00"
) -> Event:
    """Return an event of a DAG run as the provider sends it."""
    dag_run: Event = {
        "conf": {},
        "dag_id": "shop_daily",
        "run_id": "scheduled__2026-11-22T02:00:00+00:00",
        "run_type": "scheduled",
        "clear_number": clear_number,
    }
    if clear_number is None:
        del dag_run["clear_number"]
    return {
        "eventType": event_type,
        "eventTime": time,
        "producer": AIRFLOW,
        "run": {
            "runId": f"019aa8f7-7d80-7000-8000-00000000000{clear_number or 0}",
            "facets": {
                "airflowDagRun": {"dag": {"dag_id": "shop_daily"}, "dagRun": dag_run},
                "airflowState": {"dagRunState": "success", "tasksState": {"load": "success"}},
                "nominalTime": {
                    "nominalStartTime": "2026-11-22T02:00:00+00:00",
                    "nominalEndTime": "2026-11-22T02:00:00+00:00",
                },
                "processing_engine": {"name": "Airflow", "version": "3.3.2"},
            },
        },
        "job": {
            "namespace": "prod",
            "name": "shop_daily",
            "facets": {"jobType": {"integration": "AIRFLOW", "jobType": "DAG", "processingType": "BATCH"}},
        },
        "inputs": [],
        "outputs": [],
    }


def airflow_task_event() -> Event:
    """Return an event of a task: it carries the facet of its DAG run as well."""
    event = airflow_event("FAIL")
    event["job"]["name"] = "shop_daily.load"
    event["job"]["facets"]["jobType"]["jobType"] = "TASK"
    event["run"]["runId"] = "019aa8f7-7d80-7000-8000-0000000000aa"
    event["run"]["facets"] |= {
        "airflow": {
            "task": {"task_id": "load"},
            "taskInstance": {"try_number": 1, "log_url": "https://airflow.example.com/dags/shop_daily/tasks/load"},
        },
        "parent": {
            "run": {"runId": "019aa8f7-7d80-7000-8000-000000000000"},
            "job": {"namespace": "prod", "name": "shop_daily"},
        },
        "errorMessage": {"message": "disk full"},
    }
    return event


def test_airflow_dag_run_goes_by_its_own_run_id() -> None:
    observation = mapped(airflow_event())
    assert shown(observation) == {
        "pipeline": PipelineRef("acme", "airflow", "shop_daily", "prod/shop_daily"),
        "external_run_id": "scheduled__2026-11-22T02:00:00+00:00",
        "status": "success",
        "status_reason": "COMPLETE",
        "attempt": 1,
        "observed_at": at("02:03:00"),
        "scheduled_for": at("02:00:00"),
        "finished_at": at("02:03:00"),
    }
    assert payload(observation)["openlineage_run_id"] == "019aa8f7-7d80-7000-8000-000000000000"
    assert payload(observation)["dag_run_state"] == "success"


def test_cleared_airflow_dag_run_is_the_next_attempt_of_the_same_run() -> None:
    first = airflow_event("FAIL")
    second = airflow_event("START", clear_number=1, time="2026-11-22T09:00:00+00:00")
    (run,) = folded([second, first]).values()
    assert (run.state.attempt, run.state.status, run.state.started_at) == (2, Status.RUNNING, at("09:00:00"))


@pytest.mark.parametrize("clear_number", [None, -1, True, "1", 1.0, 2**31 - 1, 2**70])
def test_airflow_dag_run_without_usable_clear_number_is_the_first_attempt(clear_number: Any) -> None:
    event = airflow_event()
    event["run"]["facets"]["airflowDagRun"]["dagRun"]["clear_number"] = clear_number
    assert mapped(event).attempt == 1


def test_airflow_dag_run_without_its_facet_goes_by_the_openlineage_run_id() -> None:
    event = airflow_event()
    event["run"]["facets"]["airflowDagRun"] = "gone"
    observation = mapped(event)
    assert (observation.external_run_id, observation.attempt) == ("019aa8f7-7d80-7000-8000-000000000000", 1)


def test_triggered_airflow_dag_run_is_a_run_though_it_names_a_parent() -> None:
    event = airflow_event()
    event["run"]["facets"]["parent"] = airflow_task_event()["run"]["facets"]["parent"]
    assert mapped(event).external_run_id == "scheduled__2026-11-22T02:00:00+00:00"


def test_airflow_task_makes_a_run_only_when_tasks_are_kept() -> None:
    assert map_event(airflow_task_event(), client="acme", now=NOW) == []
    assert shown(mapped(airflow_task_event(), keep_tasks=True)) == {
        "pipeline": PipelineRef("acme", "airflow", "shop_daily.load", "prod/shop_daily.load"),
        "external_run_id": "019aa8f7-7d80-7000-8000-0000000000aa",
        "status": "failed",
        "status_reason": "FAIL",
        "attempt": 1,
        "observed_at": at("02:03:00"),
        "scheduled_for": at("02:00:00"),
        "finished_at": at("02:03:00"),
        "error_message": "disk full",
        "url": "https://airflow.example.com/dags/shop_daily/tasks/load",
    }


@pytest.mark.parametrize("kept", ["jobType", "airflow", "parent"])
def test_airflow_task_is_told_by_any_of_its_marks(kept: str) -> None:
    event = airflow_task_event()
    for name in {"airflow", "parent"} - {kept}:
        del event["run"]["facets"][name]
    if kept != "jobType":
        del event["job"]["facets"]["jobType"]
    assert map_event(event, client="acme", now=NOW) == []


def test_airflow_dag_run_is_told_without_a_job_type() -> None:
    event = airflow_event()
    event["job"]["facets"] = None
    assert mapped(event).external_run_id == "scheduled__2026-11-22T02:00:00+00:00"


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://[", "ftp://x/y", "https://x/\0", "", 7, "https://" + "x" * 5000]
)
def test_log_url_that_no_browser_should_follow_is_left_out(url: Any) -> None:
    event = airflow_task_event()
    event["run"]["facets"]["airflow"]["taskInstance"]["log_url"] = url
    assert mapped(event, keep_tasks=True).url is None


# The rules one by one, on an event as small as the specification allows.


def minimal(**members: Any) -> Event:
    return {
        "eventTime": "2026-11-22T21:00:00Z",
        "run": {"runId": "01a2052e-21bb-7363-a822-aada10ac4734"},
        "job": {"namespace": "ns", "name": "job"},
    } | members


@pytest.mark.parametrize(
    ("producer", "integration", "platform"),
    [
        (f"{PRODUCER}/integration/airflow", None, "airflow"),
        (AIRFLOW, None, "airflow"),
        (f"{PRODUCER}/integration/dagster", None, "dagster"),
        (f"{PRODUCER}/integration/dbt", None, "dbt"),
        (f"{PRODUCER}/integration/flink", "SPARK", "flink"),
        (f"{PRODUCER}/integration/spark", None, "spark"),
        (f"{PRODUCER}/integration/hive/", None, "hive"),
        ("https://github.com/trinodb/trino/plugin/trino-openlineage", None, "trino"),
        (f"{PRODUCER}/client/python", "SPARK", "spark"),
        (f"{PRODUCER}/integration/common", None, "openlineage"),
        ("https://example.com/integration/dbt", None, "openlineage"),
        ("https://example.com/etl", "Dbt", "dbt"),
        ("https://example.com/etl", "PYTHON", "openlineage"),
        (None, 5, "openlineage"),
    ],
)
def test_platform_comes_from_the_producer_then_from_the_job_type(
    producer: Any, integration: Any, platform: str
) -> None:
    job = {"namespace": "ns", "name": "job", "facets": {"jobType": {"integration": integration}}}
    pipeline = mapped(minimal(producer=producer, job=job)).pipeline
    assert isinstance(pipeline, PipelineRef)
    assert pipeline.platform == platform


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("complete", "success", "complete"),
        ("PAUSED", "running", "PAUSED"),
        ("", "running", "unknown"),
        (None, "running", "unknown"),
        (["FAIL"], "running", "unknown"),
    ],
)
def test_unknown_event_type_is_running_and_keeps_its_word(word: Any, status: str, reason: str) -> None:
    observation = mapped(minimal(eventType=word))
    assert (observation.status, observation.status_reason) == (status, reason)


@pytest.mark.parametrize(
    ("event_time", "expected"),
    [
        ("2026-11-22T21:00:00.123456789Z", at("21:00:00.123456")),
        ("2026-11-22t21:00:00.5z", at("21:00:00.500000")),
        ("2026-11-22T23:30:00+02:30", at("21:00:00")),
        ("2026-11-22T21:00Z", at("21:00:00")),
        ("2026-11-23T21:59:59Z", at("21:59:59", day=23)),
    ],
)
def test_event_time_is_read_in_utc(event_time: str, expected: datetime) -> None:
    assert mapped(minimal(eventTime=event_time)).observed_at == expected


def outputs(*counts: Any) -> list[Event]:
    return [{"outputFacets": {"outputStatistics": {"rowCount": count}}} for count in counts]


@pytest.mark.parametrize(
    ("members", "rows"),
    [
        ({"outputs": outputs(1200, 34)}, 1234),
        ({"outputs": outputs(0)}, 0),
        ({"outputs": outputs(5, -1, True, "7", 1.5, None, 2**63)}, 5),
        ({"outputs": outputs(2**63 - 1)}, 2**63 - 1),
        ({"outputs": outputs(2**63 - 1, 1)}, None),
        ({"outputs": [None, "x", {"outputFacets": []}]}, None),
        ({"outputs": {"outputFacets": {}}}, None),
        ({}, None),
    ],
)
def test_rows_are_the_sum_of_usable_counts(members: Event, rows: int | None) -> None:
    assert mapped(minimal(**members)).rows_processed == rows


@pytest.mark.parametrize(
    "nominal", [None, "soon", "2026-11-22T02:00:00", 5, "1969-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]
)
def test_unusable_nominal_time_is_ignored(nominal: Any) -> None:
    run = {"runId": "r", "facets": {"nominalTime": {"nominalStartTime": nominal, "nominalEndTime": nominal}}}
    observation = mapped(minimal(run=run))
    assert observation.scheduled_for is None
    assert "nominal_end" not in payload(observation)


@pytest.mark.parametrize(
    ("event_type", "facet", "error"),
    [
        ("FAIL", {"message": "boom", "stackTrace": "line 1"}, "boom\nline 1"),
        ("FAIL", {"stackTrace": "line 1"}, "line 1"),
        ("FAIL", {"message": "a\0b\ud800c"}, "a\ufffdb\ufffdc"),
        ("FAIL", {"message": ["boom"], "stackTrace": 5}, None),
        ("ABORT", {"message": "stopped", "stackTrace": "line 1"}, "stopped"),
        ("FAIL", "boom", None),
    ],
)
def test_error_is_the_message_with_the_trace_of_a_failure(event_type: str, facet: Any, error: str | None) -> None:
    run = {"runId": "r", "facets": {"errorMessage": facet}}
    assert mapped(minimal(eventType=event_type, run=run)).error_message == error


def test_run_id_that_is_a_uuid_is_lower_cased_and_any_other_kept() -> None:
    upper = "01A2052E-21BB-7363-A822-AADA10AC4734"
    assert mapped(minimal(run={"runId": upper})).external_run_id == upper.lower()
    assert mapped(minimal(run={"runId": "Nightly-7"})).external_run_id == "Nightly-7"


def test_long_names_are_shortened_the_same_way_each_time() -> None:
    def pipeline(tail: str) -> PipelineRef:
        found = mapped(minimal(job={"namespace": "ns", "name": "n" * 600 + tail})).pipeline
        assert isinstance(found, PipelineRef)
        return found

    assert pipeline("a") == pipeline("a")
    assert pipeline("a").name != pipeline("b").name
    assert pipeline("a").name[:496] == "n" * 495 + "~"
    assert (len(pipeline("a").name), len(pipeline("a").external_id or "")) == (512, 512)


@pytest.mark.parametrize("facet", ["parent", "parentRun"])
def test_parent_is_known_by_both_its_names(facet: str) -> None:
    run = {"runId": "r", "facets": {facet: {"run": {"runId": "p"}, "job": {"namespace": "ns", "name": "n"}}}}
    assert map_event(minimal(run=run), client="acme", now=NOW) == []


@pytest.mark.parametrize("parent", [None, "p", [], {}, {"run": None}, {"run": {"runId": 5}}, {"run": {"runId": "R"}}])
def test_parent_that_names_no_other_run_is_none(parent: Any) -> None:
    assert mapped(minimal(run={"runId": "r", "facets": {"parent": parent}})).external_run_id == "r"


REFUSED: list[tuple[Any, str, str]] = [
    ({"run": "secret-value"}, "/run", "invalid_type"),
    ({"run": {}}, "/run/runId", "missing"),
    ({"run": {"runId": ""}}, "/run/runId", "missing"),
    ({"run": {"runId": 5}}, "/run/runId", "invalid_type"),
    ({"run": {"runId": "secret-value\0"}}, "/run/runId", "nul_character"),
    ({"run": {"runId": "secret-value\udfff"}}, "/run/runId", "lone_surrogate"),
    ({"run": {"runId": "secret-value" * 50}}, "/run/runId", "too_long"),
    ({"job": None}, "/job", "missing"),
    ({"job": ["secret-value"]}, "/job", "invalid_type"),
    ({"job": {"name": "job"}}, "/job/namespace", "missing"),
    ({"job": {"namespace": "ns", "name": None}}, "/job/name", "missing"),
    ({"job": {"namespace": "ns", "name": {}}}, "/job/name", "invalid_type"),
    ({"job": {"namespace": "secret-value\0", "name": "job"}}, "/job/namespace", "nul_character"),
    ({"eventTime": None}, "/eventTime", "missing"),
    ({"eventTime": 1767225600}, "/eventTime", "invalid_type"),
    ({"eventTime": "secret-value"}, "/eventTime", "invalid_time"),
    ({"eventTime": "2026-13-22T21:00:00Z"}, "/eventTime", "invalid_time"),
    ({"eventTime": "2026-11-22T21:00:00"}, "/eventTime", "time_without_offset"),
    ({"eventTime": "1969-12-31T23:59:59Z"}, "/eventTime", "time_out_of_range"),
    ({"eventTime": "2026-11-23T22:00:01Z"}, "/eventTime", "time_out_of_range"),
]


@pytest.mark.parametrize(("members", "pointer", "code"), REFUSED)
def test_unusable_event_is_refused_without_its_value(members: Event, pointer: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        map_event(minimal(**members), client="acme", now=NOW)
    assert [(issue.pointer, issue.code) for issue in refusal.value.issues] == [(pointer, code)]
    assert "secret-value" not in f"{refusal.value.detail} {refusal.value.issues}"


def test_refusal_names_all_that_is_wrong_once() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        map_event({"run": {}, "job": "x", "eventTime": "x"}, client="acme", now=NOW)
    assert [issue.pointer for issue in refusal.value.issues] == ["/run/runId", "/job", "/eventTime"]


def test_airflow_run_id_that_cannot_be_stored_is_refused() -> None:
    event = airflow_event()
    event["run"]["facets"]["airflowDagRun"]["dagRun"]["run_id"] = "manual__\0"
    with pytest.raises(InvalidInputError) as refusal:
        map_event(event, client="acme", now=NOW)
    (issue,) = refusal.value.issues
    assert (issue.pointer, issue.code) == ("/run/facets/airflowDagRun/dagRun/run_id", "nul_character")


# Whatever comes in.

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["START", "DAG", "TASK", "AIRFLOW", AIRFLOW, "2026-11-22T21:00:00Z", "0001-01-01T00:00:00+14:00", "x" * 600]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=12,
)


def assert_total(event: Any) -> None:
    """Hold an event to the promise: refused as input, or observations that can be stored."""
    try:
        observations = map_event(event, client="acme", now=NOW, keep_tasks=True)
    except InvalidInputError:
        return
    for observation in observations:
        assert isinstance(observation.pipeline, PipelineRef)
        assert len(observation.pipeline.name) <= 512
        assert len(observation.pipeline.external_id or "") <= 512
        assert 1 <= len(observation.external_run_id) <= 512
        for text in filter(None, (*observation.pipeline, *observation)):
            if isinstance(text, str):
                text.encode()
                assert "\0" not in text
        assert "\\u0000" not in (observation.payload or "")


@settings(deadline=None)
@given(JSON)
def test_arbitrary_json_is_refused_or_mapped(value: Any) -> None:
    assert_total(value)


@settings(deadline=None)
@given(JSON, JSON, JSON, JSON)
def test_arbitrary_facets_are_mapped(run_facets: Any, job_facets: Any, outputs: Any, producer: Any) -> None:
    event = minimal(outputs=outputs, producer=producer, eventType="FAIL")
    event["run"]["facets"] = run_facets
    event["job"]["facets"] = job_facets
    assert mapped(event, keep_tasks=True).status is Status.FAILED


VALID = [SESSION[0], SESSION[3], SESSION[5], SESSION[12], DBT[1], airflow_event(), airflow_task_event()]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return each (container, key) within a JSON value."""
    if isinstance(value, Mapping):
        keys: Iterable[Any] = value.keys()
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_mutated_event_is_refused_or_mapped(data: st.DataObject) -> None:
    event = copy.deepcopy(data.draw(st.sampled_from(VALID), label="event"))
    for _ in range(data.draw(st.integers(1, 3), label="mutations")):
        container, key = data.draw(st.sampled_from(places(event)), label="place")
        if data.draw(st.booleans(), label="delete"):
            del container[key]
        else:
            container[key] = data.draw(JSON, label="value")
        if not places(event):
            break
    assert_total(event)
