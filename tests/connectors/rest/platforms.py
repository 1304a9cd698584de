"""Fakes of the vendors that the rest connector is tried on. Each answers as its vendor's documentation says."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from headway.core import clock
from headway.core.validation import format_time, parse_time
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

TOKEN = "rest-token-4711-abcdefgh"
CLIENT_ID = "client-11"
CLIENT_SECRET = "client-secret-4712-abcdefgh"

Row = dict[str, Any]


class Keeping(FakeRuns):
    """Holds runs as rows, by their ids. ``_row`` and ``_state`` make them in the vendor's own shape."""

    first_id = 1

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}
        #: What the vendor knows of a run and does not tell, such as the time it filters by.
        self.known: dict[str, dict[str, datetime]] = {}
        self.pipelines: dict[str, int] = {}
        self._ids = itertools.count(self.first_id)

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
        self.pipelines.setdefault(pipeline, 101 + len(self.pipelines))
        self.known[run] = {"created": created_at}
        self.rows[run] = self._row(int(run), pipeline, created_at)
        self.change(run, word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        return run

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        self.known[run]["updated"] = updated_at
        self.rows[run] |= self._state(self.rows[run], word, started_at, finished_at, updated_at)

    def delete(self, run: str) -> None:
        del self.rows[run]

    def _row(self, run: int, pipeline: str, created_at: datetime) -> Row:
        raise NotImplementedError

    def _state(
        self, row: Row, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> Row:
        raise NotImplementedError

    def _sorted(self, key: Callable[[Row, Mapping[str, datetime]], Any], *, newest_first: bool) -> list[Row]:
        pairs = [(row, self.known[run]) for run, row in self.rows.items()]
        pairs.sort(key=lambda pair: key(*pair), reverse=newest_first)
        return [row for row, _ in pairs]


def cut(rows: Sequence[Row], query: Mapping[str, str], most: int = 100) -> list[Row]:
    """Return the page that ``limit`` and ``offset`` ask for; the server has a limit of its own."""
    offset = int(query.get("offset", "0"))
    return list(rows[offset : offset + min(int(query.get("limit", "20")), most)])


class FakeFlow(Keeping):
    """Flow, an invented vendor. Its list is asked for by ``style``: offset, page, cursor or link.

    Times are in milliseconds since 1970; runs count their tries; the newest come first.
    """

    def __init__(self, style: str = "offset") -> None:
        super().__init__()
        self.style = style

    def _row(self, run: int, pipeline: str, created_at: datetime) -> Row:
        return {"id": run, "flow": {"key": f"flow:{pipeline}", "title": pipeline}, "created": ms(created_at), "try": 1}

    def _state(
        self, row: Row, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> Row:
        is_again = started_at is not None and row.get("begun") not in {None, ms(started_at)}
        return {
            "state": word,
            "begun": ms(started_at),
            "ended": ms(finished_at),
            "touched": ms(updated_at),
            "try": row["try"] + is_again,
            "note": "disk full" if word == "BROKEN" else "all is well",
            "stats": {"rows": 12.0},
        }

    def plan(self, run: str, at: datetime) -> None:
        self.rows[run]["planned"] = ms(at)

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/v2/executions"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("X-Flow-Key") != TOKEN or asked.headers.get("X-Flow-Team") != "data":
            return Reply(401, {"error": "who are you?"})
        if asked.path == "/v2/flows":
            flows = {row["flow"]["key"]: row["flow"] for row in self.rows.values()}
            return Reply(document={"flows": cut(list(flows.values()), asked.query)})
        if asked.path == "/v2/executions":
            return self._list(asked)
        run = self.rows.get(asked.path.removeprefix("/v2/executions/"))
        return Reply(404, {"error": "no such execution"}) if run is None else Reply(document={"execution": run})

    def _list(self, asked: Asked) -> Reply:
        query = asked.query
        rows = [row for row in self._sorted(lambda row, _: row["id"], newest_first=True) if self._fits(row, query)]
        size = min(int(query.get("limit", "20")), 100)
        if self.style == "offset":
            return Reply(document={"executions": cut(rows, query), "count": len(rows)})
        if self.style == "page":
            start = (int(query.get("page", "1")) - 1) * size
            return Reply(document={"executions": rows[start : start + size]})
        if not query.get("before", "1").isdigit():
            return Reply(400, {"error": "before is no cursor"})
        rows = [row for row in rows if "before" not in query or row["id"] < int(query["before"])]
        page, has_more = rows[:size], len(rows) > size
        if self.style == "cursor":
            return Reply(document={"executions": page, "next": page[-1]["id"] if has_more else None})
        kept = "&".join(f"{key}={value}" for key, value in query.items() if key != "before")
        link = f'<{self.url}/v2/executions?{kept}&before={page[-1]["id"]}>; rel="next"' if has_more else ""
        return Reply(document={"executions": page}, headers={"Link": link} if link else {})

    @staticmethod
    def _fits(row: Row, query: Mapping[str, str]) -> bool:
        return not (
            ("live" in query and row["state"] not in {"WAITING", "ACTIVE"})
            or ("touched_from" in query and row["touched"] < int(query["touched_from"]))
            or ("created_from" in query and row["created"] < int(query["created_from"]))
            or ("created_to" in query and row["created"] > int(query["created_to"]))
        )


class FakeDbtCloud(Keeping):
    """dbt Cloud's administrative API v2: runs and jobs of account 123."""

    first_id = 304_000_000_000_001  # 15 digits
    humanized: Mapping[str, str] = {
        "1": "Queued", "2": "Starting", "3": "Running", "10": "Success", "20": "Error", "30": "Cancelled"
    }  # fmt: skip

    def _row(self, run: int, pipeline: str, created_at: datetime) -> Row:
        job_id = self.pipelines[pipeline]
        return {
            "id": run,
            "account_id": 123,
            "project_id": 7,
            "environment_id": 9,
            "job_definition_id": job_id,
            "trigger": None,
            "git_branch": "main",
            "git_sha": "d3b07384d113edec49eaa6238ad5ff00aa11bb22",
            "created_at": blank(created_at),
            "dequeued_at": None,
            "job": {"id": job_id, "name": pipeline},
            "href": f"https://cloud.getdbt.com/deploy/123/projects/7/runs/{run}/",
        }

    def _state(
        self, row: Row, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> Row:
        del row  # nothing of it counts
        return {
            "status": int(word) if word.isdigit() else word,
            "status_humanized": self.humanized.get(word, "Unknown"),
            "status_message": "Database Error in model orders" if word == "20" else None,
            "started_at": blank(started_at),
            "finished_at": blank(finished_at),
            "updated_at": blank(updated_at),
            "duration": "00:00:12",
        }

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/api/v2/accounts/123/runs/"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("Authorization") != f"Token {TOKEN}":
            return Reply(
                401, {"status": {"code": 401, "user_message": "Authentication credentials were not provided."}}
            )
        if asked.path == "/api/v2/accounts/123/jobs/":
            jobs = [{"id": key, "name": name} for name, key in self.pipelines.items()]
            return self._enveloped(cut(jobs, asked.query), len(jobs))
        if asked.path == "/api/v2/accounts/123/runs/":
            return self._list(asked.query)
        place, _, run = asked.path.rstrip("/").rpartition("/")
        row = self.rows.get(run) if place == "/api/v2/accounts/123/runs" else None
        if row is None:
            return Reply(
                404, {"status": {"code": 404, "is_success": False, "user_message": "Not found."}, "data": None}
            )
        return Reply(document={"status": {"code": 200, "is_success": True}, "data": self._shown(row, asked.query)})

    def _list(self, query: Mapping[str, str]) -> Reply:
        order = query.get("order_by", "id")
        field = order.removeprefix("-")
        if field not in {"id", "created_at", "finished_at"}:
            return Reply(400, {"status": {"code": 400, "user_message": "order_by is not supported"}})
        # PostgreSQL's order: what has no value comes as if it were the greatest.
        rows = self._sorted(lambda row, _: (row[field] is None, row[field] or ""), newest_first=order.startswith("-"))
        if field == "id":
            rows = self._sorted(lambda row, _: row["id"], newest_first=order.startswith("-"))
        if "status" in query:
            rows = [row for row in rows if str(row["status"]) == query["status"]]
        return self._enveloped([self._shown(row, query) for row in cut(rows, query)], len(rows))

    @staticmethod
    def _shown(row: Row, query: Mapping[str, str]) -> Row:
        """Related objects are given where they are asked for."""
        return row if "job" in json.loads(query.get("include_related", "[]")) else {**row, "job": None}

    @staticmethod
    def _enveloped(rows: Sequence[Row], total: int) -> Reply:
        status = {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}
        extra = {"filters": {}, "pagination": {"count": len(rows), "total_count": total}}
        return Reply(document={"status": status, "data": list(rows), "extra": extra})


class FakeAirbyte(Keeping):
    """Airbyte's public API: jobs and connections, behind a token that is traded for client credentials."""

    ended = frozenset({"succeeded", "failed", "cancelled"})
    words = frozenset({"pending", "running", "incomplete", *ended})

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] = set()

    def _row(self, run: int, pipeline: str, created_at: datetime) -> Row:  # noqa: ARG002 - it tells the start alone
        return {"jobId": run, "jobType": "sync", "connectionId": self._connection(pipeline)}

    def _connection(self, pipeline: str) -> str:
        return f"18dccc91-0ab1-4f72-9ed7-0b8fc27c{self.pipelines[pipeline]:04d}"

    def _state(
        self, row: Row, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> Row:
        del row  # nothing of it counts
        has_ended = finished_at is not None
        told = updated_at if has_ended or word not in self.ended else None
        return {
            "status": word,
            "startTime": started_at and format_time(started_at),
            "lastUpdatedAt": told and format_time(told),
            "duration": "PT8M20S" if has_ended else None,
            "rowsSynced": 1200 if has_ended else None,
            "bytesSynced": 65536 if has_ended else None,
        }

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/v1/jobs"

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/v1/applications/token":
            return self._token(asked)
        if asked.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return Reply(401, {"type": "unauthorized", "title": "unauthorized"})
        if asked.path == "/v1/connections":
            rows = [{"connectionId": self._connection(name), "name": name} for name in self.pipelines]
            return Reply(document={"data": cut(rows, asked.query), "next": "", "previous": ""})
        if asked.path == "/v1/jobs":
            return self._list(asked.query)
        row = self.rows.get(asked.path.removeprefix("/v1/jobs/"))
        return Reply(404, {"type": "resource-not-found"}) if row is None else Reply(document=row)

    def _token(self, asked: Asked) -> Reply:
        wanted = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant-type": "client_credentials"}
        if asked.method != "POST" or asked.json != wanted:
            return Reply(401, {"error": "invalid client", "was": asked.json})
        token = f"short-lived-{len(self.tokens)}-abcdefgh"
        self.tokens.add(token)
        return Reply(document={"access_token": token, "token_type": "Bearer", "expires_in": 180})

    def _list(self, query: Mapping[str, str]) -> Reply:
        if query.get("status", "pending") not in self.words:
            return Reply(400, {"type": "bad-request"})
        field, _, direction = query.get("orderBy", "createdAt|ASC").partition("|")
        kept = self._sorted(lambda _, known: known[field.removesuffix("At")], newest_first=direction == "DESC")
        bounds = {name: parse_time(query[name]) for name in query if name.endswith(("Start", "End"))}
        rows = [row for row in kept if self._fits(row, query, bounds)]
        return Reply(document={"data": cut(rows, query), "next": f"{self.url}/v1/jobs?offset=0", "previous": ""})

    def _fits(self, row: Row, query: Mapping[str, str], bounds: Mapping[str, datetime]) -> bool:
        known = self.known[str(row["jobId"])]
        return not (
            ("status" in query and row["status"] != query["status"])
            or any(known[name[:7]] < bound for name, bound in bounds.items() if name.endswith("Start"))
            or any(known[name[:7]] > bound for name, bound in bounds.items() if name.endswith("End"))
        )


class FakeDatabricks(Keeping):
    """Databricks' Jobs API 2.2. A run that starts again under its id is a repair."""

    first_id = 455_644_833_000_001
    live = frozenset({"BLOCKED", "PENDING", "QUEUED", "WAITING", "RUNNING", "TERMINATING"})
    # Words of the fields from before 2024, given without the newer ones.
    old_states = frozenset({"WAITING_FOR_RETRY", "INTERNAL_ERROR", "SKIPPED"})
    old_results = frozenset(
        {"FAILED", "TIMEDOUT", "EXCLUDED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED", "MAXIMUM_CONCURRENT_RUNS_REACHED"}
    )

    def _row(self, run: int, pipeline: str, created_at: datetime) -> Row:  # noqa: ARG002 - it tells the start alone
        return {
            "job_id": self.pipelines[pipeline],
            "run_id": run,
            "original_attempt_run_id": run,
            "attempt_number": 0,
            "run_name": pipeline,
            "run_type": "JOB_RUN",
            "trigger": "PERIODIC",
            "creator_user_name": "ada@example.com",
            "run_page_url": f"https://dbc-1.cloud.databricks.com/jobs/{self.pipelines[pipeline]}/runs/{run}",
            "repair_history": [{"type": "ORIGINAL"}],
            "start_time": 0,
            "end_time": 0,
        }

    def _state(
        self, row: Row, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> Row:
        del updated_at  # which is not told
        is_repair = bool(row["end_time"]) and started_at is not None and finished_at is None
        history = [*row["repair_history"], {"type": "REPAIR"}] if is_repair else row["repair_history"]
        return {
            "start_time": row["start_time"] or ms(started_at) or 0,
            "end_time": ms(finished_at) or 0,
            "run_duration": 12_000,
            "repair_history": history,
            **self._words(word, has_ended=finished_at is not None),
        }

    def _words(self, word: str, *, has_ended: bool) -> Row:
        if word in self.old_states:
            return {"state": {"life_cycle_state": word, "state_message": "it says"}}
        if word in self.old_results:
            return {"state": {"life_cycle_state": "TERMINATED", "result_state": word, "state_message": "it says"}}
        if word in self.live or (word.startswith("zz") and not has_ended):
            return {"status": {"state": word}, "state": {"life_cycle_state": "RUNNING", "state_message": "In run"}}
        details = {"code": word, "type": "CLIENT_ERROR", "message": "Task load failed"}
        return {"status": {"state": "TERMINATED", "termination_details": details}}

    def is_listing(self, asked: Asked) -> bool:
        return asked.path == "/api/2.2/jobs/runs/list"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"error_code": 401, "message": "Credential was not sent"})
        if asked.path == "/api/2.2/jobs/list":
            jobs = [{"job_id": key, "settings": {"name": name}} for name, key in reversed(self.pipelines.items())]
            return self._paged("jobs", {f"{job['job_id']:020d}": job for job in jobs}, asked.query, 100)
        if asked.path == "/api/2.2/jobs/runs/list":
            return self._list(asked.query)
        run = asked.query.get("run_id", "")
        row = self.rows.get(run) if asked.path == "/api/2.2/jobs/runs/get" else None
        if row is None:
            message = f"Run {run} does not exist."
            return Reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message})
        return Reply(document=row if asked.query.get("include_history") == "true" else self._brief(row))

    def _list(self, query: Mapping[str, str]) -> Reply:
        """The last to end come first; one that has not ended counts by its start."""
        rows = {self._place(row): self._brief(row) for row in self.rows.values() if self._fits(row, query)}
        return self._paged("runs", dict(sorted(rows.items(), reverse=True)), query, 25)

    def _place(self, row: Row) -> str:
        created = ms(self.known[str(row["run_id"])]["created"])
        return f"{row['end_time'] or row['start_time'] or created:020d}-{row['run_id']}"

    def _fits(self, row: Row, query: Mapping[str, str]) -> bool:
        started = row["start_time"] or ms(self.known[str(row["run_id"])]["created"])
        is_live = not row["end_time"] and (row.get("status", {}).get("state") != "TERMINATED")
        return not (
            (query.get("active_only") == "true" and not is_live)
            or (query.get("completed_only") == "true" and is_live)
            or ("start_time_from" in query and started < int(query["start_time_from"]))
            or ("start_time_to" in query and started > int(query["start_time_to"]))
        )

    @staticmethod
    def _brief(row: Row) -> Row:
        return {key: value for key, value in row.items() if key != "repair_history"}

    @staticmethod
    def _paged(name: str, rows: Mapping[str, Row], query: Mapping[str, str], most: int) -> Reply:
        """A token stands for the place of the last row of its page, which may be gone when it comes back."""
        limit, token = int(query.get("limit", "20")), query.get("page_token")
        if not 0 < limit <= most or (token is not None and not token.startswith("behind:")):
            return Reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "limit or page_token is invalid"})
        places = [place for place in rows if token is None or place < token.removeprefix("behind:")]
        has_more = len(places) > limit
        document: Row = {"has_more": has_more}
        if places:
            document[name] = [rows[place] for place in places[:limit]]
        if has_more:
            document["next_page_token"] = f"behind:{places[limit - 1]}"
        return Reply(document=document)


def ms(time: datetime | None) -> Any:
    """Return milliseconds since 1970."""
    return None if time is None else int((time - clock.EPOCH).total_seconds() * 1000)


def blank(time: datetime | None) -> str | None:
    """Return a time as dbt Cloud writes it."""
    return None if time is None else time.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
