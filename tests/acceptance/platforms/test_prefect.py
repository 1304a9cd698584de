"""A real Prefect server with real flows: what Headway says of each run is what Prefect says of it.

The server wants a user name with a password, and CSRF tokens: the most that a self-hosted one can want.
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
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from headway.connectors.contract import HeldRun
from headway.connectors.prefect.api import PrefectApi, PrefectSource
from tests.acceptance.conftest import Service
from tests.acceptance.platforms.environment import bin_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

FLOWS = Path(__file__).parents[2] / "data" / "prefect" / "flows.py.txt"
USER, PASSWORD = "headway", "an-acceptance-password"
PATIENCE_SECONDS = 90.0
STATUSES = {
    "SCHEDULED": "queued", "PENDING": "queued", "RUNNING": "running", "PAUSED": "running", "CANCELLING": "running",
    "COMPLETED": "success", "FAILED": "failed", "CRASHED": "failed", "CANCELLED": "canceled",
}  # fmt: skip


class Prefect:
    """One server on a free port, the programs that run flows on it, and its API."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.python = bin_of("prefect") / "python"
        self.processes: list[subprocess.Popen[bytes]] = []
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "HEADWAY_"))}
        self.environment = kept | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_API_AUTH_STRING": f"{USER}:{PASSWORD}",
            "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{PASSWORD}",
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "DO_NOT_TRACK": "1",
        }
        self.session = requests.Session()
        self.session.auth = (USER, PASSWORD)
        shutil.copy(FLOWS, home / "flows.py")

    def start(self) -> "Prefect":
        port = self.url.rpartition(":")[2]
        self.run("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui")
        self.wait_for(self._is_up, "the server is up")
        caller = str(uuid.uuid4())
        token = self.session.get(f"{self.url}/api/csrf-token", params={"client": caller}, timeout=30).json()["token"]
        self.session.headers.update({"Prefect-Csrf-Client": caller, "Prefect-Csrf-Token": token})
        return self

    def stop(self) -> None:
        for process in reversed(self.processes):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(10)
            process.wait(10)
        self.session.close()

    def run(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a program of Prefect's environment in a session of its own, with its output in ``log``."""
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.python), *argv], stdout=log, stderr=log, cwd=self.home, env=self.environment,
                start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.25)
        raise AssertionError(f"{what}: not within {PATIENCE_SECONDS} s\n{(self.home / 'log').read_text()[-4000:]}")

    def post(self, path: str, document: Any) -> Any:
        for _ in range(20):
            answer = self.session.post(f"{self.url}/api{path}", json=document, timeout=30)
            if answer.status_code != 503:  # its SQLite is locked by another writer
                break
            time.sleep(0.25)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def delete(self, path: str) -> None:
        answer = self.session.delete(f"{self.url}/api{path}", timeout=30)
        assert answer.status_code == 204, answer.text

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return all flow runs, by id; there are less than 200 in the tests that ask."""
        return {run["id"]: run for run in self.post("/flow_runs/filter", {"limit": 200})}

    def state(self, run: str) -> tuple[str, int]:
        said = self.session.get(f"{self.url}/api/flow_runs/{run}", timeout=30).json()
        return said["state_type"], said["run_count"]

    def flows(self) -> dict[str, str]:
        """Return the names of flows by id."""
        return {flow["id"]: flow["name"] for flow in self.post("/flows/filter", {"limit": 200})}

    def deployments(self) -> dict[str, str]:
        """Return ids of deployments by "flow/deployment"."""
        flows = self.flows()
        found = self.post("/deployments/filter", {"limit": 200})
        return {f"{flows[d['flow_id']]}/{d['name']}": d["id"] for d in found}

    def order(self, name: str, **state: Any) -> str:
        """Ask for a run of a deployment; returns its id."""
        document = {"state": {"type": "SCHEDULED", **state}} if state else {}
        return str(self.post(f"/deployments/{self.deployments()[name]}/create_flow_run", document)["id"])

    def set_state(self, run: str, kind: str, name: str | None = None, **more: Any) -> None:
        state = {"type": kind, "name": name, **more}
        self.post(f"/flow_runs/{run}/set_state", {"state": state, "force": False})

    def _is_up(self) -> bool:
        assert self.processes[0].poll() is None, (self.home / "log").read_text()[-4000:]
        try:
            return self.session.get(f"{self.url}/api/health", timeout=5).status_code == 200
        except requests.RequestException:
            return False


@pytest.fixture(scope="module")
def prefect() -> Iterator[Prefect]:
    home = Path(tempfile.mkdtemp(prefix="headway-prefect-"))
    server = Prefect(home)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class Watched:
    """Headway beside the Prefect that it watches."""

    def __init__(self, service: Service, prefect: Prefect) -> None:
        self.service, self.prefect = service, prefect
        config = prefect.home / "headway.toml"
        config.write_text(
            f'[sources.flows]\nplatform = "prefect"\nclient = "shop"\nurl = "{prefect.url}"\n'
            f'username = "{USER}"\npassword_env = "PREFECT_PASSWORD"\n'
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")}
        self.environment = kept | {"HEADWAY_CONFIG": str(config), "PREFECT_PASSWORD": PASSWORD}
        #: (pipeline, attempt, status) that Headway was ever seen to have.
        self.seen: set[tuple[str, int, str]] = set()

    def sync(self) -> dict[str, dict[str, Any]]:
        """Sync; returns the runs that Headway has, by Prefect's id, each with the name of its pipeline."""
        done = self.service.command("sync", "flows", "--once", env=self.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        names = {pipeline["id"]: pipeline["name"] for pipeline in self.service.get("/pipelines?limit=1000")["items"]}
        runs = self.service.get("/runs?limit=1000")["items"]
        return {run["external_run_id"]: {**run, "pipeline": names[run["pipeline_id"]]} for run in runs}

    def look(self) -> dict[str, dict[str, Any]]:
        """Sync, and compare every run that stood still meanwhile; returns what Headway has."""
        before = self.prefect.runs()
        held = self.sync()
        after = self.prefect.runs()
        flows, deployments = self.prefect.flows(), {key: name for name, key in self.prefect.deployments().items()}
        now = datetime.now(UTC)
        compared = 0
        for run, said in after.items():
            is_planned = said["run_count"] == 0 and (_instant(said["expected_start_time"]) or now) > now
            if said["parent_task_run_id"] is not None or (said["state_type"] == "SCHEDULED" and is_planned):
                assert run not in held
            elif run in before and before[run]["state_id"] == said["state_id"]:
                compare(said, held[run])
                assert held[run]["pipeline"] == (deployments.get(said["deployment_id"]) or flows[said["flow_id"]])
                compared += 1
        assert compared
        self.seen.update((run["pipeline"], run["attempt"], run["status"]) for run in held.values())
        return held

    def events(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.service.get(f"/runs/{run['id']}/events"))


def compare(said: dict[str, Any], had: dict[str, Any]) -> None:
    """Check that Headway has a run as Prefect says it is."""
    kind, count = said["state_type"], said["run_count"]
    is_end = kind in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    status = "skipped" if said["state_name"] == "Skipped" else STATUSES[kind]
    if status == "queued" and count > 0:
        # It waits for a further try. The last end stands until that starts; without one it is under way.
        assert had["attempt"] == count
        if had["status"] == "failed":
            return
        status = "running"
    assert (had["status"], had["status_reason"]) == (status, said["state_name"]), (said, had)
    assert had["attempt"] == max(count, 1)
    assert _instant(had["observed_at"]) == _instant(said["state"]["timestamp"])
    assert _instant(had["finished_at"]) == (_instant(said["end_time"]) if is_end else None)
    assert _instant(had["scheduled_for"]) == _instant(said["expected_start_time"])
    if count <= 1:
        assert _instant(had["started_at"]) == (_instant(said["start_time"]) if count else None)
    elif had["started_at"] is not None:  # the start of this attempt, if it was seen to run
        assert had["started_at"] > said["start_time"]
    if status in {"failed", "canceled", "skipped"}:
        assert had["error_message"] == said["state"]["message"]
    assert "parameters" not in (had["payload"] or {})


def test_headway_says_of_each_run_what_prefect_says(prefect: Prefect, make_service: Callable[..., Service]) -> None:
    prefect.run("flows.py", "serve")
    bare = prefect.run("flows.py", "orders_load", "parent", "skipped_state", "timeouts")
    watched = Watched(make_service().start(), prefect)
    prefect.wait_for(lambda: len(prefect.deployments()) == 4, "four deployments")

    endless, failing = prefect.order("long-running/adhoc"), prefect.order("inventory-sync/adhoc")
    crashing, loading = prefect.order("crasher/adhoc"), prefect.order("orders-load/nightly")
    in_a_month = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    planned = prefect.order("orders-load/nightly", state_details={"scheduled_time": in_a_month})
    flow = prefect.post("/flows/", {"name": "nobody-runs-it"})["id"]
    stuck = str(prefect.post("/flow_runs/", {"flow_id": flow, "state": {"type": "SCHEDULED"}})["id"])

    watched.look()
    prefect.wait_for(lambda: prefect.state(endless) == ("RUNNING", 1), "the endless run runs")
    held = watched.look()
    assert held[endless]["status"] == "running"
    assert held[stuck]["status"] == "queued"
    prefect.set_state(endless, "CANCELLING")
    retrying = prefect.run("flows.py", "payments")
    while bare.poll() is None or retrying.poll() is None:
        watched.look()
    ends = {endless: ("CANCELLED", 1), failing: ("FAILED", 1), crashing: ("CRASHED", 1), loading: ("COMPLETED", 1)}
    prefect.wait_for(lambda: all(prefect.state(run) == end for run, end in ends.items()), "all have ended")

    held = watched.look()
    assert [held[run]["status"] for run in ends] == ["canceled", "failed", "failed", "success"]
    assert planned not in held
    assert "größe" in held[failing]["error_message"]
    assert ("payments", 1, "running") in watched.seen
    assert ("payments", 2, "success") in watched.seen
    bare_names = {run["pipeline"] for run in held.values()} - prefect.deployments().keys()
    assert bare_names == {"orders-load", "parent", "skipped-state", "timeouts", "payments", "nobody-runs-it"}

    _check_rerun(watched, failing)
    _check_gone(watched, stuck, loading)
    untouched = {run: had["updated_at"] for run, had in watched.sync().items()}
    assert untouched == {run: had["updated_at"] for run, had in watched.sync().items()}


def _check_rerun(watched: Watched, failing: str) -> None:
    """Run a failed run again under its id, as the retry button of Prefect's user interface does."""
    prefect = watched.prefect
    prefect.set_state(failing, "SCHEDULED", "AwaitingRetry", message="Retry from the UI")
    watched.look()
    prefect.wait_for(lambda: prefect.state(failing) == ("COMPLETED", 2), "the retried run has ended")
    held = watched.look()
    assert (held[failing]["status"], held[failing]["attempt"]) == ("success", 2)
    (first,) = [e for e in watched.events(held[failing]) if (e["attempt"], e["status"]) == (1, "failed")]
    assert "größe" in first["error_message"]


def _check_gone(watched: Watched, unfinished: str, finished: str) -> None:
    """Delete runs: one that is held as unfinished is gone, one that has ended stays as it is."""
    for run in (unfinished, finished):
        watched.prefect.delete(f"/flow_runs/{run}")
    held = watched.sync()
    assert (held[unfinished]["status"], held[unfinished]["status_reason"]) == ("canceled", "gone_at_source")
    assert held[finished]["status"] == "success"


def test_walks_over_a_real_server_lose_nothing_and_cost_little(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime.now(UTC)
    flow = prefect.post("/flows/", {"name": "many"})["id"]

    def make(number: int) -> str:
        kind = ("COMPLETED", "FAILED", "RUNNING", "PENDING")[number % 4]
        return str(prefect.post("/flow_runs/", {"flow_id": flow, "state": {"type": kind}})["id"])

    made = [make(number) for number in range(450)]
    live = [run for number, run in enumerate(made) if number % 4 > 1]
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2126-01-01T00:00:00Z"}}
    planned = {str(prefect.post("/flow_runs/", {"flow_id": flow, "state": later})["id"]) for _ in range(5)}

    monkeypatch.setenv("PREFECT_PASSWORD", PASSWORD)
    source = PrefectSource(
        name="flows", platform="prefect", client="shop", url=prefect.url, username=USER, password_env="PREFECT_PASSWORD"
    )
    api = PrefectApi(source, threading.Event())
    try:
        changed = list(api.changed(began))
        told = [run["id"] for page in changed for run in page.runs if run["flow_id"] == flow]
        assert sorted(told) == sorted(made)
        assert planned.isdisjoint(told)
        window = list(api.window(began, datetime.now(UTC), None))
        assert sorted(run["id"] for page in window for run in page.runs) == sorted(made)
        assert {page.total for page in window} == {len(made)}
        rest = list(api.window(began, datetime.now(UTC), window[0].position))
        assert {run["id"] for page in [window[0], *rest] for run in page.runs} == set(made)

        prefect.delete(f"/flow_runs/{live[0]}")
        held = [HeldRun(flow, run, 1) for run in live]
        pages = list(api.reread(held))
        assert {run["id"] for page in pages for run in page.runs} == set(live[1:])
        assert [run for page in pages for run in page.gone] == held[:1]
        about = api.check()
        assert about.product == "Prefect 3.8.8"
        assert "many" in about.pipelines
    finally:
        api.http.close()
        prefect.delete(f"/flows/{flow}")  # with its runs

    quiet = PrefectApi(source, threading.Event())
    assert not any(run["flow_id"] == flow for page in quiet.changed(datetime.now(UTC)) for run in page.runs)
    quiet.http.close()
    # Two where nothing is live; one was refused for its CSRF token, and one fetched it.
    assert quiet.http.requests <= 4 + 2
