"""An Airflow to test against: lists, filters, cursors and refusals as those of Airflow 3.3.2, and its older relatives.

What it does was seen on the real server (``tests/data/airflow``, ``tests/acceptance/platforms/test_airflow.py``) or
stands in Airflow's own code: null times pass ``_gte`` filters and, while "now" does, ``_lte`` ones (3.x); 2.x lets no
null pass, refuses parameters that it does not know and names other fields.
"""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from headway.connectors.airflow.api import AirflowApi
from headway.connectors.airflow.mapping import AirflowSource
from headway.connectors.contract import Connector, Payload
from headway.core import clock
from headway.core.validation import format_time
from headway.runs.observation import Status
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

DATA = Path(__file__).parents[2] / "data" / "airflow"
TOKEN, USER, PASSWORD = "static-credential-of-airflow", "headway", "password-of-airflow"
TOKEN_ENV, PASSWORD_ENV = "HEADWAY_TEST_AIRFLOW_TOKEN", "HEADWAY_TEST_AIRFLOW_PASSWORD"
# airflow.utils.state.DagRunState
WORDS: Mapping[str, Status] = {
    "queued": Status.QUEUED,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failed": Status.FAILED,
}
TIMES = ("queued_at", "start_date", "end_date", "updated_at")
V1_PARAMS = {"limit", "offset", "order_by", "state", "execution_date_gte", "execution_date_lte"} | {
    f"{name}_{bound}" for name in ("start_date", "end_date") for bound in ("gte", "lte")
}


class AirflowRuns(FakeRuns):
    """Keeps DAG runs by row id. ``has_cursor`` is off for 3.0 to 3.2; ``major`` 2 with or without updated_at filters."""

    def __init__(self, *, major: int = 3, has_cursor: bool = True, has_updated_at: bool = True) -> None:
        super().__init__()
        self.major = major
        self.has_cursor = has_cursor and major == 3
        self.has_updated_at = has_updated_at or major == 3
        self.page_limit = 100
        self.tokens = {TOKEN}
        self.failed_tasks: dict[str, list[str]] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self._last_id = 0

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
        self._last_id += 1
        run = f"manual__{created_at.isoformat()}_{self._last_id}"
        self.rows[self._last_id] = {"id": self._last_id, "dag_id": pipeline, "run_id": run, "run_after": created_at}
        self.change(run, word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        self._row(run)["queued_at"] = created_at
        return run

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        row = self._row(run)
        if word == "queued":
            row["queued_at"] = updated_at
        row |= {"state": word, "start_date": started_at, "end_date": finished_at, "updated_at": updated_at}

    def plan(self, run: str, at: datetime) -> None:
        self._row(run)["run_after"] = at

    def delete(self, run: str) -> None:
        del self.rows[self._row(run)["id"]]

    def is_listing(self, asked: Asked) -> bool:
        return asked.path.endswith("/dags/~/dagRuns")

    def answer(self, asked: Asked) -> Reply:
        root = f"/api/v{self.major - 1}"
        if asked.method == "POST" and asked.path == "/auth/token" and self.major == 3:
            return self._log_in(asked.json)
        if asked.path == f"{root}/version":
            return Reply(document={"version": "3.3.2" if self.major == 3 else "2.11.0", "git_version": None})
        if not asked.path.startswith(f"{root}/"):
            return Reply(404, {"detail": "Not Found"})
        return self._refusal(asked) or self._read(asked, asked.path.removeprefix(f"{root}/").split("/"))

    def _read(self, asked: Asked, path: Sequence[str]) -> Reply:
        match [unquote(part) for part in path]:
            case ["dags"]:
                return self._dags(asked)
            case ["dags", "~", "dagRuns"]:
                return self._list(asked)
            case ["dags", dag_id, "dagRuns", run_id, *rest] if rest in ([], ["taskInstances"]):
                found = [r for r in self.rows.values() if (r["dag_id"], r["run_id"]) == (dag_id, run_id)]
                if found:
                    return self._tasks(run_id) if rest else Reply(document=self._shown(found[0]))
        return Reply(404, {"detail": "The DagRun was not found"})

    def _row(self, run: str) -> dict[str, Any]:
        return next(row for row in self.rows.values() if row["run_id"] == run)

    def _log_in(self, login: Mapping[str, Any]) -> Reply:
        if (login.get("username"), login.get("password")) != (USER, PASSWORD):
            return Reply(401, {"detail": "Invalid credentials"})
        token = f"eyJ.token.{len(self.asked)}"
        self.tokens.add(token)
        return Reply(201, {"access_token": token})

    def _refusal(self, asked: Asked) -> Reply | None:
        kind, _, value = asked.headers.get("Authorization", "").partition(" ")
        if not value:
            return Reply(401, {"detail": "Not authenticated"})
        if self.major == 2 and kind == "Basic":
            is_known = base64.b64decode(value).decode() == f"{USER}:{PASSWORD}"
        else:
            is_known = kind == "Bearer" and value in self.tokens
        return None if is_known else Reply(403, {"detail": "Invalid JWT token"})

    def _dags(self, asked: Asked) -> Reply:
        names = sorted({row["dag_id"] for row in self.rows.values()})
        offset, limit = int(asked.query.get("offset", 0)), self._limit(asked)
        dags = [{"dag_id": name, "is_paused": False} for name in names[offset : offset + limit]]
        return Reply(document={"dags": dags, "total_entries": len(names)})

    def _tasks(self, run_id: str) -> Reply:
        tasks = [{"task_id": name, "state": "failed"} for name in self.failed_tasks.get(run_id, [])]
        return Reply(document={"task_instances": tasks, "total_entries": len(tasks)})

    def _list(self, asked: Asked) -> Reply:
        if self.major == 2:
            known = V1_PARAMS | ({"updated_at_gte", "updated_at_lte"} if self.has_updated_at else set())
            if extra := asked.query.keys() - known:
                return Reply(400, {"detail": f"Extra query parameter(s) {', '.join(extra)} not in spec"})
        if any(state not in WORDS for state in asked.queries.get("state", [])):
            return Reply(422, {"detail": f"Invalid value for state. Valid values are {', '.join(WORDS)}"})
        bounds = {}
        for name in TIMES:
            for bound in ("gte", "lte"):
                if (text := asked.query.get(f"{name}_{bound}")) is not None:
                    bounds[name, bound] = time = datetime.fromisoformat(text)
                    if time.tzinfo is None:
                        return Reply(500, {"detail": {"reason": "Database error"}})
        order = asked.query.get("order_by", "id")
        rows = [row for row in self.rows.values() if self._fits(row, asked.queries.get("state", []), bounds)]
        rows.sort(key=lambda row: _place(row, order))
        return self._page(asked, rows, order)

    def _fits(self, row: Mapping[str, Any], states: Sequence[str], bounds: Mapping[tuple[str, str], datetime]) -> bool:
        if states and row["state"] not in states:
            return False
        for (name, bound), limit in bounds.items():
            time = row[name]
            if time is None:
                if self.major == 2 or (bound == "lte" and clock.now() > limit):
                    return False
            elif time < limit if bound == "gte" else time > limit:
                return False
        return True

    def _page(self, asked: Asked, rows: Sequence[Mapping[str, Any]], order: str) -> Reply:
        limit = self._limit(asked)
        if not self.has_cursor or "cursor" not in asked.query:
            offset = int(asked.query.get("offset", 0))
            page = [self._shown(row) for row in rows[offset : offset + limit]]
            more = {"next_cursor": None, "previous_cursor": None} if self.has_cursor else {}
            return Reply(document={"dag_runs": page, "total_entries": len(rows), **more})
        rest = rows
        if asked.query["cursor"]:
            try:
                after = tuple(json.loads(base64.urlsafe_b64decode(asked.query["cursor"])))
            except ValueError:
                return Reply(400, {"detail": "Invalid cursor token"})
            rest = [row for row in rows if _place(row, order) > after]
        following = None
        if len(rest) > limit:
            following = base64.urlsafe_b64encode(json.dumps(_place(rest[limit - 1], order)).encode()).decode()
        document = {"dag_runs": [self._shown(row) for row in rest[:limit]], "total_entries": len(rows)}
        return Reply(document={**document, "total_entries_limit": 50_000, "next_cursor": following})

    def _limit(self, asked: Asked) -> int:
        return min(int(asked.query.get("limit", 50)), self.page_limit)

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run as the API shows it: 3.x as recorded, 2.x as its documentation has it."""
        times = {key: row[key] and format_time(row[key]) for key in ("start_date", "end_date")}
        shown = {"dag_run_id": row["run_id"], "dag_id": row["dag_id"], "state": row["state"], **times}
        shown |= {"run_type": "manual", "conf": {"password": "of-the-warehouse"}, "note": None}
        after = format_time(row["run_after"])
        if self.major == 2:
            return shown | {"execution_date": after, "logical_date": after, "external_trigger": True}
        queued = {"queued_at": format_time(row["queued_at"]), "run_after": after, "logical_date": None}
        return shown | queued | {"triggered_by": "rest_api", "dag_versions": [{"version_number": 1}]}


def _place(row: Mapping[str, Any], order: str) -> tuple[Any, ...]:
    """Return where a row stands in an order: by a column, then by its id; null goes first."""
    if order == "id":
        return (row["id"],)
    return ("" if row[order] is None else format_time(row[order]), row["id"])


@contextlib.contextmanager
def credentials() -> Iterator[None]:
    """Put the credentials into the environment, from where a source takes them."""
    os.environ.update({TOKEN_ENV: TOKEN, PASSWORD_ENV: PASSWORD})
    try:
        yield
    finally:
        for name in (TOKEN_ENV, PASSWORD_ENV):
            os.environ.pop(name, None)


class AirflowSubject:
    """The connector of Airflow 3."""

    platform = "airflow"
    words = WORDS
    success, failed, running, queued = "success", "failed", "running", "queued"
    follows_links = False

    def serve(self) -> FakeRuns:
        return AirflowRuns()

    def source(self, url: str, **more: Any) -> AirflowSource:
        os.environ[TOKEN_ENV] = TOKEN
        values = {
            "name": "airflow-of-acme",
            "platform": "airflow",
            "client": "acme",
            "url": url,
            "token_env": TOKEN_ENV,
        }
        return AirflowSource.model_validate({**values, **more})

    def connect(self, source: AirflowSource, stop: threading.Event) -> Connector:
        return AirflowApi(source, stop)

    def plan(self, platform: FakeRuns, run: str, at: datetime) -> None:
        assert isinstance(platform, AirflowRuns)
        platform.plan(run, at)

    def hostile_link(self, url: str) -> Mapping[str, str]:
        return {"Link": f'<{url}>; rel="next"'}

    def recorded(self) -> Sequence[Payload]:
        return [json.loads(line)["run"] for line in (DATA / "runs.ndjson").read_text().splitlines()]
