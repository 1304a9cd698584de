"""Which requests a Dagster is asked: its GraphQL endpoint, paged newest first by the id of the last run.

The engine walks; ``mapping.py`` says what a run means. Rules not to break: an empty page is the end only while the run
that the page came after still exists (Dagster answers an unknown cursor with an empty page and no error), and a run is
gone only where Dagster says ``RunNotFoundError`` (``tests/connectors/dagster/test_api.py``). What Dagster does not know
in its version is not asked for.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple

from headway.connectors.config import Source
from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.dagster import mapping
from headway.connectors.errors import SourceError
from headway.connectors.http import EXCERPT_CHARS, Headers, Http, authorization
from headway.core import reading, redaction
from headway.runs.observation import TERMINAL

PAGE_RUNS = 100
DETAIL_RUNS = 10
PIPELINES = 1000
# The log of a run is read from its beginning, and failures stand at its end: so far, then its error stays unknown.
EVENTS, EVENT_PAGES = 1000, 10
UNANSWERED = 3
# Filters by time leave out the time itself, and on SQLite the first time of an update lacks the fraction of its second.
EDGE_SECONDS = 1.0
# Runs are listed in the order of their rows. Their creation times are those of the database, so nearly in that order.
ORDER_SECONDS = 60.0

# What is stored with a run. Not its stats: Dagster counts them from the run's log, which makes a page seven times as slow.
_FIELDS: Mapping[str, str] = {
    "runId": "runId",
    "jobName": "jobName",
    "status": "status",
    "creationTime": "creationTime",
    "startTime": "startTime",
    "endTime": "endTime",
    "updateTime": "updateTime",
    "parentRunId": "parentRunId",
    "rootRunId": "rootRunId",
    "repositoryOrigin": "repositoryOrigin { repositoryLocationName repositoryName }",
    "tags": "tags { key value }",
}
_ERROR = "... on Error { message }"
_CAUSES = "error { message cause { message cause { message cause { message cause { message } } } } }"
_SCHEMA = '{ run: __type(name: "Run") { fields { name } } status: __type(name: "RunStatus") { enumValues { name } } }'
_RUNS = """query Runs($filter: RunsFilter, $cursor: String, $limit: Int) {
  runsOrError(filter: $filter, cursor: $cursor, limit: $limit) {
    __typename ... on Runs { count results { %s } } ... on Error { message } } }"""
_EVENTS = f"""eventConnection(afterCursor: $after, limit: $limit) {{ cursor hasMore events {{ __typename
  ... on ExecutionStepFailureEvent {{ stepKey {_CAUSES} }} ... on RunFailureEvent {{ message {_CAUSES} }} }} }}"""
_FAILURES = f"""query Failures($ids: [String], $after: String, $limit: Int) {{ runsOrError(filter: {{runIds: $ids}}) {{
  __typename ... on Runs {{ results {{ runId {_EVENTS} }} }} {_ERROR} }} }}"""
_MATERIALIZATIONS = f"""query Materializations($ids: [String]) {{ runsOrError(filter: {{runIds: $ids}}) {{
  __typename ... on Runs {{ results {{ runId assetMaterializations {{ metadataEntries {{
  label ... on IntMetadataEntry {{ intValue intRepr }} }} }} }} }} {_ERROR} }} }}"""
_CHECK = f"""{{ version
  repositoriesOrError {{ __typename {_ERROR} ... on RepositoryConnection {{
    nodes {{ name location {{ name }} jobs {{ name }} }} }} }}
  workspaceOrError {{ __typename {_ERROR} ... on Workspace {{
    locationEntries {{ name locationOrLoadError {{ __typename {_ERROR} }} }} }} }} }}"""
_UNANSWERED = frozenset({"timeout", "server_error", "answer_too_large", "graphql", "refused"})
_FAILURE_EVENTS = frozenset({"ExecutionStepFailureEvent", "RunFailureEvent"})


class DagsterSource(Source):
    """A Dagster webserver, or a deployment of Dagster+ (``https://ORGANISATION.dagster.cloud/DEPLOYMENT``)."""

    platform: Literal["dagster"]


class _Schema(NamedTuple):
    """What of ours a Dagster knows: the selection of a run's fields, and the words of runs that have not ended."""

    selection: str
    live: list[str]


class DagsterApi:
    """The connector of one source."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: DagsterSource, stop: threading.Event) -> None:
        self._source = source
        self.http = Http(source, stop=stop, authorize=lambda: _credentials(source))
        self._known: _Schema | None = None
        self._unanswered = 0

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield what was updated since then, and what has not ended."""
        self._unanswered = 0
        yield from self._walk({"updatedAfter": since.timestamp() - EDGE_SECONDS}, with_rows=True)
        yield from self._walk({"statuses": self._schema().live})

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield what was created in the window, without its rows: they would be a request for every ten runs."""
        created = {"createdAfter": since.timestamp() - EDGE_SECONDS, "createdBefore": until.timestamp() + EDGE_SECONDS}
        yield from self._walk(created, position)

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs, 100 at a time; those that a list leaves out are asked for by themselves."""
        for start in range(0, len(held), PAGE_RUNS):
            batch = held[start : start + PAGE_RUNS]
            # An empty list of ids would be no filter at all.
            ids = list(dict.fromkeys(run.external_run_id for run in batch))
            runs, _ = self._runs({"runIds": ids}, None)
            listed = {reading.text_at(run, "runId") for run in runs}
            more, gone = self._one_by_one([run_id for run_id in ids if run_id not in listed])
            yield Page(
                self._detailed([*runs, *more], with_rows=True),
                gone=[run for run in batch if run.external_run_id in gone],
            )

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says."""
        return mapping.report(payload, source=self._source, now=now)

    def check(self) -> Check:
        """Ask for the version, the jobs of all code locations, and those locations that do not load."""
        data = self._ask(_CHECK, {})
        nodes = _member(data, "repositoriesOrError", "RepositoryConnection")
        found = sorted(name for node in reading.objects_at(nodes, "nodes") for name in self._pipelines(node))
        notes = [
            f"the code location {reading.text_at(entry, 'name')} does not load: {_said(entry, 'locationOrLoadError')}"
            for entry in reading.objects_at(data, "workspaceOrError", "locationEntries")
            if reading.text_at(entry, "locationOrLoadError", "__typename") == "PythonError"
        ]
        if len(found) > PIPELINES:
            notes.append(f"it has {len(found)} jobs, of which the first {PIPELINES} are shown")
        return Check(f"Dagster {reading.text_at(data, 'version') or '(no version)'}", found[:PIPELINES], notes)

    def _pipelines(self, repository: Mapping[str, Any]) -> Iterator[str]:
        """Yield the jobs to import by their ``external_id``, or by name where the patterns meet that alone."""
        location, named = reading.text_at(repository, "location", "name"), reading.text_at(repository, "name")
        for entry in reading.objects_at(repository, "jobs"):
            if (job := reading.text_at(entry, "name")) is not None:
                external_id, name = mapping.external_id(location, named, job), mapping.readable(job)
                if self._source.takes(name, external_id):
                    yield external_id if self._source.takes(external_id) else name

    def _walk(
        self, wanted: Mapping[str, Any], position: str | None = None, *, with_rows: bool = False
    ) -> Iterator[Page]:
        """Yield the runs that a filter lets through, newest first."""
        cursor, created = _parse(position)
        seen = 0
        while True:
            runs, count = self._runs(wanted, cursor)
            if runs:
                last, before = _last(runs), cursor
                if last is None or last[0] == before:
                    raise SourceError("bad_answer", f"{self._place}: pages do not go on after the run {before}")
                cursor, created = last
                seen += len(runs)
                yield Page(self._detailed(runs, with_rows=with_rows), position=f"{cursor}@{created!r}", total=count)
                if len(runs) < PAGE_RUNS and seen >= (count or 0):
                    return
            elif cursor is None or cursor not in self._one_by_one([cursor])[1]:
                return
            elif created is None:
                raise SourceError("bad_answer", f"{self._place}: the run {cursor} is gone, and had no creation time")
            else:  # deleted in between: go on from its time
                until = created + ORDER_SECONDS
                wanted = {**wanted, "createdBefore": min(until, wanted.get("createdBefore", until))}
                cursor, seen = None, 0

    def _runs(self, wanted: Mapping[str, Any], cursor: str | None) -> tuple[list[Payload], int | None]:
        """Return a page of runs and how many there are in all."""
        variables = {"filter": dict(wanted), "cursor": cursor, "limit": PAGE_RUNS}
        runs = _member(self._ask(_RUNS % self._schema().selection, variables), "runsOrError", "Runs")
        if not isinstance(runs.get("results"), list):
            raise SourceError("bad_answer", f"{self._place}: answers no list of runs")
        return list(reading.objects_at(runs, "results")), reading.count_at(runs, "count")

    def _one_by_one(self, ids: Sequence[str]) -> tuple[list[Payload], set[str]]:
        """Return these runs, asked for by their ids in one request, and which of them Dagster does not know."""
        if not ids:
            return [], set()
        names = ", ".join(f"$r{n}: ID!" for n in range(len(ids)))
        each = " ".join(
            f"r{n}: runOrError(runId: $r{n}) {{ __typename ... on Run {{ {self._schema().selection} }} }}"
            for n in range(len(ids))
        )
        data = self._ask(f"query Each({names}) {{ {each} }}", {f"r{n}": run_id for n, run_id in enumerate(ids)})
        answers = {run_id: reading.object_at(data, f"r{n}") for n, run_id in enumerate(ids)}
        gone = {run_id for run_id, answer in answers.items() if answer.get("__typename") == "RunNotFoundError"}
        return [answer for answer in answers.values() if answer.get("__typename") == "Run"], gone

    def _detailed(self, runs: Sequence[Payload], *, with_rows: bool) -> list[Payload]:
        """Return the runs, with why they failed and the rows they made: a request for every ten of them."""
        more: dict[str, dict[str, Any]] = {}
        for ids in _batches(runs, lambda run: run.get("status") == "FAILURE"):
            for run_id, events in self._failures(ids).items():
                more.setdefault(run_id, {})["eventConnection"] = {"events": events}
        for ids in _batches(runs, _has_ended) if with_rows else ():
            for run in self._details(_MATERIALIZATIONS, {"ids": ids}):
                more.setdefault(str(run.get("runId")), {})["assetMaterializations"] = run.get("assetMaterializations")
        return [{**run, **more.get(str(run.get("runId")), {})} for run in runs]

    def _failures(self, ids: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
        """Return the failure events of runs: all at once, then one by one those with a long log."""
        found: dict[str, list[Mapping[str, Any]]] = {run_id: [] for run_id in ids}
        pending: list[tuple[list[str], str | None, int]] = [(list(ids), None, 1)]
        while pending:
            asked, after, number = pending.pop()
            for run in self._details(_FAILURES, {"ids": asked, "after": after, "limit": EVENTS}):
                run_id, log = str(run.get("runId")), reading.object_at(run, "eventConnection")
                events = [
                    e for e in reading.objects_at(log, "events") if reading.text_at(e, "__typename") in _FAILURE_EVENTS
                ]
                found.setdefault(run_id, []).extend(events)
                has_end = any(event.get("__typename") == "RunFailureEvent" for event in events)
                cursor = reading.text_at(log, "cursor")
                if reading.flag_at(log, "hasMore") and not has_end and number < EVENT_PAGES and cursor != after:
                    pending.append(([run_id], cursor, number + 1))
        return found

    def _details(self, query: str, variables: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return what is asked about runs, or nothing where their logs are too much for the server, or it has no such.

        That a run failed must not wait for why. A server that fails three times is not asked again until the next
        ``changed``.
        """
        if self._unanswered == UNANSWERED:
            return []
        try:
            runs = _member(self._ask(query, variables), "runsOrError", "Runs")
        except SourceError as error:
            if error.code not in _UNANSWERED:
                raise
            self._unanswered += 1
            return []
        return list(reading.objects_at(runs, "results"))

    def _schema(self) -> _Schema:
        """Return what this Dagster knows of what we ask for; asked once, all of it where it does not tell."""
        if self._known is None:
            data = self._ask(_SCHEMA, {})
            fields = {reading.text_at(field, "name") for field in reading.objects_at(data, "run", "fields")}
            words = {reading.text_at(word, "name") for word in reading.objects_at(data, "status", "enumValues")}
            live = [word for word, status in mapping.WORDS.items() if status not in TERMINAL]
            self._known = _Schema(
                " ".join(asked for name, asked in _FIELDS.items() if not fields or name in fields),
                [word for word in live if not words or word in words],
            )
        return self._known

    def _ask(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data of an answer.

        Raises:
            SourceError: as Http, and where the answer has errors or no data.
        """
        answer = self.http.post("/graphql", {"query": query, "variables": dict(variables)}).data
        errors = [reading.text_at(error, "message") or "" for error in reading.objects_at(answer, "errors")]
        if errors:
            raise SourceError("refused", f"{self._place}: cannot answer: {_excerpt(errors[0])}")
        data = reading.at(answer, "data")
        if not isinstance(data, Mapping):
            raise SourceError("bad_answer", f"{self._place}: this is no answer of GraphQL; check url")
        return data

    @property
    def _place(self) -> str:
        return f"POST {self._source.url}/graphql"


def _credentials(source: Source) -> Headers:
    """Return the header of Dagster+ for a token; a name and password are those of a proxy before an open Dagster."""
    if source.username is not None:
        return authorization(source)
    token = source.token()
    return {} if token is None else {"Dagster-Cloud-Api-Token": token}


def _member(data: Mapping[str, Any], field: str, kind: str) -> Mapping[str, Any]:
    """Return the member of a union that is no error."""
    found = reading.object_at(data, field)
    if found.get("__typename") != kind:
        name = reading.text_at(found, "__typename") or "nothing"
        raise SourceError("refused", f"Dagster answers {field} with {_excerpt(name)}: {_said(data, field)}")
    return found


def _said(value: Mapping[str, Any], field: str) -> str:
    return _excerpt(reading.text_at(value, field, "message") or "no reason given")


def _excerpt(text: str) -> str:
    return redaction.redact_text(" ".join(text.split())[: 4 * EXCERPT_CHARS])[:EXCERPT_CHARS]


def _has_ended(run: Payload) -> bool:
    return mapping.WORDS.get(reading.text_at(run, "status") or "") in TERMINAL


def _batches(runs: Sequence[Payload], is_wanted: Callable[[Payload], bool]) -> Iterator[list[str]]:
    """Yield the ids of the runs that are wanted, some at a time."""
    ids = [run_id for run in runs if is_wanted(run) and (run_id := reading.text_at(run, "runId")) is not None]
    for start in range(0, len(ids), DETAIL_RUNS):
        yield ids[start : start + DETAIL_RUNS]


def _last(runs: Sequence[Payload]) -> tuple[str, float | None] | None:
    """Return the id and the creation time of the last run of a page."""
    for run in reversed(runs):
        run_id, created = reading.text_at(run, "runId"), run.get("creationTime")
        if run_id is not None:
            return run_id, created if isinstance(created, float) and math.isfinite(created) else None
    return None


def _parse(position: str | None) -> tuple[str | None, float | None]:
    cursor, _, created = (position or "").rpartition("@")
    try:
        return cursor or None, float(created)
    except ValueError:
        return cursor or None, None
