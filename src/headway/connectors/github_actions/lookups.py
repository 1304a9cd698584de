"""What GitHub has besides the runs: repositories, the names of workflows, and jobs; each asked for as seldom as will do.

Used by ``github_actions/api.py`` alone; one of these stands for one connection, and what it remembers.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog

from headway.connectors import memory
from headway.connectors.contract import Payload
from headway.connectors.errors import SourceError
from headway.connectors.github_actions import mapping
from headway.connectors.github_actions.source import GithubActionsSource
from headway.connectors.http import Answer, Http
from headway.core import clock, reading

LISTED_FOR = timedelta(minutes=15)
WORKFLOWS_FOR = timedelta(hours=1)
# Remembered at most, then all is forgotten: jobs of attempts, workflows of repositories.
KNOWN_JOBS, KNOWN_WORKFLOWS = 5_000, 2_000

log = structlog.get_logger()

_HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


class Repository(NamedTuple):
    """A repository; one that is not among ours has no name."""

    id: int
    name: str | None

    @property
    def path(self) -> str:
        """Where it is; one that is not among ours by its id, as GitHub's own links do."""
        return f"/repositories/{self.id}" if self.name is None else f"/repos/{quote(self.name)}"


class Listed(NamedTuple):
    """The repositories by id, and what is wrong with those that were named and are not there."""

    at: datetime
    repositories: Mapping[int, Repository]
    missing: Sequence[str]


class Workflows(NamedTuple):
    """The workflows of a repository by id, each with its name and path."""

    listed_at: datetime
    by_id: dict[str | None, Payload]


class Lookups:
    """Asks for them, one request at a time."""

    def __init__(self, source: GithubActionsSource, http: Http) -> None:
        self._source = source
        self._http = http
        self._listed: Listed | None = None
        self._jobs: dict[tuple[object, ...], list[dict[str, Any]]] = {}
        self._workflows: dict[int, Workflows] = {}
        self._is_scarce = False

    def forget_repositories(self) -> None:
        """Let the repositories be listed anew."""
        self._listed = None

    def told(self, repository: Repository, runs: Sequence[Payload]) -> list[Payload]:
        """Return the runs with what GitHub has elsewhere: the workflow's name, and the jobs where they are needed."""
        return [{**run, **self._workflow(repository, run), **self._jobs_of(repository, run)} for run in runs]

    def _workflow(self, repository: Repository, run: Payload) -> Mapping[str, Payload]:
        """Return the workflow of a run: its name in the run itself may be one that ``run-name`` made up."""
        known, number = self.workflows_of(repository).by_id, reading.id_at(run, "workflow_id")
        if reading.count_at(run, "workflow_id") is None:
            return {}
        if number not in known:  # it is new, or deleted
            known[number] = _workflow(self.get(f"{repository.path}/actions/workflows/{number}").data)
        return {mapping.WORKFLOW: known[number]}

    def workflows_of(self, repository: Repository) -> Workflows:
        """Return the workflows of a repository, asked for anew each hour."""
        known, now = self._workflows.get(repository.id), clock.now()
        if known is not None and now < known.listed_at + WORKFLOWS_FOR:
            return known
        rows = self._all(f"{repository.path}/actions/workflows", "workflows")
        by_id: dict[str | None, Payload] = {reading.id_at(row, "id"): _workflow(row) for row in rows}
        return memory.keep(self._workflows, repository.id, Workflows(now, by_id), KNOWN_WORKFLOWS)

    def _jobs_of(self, repository: Repository, run: Payload) -> Mapping[str, Any]:
        """Return the jobs of a run whose end is in doubt, or that failed, for as long as the quota is not scarce."""
        is_doubtful = mapping.is_end_doubtful(run)
        number, attempt = reading.count_at(run, "id"), reading.count_at(run, "run_attempt")
        if number is None or not (is_doubtful or mapping.has_failed(run)):
            return {}
        key = (number, attempt, reading.text_at(run, "updated_at"))
        known = self._jobs.get(key)
        if known is None:
            if self._is_scarce and not is_doubtful:  # only its message is lost, and the daily sweep brings it
                return {}
            path = f"{repository.path}/actions/runs/{number}" + (f"/attempts/{attempt}" if attempt else "")
            jobs = [mapping.slim_job(job) for job in self._all(f"{path}/jobs", "jobs")]
            known = memory.keep(self._jobs, key, jobs, KNOWN_JOBS)
        return {mapping.JOBS: known}

    def repositories(self) -> Listed:
        """Return the repositories, those pushed to last first; they are listed anew after a while.

        One that was named and is not there is told in the log: the others need not wait for it.
        """
        listed, now = self._listed, clock.now()
        if listed is not None and now < listed.at + LISTED_FOR:
            return listed
        found: dict[int, Repository] = {}
        missing = []
        for name in self._source.repositories:
            try:
                found.update(_repository(self.get(f"/repos/{quote(name)}", must=True).data))
            except SourceError as error:
                if error.code not in {"not_found", "redirected"}:
                    raise
                missing.append(_missing(name, error))
        for row in self._owned():
            if not (reading.flag_at(row, "archived") or reading.flag_at(row, "disabled")):
                found.update(_repository(row))
        if missing and not found:
            raise SourceError("not_found", missing[0])
        for reason in missing:
            log.warning("source_repository_missing", source=self._source.name, reason=reason)
        self._listed = Listed(now, found, missing)
        return self._listed

    def _owned(self) -> Iterator[Payload]:
        """Yield the repositories of the organisation or user; the private ones of a user only that user sees."""
        owner = self._source.owner
        if owner is None:
            return
        what, name = {"sort": "pushed"}, quote(owner)
        organisation = self.get(f"/orgs/{name}", {})
        if organisation.status == 200:
            yield from self._all(f"/orgs/{name}/repos", "", what)
            return
        try:
            login = reading.text_at(self.get("/user").data, "login") if self._source.token() else None
        except SourceError as error:
            if error.code != "forbidden":  # the token is an app's
                raise
            login = None
        if login is not None and login.lower() == owner.lower():
            yield from self._all("/user/repos", "", {**what, "affiliation": "owner"})
        else:
            yield from self._all(f"/users/{name}/repos", "", what, must=True)

    def _all(
        self, path: str, member: str, params: Mapping[str, str] | None = None, *, must: bool = False
    ) -> Iterator[Payload]:
        """Yield the objects of all pages of a short list; none where it is not there, unless it must be."""
        answer = self.get(path, {"per_page": "100", **(params or {})}, must=must)
        while answer.status == 200:
            rows = reading.at(answer.data, member) if member else answer.data
            if not isinstance(rows, list):
                raise SourceError("bad_answer", f"GET {path}: answers no list; check url")
            yield from reading.objects_at({"rows": rows}, "rows")
            if answer.next_url is None:
                return
            answer = self.get(answer.next_url, must=must)

    def get(
        self, path: str, params: Mapping[str, str] | None = None, *, etag: str | None = None, must: bool = False
    ) -> Answer:
        """Return the answer to a GET, and note how scarce the quota is; a 404 is an answer unless it ``must`` be there.

        Raises:
            SourceError: as ``Http.get``.
        """
        headers = _HEADERS if etag is None else {**_HEADERS, "If-None-Match": etag}
        answer = self._http.get(path, params, headers=headers, missing_ok=not must)
        limit, left = (answer.headers.get(f"X-RateLimit-{name}", "") for name in ("Limit", "Remaining"))
        if limit.isdecimal() and left.isdecimal():
            self._is_scarce = int(left) * 4 < int(limit)
        return answer


def _missing(name: str, error: SourceError) -> str:
    what = (
        "has moved: give its new name" if error.code == "redirected" else "is not there, or not for this token to read"
    )
    return f"the repository {name} {what}"


def _workflow(row: Any) -> dict[str, Any]:
    return {key: reading.at(row, key) for key in ("id", "name", "path")}


def _repository(row: Any) -> dict[int, Repository]:
    """Return a repository by its id.

    Raises:
        SourceError: it is none.
    """
    number, name = reading.count_at(row, "id"), reading.text_at(row, "full_name")
    if number is None or name is None:
        raise SourceError("bad_answer", "the answer is no repository of GitHub; check url")
    return {number: Repository(number, name)}
