"""Which requests a rest source makes: lists, single runs, logging in. What a run says is ``mapping.py``'s business.

Made by ``connect`` (the registry calls it), driven as ``connectors/contract.py`` says. Rule not to break: a credential
goes into a header or into the token request, never into a path, a query or a message
(``tests/connectors/rest/test_api.py``).
"""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import quote

from headway.connectors.contract import Check, Connector, HeldRun, OddPayloadError, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.http import Answer, Headers, Http
from headway.connectors.rest import login, mapping
from headway.connectors.rest.expressions import fill
from headway.connectors.rest.paging import Fetched, walk
from headway.connectors.rest.parts import Listing
from headway.connectors.rest.source import RestSource
from headway.core import clock, reading, redaction, validation

READ_AT_ONCE = 20
# So long names count as known, as pipelines are renamed; and so often they are asked for because of a new pipeline.
NAMES_LAST, NAMES_SOUGHT = timedelta(hours=1), timedelta(minutes=5)
MOST_PIPELINES = 1000
# Ids that would make another path of the one they stand in.
DOTS = frozenset({".", ".."})
# How much of the list a check looks at where the vendor has no list of pipelines that we know of.
CHECKED_PAGES = 5


def connect(source: RestSource, stop: threading.Event) -> Connector:
    """Return the connector of a source; whether it is windowed depends on its configuration."""
    kind = WindowedRestApi if source.window_list.asks_for("until") else RestApi
    return kind(source, stop)


class RestApi:
    """Reads a vendor whose history is one list, resumed by position."""

    is_windowed: ClassVar[bool] = False

    def __init__(self, source: RestSource, stop: threading.Event) -> None:
        self._source = source
        self.http = Http(source, stop=stop, authorize=self._login, renews_on=source.auth.renews_on)
        self._names: dict[str, str] = {}
        self._names_at: datetime | None = None

    def _login(self) -> Headers:
        return login.headers_for(self._source, self.http)

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield the runs of every list that is to be asked for changes."""
        for listing in self._source.changed_lists:
            for parameters in self._source.parameter_sets:
                for fetched in self._walk(listing, parameters, since, clock.now()):
                    yield Page(fetched.items)

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield the runs of a window, or of all the time since where the vendor has no filter."""
        sets = self._source.parameter_sets
        first, _, within = (position or "").partition(":")
        start = int(first) if first.isascii() and first.isdigit() and int(first[:9]) < len(sets) else 0
        for number, parameters in itertools.islice(enumerate(sets), start, None):
            resumed = within if number == start and not self.is_windowed else ""
            for fetched in self._resumed(parameters, since, until, resumed):
                place = None if self.is_windowed or fetched.position is None else f"{number}:{fetched.position}"
                yield Page(fetched.items, place, fetched.total if len(sets) == 1 else None)

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs as they are now; nothing where the vendor has no way to ask for one."""
        if self._source.get is None:
            return
        for start in range(0, len(held), READ_AT_ONCE):
            found, gone = list[Payload](), list[HeldRun]()
            for run in held[start : start + READ_AT_ONCE]:
                if run.external_run_id in DOTS:
                    continue
                item = self._read(run.external_run_id, run.pipeline_external_id, {})
                if item is None:
                    gone.append(run)
                else:
                    found.append(item)
            yield Page(self._named(found), gone=gone)

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says."""
        return mapping.map_run(payload, self._source, now=now)

    def check(self) -> Check:
        """Ask for the latest runs and the pipelines, and tell what the configuration does not fit."""
        notes: list[str] = []
        now = clock.now()
        listing = self._source.changed_lists[0]
        names: dict[str, str] = {}
        for parameters in self._source.parameter_sets[:MOST_PIPELINES]:
            pages = itertools.islice(self._walk(listing, parameters, now - self._source.since, now), CHECKED_PAGES)
            items = [item for page in pages for item in page.items]
            names.update(self._pipelines_of(items))
            notes += self._flaws(items, now)
        if self._source.pipelines is None:
            notes.append("the pipelines named are those of the latest runs: pipelines is not configured")
        else:
            try:
                names.update(self._load_names())
            except SourceError as error:
                notes.append(f"the pipelines cannot be listed, those named are of the latest runs: {error.detail}")
        taken = sorted({name for key, name in names.items() if self._source.takes(name, key)})
        return Check(self._source.product or self._source.vendor, taken[:MOST_PIPELINES], list(dict.fromkeys(notes)))

    def _flaws(self, items: Sequence[Payload], now: datetime) -> Iterator[str]:
        """Yield what the mapping cannot make of these runs."""
        odd, words = 0, set[str]()
        for item in items:
            try:
                report = self.report(item, now=now)
            except OddPayloadError:
                odd += 1
            else:
                if report is not None and report.is_unknown_word:
                    words.add(report.observation.status_reason or "(none)")
        if odd:
            yield f"{odd} of the latest {len(items)} runs cannot be used: check fields.external_run_id and pipeline_id"
        if words:
            listed = ", ".join(sorted(redaction.redact_text(word[:50]) for word in words)[:10])
            yield f"statuses does not know these words: {listed}"

    def _pipelines_of(self, items: Sequence[Payload]) -> Iterator[tuple[str, str]]:
        for item in items:
            try:
                yield mapping.pipeline_of(item, self._source.fields)
            except OddPayloadError:
                continue

    def _resumed(
        self, parameters: Mapping[str, str], since: datetime, until: datetime, position: str
    ) -> Iterator[Fetched]:
        """Walk from a position on, from the beginning where the vendor no longer knows it: cursors expire."""
        listing = self._source.window_list
        pages = self._walk(listing, parameters, since, until, position or None)
        try:
            first = next(pages, None)
        except SourceError as error:
            if not position or error.code not in {"refused", "not_found"}:
                raise
            pages = self._walk(listing, parameters, since, until)
            first = next(pages, None)
        if first is not None:
            yield first
            yield from pages

    def _walk(
        self,
        listing: Listing,
        parameters: Mapping[str, str],
        since: datetime,
        until: datetime,
        position: str | None = None,
    ) -> Iterator[Fetched]:
        """Walk one list, in pieces where the vendor allows no window as long as this one."""
        for start, end in _pieces(since, until, listing.longest_window if listing.asks_for("until") else None):
            for fetched in self._pages(listing, parameters, start, end, position):
                items = fetched.items
                if len(self._source.parameter_sets) > 1:
                    items = [{**item, mapping.PARAMETERS: dict(parameters)} for item in items]
                if listing.detail:
                    items = self._detailed(items, parameters)
                yield fetched._replace(items=self._named(items))

    def _pages(
        self,
        listing: Listing,
        parameters: Mapping[str, str],
        since: datetime | None,
        until: datetime | None,
        position: str | None = None,
    ) -> Iterator[Fetched]:
        fields = self._source.fields
        latest = clock.now() + validation.FUTURE
        times = {
            "since": "" if since is None else _written(since, listing.time_format, up=False),
            "until": "" if until is None else _written(until, listing.time_format, up=True),
        }
        values = {**parameters, **times}
        query = {name: fill(template, values) for name, template in listing.query.items()}
        return walk(
            self._ask,
            listing,
            fill(listing.path, values, _quoted),
            {name: value for name, value in query.items() if value},
            identify=lambda item: mapping.run_id_of(item, fields),
            time_of=lambda found: mapping.time_of(found, fields.time_format, latest),
            since=since,
            position=position,
        )

    def _ask(self, path: str, query: Mapping[str, str] | None, *, missing_ok: bool = False) -> Answer:
        headers = {name: fill(value, self._source.parameter_sets[0]) for name, value in self._source.headers.items()}
        return self.http.get(path, query, headers=headers, missing_ok=missing_ok)

    def _detailed(self, items: Sequence[Payload], parameters: Mapping[str, str]) -> list[Payload]:
        """Return the runs as they are told one by one; one that is gone meanwhile is left out."""
        detailed: list[Payload] = []
        for item in items:
            run_id = mapping.run_id_of(item, self._source.fields)
            if run_id is None or run_id in DOTS:
                detailed.append(item)
                continue
            found = self._read(run_id, "", parameters)
            if found is not None:
                detailed.append({**item, **found})
        return detailed

    def _read(self, run_id: str, pipeline_id: str, parameters: Mapping[str, str]) -> Payload | None:
        """Return one run as it is now, None where the vendor says that there is none of this id."""
        get = self._source.get
        if get is None:
            raise SourceError("bad_configuration", "get is not configured")
        run = {"run_id": run_id, "pipeline_id": pipeline_id}
        values = {**self._source.parameter_sets[0], **parameters, **run}
        quoted = {name: quote(value, safe="" if name in run else "/") for name, value in values.items()}
        path = fill(get.path, quoted)
        query = {name: fill(template, values) for name, template in get.query.items()}
        try:
            answer = self._ask(path, {name: value for name, value in query.items() if value}, missing_ok=True)
        except SourceError as error:
            if get.gone and error.code == "refused" and get.gone in error.detail:
                return None
            raise
        if answer.status in {404, 410}:
            return None
        item = get.item.find(answer.data)
        if not isinstance(item, dict):
            raise SourceError("bad_answer", f"GET {path[:300]}: no run is found in the answer; check get.item")
        return item

    def _named(self, items: Sequence[Payload]) -> list[Payload]:
        """Return the runs with the names of their pipelines, where those stand elsewhere."""
        source = self._source
        if source.pipelines is None or not source.pipelines.names_runs:
            return list(items)
        fields, named = source.fields, list[Payload]()
        for item in items:
            own_name = None if fields.pipeline_name is None else fields.pipeline_name.find(item)
            key = None if fields.pipeline_id is None else fields.pipeline_id.find(item)
            name = None if own_name else self._name_of(reading.id_at({"": key}, ""))
            named.append(item if name is None else {**item, mapping.PIPELINE_NAME: name})
        return named

    def _name_of(self, pipeline_id: str | None) -> str | None:
        if pipeline_id is None:
            return None
        now = clock.now()
        last = NAMES_LAST if pipeline_id in self._names else NAMES_SOUGHT
        if self._names_at is None or now - self._names_at > last:
            self._names_at = now
            try:
                self._names = self._load_names()
            except SourceError as error:
                # Runs matter more than names: who may not list pipelines still sees the runs.
                if error.code not in {"forbidden", "not_found", "refused"}:
                    raise
        return self._names.get(pipeline_id)

    def _load_names(self) -> dict[str, str]:
        """Return the names of the vendor's pipelines by their ids."""
        listing = self._source.pipelines
        names: dict[str, str] = {}
        if listing is None or listing.id is None:
            return names
        for parameters in self._source.parameter_sets:
            for page in self._pages(listing, parameters, None, None):
                for item in page.items:
                    key = reading.id_at({"": listing.id.find(item)}, "")
                    name = None if listing.name is None else reading.id_at({"": listing.name.find(item)}, "")
                    if key is not None:
                        names[key] = name or key
        return names


class WindowedRestApi(RestApi):
    """Reads a vendor whose lists can be asked for a window of time."""

    is_windowed: ClassVar[bool] = True


def _pieces(since: datetime, until: datetime, longest: timedelta | None) -> Iterator[tuple[datetime, datetime]]:
    start = since
    while longest is not None and until - start > longest:
        yield start, start + longest
        start += longest
    yield start, until


def _written(time: datetime, written: str, *, up: bool) -> str:
    """Return a time as a vendor takes it, in whole seconds (or milliseconds) that leave nothing out."""
    unit = timedelta(milliseconds=1) if written == "epoch_ms" else timedelta(seconds=1)
    whole, rest = divmod(time - clock.EPOCH, unit)
    count = whole + (1 if up and rest else 0)
    return str(count) if written != "iso" else validation.format_time((clock.EPOCH + count * unit).astimezone(UTC))


def _quoted(value: str) -> str:
    return quote(value, safe="/")  # a parameter may be a part of the path, such as api/v1
