"""Runs in the shape that each vendor documents, with values of our own. No real vendor was at hand to record from."""

from collections.abc import Mapping, Sequence
from typing import Any

FLOW: Sequence[Mapping[str, Any]] = [
    {
        "id": 7,
        "flow": {"key": "flow:orders", "title": "orders"},
        "state": "BROKEN",
        "try": 2,
        "created": 1_795_312_800_000,
        "planned": 1_795_312_800_000,
        "begun": 1_795_312_802_000,
        "ended": 1_795_312_812_000,
        "touched": 1_795_312_812_500,
        "note": "disk full",
        "stats": {"rows": 12.0, "files": ["a", "b"]},
    },
    {
        "id": 8,
        "flow": {"key": "flow:orders", "title": "orders"},
        "state": "ACTIVE",
        "try": 1,
        "begun": 1_795_312_902_000,
        "ended": None,
        "touched": 1_795_312_902_000,
    },
]

DBT_CLOUD: Sequence[Mapping[str, Any]] = [
    {
        "id": 304_000_000_000_021,
        "trigger_id": 304_000_000_000_020,
        "account_id": 123,
        "environment_id": 9,
        "project_id": 7,
        "job_definition_id": 44,
        "status": 20,
        "dbt_version": "versionless",
        "git_branch": "main",
        "git_sha": "d3b07384d113edec49eaa6238ad5ff00aa11bb22",
        "status_message": "Database Error in model orders",
        "owner_thread_id": None,
        "artifacts_saved": True,
        "created_at": "2021-11-26 16:48:41.431645+00:00",
        "updated_at": "2021-11-26 16:50:02.113000+00:00",
        "dequeued_at": "2021-11-26 16:48:46.702100+00:00",
        "started_at": "2021-11-26 16:48:51.331102+00:00",
        "finished_at": "2021-11-26 16:50:01.900000+00:00",
        "duration": "00:01:20",
        "queued_duration": "00:00:09",
        "run_duration": "00:01:10",
        "status_humanized": "Error",
        "in_progress": False,
        "is_complete": True,
        "is_error": True,
        "trigger": {"id": 304_000_000_000_020, "cause": "Kicked off from the UI"},
        "job": {"id": 44, "name": "Daily Job (dbt build)"},
        "href": "https://cloud.getdbt.com/deploy/123/projects/7/runs/304000000000021/",
    },
    {
        "id": 304_000_000_000_022,
        "project_id": 7,
        "job_definition_id": 44,
        "status": 1,
        "status_message": None,
        "created_at": "2021-11-26 17:48:41.431645+00:00",
        "updated_at": "2021-11-26 17:48:41.431660+00:00",
        "started_at": None,
        "finished_at": None,
        "status_humanized": "Queued",
        "href": "https://cloud.getdbt.com/deploy/123/projects/7/runs/304000000000022/",
    },
]

AIRBYTE: Sequence[Mapping[str, Any]] = [
    {
        "jobId": 1234,
        "status": "succeeded",
        "jobType": "sync",
        "startTime": "2023-03-25T01:30:50Z",
        "connectionId": "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826",
        "lastUpdatedAt": "2023-03-25T01:39:10Z",
        "duration": "PT8M20S",
        "bytesSynced": 65536,
        "rowsSynced": 1200,
    },
    {
        "jobId": 1235,
        "status": "incomplete",
        "jobType": "sync",
        "startTime": "2023-03-25 01:30:50+00:00",
        "connectionId": "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826",
        "lastUpdatedAt": "2023-03-25 01:32:50+00:00",
    },
]

DATABRICKS: Sequence[Mapping[str, Any]] = [
    {
        "job_id": 11_223_344,
        "run_id": 455_644_833,
        "number_in_job": 455_644_833,
        "original_attempt_run_id": 455_644_833,
        "state": {
            "life_cycle_state": "TERMINATED",
            "result_state": "FAILED",
            "state_message": "Task load failed",
            "user_cancelled_or_timedout": False,
        },
        "status": {
            "state": "TERMINATED",
            "termination_details": {
                "code": "RUN_EXECUTION_ERROR",
                "type": "CLIENT_ERROR",
                "message": "Task load failed with message: table or view not found",
            },
        },
        "start_time": 1_625_060_460_483,
        "setup_duration": 0,
        "execution_duration": 0,
        "cleanup_duration": 0,
        "run_duration": 110_183,
        "end_time": 1_625_060_863_413,
        "trigger": "PERIODIC",
        "run_name": "A multitask job run",
        "run_page_url": "https://my-workspace.cloud.databricks.com/#job/11223344/run/123",
        "run_type": "JOB_RUN",
        "attempt_number": 0,
        "creator_user_name": "user.name@databricks.com",
        "repair_history": [{"type": "ORIGINAL", "id": 1}, {"type": "REPAIR", "id": 734_650_698_524_280}],
    },
    {
        "job_id": 99_887_766,
        "run_id": 455_644_834,
        "state": {"life_cycle_state": "PENDING", "state_message": "Waiting for cluster"},
        "start_time": 1_625_060_460_483,
        "end_time": 0,
        "run_name": "adhoc",
        "run_type": "SUBMIT_RUN",
    },
]

PRESETS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "dbt_cloud": DBT_CLOUD,
    "airbyte": AIRBYTE,
    "databricks": DATABRICKS,
}
