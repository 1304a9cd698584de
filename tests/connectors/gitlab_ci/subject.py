"""A GitLab to test against, as its documentation and its code describe it: offset pages, inclusive bounds, thin lists.

Rows have the shape of the documented examples; nothing of these is kept here. Recordings of other projects are read from
beside the repository, and the tests that want them skip where they are not.
"""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from headway.connectors.contract import Payload
from headway.connectors.gitlab_ci import mapping
from headway.connectors.gitlab_ci.api import GitlabCiSource
from headway.runs.observation import Status
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

RECORDINGS = Path(__file__).parents[3].parent / "shared" / "recordings" / "gitlab"
TOKEN, TOKEN_ENV = "glpat-of-nobody-at-all", "HEADWAY_TEST_GITLAB_TOKEN"
GROUP = "acme"
# https://docs.gitlab.com/api/pipelines: status; and what GitLab itself counts as one (Ci::HasStatus)
WORDS: Mapping[str, Status] = {
    "created": Status.QUEUED,
    "waiting_for_resource": Status.QUEUED,
    "waiting_for_callback": Status.QUEUED,
    "preparing": Status.QUEUED,
    "pending": Status.QUEUED,
    "scheduled": Status.QUEUED,
    "manual": Status.QUEUED,
    "running": Status.RUNNING,
    "canceling": Status.RUNNING,
    "success": Status.SUCCESS,
    "failed": Status.FAILED,
    "canceled": Status.CANCELED,
    "skipped": Status.SKIPPED,
}
THIN = (
    "id", "iid", "project_id", "status", "source", "ref", "sha", "name", "web_url", "created_at", "updated_at",
)  # fmt: skip


def said(time: datetime | None) -> str | None:
    """Return a time as GitLab's API writes it."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class GitlabRuns(FakeRuns):
    """Keeps projects with their pipelines and failed jobs. A pipeline of ours is a project of the group."""

    def __init__(self) -> None:
        super().__init__()
        self.projects: dict[int, dict[str, Any]] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self.jobs: dict[int, list[dict[str, Any]]] = {}
        self.forbidden: set[int] = set()
        self._project_ids, self._ids = itertools.count(501), itertools.count(70_001)

    def add_project(self, path: str, **more: Any) -> int:
        number = next(self._project_ids)
        self.projects[number] = {"id": number, "path_with_namespace": path, "archived": False, **more}
        return number

    def project(self, path: str) -> int:
        return next((n for n, p in self.projects.items() if p["path_with_namespace"] == path), 0) or self.add_project(
            path
        )

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
        number, project = next(self._ids), self.project(f"{GROUP}/{pipeline}")
        self.rows[number] = {
            "id": number,
            "iid": number - 70_000,
            "project_id": project,
            "name": None,
            "source": "schedule",
            "ref": "main",
            "sha": f"{number:040x}",
            "tag": False,
            "yaml_errors": None,
            "web_url": f"https://gitlab.example/{GROUP}/{pipeline}/-/pipelines/{number}",
            "created_at": created_at,
            "user": {"id": 1, "username": "ada", "name": "Ada"},
        }
        self.change(str(number), word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        return str(number)

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        """Let a pipeline go on with these very times. GitLab itself keeps some of them in a retry: see ``retry``."""
        row = self.rows[int(run)]
        row |= {"status": word, "started_at": started_at, "finished_at": finished_at, "updated_at": updated_at}
        row["detailed_status"] = {"label": "passed" if word == "success" else word}
        if word == "failed":
            self.jobs[row["id"]] = [
                {"name": "load", "stage": "run", "status": "failed", "allow_failure": False,
                 "failure_reason": "script_failure"},
                {"name": "lint", "stage": "test", "status": "failed", "allow_failure": True,
                 "failure_reason": "script_failure"},
            ]  # fmt: skip

    def retry(self, run: str, at: datetime) -> None:
        """Let a pipeline run again as GitLab does: its first start and its last end stay."""
        self.rows[int(run)] |= {"status": "running", "updated_at": at}

    def delete(self, run: str) -> None:
        del self.rows[int(run)]

    def is_listing(self, asked: Asked) -> bool:
        return asked.path.endswith("/pipelines")

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("PRIVATE-TOKEN") != TOKEN:
            return Reply(401, {"message": "401 Unauthorized"})
        match [unquote(part) for part in asked.path.removeprefix("/api/v4/").split("/")]:
            case ["version"]:
                return Reply(document={"version": "18.6.0-ee", "revision": "abc"})
            case ["personal_access_tokens", "self"]:
                return Reply(document={"id": 1, "scopes": ["read_api"], "expires_at": "2027-01-31", "active": True})
            case ["groups", group, "projects"]:
                return self._projects(asked, group)
            case ["projects", name, *rest]:
                found = (p for n, p in self.projects.items() if name in {str(n), p["path_with_namespace"]})
                return self._project(asked, next(found, None), rest)
        return Reply(404, {"error": "404 Not Found"})

    def _projects(self, asked: Asked, group: str) -> Reply:
        assert (asked.query["include_subgroups"], asked.query["archived"]) == ("true", "false")
        of = [p for p in self.projects.values() if p["path_with_namespace"].startswith(f"{group}/")]
        if not of and group != GROUP:
            return Reply(404, {"message": "404 Group Not Found"})
        return self._page(asked, [p for p in of if not p["archived"]])

    def _project(  # noqa: PLR0911 - one a path
        self, asked: Asked, project: Mapping[str, Any] | None, rest: Sequence[str]
    ) -> Reply:
        if project is None:
            return Reply(404, {"message": "404 Project Not Found"})
        if rest and project["id"] in self.forbidden:
            return Reply(403, {"message": "403 Forbidden"})
        rows = {n: row for n, row in self.rows.items() if row["project_id"] == project["id"]}
        match rest:
            case []:
                return Reply(document=project)
            case ["pipelines"]:
                return self._pipelines(asked, list(rows.values()))
            case ["pipelines", number] if int(number) in rows:
                return Reply(document=self._shown(rows[int(number)]))
            case ["pipelines", number, "jobs"] if int(number) in rows:
                assert asked.query["scope[]"] == "failed"
                return self._page(asked, self.jobs.get(int(number), []))
        return Reply(404, {"message": "404 Not found"})

    def _pipelines(self, asked: Asked, rows: list[dict[str, Any]]) -> Reply:
        query = asked.query
        if "updated_after" in query:
            first = datetime.fromisoformat(query["updated_after"])
            rows = [row for row in rows if row["updated_at"] >= first]
        if "updated_before" in query:
            last = datetime.fromisoformat(query["updated_before"])
            rows = [row for row in rows if row["updated_at"] <= last]
        if "status" in query:
            rows = [row for row in rows if row["status"] == query["status"]]
        rows = [row for row in rows if row["source"] != "parent_pipeline"]
        order = query.get("order_by", "id")
        rows.sort(key=lambda row: (row[order], row["id"]), reverse=query.get("sort", "desc") == "desc")
        return self._page(asked, [{key: self._shown(row)[key] for key in THIN} for row in rows])

    @staticmethod
    def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
        shown = {key: said(value) if isinstance(value, datetime) else value for key, value in row.items()}
        start, end = row["started_at"], row["finished_at"]
        return {**shown, "duration": None if start is None or end is None else int((end - start).total_seconds())}

    def _page(self, asked: Asked, rows: Sequence[Any]) -> Reply:
        size, page = min(int(asked.query.get("per_page", "20")), 100), int(asked.query.get("page", "1"))
        has_more = len(rows) > page * size
        # The link leads to the address that GitLab was told it has.
        link = f'<https://gitlab.internal{asked.path}?page={page + 1}>; rel="next"' if has_more else ""
        headers = {"X-Next-Page": str(page + 1) if has_more else "", "X-Page": str(page), "Link": link}
        return Reply(document=rows[(page - 1) * size : page * size], headers=headers)


def recordings() -> list[Payload]:
    """Return the examples beside the repository as the mapping takes them; none where they are not."""
    found: list[Payload] = []
    for file in sorted(RECORDINGS.glob("*/*pipeline*.json")):
        document = json.loads(file.read_text())
        found += document if isinstance(document, list) else [document]
    return found


def made_up() -> list[Payload]:
    """Return pipelines of the documented shape."""
    platform = GitlabRuns()
    platform._server.server_close()
    created_at = datetime.fromisoformat("2026-11-20T02:00:00.250Z")
    for word, status in WORDS.items():
        has_started = status not in {Status.QUEUED, Status.SKIPPED}
        ended_at = created_at + timedelta(minutes=3) if word in {"success", "failed", "canceled"} else None
        platform.add(
            pipeline="orders",
            word=word,
            created_at=created_at,
            started_at=created_at if has_started else None,
            finished_at=ended_at,
            updated_at=ended_at or created_at,
        )
    project = {"id": 501, "path_with_namespace": f"{GROUP}/orders"}
    return [
        {**mapping.slim(platform._shown(row)), mapping.PROJECT: project, mapping.JOBS: platform.jobs.get(number, [])}
        for number, row in platform.rows.items()
    ]


class GitlabCiSubject:
    """The connector of GitLab CI."""

    platform = "gitlab_ci"
    words = WORDS
    success, failed, running, queued = "success", "failed", "running", "pending"
    follows_links = False
    # A pipeline of ours is a project, and each is asked: once for changes and, in a process's first sync, for both
    # kinds of live ones.
    quiet_requests = 10 + 3 * 1_000

    def serve(self) -> FakeRuns:
        return GitlabRuns()

    def source(self, url: str, **more: Any) -> GitlabCiSource:
        os.environ[TOKEN_ENV] = TOKEN
        values = {"name": "gitlab-of-acme", "platform": "gitlab_ci", "client": "acme", "token_env": TOKEN_ENV}
        return GitlabCiSource.model_validate({"group": GROUP, **values, "url": url, **more})

    def hostile_link(self, url: str) -> Mapping[str, str]:  # noqa: ARG002 - no link is followed
        return {}

    def recorded(self) -> Sequence[Payload]:
        return [*made_up(), *recordings()]
