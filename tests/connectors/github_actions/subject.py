"""A GitHub to test against, as its documentation describes it: pages with links, 1,000 rows a search, ETags and 304.

Rows have the shape of recorded ones; nothing of these is kept here. Recordings of other projects are read from beside
the repository, and the tests that want them skip where they are not.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headway.connectors.contract import Payload
from headway.connectors.github_actions import mapping
from headway.connectors.github_actions.source import GithubActionsSource
from headway.core.validation import format_time, parse_time
from headway.runs.observation import Status
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

RECORDINGS = Path(__file__).parents[3].parent / "shared" / "recordings" / "github_actions"
TOKEN, TOKEN_ENV = "github_pat_of_nobody_in_particular", "HEADWAY_TEST_GITHUB_TOKEN"
HOME, HOME_ID = "acme/data", 4711
SEARCH_ROWS = 1_000
# https://docs.github.com/rest/actions/workflow-runs: what a run is while it is not completed, and how it completed.
STATUSES: Mapping[str, Status] = {
    "requested": Status.QUEUED,
    "queued": Status.QUEUED,
    "waiting": Status.QUEUED,
    "pending": Status.QUEUED,
    "in_progress": Status.RUNNING,
}
CONCLUSIONS: Mapping[str, Status] = {
    "action_required": Status.QUEUED,
    "success": Status.SUCCESS,
    "neutral": Status.SUCCESS,
    "failure": Status.FAILED,
    "timed_out": Status.FAILED,
    "startup_failure": Status.FAILED,
    "cancelled": Status.CANCELED,
    "skipped": Status.SKIPPED,
    "stale": Status.SKIPPED,
}


class GithubRuns(FakeRuns):
    """Keeps repositories with their runs and jobs. New runs are of the repository ``home``."""

    def __init__(self) -> None:
        super().__init__()
        self.home = HOME
        self._ids = itertools.count(9_000_000_001)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self.jobs: dict[int, list[dict[str, Any]]] = {}
        self.workflows: dict[int, dict[str, Any]] = {}
        self.organisations = {"acme"}
        self.login: str | None = "somebody"
        self.limit, self.remaining = 5000, 5000
        self.not_modified = 0
        self.add_repository(HOME, HOME_ID)

    def add_repository(self, name: str, number: int, **more: Any) -> None:
        self.repositories[name] = {"id": number, "full_name": name, "archived": False, "disabled": False, **more}

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
        number = next(self._ids)
        repository = self.repositories[self.home]
        workflow_id = 300 + int(hashlib.sha256(f"{self.home} {pipeline}".encode()).hexdigest()[:8], 16)
        path = f".github/workflows/{pipeline}.yml"
        self.workflows[workflow_id] = {"id": workflow_id, "name": pipeline, "path": path, "of": self.home}
        self.rows[number] = {
            "id": number,
            "name": pipeline,
            "path": path,
            "workflow_id": workflow_id,
            "run_number": number - 9_000_000_000,
            "run_attempt": 1,
            "event": "schedule",
            "display_title": f"nightly {pipeline}",
            "head_branch": "main",
            "head_sha": hashlib.sha256(str(number).encode()).hexdigest()[:40],
            "html_url": f"https://github.example/{self.home}/actions/runs/{number}",
            "created_at": format_time(created_at),
            "actor": {"login": "cron", "id": 1},
            "triggering_actor": {"login": "cron", "id": 1},
            "repository": {"id": repository["id"], "full_name": self.home, "private": True},
            "pull_requests": [],
        }
        self._set(self.rows[number], word, started_at or created_at, finished_at, updated_at)
        if started_at is None and word not in STATUSES.keys() - {"in_progress"}:  # GitHub never leaves one out
            self.rows[number] |= {"created_at": None, "run_started_at": None}
            self.rows[number] |= {"updated_at": None} if finished_at is None else {}
        return str(number)

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        row = self.rows[int(run)]
        if row["status"] == "completed" and row["conclusion"] != "action_required" and finished_at is None:
            row["run_attempt"] += 1  # so does a re-run
        self._set(row, word, started_at or parse_time(row["run_started_at"]), finished_at, updated_at)

    def delete(self, run: str) -> None:
        del self.rows[int(run)]

    def is_listing(self, asked: Asked) -> bool:
        return asked.path.endswith("/actions/runs")

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"message": "Bad credentials", "status": "401"})
        made = self._route(asked)
        content = made.content
        etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
        limits = {"X-RateLimit-Limit": str(self.limit), "X-RateLimit-Remaining": str(self.remaining)}
        if made.status != 200:
            return made._replace(headers={**made.headers, **limits})
        if asked.headers.get("If-None-Match") == etag:
            self.not_modified += 1
            return Reply(304, headers={"ETag": etag, **limits})
        self.remaining -= asked.path != "/rate_limit"
        return made._replace(headers={**made.headers, "ETag": etag, **limits})

    def _set(
        self, row: dict[str, Any], word: str, started_at: datetime, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        is_over = word in CONCLUSIONS or finished_at is not None
        row |= {"status": "completed" if is_over else word, "conclusion": word if is_over else None}
        row |= {"run_started_at": format_time(started_at), "updated_at": format_time(updated_at)}
        if finished_at is not None:
            failed = word in {"failure", "timed_out"}
            steps = [{"name": "Set up", "conclusion": "success"}, {"name": "Load", "conclusion": word}]
            self.jobs[row["id"]] = [
                {"name": "build", "conclusion": "success", "completed_at": format_time(started_at), "steps": steps[:1]},
                {
                    "name": "load",
                    "conclusion": word,
                    "completed_at": format_time(finished_at),
                    "steps": steps if failed else steps[:1],
                },
            ]

    def _route(self, asked: Asked) -> Reply:  # noqa: PLR0911 - one a path
        match asked.path.strip("/").split("/"):
            case ["rate_limit"]:
                core = {"limit": self.limit, "remaining": self.remaining}
                return Reply(document={"resources": {"core": core}})
            case ["user"]:
                if self.login is None:
                    return Reply(403, {"message": "Resource not accessible by integration"})
                return Reply(document={"login": self.login})
            case ["orgs", owner] if owner in self.organisations:
                return Reply(document={"login": owner})
            case ["orgs", owner, "repos"] if owner in self.organisations:
                return self._owned(asked, owner)
            case ["users", owner, "repos"]:
                return self._owned(asked, owner, private=False)
            case ["user", "repos"]:
                return self._owned(asked, self.login or "")
            case ["repos", owner, name, *rest]:
                return self._repository(asked, self.repositories.get(f"{owner}/{name}"), rest)
            case ["repositories", number, *rest]:
                found = (row for row in self.repositories.values() if str(row["id"]) == number)
                return self._repository(asked, next(found, None), rest)
        return Reply(404, {"message": "Not Found"})

    def _owned(self, asked: Asked, owner: str, *, private: bool = True) -> Reply:
        rows = [
            row
            for row in self.repositories.values()
            if row["full_name"].startswith(f"{owner}/") and (private or not row.get("private"))
        ]
        return self._page(asked, rows)

    def _repository(  # noqa: PLR0911 - one a path
        self, asked: Asked, repository: Mapping[str, Any] | None, rest: Sequence[str]
    ) -> Reply:
        if repository is None:
            return Reply(404, {"message": "Not Found"})
        rows = {n: row for n, row in self.rows.items() if row["repository"]["id"] == repository["id"]}
        match rest:
            case []:
                return Reply(document=repository)
            case ["actions", "workflows", number] if int(number) in self.workflows:
                return Reply(document=self.workflows[int(number)])
            case ["actions", "workflows"]:
                of = [workflow for workflow in self.workflows.values() if workflow["of"] == repository["full_name"]]
                return self._page(asked, of, "workflows")
            case ["actions", "runs"]:
                return self._runs(asked, list(rows.values()))
            case ["actions", "runs", number] if int(number) in rows:
                return Reply(document=rows[int(number)])
            case ["actions", "runs", number, "attempts", attempt, "jobs"] if int(number) in rows:
                assert int(attempt) <= rows[int(number)]["run_attempt"]
                return self._page(asked, self.jobs.get(int(number), []), "jobs")
        return Reply(404, {"message": "Not Found"})

    def _runs(self, asked: Asked, rows: list[dict[str, Any]]) -> Reply:
        status, created = asked.query.get("status"), asked.query.get("created")
        if status is not None:
            rows = [row for row in rows if status in {row["status"], row["conclusion"]}]
        if created is not None:
            first, _, last = created.partition("..")
            rows = [row for row in rows if first <= (row["created_at"] or "") <= last]
        rows.sort(key=lambda row: (row["created_at"] or "", row["id"]), reverse=True)
        return self._page(asked, rows, "workflow_runs", most=SEARCH_ROWS if status or created else None)

    def _page(
        self, asked: Asked, rows: Sequence[Mapping[str, Any]], member: str | None = None, most: int | None = None
    ) -> Reply:
        size, page = min(int(asked.query.get("per_page", "30")), 100), int(asked.query.get("page", "1"))
        within = rows[:most]
        shown = within[(page - 1) * size : page * size]
        headers = {}
        if len(within) > page * size:
            kept = "&".join(f"{key}={value}" for key, value in asked.query.items() if key != "page")
            headers["Link"] = f'<{self.url}{asked.path}?{kept}&page={page + 1}>; rel="next", <{self.url}>; rel="last"'
        document = shown if member is None else {"total_count": len(rows), member: shown}
        return Reply(document=document, headers=headers)


def recordings() -> list[Payload]:
    """Return the runs of the recordings beside the repository as the mapping takes them; none where they are not."""
    found: list[Payload] = []
    for file in sorted(RECORDINGS.glob("*/*.json")):
        document = json.loads(file.read_text())
        rows = document.get("workflow_runs", [document.get("workflow_run", document)])
        found += [
            {**mapping.slim(row), mapping.WORKFLOW: document.get("workflow")}
            for row in rows
            if isinstance(row, dict) and "workflow_id" in row
        ]
    return found


def made_up() -> list[Payload]:
    """Return runs of the recorded shape."""
    platform = GithubRuns()
    platform._server.server_close()
    created_at = datetime.fromisoformat("2026-11-20T02:00:00Z")
    for word in (*STATUSES, *CONCLUSIONS):
        ended_at = created_at + timedelta(minutes=3) if word in CONCLUSIONS else None
        run = platform.add(
            pipeline="orders",
            word=word,
            created_at=created_at,
            started_at=created_at,
            finished_at=ended_at,
            updated_at=ended_at or created_at,
        )
        platform.rows[int(run)][mapping.JOBS] = platform.jobs.get(int(run), [])
    return list(platform.rows.values())


class GithubActionsSubject:
    """The connector of GitHub Actions."""

    platform = "github_actions"
    words: Mapping[str, Status] = {**STATUSES, **CONCLUSIONS}
    success, failed, running, queued = "success", "failure", "in_progress", "queued"
    follows_links = False  # but within one second: every other page begins at the time where the last one ended

    def serve(self) -> FakeRuns:
        return GithubRuns()

    def source(self, url: str, **more: Any) -> GithubActionsSource:
        os.environ[TOKEN_ENV] = TOKEN
        values = {"name": "github-of-acme", "platform": "github_actions", "client": "acme", "token_env": TOKEN_ENV}
        return GithubActionsSource.model_validate({"repositories": [HOME], **values, "url": url, **more})

    def hostile_link(self, url: str) -> Mapping[str, str]:
        return {"Link": f'<{url}/repositories/{HOME_ID}/actions/runs?page=2>; rel="next"'}

    def recorded(self) -> Sequence[Payload]:
        return [*made_up(), *recordings()]
