"""The shipped configurations, on runs as their vendors document them. The contract suite judges how they walk."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from headway.connectors.rest import mapping
from headway.connectors.rest.source import RestSource, preset_names, read_preset
from headway.runs.observation import RunObservation, Status
from tests.connectors.rest import documented
from tests.connectors.rest.subject import make

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEEDED: dict[str, dict[str, Any]] = {
    "dbt_cloud": {"token_env": "REST_TOKEN", "parameters": {"account_id": 123}},
    "airbyte": {"username": "id", "password_env": "REST_SECRET"},
    "databricks": {"token_env": "REST_TOKEN"},
}


def source(preset: str, **more: Any) -> RestSource:
    return make({"preset": preset, **NEEDED[preset]}, "https://vendor.example", **more)


def said(preset: str, payload: Any) -> RunObservation:
    report = mapping.map_run(payload, source(preset), now=NOW)
    assert report is not None
    assert not report.is_unknown_word
    return report.observation


def time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_every_preset_is_shipped_and_described() -> None:
    assert preset_names() == sorted(NEEDED)
    for name in preset_names():
        assert read_preset(name)["vendor"] == name
        assert source(name).vendor == name


def test_dbt_cloud_run_that_failed() -> None:
    run = said("dbt_cloud", documented.DBT_CLOUD[0])
    assert run.pipeline == ("acme", "dbt_cloud", "Daily Job (dbt build)", "44", "prod")
    assert (run.external_run_id, run.status, run.status_reason) == ("304000000000021", Status.FAILED, "Error")
    assert run.started_at == time("2021-11-26T16:48:51.331102")
    assert run.finished_at == time("2021-11-26T16:50:01.900000")
    assert run.observed_at == time("2021-11-26T16:50:02.113000")
    assert run.error_message == "Database Error in model orders"
    assert (run.url or "").endswith("/runs/304000000000021/")
    assert json.loads(run.payload or "")["cause"] == "Kicked off from the UI"


def test_dbt_cloud_run_that_waits() -> None:
    run = said("dbt_cloud", documented.DBT_CLOUD[1])
    assert (run.status, run.started_at, run.finished_at) == (Status.QUEUED, None, None)
    assert run.pipeline[2:4] == ("44", "44")  # type: ignore[index]


def test_airbyte_job_that_succeeded() -> None:
    run = said("airbyte", documented.AIRBYTE[0])
    assert (run.external_run_id, run.status, run.rows_processed) == ("1234", Status.SUCCESS, 1200)
    assert (run.started_at, run.finished_at) == (time("2023-03-25T01:30:50"), time("2023-03-25T01:39:10"))


def test_airbyte_job_whose_attempt_failed_still_runs() -> None:
    run = said("airbyte", documented.AIRBYTE[1])
    assert (run.status, run.finished_at) == (Status.RUNNING, None)
    assert run.observed_at == time("2023-03-25T01:32:50")


def test_databricks_run_that_was_repaired_is_its_second_attempt() -> None:
    run = said("databricks", documented.DATABRICKS[0])
    assert (run.external_run_id, run.status, run.attempt) == ("455644833", Status.FAILED, 2)
    assert run.pipeline == ("acme", "databricks", "A multitask job run", "11223344", "prod")
    assert run.status_reason == "RUN_EXECUTION_ERROR"
    assert run.error_message == "Task load failed with message: table or view not found"
    assert run.finished_at == datetime.fromtimestamp(1625060863.413, UTC)


def test_databricks_one_time_run_goes_by_its_name_and_has_no_end() -> None:
    run = said("databricks", documented.DATABRICKS[1])
    assert (run.status, run.attempt, run.finished_at) == (Status.QUEUED, 1, None)
    assert run.pipeline[2:4] == ("adhoc", "adhoc")  # type: ignore[index]
    assert run.error_message is None


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ({"status": {"state": "RUNNING"}, "state": {"life_cycle_state": "PENDING"}}, Status.RUNNING),
        ({"status": {"state": "TERMINATED", "termination_details": {"code": "USER_CANCELED"}}}, Status.CANCELED),
        ({"status": {"state": "TERMINATED", "termination_details": {"code": "SKIPPED"}}}, Status.SKIPPED),
        ({"status": {"state": "TERMINATED"}, "state": {"result_state": "SUCCESS"}}, Status.SUCCESS),
        ({"state": {"life_cycle_state": "TERMINATED", "result_state": "TIMEDOUT"}}, Status.FAILED),
        ({"state": {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED"}}, Status.FAILED),
        ({"state": {"life_cycle_state": "SKIPPED"}}, Status.SKIPPED),
        ({"state": {"life_cycle_state": "WAITING_FOR_RETRY"}}, Status.RUNNING),
    ],
)
def test_databricks_tells_states_in_new_fields_and_old(states: dict[str, Any], status: Status) -> None:
    payload = {key: value for key, value in documented.DATABRICKS[0].items() if key not in {"state", "status"}}
    assert said("databricks", {**payload, **states}).status is status


def test_preset_is_overridden_setting_by_setting() -> None:
    changed = source("dbt_cloud", statuses={"20": "canceled"}, fields={"url": ""}, list={"paging": {"page_size": 10}})
    assert changed.statuses["20"] is Status.CANCELED
    assert changed.statuses["10"] is Status.SUCCESS
    assert changed.fields.url is None
    assert changed.window_list.paging.page_size == 10
    assert changed.window_list.paging.kind == "offset"
    assert changed.changed_lists[1].query["order_by"] == "-finished_at"
