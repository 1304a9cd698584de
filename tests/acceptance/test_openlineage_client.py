"""The real openlineage-python client reports runs to the real service."""

import datetime as dt
from typing import Any

import pytest
import requests
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import (
    DatasetEvent,
    Job,
    JobEvent,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
    StaticDataset,
)
from openlineage.client.facet_v2 import (
    error_message_run,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
)
from openlineage.client.transport.http import HttpConfig, HttpTransport
from openlineage.client.uuid import generate_new_uuid

from tests.acceptance.conftest import Service

pytestmark = pytest.mark.acceptance

PRODUCER = "https://github.com/example/shop-etl/v1"
START = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=2)


class Reporter:
    """Sends events as a job would."""

    def __init__(self, url: str, **config: Any) -> None:
        options = {"url": url, "endpoint": "api/v1/lineage", "timeout": 10, **config}
        self.client = OpenLineageClient(transport=HttpTransport(HttpConfig.from_dict(options)))

    def send(self, state: RunState, run_id: str, job: str, seconds: float, **more: Any) -> None:
        facets = more.pop("facets", {})
        self.client.emit(
            RunEvent(
                eventType=state,
                eventTime=(START + dt.timedelta(seconds=seconds)).isoformat(),
                run=Run(runId=run_id, facets=facets),
                job=Job(namespace="shop-etl", name=job, facets={}),
                producer=PRODUCER,
                **more,
            )
        )


def _runs(service: Service) -> dict[str, dict[str, Any]]:
    return {run["external_run_id"]: run for run in service.get("/runs?limit=1000")["items"]}


@pytest.mark.parametrize("config", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
def test_real_client_reports_success_failure_abort_duplicates_and_disorder(
    service: Service, config: dict[str, Any]
) -> None:
    hub = Reporter(service.url, **config)
    ids = {name: str(generate_new_uuid()) for name in ("success", "failed", "aborted", "late", "twice", "child")}
    nominal = {"nominalTime": nominal_time_run.NominalTimeRunFacet(nominalStartTime=START.isoformat())}
    rows = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=1200, size=1)
    output = OutputDataset(namespace="s3://lake", name="orders", outputFacets={"outputStatistics": rows})

    hub.send(RunState.START, ids["success"], "orders.load", 0, facets=nominal)
    hub.send(RunState.COMPLETE, ids["success"], "orders.load", 60, outputs=[output])

    error = error_message_run.ErrorMessageRunFacet(
        message="KeyError: 'größe' at postgresql://etl:hunter2@db.example.com/shop", programmingLanguage="python"
    )
    hub.send(RunState.START, ids["failed"], "inventory.load", 0)
    hub.send(RunState.FAIL, ids["failed"], "inventory.load", 30, facets={"errorMessage": error})

    hub.send(RunState.START, ids["aborted"], "ml.train", 0)
    hub.send(RunState.ABORT, ids["aborted"], "ml.train", 5)

    hub.send(RunState.COMPLETE, ids["late"], "late.start", 75)
    hub.send(RunState.START, ids["late"], "late.start", 0)

    for _ in range(3):
        hub.send(RunState.START, ids["twice"], "dup.start", 0)
    for _ in range(3):
        hub.send(RunState.COMPLETE, ids["twice"], "dup.start", 1)

    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=ids["success"]), job=parent_run.Job(namespace="shop-etl", name="orders.load")
    )
    hub.send(RunState.FAIL, ids["child"], "orders.load.check", 10, facets={"parent": parent})
    job = Job(namespace="shop-etl", name="static.job", facets={})
    hub.client.emit(JobEvent(eventTime=START.isoformat(), job=job, producer=PRODUCER))
    dataset = StaticDataset(namespace="s3://lake", name="orders")
    hub.client.emit(DatasetEvent(eventTime=START.isoformat(), dataset=dataset, producer=PRODUCER))

    runs = _runs(service)
    assert runs.keys() == {ids[name] for name in ("success", "failed", "aborted", "late", "twice")}
    said = {name: runs[ids[name]] for name in ids if name != "child"}
    assert {name: run["status"] for name, run in said.items()} == {
        "success": "success",
        "failed": "failed",
        "aborted": "canceled",
        "late": "success",
        "twice": "success",
    }
    assert said["success"]["rows_processed"] == 1200
    assert said["success"]["duration_ms"] == 60_000
    assert said["success"]["scheduled_for"] == START.isoformat().replace("+00:00", "Z")
    assert said["late"]["duration_ms"] == 75_000
    assert "größe" in said["failed"]["error_message"]
    assert "hunter2" not in said["failed"]["error_message"]
    events = service.get(f"/runs/{said['twice']['id']}/events")
    assert [event["status"] for event in events] == ["running", "success"]

    (failing,) = service.get("/health/failing")["items"]
    assert (failing["pipeline_name"], failing["client_slug"]) == ("inventory.load", "default")
    latest = service.get(f"/pipelines/{failing['pipeline_id']}/runs/latest")
    assert latest["external_run_id"] == ids["failed"]
    changes = {change["pipeline_name"]: change["change"] for change in service.get("/health/changes")["items"]}
    assert changes["inventory.load"] == "newly_failing"
    assert changes["orders.load"] == "new"


def test_client_prefix_names_the_client(service: Service) -> None:
    hub = Reporter(service.url + "/in/globex/")
    run_id = str(generate_new_uuid())
    hub.send(RunState.COMPLETE, run_id, "orders.load", 0)
    assert _runs(service).keys() == {run_id}
    assert [pipeline["name"] for pipeline in service.get("/clients/globex/pipelines")["items"]] == ["orders.load"]


def test_keys_are_asked_for_when_they_are_on(make_service: Any) -> None:
    service = make_service(environment={"HEADWAY_AUTH": "keys"}).start()
    made = service.command("keys", "create", "etl", "--scope", "ingest")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    hub = Reporter(service.url, auth={"type": "api_key", "apiKey": key})
    hub.send(RunState.COMPLETE, str(generate_new_uuid()), "orders.load", 0)
    assert requests.get(f"{service.url}/api/v1/runs", timeout=10).status_code == 401
    barely = requests.get(f"{service.url}/api/v1/runs", headers={"Authorization": f"Bearer {key}"}, timeout=10)
    assert barely.status_code == 403
    with pytest.raises(requests.HTTPError):
        Reporter(service.url).send(RunState.COMPLETE, str(generate_new_uuid()), "orders.load", 0)
    assert service.command("keys", "revoke", "etl").returncode == 0
    assert key not in service.log
