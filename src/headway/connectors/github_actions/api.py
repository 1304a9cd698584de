"""Which requests GitHub is asked: the newest runs of each repository, runs by creation, by id, and jobs of some.

GitHub neither filters nor sorts by when a run changed. So each poll asks every repository for its newest page, always by
the same address: as long as nothing changed the answer is 304 and costs nothing of the quota. That page shows re-runs
of its 100 runs, too; where a repository has more of them, the runs of the last hours are asked for hour by hour, again
by addresses that stay, and older re-runs are seen while they are live. Searches give 1,000 rows at most, and pages shift
while runs come and go; so each page begins at the time where the last one ended. Rule not to break: one request at a
time, as GitHub wants it, and nothing from memory but what an answer would say
(``tests/connectors/github_actions/test_api.py``).
"""

import fnmatch
import itertools
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import structlog

from headway.connectors import memory
from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.github_actions import mapping
from headway.connectors.github_actions.lookups import Lookups, Repository
from headway.connectors.github_actions.source import GithubActionsSource
from headway.connectors.http import Answer, Http
from headway.core import clock, reading, validation
from headway.pipelines.reference import PipelineRef

# exclude_pull_requests: they make up much of a row, and are not read.
ROWS: Mapping[str, str] = {"per_page": "100", "exclude_pull_requests": "true"}
SEARCH_ROWS = 1_000  # of a search; the rest of it cannot be had
LIVE = ("in_progress", "queued")
# So long after its creation a change of a run is still looked for in busy repositories: a hosted job takes 6 h at most.
RECENT, HOUR, SECOND = timedelta(hours=6), timedelta(hours=1), timedelta(seconds=1)
# A run may be run again for 30 days, and take 35.
LIVE_WITHIN = timedelta(days=65)
CHECKED_PIPELINES, CHECKED_REPOSITORIES = 1_000, 50
REREAD_AT_ONCE = 20
SEEN_ANSWERS = 5_000  # pages, searches and runs with their ETags; beyond, all are forgotten

log = structlog.get_logger()


class _Seen(NamedTuple):
    """What an answer held that is still of use: its live runs, and those that changed at or after ``since``."""

    etag: str | None
    since: datetime
    runs: tuple[dict[str, Any], ...]
    #: When the oldest run of the answer was created, and which are of that second.
    oldest: datetime | None
    oldest_ids: frozenset[str | None]
    next_url: str | None
    total: int | None


class GithubActionsApi:
    """Reads the repositories of one source; see ``connectors/contract.py``."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: GithubActionsSource, stop: threading.Event) -> None:
        self._source = source
        self.http = Http(source, stop=stop)
        self._look = Lookups(source, self.http)
        self._answers: dict[str, _Seen] = {}

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield the runs that are live or changed since, as far as the newest pages and the live runs show them."""
        repositories = self._look.repositories().repositories
        missing = []
        for repository in repositories.values():
            is_there = yield from self._changed_in(repository, since)
            if not is_there:
                missing.append(repository)
        self._note(missing, among=len(repositories))

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield the runs created in the window, repository by repository; a position is "REPOSITORY_ID TIME"."""
        repositories = self._look.repositories().repositories
        first_id, edge = _parse_position(position)
        missing = []
        for repository in sorted(repositories.values()):
            if repository.id < first_id:
                continue
            last, is_there = edge if repository.id == first_id and edge is not None else until, False
            for seen in self._walk(repository, since, last, clock.EPOCH, is_kept=False):
                is_there = True
                yield Page(
                    self._look.told(repository, seen.runs),
                    position=f"{repository.id} {_said(seen.oldest if seen.oldest and seen.next_url else since)}",
                    total=seen.total if len(repositories) == 1 and position is None else None,
                )
            if not is_there:
                missing.append(repository)
        self._note(missing, among=len(repositories))

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs as they are; gone are those that GitHub answers 404 for."""
        repositories = self._look.repositories().repositories
        for start in range(0, len(held), REREAD_AT_ONCE):
            runs: list[Payload] = []
            gone: list[HeldRun] = []
            for run in held[start : start + REREAD_AT_ONCE]:
                number = run.pipeline_external_id.partition("/")[0]
                if not (_is_number(number) and _is_number(run.external_run_id)):
                    continue
                repository = repositories.get(int(number), Repository(int(number), None))
                seen = self._ask(f"{repository.path}/actions/runs/{run.external_run_id}", None, clock.EPOCH)
                if seen is None:
                    gone.append(run)
                else:
                    runs += self._look.told(repository, seen.runs)
            yield Page(runs, gone=gone)

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says, None where its branch or its workflow is not to be taken; see ``mapping.report``."""
        told = mapping.report(payload, source=self._source, now=now)
        branch = reading.text_at(payload, "head_branch") or ""
        if self._source.branches and not any(fnmatch.fnmatchcase(branch, wanted) for wanted in self._source.branches):
            return None
        pipeline = told.observation.pipeline
        is_taken = isinstance(pipeline, PipelineRef) and self._source.takes(pipeline.name, pipeline.external_id)
        return told if is_taken else None

    def check(self) -> Check:
        """Return which GitHub this is, the workflows of the first repositories, and what is left of the quota."""
        answer = self._look.get("/rate_limit")  # free, and there for every kind of token; a 404 where limits are off
        server = answer.headers.get("X-GitHub-Enterprise-Version")
        notes = list(self._notes(answer))
        self._look.forget_repositories()
        _, repositories, missing = self._look.repositories()
        looked_at = list(repositories.values())[:CHECKED_REPOSITORIES]
        names = [
            name
            for repository in looked_at
            for workflow in self._look.workflows_of(repository).by_id.values()
            if self._source.takes(
                name := mapping.name_of(repository.name, str(workflow.get("name") or workflow.get("path"))),
                f"{repository.id}/{workflow.get('id')}",
            )
        ]
        notes.append(
            f"{len(repositories):,} repositories; a quiet sync asks each once, for an answer that costs no quota"
        )
        if len(repositories) > len(looked_at):
            notes.append(f"only the workflows of {len(looked_at)} repositories were looked at; all are imported")
        notes += missing
        product = "GitHub" if server is None else f"GitHub Enterprise Server {server}"
        return Check(product, sorted(names)[:CHECKED_PIPELINES], notes)

    def _notes(self, answer: Answer) -> Iterator[str]:
        if self._source.token() is None:
            yield "there is no token: GitHub answers 60 requests an hour, about public repositories only"
        limit = reading.count_at(answer.data, "resources", "core", "limit")
        remaining = reading.count_at(answer.data, "resources", "core", "remaining")
        if limit is not None and remaining is not None:
            yield f"{remaining:,} of {limit:,} requests of this hour are left"

    def _changed_in(self, repository: Repository, since: datetime) -> Generator[Page, None, bool]:
        """Yield what changed in a repository; returns whether it is there."""
        path = f"{repository.path}/actions/runs"
        newest = self._ask(path, {}, since)
        if newest is None:
            return False
        answers: list[Iterable[_Seen | None]] = [[newest]]
        if newest.next_url is not None and newest.oldest is not None:
            hour = (since - RECENT).replace(minute=0, second=0, microsecond=0)
            while hour <= newest.oldest:
                answers.append(self._walk(repository, hour, hour + HOUR - SECOND, since))
                hour += HOUR
            if newest.oldest > clock.now() - LIVE_WITHIN:
                answers += [(self._ask(path, {"status": status}, since) for status in LIVE)]
        for seen in itertools.chain.from_iterable(answers):
            if seen is not None and seen.runs:
                yield Page(self._look.told(repository, seen.runs))
        return True

    def _walk(
        self, repository: Repository, first: datetime, last: datetime, since: datetime, *, is_kept: bool = True
    ) -> Iterator[_Seen]:
        """Yield the runs created from ``first`` to ``last``, newest first, of which those of use since.

        Links are only followed within a second that fills a page; more than 1,000 runs of one second are out of reach.
        """
        path, link = f"{repository.path}/actions/runs", None
        had: frozenset[str | None] = frozenset()
        while last >= first:
            search = {"created": f"{_said(first)}..{_said(last)}"} if link is None else None
            seen = self._ask(link or path, search, since, is_kept=is_kept)
            if seen is None:
                return
            yield seen._replace(runs=tuple(run for run in seen.runs if reading.id_at(run, "id") not in had))
            is_cut = seen.next_url is None and (seen.total or 0) > SEARCH_ROWS
            if seen.oldest is None or (seen.next_url is None and not is_cut):
                return
            is_stuck = seen.oldest >= last
            had = seen.oldest_ids | had if is_stuck else seen.oldest_ids
            link = seen.next_url if is_stuck else None
            last = last - SECOND if is_cut and is_stuck else seen.oldest

    def _ask(
        self, path: str, search: Mapping[str, str] | None, since: datetime, *, is_kept: bool = True
    ) -> _Seen | None:
        """Return what a page of runs, or a run (no search), holds of use since; None where it is not there."""
        is_link = path.startswith("http")
        params = {} if is_link else {**ROWS, **(search or {})}
        key = f"{path} {search}"
        known = self._answers.get(key)
        if known is not None and known.since > since:
            known = None  # it left out what is wanted now
        answer = self._look.get(path, params, etag=known.etag if known else None)
        if answer.status in {404, 410}:
            return None
        if answer.status == 304 and known is not None:
            return known._replace(runs=tuple(run for run in known.runs if _is_of_use(run, since)))
        rows = _rows(answer, is_list=is_link or search is not None)
        oldest = min(filter(None, map(_created_at, rows)), default=None)
        seen = _Seen(
            answer.headers.get("ETag"),
            since,
            tuple(mapping.slim(row) for row in rows if _is_of_use(row, since)),
            oldest,
            frozenset(reading.id_at(row, "id") for row in rows if _created_at(row) == oldest),
            answer.next_url,
            reading.count_at(answer.data, "total_count"),
        )
        return memory.keep(self._answers, key, seen, SEEN_ANSWERS) if is_kept else seen

    def _note(self, missing: Sequence[Repository], *, among: int) -> None:
        """Tell which repositories were listed and are not there; they are listed anew.

        Raises:
            SourceError: none is there.
        """
        if missing:
            self._look.forget_repositories()
            reason = f"the repository {missing[0].name} is not there any more, or Actions is switched off"
            if len(missing) == among:
                raise SourceError("not_found", reason)
            log.warning("source_repository_missing", source=self._source.name, reason=reason, missing=len(missing))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _rows(answer: Answer, *, is_list: bool) -> list[Payload]:
    """Return the runs of a page, or the one run; what is no object is an empty one, to be counted as odd.

    Raises:
        SourceError: there are none.
    """
    rows = reading.at(answer.data, "workflow_runs") if is_list else [answer.data]
    if not isinstance(rows, list) or not isinstance(answer.data, Mapping):
        raise SourceError("bad_answer", "the answer holds no runs of GitHub Actions; check url")
    return [row if isinstance(row, Mapping) else {} for row in rows]


def _is_of_use(run: Payload, since: datetime) -> bool:
    """Tell whether a run is live or changed since; one that does not say when it changed may have."""
    updated_at = reading.time_at(run, "updated_at", latest=mapping.ANY_TIME)
    return not mapping.is_finished(run) or updated_at is None or updated_at >= since


def _created_at(run: Payload) -> datetime | None:
    return reading.time_at(run, "created_at", latest=mapping.ANY_TIME)


def _parse_position(position: str | None) -> tuple[int, datetime | None]:
    number, _, edge = (position or "").partition(" ")
    return (int(number) if _is_number(number) else 0), reading.time_at({"at": edge}, "at", latest=mapping.ANY_TIME)


def _said(time: datetime) -> str:
    """Return a time as a search takes it, in whole seconds."""
    return validation.format_time(time.replace(microsecond=0))
