"""What the contract suite needs to know of the rest connector: an invented vendor in two styles, and each preset."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from headway.connectors.contract import Payload
from headway.connectors.rest.source import RestSource, merged
from headway.runs.observation import Status
from tests.connectors.rest import documented
from tests.connectors.rest.platforms import (
    CLIENT_ID,
    CLIENT_SECRET,
    TOKEN,
    FakeAirbyte,
    FakeDatabricks,
    FakeDbtCloud,
    FakeFlow,
)
from tests.connectors.subject import FakeRuns

FLOW: Mapping[str, Any] = {
    "vendor": "flow",
    "product": "Flow 2",
    "headers": {"X-Flow-Team": "data"},
    "auth": {"kind": "headers", "headers": {"X-Flow-Key": "{token}"}},
    "list": {
        "path": "/v2/executions",
        "items": "executions",
        "time_format": "epoch_ms",
        "paging": {"kind": "offset", "page_size": 50},
    },
    "changed": [{"query": {"touched_from": "{since}"}}, {"query": {"live": True}}],
    "window": {"newest_first_by": "created"},
    "get": {"path": "/v2/executions/{run_id}", "item": "execution"},
    "pipelines": {
        "path": "/v2/flows",
        "items": "flows",
        "id": "key",
        "name": "title",
        "paging": {"kind": "offset", "page_size": 50},
    },
    "fields": {
        "external_run_id": "id",
        "pipeline_id": "flow.key",
        "pipeline_name": "flow.title",
        "status": "state",
        "attempt": "try",
        "started_at": "begun",
        "finished_at": "ended",
        "observed_at": "touched",
        "scheduled_for": "planned",
        "rows_processed": "stats.rows",
        "error_message": "note",
        "url_template": "{url}/ui/{pipeline_id}/{run_id}",
        "payload": {"stats": "stats"},
        "time_format": "epoch_ms",
    },
    "statuses": {
        "WAITING": "queued",
        "ACTIVE": "running",
        "DONE": "success",
        "BROKEN": "failed",
        "DROPPED": "canceled",
    },
}
LINKED: Mapping[str, Any] = {
    "list": {"paging": {"kind": "link"}},
    "window": {"query": {"created_from": "{since}", "created_to": "{until}"}, "newest_first_by": ""},
}


# https://docs.databricks.com/api/workspace/jobs/getrun: status.state, the code of what is terminated there, and the words
# of the older life_cycle_state and result_state.
DATABRICKS_WORDS: Mapping[str, Status] = {
    **dict.fromkeys(("BLOCKED", "PENDING", "QUEUED", "WAITING"), Status.QUEUED),
    **dict.fromkeys(("RUNNING", "TERMINATING", "WAITING_FOR_RETRY"), Status.RUNNING),
    **dict.fromkeys(("SUCCESS", "SUCCESS_WITH_FAILURES"), Status.SUCCESS),
    **dict.fromkeys(("CANCELED", "USER_CANCELED"), Status.CANCELED),
    **dict.fromkeys(
        (
            *("SKIPPED", "DISABLED", "MAX_CONCURRENT_RUNS_EXCEEDED", "MAX_JOB_QUEUE_SIZE_EXCEEDED"),
            *("EXCLUDED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED", "MAXIMUM_CONCURRENT_RUNS_REACHED"),
        ),
        Status.SKIPPED,
    ),
    **dict.fromkeys(
        (
            *("BREAKING_CHANGE", "BUDGET_POLICY_LIMIT_EXCEEDED", "CLOUD_FAILURE", "CLUSTER_ERROR"),
            *("CLUSTER_REQUEST_LIMIT_EXCEEDED", "DRIVER_ERROR", "FEATURE_DISABLED", "INTERNAL_ERROR"),
            *("INVALID_CLUSTER_REQUEST", "INVALID_RUN_CONFIGURATION", "LIBRARY_INSTALLATION_ERROR"),
            *("MAX_SPARK_CONTEXTS_EXCEEDED", "REPOSITORY_CHECKOUT_FAILED", "RESOURCE_NOT_FOUND"),
            *("RUN_EXECUTION_ERROR", "STORAGE_ACCESS_ERROR", "UNAUTHORIZED_ERROR", "WORKSPACE_RUN_LIMIT_EXCEEDED"),
            *("FAILED", "TIMEDOUT"),
        ),
        Status.FAILED,
    ),
}


def make(settings: Mapping[str, Any], url: str, **more: Any) -> RestSource:
    """Return a configured source, with credentials in the environment."""
    os.environ["REST_TOKEN"], os.environ["REST_SECRET"] = TOKEN, CLIENT_SECRET
    whole = {"name": "acme-rest", "platform": "rest", "client": "acme", **settings, "url": url}
    return RestSource.model_validate(merged(whole, more))


class RestSubject:
    """An invented vendor, whose history is one list by offset."""

    platform = "rest"
    words: Mapping[str, Status] = {
        "WAITING": Status.QUEUED,
        "ACTIVE": Status.RUNNING,
        "DONE": Status.SUCCESS,
        "BROKEN": Status.FAILED,
        "DROPPED": Status.CANCELED,
    }
    success, failed, running, queued = "DONE", "BROKEN", "ACTIVE", "WAITING"
    follows_links = False
    style = "offset"

    def serve(self) -> FakeRuns:
        return FakeFlow(self.style)

    def source(self, url: str, **more: Any) -> RestSource:
        return make(FLOW, url, token_env="REST_TOKEN", **more)

    def hostile_link(self, url: str) -> Mapping[str, str]:
        return {"Link": f'<{url}/v2/executions?before=1>; rel="next"'}

    def plan(self, platform: FakeRuns, run: str, at: Any) -> None:
        assert isinstance(platform, FakeFlow)
        platform.plan(run, at)

    def recorded(self) -> Sequence[Payload]:
        return documented.FLOW


class LinkedRestSubject(RestSubject):
    """The same, whose lists are walked by links, with a filter by time of creation."""

    follows_links = True
    style = "link"

    def source(self, url: str, **more: Any) -> RestSource:
        return make(merged(FLOW, LINKED), url, token_env="REST_TOKEN", **more)


class _Preset:
    platform = "rest"
    preset: str
    words: Mapping[str, Status]
    follows_links = False
    reopens = False
    settings: Mapping[str, Any] = {"token_env": "REST_TOKEN"}

    def source(self, url: str, **more: Any) -> RestSource:
        return make({"preset": self.preset, **self.settings}, url, **more)

    def hostile_link(self, url: str) -> Mapping[str, str]:
        raise AssertionError(url)

    def recorded(self) -> Sequence[Payload]:
        return documented.PRESETS[self.preset]


class DbtCloudSubject(_Preset):
    """dbt Cloud: one list, the newest first."""

    preset = "dbt_cloud"
    # https://docs.getdbt.com/dbt-cloud/api-v2: status of a run
    words: Mapping[str, Status] = {
        "1": Status.QUEUED,
        "2": Status.QUEUED,
        "3": Status.RUNNING,
        "10": Status.SUCCESS,
        "20": Status.FAILED,
        "30": Status.CANCELED,
    }
    success, failed, running, queued = "10", "20", "3", "1"
    settings: Mapping[str, Any] = {"token_env": "REST_TOKEN", "parameters": {"account_id": 123}}

    def serve(self) -> FakeRuns:
        return FakeDbtCloud()


class AirbyteSubject(_Preset):
    """Airbyte: filters by change and by creation, a short-lived token, names from another list."""

    preset = "airbyte"
    # https://reference.airbyte.com/reference/listjobs: JobStatusEnum
    words: Mapping[str, Status] = {
        "pending": Status.QUEUED,
        "queued": Status.QUEUED,
        "running": Status.RUNNING,
        "incomplete": Status.RUNNING,
        "succeeded": Status.SUCCESS,
        "failed": Status.FAILED,
        "cancelled": Status.CANCELED,
    }
    success, failed, running, queued = "succeeded", "failed", "running", "pending"
    settings: Mapping[str, Any] = {"username": CLIENT_ID, "password_env": "REST_SECRET"}

    def serve(self) -> FakeRuns:
        return FakeAirbyte()


class DatabricksSubject(_Preset):
    """Databricks: cursors, and repairs under the same id."""

    preset = "databricks"
    words = DATABRICKS_WORDS
    reopens = True
    success, failed, running, queued = "SUCCESS", "RUN_EXECUTION_ERROR", "RUNNING", "QUEUED"

    def serve(self) -> FakeRuns:
        return FakeDatabricks()


SUBJECTS = (RestSubject(), LinkedRestSubject(), DbtCloudSubject(), AirbyteSubject(), DatabricksSubject())
