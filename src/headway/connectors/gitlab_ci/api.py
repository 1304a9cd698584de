"""Which requests GitLab is asked: the pipelines of each project by their last change, each changed one, its failed jobs.

``updated_after`` is a true filter of late changes, so a quiet poll is one request a project; a row of the list lacks
start and end, so each pipeline that changed is asked for once more, and not again until its next change. Pages shift
while pipelines change; so each begins at the time where the last one ended (GitLab's bounds are inclusive), and links are
not followed: they lead to the address that GitLab thinks it has. Rule not to break: no page by number but within one and
the same millisecond (``tests/connectors/gitlab_ci/test_api.py``).
"""

import fnmatch
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import quote

import structlog
from pydantic import Field, model_validator

from headway.connectors import memory
from headway.connectors.config import PlainUrl, Source
from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.gitlab_ci import mapping
from headway.connectors.http import Answer, Headers, Http
from headway.core import clock, reading, validation
from headway.pipelines.reference import PipelineRef

PAGE_ROWS = 100
# What its own scopes call live; asked for once in a while only, as what is held unfinished is read again by its id.
LIVE, LIVE_EVERY = ("running", "pending"), timedelta(hours=1)
LISTED_FOR = timedelta(minutes=15)
REREAD_AT_ONCE = 20
CHECKED_PIPELINES = 1_000
# Remembered at most, then all is forgotten: pipelines with their details, projects by id.
KNOWN_PIPELINES, KNOWN_PROJECTS = 10_000, 10_000
ANY_TIME = datetime.max.replace(tzinfo=clock.EPOCH.tzinfo)

log = structlog.get_logger()


class GitlabCiSource(Source):
    """Projects of gitlab.com or of a GitLab of one's own."""

    platform: Literal["gitlab_ci"]
    url: PlainUrl = Field("https://gitlab.com", description="where GitLab is, without /api/v4")
    group: str | None = Field(None, min_length=1, description="group whose projects are read, those of subgroups, too")
    projects: list[str] = Field([], description="projects to read, each by its path: GROUP/SUBGROUP/PROJECT")
    branches: list[str] = Field([], description="branches and tags whose pipelines are taken, with * and ?; none: all")

    @model_validator(mode="after")
    def _has_projects(self) -> Self:
        if self.group is None and not self.projects:
            raise ValueError('group or projects is required: group = "GROUP", or projects = ["GROUP/PROJECT"]')
        return self


class _Project(NamedTuple):
    id: int
    path: str | None

    @property
    def pipelines(self) -> str:
        return f"/api/v4/projects/{self.id}/pipelines"


class _Listed(NamedTuple):
    at: datetime
    projects: Mapping[int, _Project]
    missing: Sequence[str]


class GitlabCiApi:
    """Reads the projects of one source; see ``connectors/contract.py``."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: GitlabCiSource, stop: threading.Event) -> None:
        self._source = source
        self.http = Http(source, stop=stop, authorize=self._authorize)
        self._listed: _Listed | None = None
        self._details: dict[tuple[object, ...], dict[str, Any]] = {}
        self._others: dict[int, _Project] = {}
        self._live_at: dict[int, datetime] = {}

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield the pipelines that changed since, and now and then the live ones."""
        projects = list(self._list().projects.values())
        yield from self._each(projects, lambda project: self._changed_in(project, since))

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield the pipelines that last changed in the window, by project; a position is "PROJECT_ID TIME"."""
        projects = sorted(self._list().projects.values())
        first_id, edge = _parse_position(position)

        def pages(project: _Project) -> Generator[Page, None, bool]:
            first = edge if project.id == first_id and edge is not None else since
            is_there = False
            for rows, reached in self._walk(project, first, until):
                is_there = True
                yield Page(
                    self._detailed(project, rows), position=f"{project.id} {validation.format_time(reached or until)}"
                )
            return is_there

        yield from self._each([project for project in projects if project.id >= first_id], pages)

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these pipelines as they are; gone are those that GitLab answers 404 for."""
        projects = self._list().projects
        for start in range(0, len(held), REREAD_AT_ONCE):
            runs: list[Payload] = []
            gone: list[HeldRun] = []
            for run in held[start : start + REREAD_AT_ONCE]:
                if not (_is_number(run.pipeline_external_id) and _is_number(run.external_run_id)):
                    continue
                project_id = int(run.pipeline_external_id)
                project = projects.get(project_id) or _Project(project_id, None)
                found = self._ask(project, run.external_run_id)
                if found is None:
                    gone.append(run)
                else:
                    runs.append(found if project.path else {**found, mapping.PROJECT: self._other(project_id)})
            yield Page(runs, gone=gone)

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a pipeline says, None where its branch or project is not to be taken; see ``mapping.report``."""
        told = mapping.report(payload, source=self._source, now=now)
        ref = reading.text_at(payload, "ref") or ""
        wanted = self._source.branches
        if told is None or (wanted and not any(fnmatch.fnmatchcase(ref, pattern) for pattern in wanted)):
            return None
        pipeline = told.observation.pipeline
        is_taken = isinstance(pipeline, PipelineRef) and self._source.takes(pipeline.name, pipeline.external_id)
        return told if is_taken else None

    def check(self) -> Check:
        """Return which GitLab this is, its projects, and what to know of the token."""
        notes = []
        version = None
        if self._source.token() is None:
            notes.append("there is no token: GitLab shows public projects only")
        else:
            version = reading.text_at(_object(self.http.get("/api/v4/version")), "version")
            notes += self._token_notes()
        self._listed = None
        listed = self._list()
        names = sorted(
            project.path
            for project in listed.projects.values()
            if project.path and self._source.takes(project.path, str(project.id))
        )
        notes.append(f"{len(listed.projects):,} projects; a quiet sync is one request for each")
        return Check(f"GitLab {version}" if version else "GitLab", names[:CHECKED_PIPELINES], [*notes, *listed.missing])

    def _token_notes(self) -> Iterator[str]:
        try:
            told = self.http.get("/api/v4/personal_access_tokens/self", missing_ok=True).data
        except SourceError as error:
            if error.code != "forbidden":  # as to tokens of other kinds
                raise
            return
        if (day := reading.text_at(told, "expires_at")) is not None:
            yield f"the token expires on {day[:10]}"
        scopes = reading.at(told, "scopes")
        if isinstance(scopes, list) and not {"api", "read_api"} & {scope for scope in scopes if isinstance(scope, str)}:
            yield "the token has not the scope read_api"

    def _each(
        self, projects: Sequence[_Project], pages: Callable[[_Project], Generator[Page, None, bool]]
    ) -> Iterator[Page]:
        """Yield the pages of each project. One that is gone, or hides its pipelines, stops no other.

        Raises:
            SourceError: none can be read.
        """
        missing = []
        for project in projects:
            try:
                is_there = yield from pages(project)
            except SourceError as error:
                if error.code != "forbidden":
                    raise
                missing.append(error)
                continue
            if not is_there:
                missing.append(SourceError("not_found", f"the project {project.path} is not there any more"))
        if missing:
            self._listed = None
            if len(missing) == len(projects):
                raise missing[0]
            log.warning(
                "source_project_missing", source=self._source.name, reason=missing[0].detail, count=len(missing)
            )

    def _changed_in(self, project: _Project, since: datetime) -> Generator[Page, None, bool]:
        is_there = False
        for rows, _ in self._walk(project, since, None):
            is_there = True
            if rows:
                yield Page(self._detailed(project, rows))
        asked_at, now = self._live_at.get(project.id), clock.now()
        if is_there and (asked_at is None or now >= asked_at + LIVE_EVERY):
            for status in LIVE:
                rows = list(self._all(project.pipelines, {"status": status, "order_by": "id", "sort": "desc"}))
                if rows:
                    yield Page(self._detailed(project, rows))
            memory.keep(self._live_at, project.id, now, KNOWN_PROJECTS)
        return is_there

    def _walk(
        self, project: _Project, first: datetime, last: datetime | None
    ) -> Iterator[tuple[list[Payload], datetime | None]]:
        """Yield the pipelines that last changed in a time, longest ago first, with the time to go on from."""
        page, had = 1, set[tuple[str | None, object]]()
        while True:
            params = {"updated_after": validation.format_time(first), "order_by": "updated_at", "sort": "asc"}
            if last is not None:
                params["updated_before"] = validation.format_time(last)
            answer = self.http.get(project.pipelines, {**params, "per_page": PAGE_ROWS, "page": page}, missing_ok=True)
            if answer.status in {404, 410}:
                return
            rows = _rows(answer)
            keys = [(reading.id_at(row, "id"), reading.text_at(row, "updated_at")) for row in rows]
            times = (reading.time_at(row, "updated_at", latest=ANY_TIME) for row in rows)
            reached = max(filter(None, times), default=None)
            is_last = reached is None or not _has_next(answer, rows)
            yield [row for row, key in zip(rows, keys, strict=True) if key not in had], None if is_last else reached
            if is_last or reached is None:
                return
            is_stuck = reached <= first
            page, first = (page + 1, first) if is_stuck else (1, reached)
            had = had | set(keys) if is_stuck else set(keys)

    def _detailed(self, project: _Project, rows: Sequence[Payload]) -> list[Payload]:
        """Return the pipelines of a list with what only their own page has."""
        found: list[Payload] = []
        for row in rows:
            number = reading.count_at(row, "id")
            if number is None:
                found.append(row)  # to be counted as odd
                continue
            key = (project.id, number, reading.text_at(row, "updated_at"), reading.text_at(row, "status"))
            known = self._details.get(key)
            if known is None:
                known = self._ask(project, str(number))
                if known is None:  # deleted since
                    continue
                memory.keep(self._details, key, known, KNOWN_PIPELINES)
            found.append({**known, mapping.PROJECT: {"id": project.id, "path_with_namespace": project.path}})
        return found

    def _ask(self, project: _Project, number: str) -> dict[str, Any] | None:
        """Return a pipeline, with its failed jobs where it failed; None where it is not there."""
        answer = self.http.get(f"{project.pipelines}/{number}", missing_ok=True)
        if answer.status in {404, 410}:
            return None
        found = mapping.slim(_object(answer))
        found[mapping.PROJECT] = {"id": project.id, "path_with_namespace": project.path}
        if mapping.has_failed(found):
            jobs = self._all(f"{project.pipelines}/{number}/jobs", {"scope[]": "failed"})
            found[mapping.JOBS] = [mapping.slim_job(job) for job in jobs]
        return found

    def _list(self) -> _Listed:
        """Return the projects, listed anew after a while. One that was named and is not there stops no other."""
        listed, now = self._listed, clock.now()
        if listed is not None and now < listed.at + LISTED_FOR:
            return listed
        found: dict[int, _Project] = {}
        missing = []
        for path in self._source.projects:
            answer = self.http.get(f"/api/v4/projects/{quote(path, safe='')}", missing_ok=True)
            if answer.status in {404, 410}:
                missing.append(f"the project {path} is not there, or not for this token to read")
            else:
                found.update(_project(_object(answer)))
        if self._source.group is not None:
            path = f"/api/v4/groups/{quote(self._source.group, safe='')}/projects"
            what = {"include_subgroups": "true", "with_shared": "false", "archived": "false", "simple": "true"}
            for row in self._all(path, {**what, "order_by": "id", "sort": "asc"}, must=True):
                found.update(_project(row))
        if missing and not found:
            raise SourceError("not_found", missing[0])
        for reason in missing:
            log.warning("source_project_missing", source=self._source.name, reason=reason)
        self._listed = _Listed(now, found, missing)
        return self._listed

    def _other(self, project_id: int) -> dict[str, Any]:
        """Return a project that is not among ours any more."""
        known = self._others.get(project_id)
        if known is None:
            path = reading.text_at(
                self.http.get(f"/api/v4/projects/{project_id}", missing_ok=True).data, "path_with_namespace"
            )
            known = memory.keep(self._others, project_id, _Project(project_id, path), KNOWN_PROJECTS)
        return {"id": project_id, "path_with_namespace": known.path}

    def _all(self, path: str, params: Mapping[str, str], *, must: bool = False) -> Iterator[Payload]:
        """Yield the objects of all pages of a list; none where it is not there, unless it must be."""
        for page in itertools.count(1):
            answer = self.http.get(path, {**params, "per_page": PAGE_ROWS, "page": page}, missing_ok=not must)
            if answer.status in {404, 410}:
                return
            rows = _rows(answer)
            yield from rows
            if not rows or not _has_next(answer, rows):
                return

    def _authorize(self) -> Headers:
        token = self._source.token()
        return {} if token is None else {"PRIVATE-TOKEN": token}


def _has_next(answer: Answer, rows: Sequence[Payload]) -> bool:
    """Tell whether there is another page; where a proxy took the header away, after a full one there is."""
    said = answer.headers.get("X-Next-Page")
    return len(rows) >= PAGE_ROWS if said is None else bool(said.strip())


def _rows(answer: Answer) -> list[Payload]:
    """Return the objects of a list; what is no object is an empty one, to be counted as odd."""
    if not isinstance(answer.data, list):
        raise SourceError("bad_answer", "the answer is no list of GitLab; check url")
    return [row if isinstance(row, Mapping) else {} for row in answer.data]


def _object(answer: Answer) -> Payload:
    if not isinstance(answer.data, Mapping):
        raise SourceError("bad_answer", "the answer is no object of GitLab; check url")
    return answer.data


def _project(row: Payload) -> dict[int, _Project]:
    number, path = reading.count_at(row, "id"), reading.text_at(row, "path_with_namespace")
    if number is None or path is None:
        raise SourceError("bad_answer", "the answer is no project of GitLab; check url")
    return {number: _Project(number, path)}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _parse_position(position: str | None) -> tuple[int, datetime | None]:
    number, _, edge = (position or "").partition(" ")
    return (int(number) if _is_number(number) else 0), reading.time_at({"at": edge}, "at", latest=ANY_TIME)
