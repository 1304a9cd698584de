"""What recorded runs of a real Dagster say, and that no JSON whatever breaks the mapping."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.contract import OddPayloadError, Report
from headway.connectors.dagster import DagsterSource, mapping
from headway.runs.observation import Status
from tests.connectors.dagster.subject import recordings
from tests.connectors.judging import assert_storable, paths, replaced

RUNS = recordings()
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SOURCE = DagsterSource(name="shop", platform="dagster", client="acme", url="http://dagster.test:3000")
WRITE_FAILED = 'write: ValueError: relation "inventory" does not exist – Spalte "größe"'


def _report(run: Any, **more: Any) -> Report:
    told = mapping.report({**run, **more}, source=SOURCE, now=NOW)
    assert told is not None
    return told


def _at(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(epoch * 1e6))


@pytest.mark.parametrize(
    ("name", "job", "status", "observed", "started", "ended"),
    [
        ("queued", "__ASSET_JOB", Status.QUEUED, 1795430437.198764, None, None),
        ("not_started", "__anonymous_asset_job_every_minute", Status.QUEUED, 1795430460.455928, None, None),
        ("starting", "orders_load", Status.RUNNING, 1795430438.781583, None, None),
        ("started", "orders_load", Status.RUNNING, 1795430445.076459, 1795430445.076459, None),
        ("canceling", "long_running", Status.RUNNING, 1795430462.481823, 1795430461.12207, None),
        ("success", "orders_load", Status.SUCCESS, 1795430446.655643, 1795430445.076459, 1795430446.655643),
        ("retried_step", "payments_flaky", Status.SUCCESS, 1795430451.731607, 1795430450.077233, 1795430451.731607),
        ("failed_step", "inventory_sync", Status.FAILED, 1795430439.776336, 1795430438.738172, 1795430439.776336),
        ("failed_again", "inventory_sync", Status.FAILED, 1795430476.562466, 1795430476.194025, 1795430476.562466),
        ("failed_asset", "assets_job", Status.FAILED, 1795430456.92025, 1795430455.95959, 1795430456.92025),
        ("canceled", "long_running", Status.CANCELED, 1795430467.282404, 1795430461.12207, 1795430467.282404),
        ("canceled_in_queue", "long_running", Status.CANCELED, 1795430437.630507, None, 1795430437.630507),
    ],
)
def test_recorded_run_says_its_state_and_times(
    name: str, job: str, status: Status, observed: float, started: float | None, ended: float | None
) -> None:
    told, is_unknown = _report(RUNS[name])
    assert not is_unknown
    assert (told.pipeline.external_id, told.external_run_id) == (f"shop.py/{job}", RUNS[name]["runId"])  # type: ignore[union-attr]
    assert (told.status, told.status_reason, told.attempt) == (status, RUNS[name]["status"], 1)
    assert (told.observed_at, told.started_at, told.finished_at) == (_at(observed), _at(started), _at(ended))
    assert told.url == f"http://dagster.test:3000/runs/{told.external_run_id}"
    assert told.source == "shop"


@pytest.mark.parametrize(
    ("name", "pipeline", "external_id"),
    [
        ("success", "orders_load", "shop.py/orders_load"),
        ("asset_by_hand", "assets, ad hoc", "shop.py/__ASSET_JOB"),
        ("asset_of_schedule", "assets of every_minute", "shop.py/__anonymous_asset_job_every_minute"),
        ("script", "orders_load", "orders_load"),
    ],
)
def test_pipeline_is_the_job_in_its_code_location(name: str, pipeline: str, external_id: str) -> None:
    told = _report(RUNS[name]).observation
    assert told.pipeline == ("acme", "dagster", pipeline, external_id, "prod")


def test_jobs_of_named_repositories_are_told_apart() -> None:
    origin = {"repositoryLocationName": "shop", "repositoryName": "nightly"}
    told = _report(RUNS["success"], repositoryOrigin=origin).observation
    assert told.pipeline.external_id == "shop/nightly/orders_load"  # type: ignore[union-attr]


def test_run_without_an_origin_belongs_to_the_location_of_its_tag() -> None:
    told = _report(RUNS["success"], repositoryOrigin=None).observation
    assert told.pipeline.external_id == "shop.py/orders_load"  # type: ignore[union-attr]


def test_error_is_the_innermost_cause_of_the_first_failed_step() -> None:
    assert _report(RUNS["failed_step"]).observation.error_message == WRITE_FAILED
    step, end = RUNS["failed_step"]["eventConnection"]["events"]
    two = {"events": [step, {**step, "stepKey": "other"}, end]}
    told = _report(RUNS["failed_step"], eventConnection=two).observation
    assert told.error_message == f"{WRITE_FAILED} (and 1 more)"
    of_run = {"events": [{**end, "error": None, "message": "This run has been marked as failed from outside."}]}
    told = _report(RUNS["failed_step"], eventConnection=of_run).observation
    assert told.error_message == "This run has been marked as failed from outside."
    assert _report(RUNS["failed_step"], eventConnection=None).observation.error_message is None


def test_rows_are_those_of_all_materialisations() -> None:
    assert _report(RUNS["failed_asset"]).observation.rows_processed == 1200
    assert _report(RUNS["asset_by_hand"]).observation.rows_processed == 5_000_000_000
    table = {"label": "dagster/row_count", "intValue": 70, "intRepr": "70"}
    partition = {"label": "dagster/partition_row_count", "intValue": 7, "intRepr": "7"}
    made = [{"metadataEntries": [table, partition]}, {"metadataEntries": [table]}, {"metadataEntries": []}]
    assert _report(RUNS["success"], assetMaterializations=made).observation.rows_processed == 77


def test_payload_tells_of_re_executions_and_where_a_run_came_from() -> None:
    again = json.loads(_report(RUNS["failed_again"]).observation.payload or "")
    assert again == {
        "job": "inventory_sync",
        "location": "shop.py",
        "parent_run_id": RUNS["failed_step"]["runId"],
        "root_run_id": RUNS["failed_step"]["runId"],
        "is_resume_retry": "true",
        "failure_reason": "STEP_FAILURE",
    }
    scheduled = json.loads(_report(RUNS["asset_of_schedule"]).observation.payload or "")
    assert scheduled["schedule_name"] == "every_minute"


def test_what_is_said_of_a_live_run_does_not_change_with_what_it_has_made() -> None:
    made = [{"metadataEntries": [{"label": "dagster/row_count", "intRepr": "7"}]}]
    assert _report(RUNS["started"], assetMaterializations=made) == _report(RUNS["started"])


def test_unknown_word_is_shown_as_running_or_failed() -> None:
    live, ended = (_report(RUNS[name], status="PAUSED") for name in ("started", "success"))
    assert (live.observation.status, live.is_unknown_word) == (Status.RUNNING, True)
    assert (ended.observation.status, ended.observation.status_reason) == (Status.FAILED, "PAUSED")


def test_job_that_is_left_out_is_not_reported() -> None:
    source = SOURCE.model_copy(update={"exclude": ["shop.py/*"]})
    assert mapping.report(RUNS["success"], source=source, now=NOW) is None


def _check(run: Any) -> None:
    try:
        told = mapping.report(run, source=SOURCE, now=NOW)
    except OddPayloadError:
        return
    assert told is not None
    assert_storable(told, NOW)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
PLACES = [(name, path) for name, run in RUNS.items() for path in paths(run, deep=True)]


@given(st.sampled_from(PLACES), JSON | st.just(...))
def test_no_json_in_any_place_breaks_the_mapping(place: tuple[str, Any], value: Any) -> None:
    name, path = place
    _check(replaced(RUNS[name], path, value))


@given(st.dictionaries(st.sampled_from(sorted(RUNS["failed_step"])), JSON))
def test_no_document_breaks_the_mapping(run: dict[str, Any]) -> None:
    _check(run)
