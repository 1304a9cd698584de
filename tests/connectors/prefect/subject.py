"""Prefect's API as the server of 3.8.8 answers it, and what the contract suite needs to know of its connector."""

import base64
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from headway.connectors.contract import Connector, Payload
from headway.connectors.prefect import mapping
from headway.connectors.prefect.api import PrefectApi, PrefectSource
from headway.core.validation import parse_time
from headway.runs.observation import Status
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

RECORDED = Path(__file__).parents[2] / "data" / "prefect" / "flow_runs.json"
USER, PASSWORD = "headway", "correct-horse-battery"
ENDS = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
LIVE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
# https://docs.prefect.io/v3/concepts/states: a type of state, and after the slash a name where it makes a difference.
WORDS: Mapping[str, Status] = {
    "SCHEDULED": Status.QUEUED,
    "PENDING": Status.QUEUED,
    "RUNNING": Status.RUNNING,
    "PAUSED": Status.RUNNING,
    "CANCELLING": Status.RUNNING,
    "COMPLETED": Status.SUCCESS,
    "COMPLETED/Skipped": Status.SKIPPED,
    "FAILED": Status.FAILED,
    "CRASHED": Status.FAILED,
    "CANCELLED": Status.CANCELED,
}
NAMESPACE = uuid.UUID("9b0e7a54-6f0b-4b39-9c0b-3d8d2c1f5a10")


def recorded() -> dict[str, dict[str, Any]]:
    """Return recorded flow runs by what they show, with the names that the API had for them."""
    kept = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {
        label: {**one["run"], mapping.NAMES: {"flow": one["flow"], "deployment": one["deployment"]}}
        for label, one in kept.items()
    }


def _start(run: Mapping[str, Any]) -> datetime:
    return parse_time(run["start_time"] or run["expected_start_time"])


def _end(run: Mapping[str, Any]) -> datetime | None:
    return parse_time(run["end_time"]) if run["end_time"] else None


_TIMES: Mapping[str, Callable[[Mapping[str, Any]], datetime | None]] = {
    "start_time": _start,
    "end_time": _end,
    "expected_start_time": lambda run: parse_time(run["expected_start_time"]),
}
_SORTS: Mapping[str, Callable[[list[dict[str, Any]]], None]] = {
    "ID_DESC": lambda rows: rows.sort(key=lambda run: str(run["id"]), reverse=True),
    "START_TIME_ASC": lambda rows: rows.sort(key=_start),
    "END_TIME_DESC": lambda rows: rows.sort(key=lambda run: str(run["end_time"] or ""), reverse=True),
}


class Refusal(Exception):  # noqa: N818 - the answer 422
    pass


class FakePrefect(FakeRuns):
    """A server with flow runs, flows and deployments. With ``credential`` it wants that header, with ``csrf`` a token."""

    def __init__(self, *, credential: str | None = None, csrf: bool = False, version: str | None = "3.8.8") -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}
        self.named: dict[str, dict[str, dict[str, Any]]] = {"flows": {}, "deployments": {}}
        self.credential, self.csrf, self.version = credential, csrf, version
        self.tokens: dict[str, str] = {}

    def add(
        self,
        *,
        pipeline: str,
        word: str,
        created_at: datetime,
        started_at: datetime | None,
        finished_at: datetime | None,
        updated_at: datetime,
    ) -> str:
        flow, _, deployment = pipeline.partition("/")
        flow_id = self._name("flows", flow, {})
        run = str(uuid.uuid4())
        self.runs[run] = {
            "id": run,
            "name": "daft-otter",
            "flow_id": flow_id,
            "deployment_id": self._name("deployments", deployment, {"flow_id": flow_id}) if deployment else None,
            "parent_task_run_id": None,
            "parameters": {"password": "in-a-parameter"},
            "run_count": 0,
            "expected_start_time": _said(created_at),
            "start_time": None,
            "end_time": None,
            "state_type": None,
        }
        self.change(run, word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        return run

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        """Enter a state. A start other than the known one is a re-run: it counts, and the first start stays."""
        row = self.runs[run]
        kind, _, name = word.partition("/")
        is_new_start = started_at is not None and row.get("last_start") != started_at
        if is_new_start and kind not in {"SCHEDULED", "PENDING"}:
            row["run_count"] += 1
            row["last_start"] = started_at
        row["start_time"] = row["start_time"] or (started_at and _said(started_at))
        if kind in ENDS and not row["start_time"]:  # what ends before it ran gets its end as its start
            row["start_time"] = _said(finished_at or updated_at)
        row["end_time"] = _said(finished_at) if finished_at else None
        row["state_type"], row["state_name"] = kind, name or kind.capitalize()
        row["state"] = {"type": kind, "name": row["state_name"], "timestamp": _said(updated_at), "message": None}

    def plan(self, run: str, at: datetime) -> None:
        self.runs[run]["expected_start_time"] = _said(at)

    def delete(self, run: str) -> None:
        del self.runs[run]

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/api/flow_runs/filter"

    def answer(self, asked: Asked) -> Reply:
        if self.credential is not None and asked.headers.get("Authorization") != self.credential:
            return Reply(401, {"exception_message": "Unauthorized"})
        if asked.method == "GET":
            return self._got(asked)
        if self.csrf and not self._has_token(asked):
            return Reply(403, {"detail": "Missing CSRF token."})
        try:
            return self._posted(asked)
        except Refusal as refusal:
            return Reply(422, {"exception_message": "Invalid request received.", "exception_detail": str(refusal)})

    def _got(self, asked: Asked) -> Reply:
        if asked.path == "/api/csrf-token":
            return self._token(asked.query["client"])
        if asked.path == "/api/admin/version":
            return Reply(404, {"detail": "Not Found"}) if self.version is None else Reply(document=self.version)
        run = self.runs.get(asked.path.removeprefix("/api/flow_runs/"))
        return Reply(404, {"detail": "Flow run not found"}) if run is None else Reply(document=_shown(run))

    def _posted(self, asked: Asked) -> Reply:
        what, _, verb = asked.path.removeprefix("/api/").partition("/")
        if (
            asked.method != "POST"
            or what not in {"flow_runs", "flows", "deployments"}
            or verb not in {"filter", "count"}
        ):
            return Reply(404, {"detail": "Not Found"})
        body = asked.json
        rows = list(self.runs.values()) if what == "flow_runs" else list(self.named[what].values())
        rows = [row for row in rows if self._fits(row, body.get(what, {}))]
        if verb == "count":
            return Reply(document=len(rows))
        if not 0 <= body.get("limit", 200) <= 200:
            return Reply(422, {"detail": "Invalid limit: must be less than or equal to 200."})
        if what == "flow_runs":
            _SORTS[body.get("sort", "ID_DESC")](rows)
        else:
            rows.sort(key=lambda row: str(row["name"]))
        offset = body.get("offset", 0)
        return Reply(document=[_shown(row) for row in rows[offset : offset + body.get("limit", 200)]])

    @staticmethod
    def _fits(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        flat = {("state_type" if f == "state" else f): (c["type"] if f == "state" else c) for f, c in wanted.items()}
        if unknown := flat.keys() - {"id", "state_type", "parent_task_run_id", *_TIMES}:
            raise Refusal(f"{unknown}: Extra inputs are not permitted")
        return all(_holds(row, field, word, value) for field, said in flat.items() for word, value in said.items())

    def _name(self, what: str, name: str, more: Mapping[str, Any]) -> str:
        key = str(uuid.uuid5(NAMESPACE, f"{what}/{name}/{more}"))
        self.named[what][key] = {"id": key, "name": name, **more}
        return key

    def _token(self, client: str) -> Reply:
        if not self.csrf:
            return Reply(422, {"detail": "CSRF protection is disabled."})
        self.tokens[client] = uuid.uuid4().hex
        return Reply(document={"client": client, "token": self.tokens[client], "expiration": "2099-01-01T00:00:00Z"})

    def _has_token(self, asked: Asked) -> bool:
        token = self.tokens.get(asked.headers.get("Prefect-Csrf-Client", ""))
        return token is not None and token == asked.headers.get("Prefect-Csrf-Token")


def _holds(row: Mapping[str, Any], field: str, word: str, value: Any) -> bool:
    """Tell whether a condition of a filter holds; bounds of times are included."""
    if word in {"any_", "not_any_"}:
        if field == "state_type" and not set(value) <= {*ENDS, *LIVE}:
            raise Refusal("Input should be 'SCHEDULED', 'PENDING', …")
        return (row[field] in value) == (word == "any_")
    if word == "is_null_":
        return (row[field] is None) is value
    time, bound = _TIMES[field](row), parse_time(value)
    return time is not None and (time >= bound if word == "after_" else time <= bound)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "last_start"}


def _said(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


class PrefectSubject:
    """The connector of Prefect."""

    platform = "prefect"
    words = WORDS
    success, failed, running, queued = "COMPLETED", "FAILED", "RUNNING", "PENDING"
    follows_links = False

    def serve(self) -> FakePrefect:
        return FakePrefect(credential=f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")

    def source(self, url: str, **more: Any) -> PrefectSource:
        os.environ["PREFECT_TEST_PASSWORD"] = PASSWORD
        given = {"username": USER, "password_env": "PREFECT_TEST_PASSWORD"} | more
        return PrefectSource(name="prefect", platform="prefect", client="acme", url=url, **given)

    def connect(self, source: PrefectSource, stop: threading.Event) -> Connector:
        return PrefectApi(source, stop)

    def hostile_link(self, url: str) -> Mapping[str, str]:
        raise AssertionError(f"no link is followed, not even to {url}")

    def plan(self, platform: FakeRuns, run: str, at: datetime) -> None:
        assert isinstance(platform, FakePrefect)
        platform.plan(run, at)

    def recorded(self) -> Sequence[Payload]:
        return [run for label, run in recorded().items() if label not in {"planned", "child"}]  # which are not imported
