"""A real Airflow 3.3.2 runs DAGs, and Headway tells of each run what Airflow's own API tells.

Guards the facts that the connector is built on: states and their times, clears that run a run again under its id, runs
stopped by hand, queued for ever, planned or deleted, what a viewer may read, keyset cursors, filters by end. Airflow is
started anew, in a directory of its own: API server, scheduler and DAG processor on SQLite.
"""

import contextlib
import json
import os
import secrets
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
from urllib.parse import quote

import pytest
import requests

from headway.connectors.airflow import api
from headway.connectors.airflow.api import AirflowApi
from headway.connectors.airflow.mapping import FAILED_TASKS, AirflowSource
from headway.connectors.contract import HeldRun
from headway.core.validation import parse_time
from tests.acceptance.conftest import Service
from tests.acceptance.platforms.environment import bin_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

DATA = Path(__file__).parents[2] / "data" / "airflow"
DAGS = {"fixable", "idle", "inventory", "orders", "payments", "slow", "training"}
START_SECONDS, STEP_SECONDS, STOP_SECONDS = 120.0, 90.0, 10.0
TRIES = 5
ENDS = frozenset({"success", "failed"})
ODD_ID = "by+hand:2026-11-23~1"

Key = tuple[str, str]
Runs = dict[Key, dict[str, Any]]


class Airflow:
    """Airflow's processes, as ``airflow standalone`` starts them, less the triggerer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.passwords = {"admin": secrets.token_urlsafe(12), "headway": secrets.token_urlsafe(12)}
        self._program = bin_of("airflow") / "airflow"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._env = self._environment()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._session = requests.Session()

    def _environment(self) -> dict[str, str]:
        dags, passwords = self.home / "dags", self.home / "passwords.json"
        dags.mkdir()
        shutil.copy(DATA / "shop.py.txt", dags / "shop.py")
        passwords.write_text(json.dumps(self.passwords))
        settings = {
            "CORE__DAGS_FOLDER": dags,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__PARALLELISM": 6,
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,headway:viewer",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
            "API__HOST": "127.0.0.1",
            "API__PORT": self.url.rpartition(":")[2],
            "API__WORKERS": 1,
            "API__BASE_URL": self.url,
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "HEADWAY_", "PYTHON"))}
        own = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        path = f"{self._program.parent}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, **own, "AIRFLOW_HOME": str(self.home), "PATH": path, "NO_PROXY": "127.0.0.1"}

    def start(self) -> None:
        """Start it; returns when it answers and knows the DAGs."""
        with (self.home / "log").open("w") as log:
            options: dict[str, Any] = {"env": self._env, "cwd": self.home, "stdout": log, "stderr": log}
            subprocess.run([self._program, "db", "migrate"], check=True, timeout=START_SECONDS, **options)
            for words in (["api-server"], ["scheduler", "--skip-serve-logs"], ["dag-processor"]):
                self._processes.append(subprocess.Popen([self._program, *words], start_new_session=True, **options))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self._processes), self.log
            with contextlib.suppress(requests.ConnectionError):
                if not self._session.headers.get("Authorization"):
                    self._log_in()
                if {dag["dag_id"] for dag in self.ask("GET", "/dags")["dags"]} == DAGS:
                    return
            time.sleep(0.3)
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()[-5_000:]

    def stop(self) -> None:
        """End it as Ctrl-C does; whatever is left of its own sessions after that is killed."""
        family = [pid for process in self._processes for pid in _family(process.pid)]
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        for pid in family:
            if _session_of(pid) in {process.pid for process in self._processes}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(STOP_SECONDS)
        self._session.close()

    def _log_in(self) -> None:
        login = {"username": "admin", "password": self.passwords["admin"]}
        answer = requests.post(f"{self.url}/auth/token", json=login, timeout=30)
        assert answer.status_code == 201, answer.text
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def ask(self, method: str, path: str, document: Any = None, **params: Any) -> Any:
        for _ in range(TRIES):
            answer = self._session.request(method, f"{self.url}/api/v2{path}", params=params, json=document, timeout=60)
            if answer.status_code != 500:
                break
            time.sleep(1)  # SQLite was locked for too long: nothing was done
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, **more: Any) -> Key:
        made = self.ask("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, **more})
        return dag_id, made["dag_run_id"]

    def run(self, key: Key, method: str = "GET", document: Any = None, step: str = "") -> Any:
        return self.ask(method, f"/dags/{key[0]}/dagRuns/{quote(key[1], safe='')}{step}", document)

    def runs(self) -> Runs:
        found = self.ask("GET", "/dags/~/dagRuns", limit=100)
        assert found["total_entries"] <= 100
        return {(run["dag_id"], run["dag_run_id"]): run for run in found["dag_runs"]}

    def wait_for(self, condition: Callable[[Runs], bool]) -> Runs:
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            if condition(runs := self.runs()):
                return runs
            time.sleep(0.3)
        raise AssertionError(f"{ {key: run['state'] for key, run in runs.items()} }\n{self.log}")

    def error(self, key: Key) -> str:
        """Return what a failed run's error is, by its tasks."""
        tasks = self.run(key, step="/taskInstances")["task_instances"]
        return "failed tasks: " + ", ".join(sorted(task["task_id"] for task in tasks if task["state"] == "failed"))

    def allow(self, name: str) -> None:
        (self.home / name).touch()


def _family(root: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [root]
    while pending:
        found.append(pending.pop())
        pending += parents.get(found[-1], [])
    return found


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def airflow() -> Iterator[Airflow]:
    home = Path(tempfile.mkdtemp(prefix="headway-airflow-"))
    started = Airflow(home)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(home, ignore_errors=True)


class Hub:
    """A Headway that reads the Airflow with ``headway sync``, as a viewer."""

    def __init__(self, service: Service, airflow: Airflow) -> None:
        self._service = service
        self._airflow = airflow
        self._config = service.directory.parent / "sources.toml"
        self._config.write_text(
            f'[sources.shop]\nplatform = "airflow"\nclient = "acme"\nurl = "{airflow.url}"\nsince = "2d"\n'
            'username = "headway"\npassword_env = "SHOP_PASSWORD"\n'
        )

    def sync(self) -> Runs:
        """Read the source once; returns the runs that Headway then has."""
        own = {"HEADWAY_CONFIG": str(self._config), "SHOP_PASSWORD": self._airflow.passwords["headway"]}
        done = self._service.command("sync", "shop", "--once", env={**os.environ, **own})
        assert done.returncode == 0, done.stdout + done.stderr
        assert own["SHOP_PASSWORD"] not in done.stdout + done.stderr
        pipelines = {one["id"]: one["external_id"] for one in self._service.get("/pipelines")["items"]}
        return {
            (pipelines[run["pipeline_id"]].removeprefix("default/"), run["external_run_id"]): run
            for run in self._service.get("/runs?limit=1000")["items"]
        }

    def get(self, path: str) -> Any:
        return self._service.get(path)

    def events(self, run: Mapping[str, Any]) -> dict[tuple[int, str], dict[str, Any]]:
        return {(event["attempt"], event["status"]): event for event in self.get(f"/runs/{run['id']}/events")}


def _differences(told: Mapping[str, Any], run: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    """Return where Headway and Airflow differ about a run that stands still."""
    facts = {"scheduled_for": "run_after", "started_at": "start_date", "finished_at": "end_date"}
    expected = {name: run[theirs] and parse_time(run[theirs]) for name, theirs in facts.items()}
    said = {name: told[name] and parse_time(told[name]) for name in facts}
    words = {"status": run["state"], "status_reason": run["state"], "attempt": attempt}
    page = f"/dags/{run['dag_id']}/runs/{quote(run['dag_run_id'], safe='')}"
    said |= {name: told[name] for name in words} | {"url": told["url"].partition("/dags/")[2]}
    expected |= words | {"url": page.removeprefix("/dags/")}
    return {name: (said[name], value) for name, value in expected.items() if said[name] != value}


def _without(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


def _compare(hub: Hub, airflow: Airflow, attempts: Mapping[Key, int], still: set[Key]) -> Runs:
    """Sync while Airflow goes on, and compare each run that was in one state all the while; ``still`` ones are such."""
    before = airflow.runs()
    told = hub.sync()
    after = airflow.runs()
    beat = "last_scheduling_decision"  # moves at each look of the scheduler
    kept = {key: run for key, run in after.items() if _without(run, beat) == _without(before.get(key, {}), beat)}
    assert kept.keys() >= still
    planned = {key for key, run in kept.items() if parse_time(run["run_after"]) > datetime.now(UTC)}
    assert not planned & told.keys()
    compared = {key: _differences(told[key], kept[key], attempts.get(key, 1)) for key in kept.keys() - planned}
    assert {key: what for key, what in compared.items() if what} == {}
    return told


def test_headway_tells_of_each_run_what_airflow_tells(make_service: Callable[..., Service], airflow: Airflow) -> None:
    hub = Hub(make_service().start(), airflow)
    attempts: dict[Key, int] = {}
    fails = airflow.trigger("inventory", note="first try", conf={"password": "of-the-warehouse"})
    fixable = airflow.trigger("fixable", dag_run_id=ODD_ID)
    stopped, slow, retries = airflow.trigger("training"), airflow.trigger("slow"), airflow.trigger("payments")
    waits, deleted = airflow.trigger("idle"), airflow.trigger("idle", dag_run_id="deleted-later")
    planned = airflow.trigger("payments", run_after=(datetime.now(UTC) + timedelta(days=2)).isoformat())

    # While they run.
    _compare(hub, airflow, attempts, {waits, deleted, planned})
    airflow.wait_for(
        lambda runs: (
            [runs[key]["state"] for key in (fails, fixable, stopped, slow)]
            == ["failed", "failed", "running", "running"]
        )
    )
    told = _compare(hub, airflow, attempts, {fails, fixable, stopped, slow, waits, deleted})
    assert [told[key]["status"] for key in (stopped, slow, waits)] == ["running", "running", "queued"]
    first = {key: airflow.run(key) for key in (fails, fixable)}
    errors = {key: airflow.error(key) for key in (fails, fixable)}
    assert "write" in errors[fails]

    # One is mended and cleared, one is cleared and fails again, one is stopped by hand, one deleted.
    airflow.allow("fixed")
    airflow.run(fixable, "POST", {"dry_run": False}, "/clear")
    airflow.run(fails, "POST", {"dry_run": False}, "/clear")
    airflow.run(stopped, "PATCH", {"state": "failed"})
    airflow.run(deleted, "DELETE")
    attempts |= {fixable: 2, fails: 2}
    airflow.wait_for(lambda runs: runs[fixable]["state"] == "running" and runs[fails]["state"] == "failed")
    told = _compare(hub, airflow, attempts, {fixable, fails, stopped, slow})
    assert (told[fixable]["status"], told[fixable]["finished_at"]) == ("running", None)
    assert (told[deleted]["status"], told[deleted]["status_reason"]) == ("canceled", "gone_at_source")

    # Afterwards.
    airflow.allow("fixable-may-end")
    airflow.allow("slow-may-end")
    ended = airflow.wait_for(
        lambda runs: all(run["state"] in ENDS for key, run in runs.items() if key[0] != "idle" and key != planned)
    )
    told = _compare(hub, airflow, attempts, ended.keys() - {planned})
    assert told.keys() == (ended.keys() - {planned}) | {deleted}
    assert {key[0] for key in told} == DAGS
    assert sum(key[0] == "orders" for key in told) == 4

    # The first attempts are kept, with their times and their errors.
    for key, error in errors.items():
        events = hub.events(told[key])
        end = events[1, "failed"]
        assert [parse_time(end[name]) for name in ("started_at", "finished_at")] == [
            parse_time(first[key][name]) for name in ("start_date", "end_date")
        ]
        assert end["error_message"] == error
        last = events[2, ended[key]["state"]]
        assert parse_time(last["finished_at"]) == parse_time(ended[key]["end_date"])
    details = {key: hub.get(f"/runs/{told[key]['id']}") for key in (fails, fixable, stopped, retries)}
    assert details[fails]["error_message"] == airflow.error(fails)
    assert details[fails]["payload"]["note"] == "first try"
    assert "of-the-warehouse" not in json.dumps(details[fails])
    assert details[fixable]["error_message"] is None
    assert details[stopped]["error_message"] == "failed tasks: train"
    assert details[retries]["attempt"] == 1, "a task that is tried again is not a run that runs again"
    assert hub.sync() == told, "a sync of what has not changed writes nothing"


@pytest.fixture
def connector(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowApi]:
    monkeypatch.setenv("SHOP_PASSWORD", airflow.passwords["headway"])
    source = AirflowSource(
        name="shop",
        platform="airflow",
        client="acme",
        url=airflow.url,
        username="headway",
        password_env="SHOP_PASSWORD",
    )
    made = AirflowApi(source, threading.Event())
    yield made
    made.http.close()


def test_check_finds_version_and_dags_as_a_viewer(connector: AirflowApi) -> None:
    check = connector.check()
    assert check.product == "Airflow 3.3.2"
    assert set(check.pipelines) == DAGS
    assert check.notes == []


def test_quiet_sync_asks_four_times(connector: AirflowApi) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [len(page.runs) for page in connector.changed(later)][1:] == [0]
    assert connector.http.requests == 4  # which API, login, what is live, what changed


@pytest.mark.parametrize("paging", ["cursor", "offset"])
def test_windows_by_end_have_each_ended_run_page_by_page(
    airflow: Airflow, connector: AirflowApi, monkeypatch: pytest.MonkeyPatch, paging: str
) -> None:
    if paging == "offset":
        params = AirflowApi._page_params
        monkeypatch.setattr(connector, "_page_params", lambda *args: _without(params(connector, *args), "cursor"))
    never_started = airflow.trigger("idle")
    airflow.run(never_started, "PATCH", {"state": "failed"})
    assert airflow.run(never_started)["start_date"] is None
    ended = airflow.wait_for(lambda runs: all(run["state"] in ENDS for key, run in runs.items() if key[0] == "orders"))
    ends = {key: run for key, run in ended.items() if run["state"] in ENDS}
    times = sorted(parse_time(run["end_date"]) for run in ends.values())
    middle, now = times[len(times) // 2] + timedelta(microseconds=1), datetime.now(UTC)
    # pages by offset overlap, as live runs leave this window while it is read
    monkeypatch.setattr(api, "PAGE_RUNS", 1 if paging == "cursor" else 6)
    monkeypatch.setattr(api, "OVERLAP_RUNS", 5)
    halves = []
    for since, until in ((now - timedelta(days=1), middle), (middle, now)):
        pages = connector.window(since, until, None)
        first = next(pages)
        rest = list(connector.window(since, until, first.position) if first.position else pages)
        assert paging == "cursor" or first.position is None
        found = [(r["dag_id"], r["dag_run_id"]) for page in [first, *rest] for r in page.runs]
        halves.append(sorted(found) if paging == "cursor" else sorted(set(found)))
        assert all(FAILED_TASKS not in run for page in [first, *rest] for run in page.runs)
    # Those that have not ended come with a window that reaches up to now, by the whole seconds of SQLite's clock.
    first_half, second_half = ([key for key in half if key in ends] for half in halves)
    assert first_half == sorted(key for key, run in ends.items() if parse_time(run["end_date"]) < middle)
    assert second_half == sorted(ends.keys() - set(first_half))
    assert never_started in halves[0] + halves[1]


def test_reread_knows_ids_with_signs_and_tells_what_is_gone(airflow: Airflow, connector: AirflowApi) -> None:
    key = airflow.trigger("idle", dag_run_id=ODD_ID)
    held = [
        HeldRun(f"default/{key[0]}", key[1], 1),
        HeldRun("default/idle", "never-was", 1),
        HeldRun("default/no", "x", 1),
    ]
    (page,) = connector.reread(held)
    assert [run["dag_run_id"] for run in page.runs] == [ODD_ID]
    assert page.gone == held[1:]


def test_login_is_renewed_when_the_token_is_refused(connector: AirflowApi) -> None:
    list(connector.changed(datetime.now(UTC)))
    connector.http._credentials = {"Authorization": "Bearer no-token-of-this-airflow"}
    asked = connector.http.requests
    list(connector.changed(datetime.now(UTC)))
    assert connector.http.requests - asked == 4  # refused, login, and both lists
