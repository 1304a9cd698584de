"""A real Dagster 1.13 runs jobs, and Headway tells of each run what Dagster's own API tells.

Guards the facts that the connector is built on: states and their times, re-executions under a new id, runs that end
before they start, deleted runs, deleted cursors. Dagster is started anew, in a directory of its own.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from headway.connectors.contract import HeldRun
from headway.connectors.dagster import DagsterApi, DagsterSource, api
from headway.core.validation import parse_time
from tests.acceptance.conftest import Service
from tests.acceptance.platforms.environment import bin_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

DATA = Path(__file__).parents[2] / "data" / "dagster"
START_SECONDS, END_SECONDS = 90.0, 90.0
SETTINGS = """
telemetry:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
    max_concurrent_runs: 3
"""
# What Dagster's words mean to Headway.
MEANING = {
    **dict.fromkeys(("QUEUED", "NOT_STARTED"), "queued"),
    **dict.fromkeys(("STARTING", "STARTED", "CANCELING"), "running"),
    "SUCCESS": "success",
    "FAILURE": "failed",
    "CANCELED": "canceled",
}
ENDS = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
LAUNCH = """mutation Launch($p: ExecutionParams!) { launchRun(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
REEXECUTE = """mutation Again($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
TERMINATE = """mutation End($id: String!) { terminateRun(runId: $id) {
  __typename ... on TerminateRunFailure { message } ... on Error { message } } }"""
DELETE = "mutation Delete($id: String!) { deleteRun(runId: $id) { __typename ... on Error { message } } }"
RUNS = """{ runsOrError { ... on Runs { results {
  runId jobName status creationTime startTime endTime parentRunId stats { ... on RunStatsSnapshot { startTime } } } } } }"""


class Dagster:
    """``dagster dev``: webserver, daemon and code server, as somebody starts it to try Dagster."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "dagster.yaml").write_text(SETTINGS)
        shutil.copy(DATA / "shop.py.txt", home / "shop.py")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        argv = [str(bin_of("dagster") / "dagster"), "dev", "-f", "shop.py", "-h", "127.0.0.1", "-p", str(self.port)]
        env = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
        with (home / "log").open("w") as log:
            self._process = subprocess.Popen(argv, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Return when it answers and knows the jobs."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.home / "log").read_text()
            with contextlib.suppress(requests.ConnectionError):
                asked = "{ repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name } } } } }"
                if self.ask(asked)["repositoriesOrError"]["nodes"]:
                    return
            time.sleep(0.2)
        raise AssertionError((self.home / "log").read_text())

    def stop(self) -> None:
        """End it as Ctrl-C does; what is left of its own session after that is killed."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=30).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def launch(self, job: str, *assets: str) -> str:
        selector = {"repositoryLocationName": "shop.py", "repositoryName": "__repository__", "jobName": job}
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]  # type: ignore[assignment]
        made = self.ask(LAUNCH, p={"selector": selector, "runConfigData": {}})["launchRun"]
        assert made["__typename"] == "LaunchRunSuccess", made
        return str(made["run"]["runId"])

    def reexecute(self, run_id: str) -> str:
        asked = self.ask(REEXECUTE, p={"parentRunId": run_id, "strategy": "FROM_FAILURE"})
        assert asked["launchRunReexecution"]["__typename"] == "LaunchRunSuccess", asked
        return str(asked["launchRunReexecution"]["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """End a run; refused while it is STARTING."""
        self.wait_for(lambda runs: runs[run_id]["status"] != "STARTING")
        assert self.ask(TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def delete(self, run_id: str) -> None:
        assert self.ask(DELETE, id=run_id)["deleteRun"]["__typename"] == "DeletePipelineRunSuccess"

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return what its API says of every run."""
        return {run["runId"]: run for run in self.ask(RUNS)["runsOrError"]["results"]}

    def wait_for(self, is_so: Callable[[Mapping[str, Any]], bool]) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            runs = self.runs()
            if is_so(runs):
                return runs
            time.sleep(0.2)
        raise AssertionError(runs)


@pytest.fixture(scope="module")
def dagster() -> Iterator[Dagster]:
    home = Path(tempfile.mkdtemp(prefix="headway-dagster-"))
    started = Dagster(home)
    try:
        started.wait()
        yield started
    finally:
        started.stop()
        shutil.rmtree(home, ignore_errors=True)


class Hub:
    """A Headway that reads the Dagster with ``headway sync``."""

    def __init__(self, service: Service, dagster: Dagster) -> None:
        self._service = service
        self._config = service.directory.parent / "sources.toml"
        self._config.write_text(
            f'[sources.shop]\nplatform = "dagster"\nclient = "acme"\nurl = "{dagster.url}"\nsince = "1d"\n'
        )

    def sync(self) -> dict[str, dict[str, Any]]:
        """Read the source once; returns the runs that Headway then has."""
        done = self._service.command("sync", "shop", "--once", env={**os.environ, "HEADWAY_CONFIG": str(self._config)})
        assert done.returncode == 0, done.stdout + done.stderr
        return {run["external_run_id"]: run for run in self._service.get("/runs?limit=1000")["items"]}

    def get(self, path: str) -> Any:
        return self._service.get(path)


def _differences(told: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return where Headway and Dagster differ about a run that stands still."""
    never_started = run["startTime"] == run["endTime"] and run["stats"]["startTime"] is None
    started = None if never_started else run["startTime"]
    expected = {
        "status": MEANING[run["status"]],
        "status_reason": run["status"],
        "started_at": started,
        "finished_at": run["endTime"],
    }
    said = {
        **told,
        "started_at": told["started_at"] and parse_time(told["started_at"]).timestamp(),
        "finished_at": told["finished_at"] and parse_time(told["finished_at"]).timestamp(),
    }
    return {key: (said[key], value) for key, value in expected.items() if said[key] != value}


def _compare_while_it_runs(hub: Hub, dagster: Dagster) -> set[str]:
    """Sync, and compare each run that was in one state all the while; returns the words compared."""
    before = dagster.runs()
    told = hub.sync()
    after = dagster.runs()
    still = {run_id: run for run_id, run in after.items() if before.get(run_id) == run}
    assert {run_id: _differences(told[run_id], run) for run_id, run in still.items()} == {
        run_id: {} for run_id in still
    }
    return {run["status"] for run in still.values()}


def test_headway_tells_of_each_run_what_dagster_tells(make_service: Callable[..., Service], dagster: Dagster) -> None:
    hub = Hub(make_service().start(), dagster)
    runs = {
        "canceled": dagster.launch("long_running"),
        "fails": dagster.launch("inventory_sync"),
        "succeeds": dagster.launch("orders_load"),
        "retries_a_step": dagster.launch("payments_flaky"),
        "makes_assets": dagster.launch("assets_job"),
        "makes_an_asset": dagster.launch("__ASSET_JOB", "events"),
        "deleted": dagster.launch("long_running"),
        "never_starts": dagster.launch("long_running"),
    }
    words = _compare_while_it_runs(hub, dagster)
    dagster.terminate(runs["never_starts"])
    dagster.delete(runs["deleted"])
    dagster.wait_for(lambda now: now[runs["canceled"]]["status"] == "STARTED")
    words |= _compare_while_it_runs(hub, dagster)
    dagster.terminate(runs["canceled"])
    dagster.wait_for(lambda now: now[runs["fails"]]["status"] in ENDS)
    words |= _compare_while_it_runs(hub, dagster)
    (dagster.home / "release").touch()
    runs["again"] = dagster.reexecute(runs["fails"])
    ended = dagster.wait_for(lambda now: all(run["status"] in ENDS for run in now.values()))
    told = hub.sync()

    assert words >= {"QUEUED", "STARTED", "CANCELING"}
    assert told.keys() == ended.keys() | {runs["deleted"]}
    assert {run_id: _differences(told[run_id], run) for run_id, run in ended.items()} == {
        run_id: {} for run_id in ended
    }
    deleted = told[runs["deleted"]]
    assert (deleted["status"], deleted["status_reason"]) == ("canceled", "gone_at_source")

    details = {name: hub.get(f"/runs/{told[run_id]['id']}") for name, run_id in runs.items()}
    assert details["fails"]["error_message"] == (
        'write: ValueError: relation "inventory" does not exist – Spalte "größe"'
    )
    assert "3 rows violate not_null(id)" in details["makes_assets"]["error_message"]
    assert {name: run["rows_processed"] for name, run in details.items() if run["rows_processed"] is not None} == {
        "makes_assets": 1200,
        "makes_an_asset": 5_000_000_000,
    }
    assert details["again"]["payload"]["parent_run_id"] == runs["fails"]
    assert details["again"]["attempt"] == 1
    assert details["never_starts"]["started_at"] is None
    assert details["succeeds"]["url"] == f"{dagster.url}/runs/{runs['succeeds']}"
    pipelines = {pipeline["id"]: pipeline for pipeline in hub.get("/clients/acme/pipelines")["items"]}
    named = {name: pipelines[run["pipeline_id"]] for name, run in details.items()}
    assert {name: pipeline["name"] for name, pipeline in named.items()} == {
        "canceled": "long_running",
        "fails": "inventory_sync",
        "succeeds": "orders_load",
        "retries_a_step": "payments_flaky",
        "makes_assets": "assets_job",
        "makes_an_asset": "assets, ad hoc",
        "deleted": "long_running",
        "never_starts": "long_running",
        "again": "inventory_sync",
    }
    assert named["makes_an_asset"]["external_id"] == "shop.py/__ASSET_JOB"
    assert hub.sync() == told


def _connector(dagster: Dagster) -> DagsterApi:
    source = DagsterSource(name="shop", platform="dagster", client="acme", url=dagster.url)
    return DagsterApi(source, threading.Event())


def test_walk_misses_no_run_when_the_run_of_its_cursor_is_deleted(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for _ in range(5):
        made.append(dagster.launch("orders_load"))
        dagster.terminate(made[-1])
    dagster.wait_for(lambda runs: all(run["status"] in ENDS for run in runs.values()))
    monkeypatch.setattr(api, "PAGE_RUNS", 2)
    connector = _connector(dagster)
    now = datetime.now(UTC)
    seen: set[str] = set()
    for number, page in enumerate(connector.window(now - timedelta(hours=1), now, None)):
        seen |= {run["runId"] for run in page.runs}
        if number == 0:
            dagster.delete(page.runs[-1]["runId"])
    assert seen >= {*made, *dagster.runs()}
    connector.http.close()


def test_quiet_sync_asks_twice_and_names_what_is_gone(dagster: Dagster) -> None:
    dagster.wait_for(lambda runs: all(run["status"] in ENDS for run in runs.values()))
    known = dagster.launch("orders_load")
    dagster.wait_for(lambda runs: runs[known]["status"] in ENDS)
    connector = _connector(dagster)
    assert connector.check().product.startswith("Dagster 1.13.")
    assert {"shop.py/orders_load", "shop.py/__ASSET_JOB"} <= set(connector.check().pipelines)
    asked = connector.http.requests
    assert list(connector.changed(datetime.now(UTC) + timedelta(seconds=1))) == []
    assert connector.http.requests - asked == 3  # what it knows, what changed, what has not ended
    held = [HeldRun("shop.py/orders_load", run_id, 1) for run_id in (known, "00000000-0000-0000-0000-000000000000")]
    (page,) = connector.reread(held)
    assert [run["runId"] for run in page.runs] == [known]
    assert page.gone == [held[1]]
    connector.http.close()
