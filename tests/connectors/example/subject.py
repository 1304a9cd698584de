"""The example platform itself, and what the contract suite needs to know of its connector."""

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headway.connectors.contract import Connector, Payload
from headway.core.validation import format_time, parse_time
from headway.runs.observation import Status
from tests.connectors.example.api import ExampleConnector
from tests.connectors.example.source import ExampleSource
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

LIVE = ("WAITING", "ACTIVE")
CREDENTIAL = "example-credential-4711"


class Platform(FakeRuns):
    """Keeps runs by their ids, and answers as its documentation says."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self._runs: dict[str, dict[str, Any]] = {}

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
        run = str(next(self._ids))
        page = f"https://example.test/runs/{run}"
        self._runs[run] = {"id": int(run), "pipeline": pipeline, "created": format_time(created_at), "page": page}
        self.change(run, word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        return run

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        times = {"started": started_at, "ended": finished_at, "updated": updated_at}
        self._runs[run] |= {"state": word, **{key: time and format_time(time) for key, time in times.items()}}

    def delete(self, run: str) -> None:
        del self._runs[run]

    def plan(self, run: str, at: datetime) -> None:
        self._runs[run]["planned"] = format_time(at)

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/api/runs"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("Authorization") != f"Bearer {CREDENTIAL}":
            return Reply(401, {"error": "who are you?"})
        if asked.path == "/api/about":
            names = sorted({run["pipeline"] for run in self._runs.values()})
            return Reply(document={"version": "1.2", "pipelines": [{"name": name} for name in names]})
        if asked.path == "/api/runs":
            return self._list(asked.query)
        run = self._runs.get(asked.path.removeprefix("/api/runs/"))
        return Reply(404, {"error": "no such run"}) if run is None else Reply(document=run)

    def _list(self, query: Mapping[str, str]) -> Reply:
        limit, after = min(int(query.get("limit", "20")), 100), int(query.get("after", "0"))
        rows = [run for run in self._runs.values() if run["id"] > after and self._fits(run, query)]
        page = rows[:limit]
        headers = {}
        if len(rows) > limit:
            kept = "&".join(f"{key}={value}" for key, value in query.items() if key != "after")
            headers["Link"] = f'<{self.url}/api/runs?{kept}&after={page[-1]["id"]}>; rel="next"'
        return Reply(document={"runs": page}, headers=headers)

    @staticmethod
    def _fits(run: Mapping[str, Any], query: Mapping[str, str]) -> bool:
        if query.get("live") == "true" and run["state"] in LIVE:
            return True
        bounds = {name: parse_time(query[name]) for name in query if name.endswith(("_from", "_until"))}
        return not (
            ("changed_from" in bounds and parse_time(run["updated"]) < bounds["changed_from"])
            or ("created_from" in bounds and parse_time(run["created"]) < bounds["created_from"])
            or ("created_until" in bounds and parse_time(run["created"]) >= bounds["created_until"])
        )


class ExampleSubject:
    """The connector of the example platform."""

    platform = "example"
    # Said anew, from the platform's documentation: those of the mapping would be compared with themselves.
    words: Mapping[str, Status] = {
        "WAITING": Status.QUEUED,
        "ACTIVE": Status.RUNNING,
        "DONE": Status.SUCCESS,
        "BROKEN": Status.FAILED,
        "STOPPED": Status.CANCELED,
        "LEFT_OUT": Status.SKIPPED,
    }
    success, failed, running, queued = "DONE", "BROKEN", "ACTIVE", "WAITING"
    follows_links = True

    def serve(self) -> Platform:
        return Platform()

    def source(self, url: str, **more: Any) -> ExampleSource:
        os.environ["EXAMPLE_TOKEN"] = CREDENTIAL
        return ExampleSource(name="shop", platform="example", client="acme", url=url, token_env="EXAMPLE_TOKEN", **more)

    def connect(self, source: ExampleSource, stop: threading.Event) -> Connector:
        return ExampleConnector.connect(source, stop)

    def hostile_link(self, url: str) -> Mapping[str, str]:
        return {"Link": f'<{url}/api/runs?after=1>; rel="next"'}

    def plan(self, platform: FakeRuns, run: str, at: datetime) -> None:
        assert isinstance(platform, Platform)
        platform.plan(run, at)

    def recorded(self) -> Sequence[Payload]:
        return [
            {
                "id": 7,
                "pipeline": "orders.load",
                "state": "BROKEN",
                "created": "2026-11-22T02:00:00Z",
                "planned": "2026-11-22T02:00:00Z",
                "started": "2026-11-22T02:00:01.5Z",
                "ended": "2026-11-22T02:03:00Z",
                "updated": "2026-11-22T02:03:00Z",
                "rows": 12,
                "error": "disk full",
                "page": "https://example.test/runs/7",
            },
            {
                "id": 8,
                "pipeline": "orders.load",
                "state": "ACTIVE",
                "created": "2026-11-22T03:00:00Z",
                "started": "2026-11-22T03:00:01Z",
                "ended": None,
                "updated": "2026-11-22T03:00:01Z",
                "page": "https://example.test/runs/8",
            },
        ]
