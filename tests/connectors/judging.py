"""What the contract suite judges connectors with: a platform on stage, walks over it, and what may be stored.

Used by ``tests/contract/test_connectors.py`` alone. A connector is driven as ``connectors/syncing.py`` drives it: pages
one by one, each payload through ``report``.
"""

import itertools
import json
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self

from headway.connectors import registry
from headway.connectors.contract import Connector, HeldRun, OddPayloadError, Page, Report
from headway.connectors.errors import SourceError
from headway.core import clock, validation
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import PAYLOAD_BYTES, RunObservation, Status
from tests.connectors.platform import Asked, FakePlatform, Reply
from tests.connectors.subject import FakeRuns, Subject

MOST_PAGES = 300
MOST_PAGE_RUNS = 1000
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def whole_now() -> datetime:
    """Return the current second: some platforms know no fractions."""
    return clock.now().replace(microsecond=0)


def connect(subject: Subject, source: Any, stop: threading.Event | None = None) -> Connector:
    """Return a connector as the service makes one; a subject may bring a maker of its own."""
    own = getattr(subject, "connect", None)
    maker = own or registry.CONNECTORS[subject.platform].connect
    made: Connector = maker(source, stop or threading.Event())
    return made


class Expected(NamedTuple):
    """A run that was put on the platform."""

    status: Status
    started_at: datetime | None
    finished_at: datetime | None


@dataclass
class Seen:
    """What a walk told."""

    reports: dict[str, list[Report]] = field(default_factory=dict)
    gone: list[HeldRun] = field(default_factory=list)
    odd: int = 0
    sizes: list[int] = field(default_factory=list)

    def last(self, run: str) -> RunObservation:
        assert run in self.reports, f"{run} was not reported"
        return self.reports[run][-1].observation

    def ranks(self) -> dict[str, set[bytes]]:
        return {run: {report.observation.rank for report in reports} for run, reports in self.reports.items()}


class Stage:
    """One platform with a connector's subject, while a test runs."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.platform: FakeRuns = subject.serve()
        self.now = whole_now()
        self.source = subject.source(self.platform.url)
        self._made: list[Connector] = []

    def __enter__(self) -> Self:
        self.platform.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for connector in self._made:
            connector.http.close()
        self.platform.__exit__()

    @property
    def asked(self) -> list[Asked]:
        return self.platform.asked

    def connect(self, stop: threading.Event | None = None, url: str | None = None, **more: Any) -> Connector:
        made = connect(self.subject, self.subject.source(url or self.platform.url, **more), stop)
        self._made.append(made)
        return made

    def add(
        self, word: str, created_at: datetime, *, pipeline: str = "etl-0", ends: bool | None = None, starts: bool = True
    ) -> str:
        """Put a run on the platform: it starts two seconds after its creation and ends ten later, where it ends."""
        live = (self.subject.running, self.subject.queued)
        ends = word not in live if ends is None else ends
        started_at = created_at + 2 * SECOND if starts and word != self.subject.queued else None
        finished_at = created_at + 12 * SECOND if ends else None
        with self.platform.lock:
            return self.platform.add(
                pipeline=pipeline,
                word=word,
                created_at=created_at,
                started_at=started_at,
                finished_at=finished_at,
                updated_at=finished_at or started_at or created_at,
            )

    def fill(
        self,
        count: int,
        *,
        since: datetime | None = None,
        pipelines: int = 7,
        spacing: timedelta = 20 * SECOND,
        live: bool = True,
    ) -> dict[str, Expected]:
        """Put many runs on the platform, a few of them live; oldest first."""
        since = self.now - 3 * HOUR if since is None else since
        subject = self.subject
        made = {}
        for number in range(count):
            word = subject.failed if number % 5 == 3 else subject.success
            if live and number % 25 in {10, 20}:
                word = subject.running if number % 25 == 10 else subject.queued
            created_at = since + number * spacing
            run = self.add(word, created_at, pipeline=f"etl-{number % pipelines}")
            status = subject.words[word]
            made[run] = Expected(
                status,
                None if status is Status.QUEUED else created_at + 2 * SECOND,
                created_at + 12 * SECOND if word in {subject.success, subject.failed} else None,
            )
        return made

    def finish(self, run: str, at: datetime, *, started_at: datetime) -> None:
        """Let a run end well."""
        with self.platform.lock:
            self.platform.change(run, word=self.subject.success, started_at=started_at, finished_at=at, updated_at=at)

    def walk(self, connector: Connector, pages: Iterable[Page], *, now: datetime | None = None) -> Seen:
        """Take a walk to its end, as far as one may be long."""
        seen = Seen()
        for page in itertools.islice(pages, MOST_PAGES + 1):
            self.take(connector, page, seen, now=now)
        assert len(seen.sizes) <= MOST_PAGES, "the walk does not end"
        return seen

    def take(self, connector: Connector, page: Page, seen: Seen, *, now: datetime | None = None) -> None:
        assert len(page.runs) <= MOST_PAGE_RUNS
        assert page.position is None or isinstance(page.position, str)
        seen.sizes.append(len(page.runs))
        seen.gone += page.gone
        for payload in page.runs:
            try:
                report = connector.report(payload, now=now or clock.now())
            except OddPayloadError:
                seen.odd += 1
                continue
            if report is not None:
                assert_storable(report, now or clock.now())
                assert report.observation.source == self.source.name  # what the runs of a source are found by
                seen.reports.setdefault(report.observation.external_run_id, []).append(report)

    def changed(self, since: datetime, connector: Connector | None = None) -> Seen:
        connector = connector or self.connect()
        return self.walk(connector, connector.changed(since))

    def window(
        self, since: datetime, until: datetime, position: str | None = None, connector: Connector | None = None
    ) -> Seen:
        connector = connector or self.connect()
        return self.walk(connector, connector.window(since, until, position))

    def held(self, runs: Iterable[str], seen: Seen) -> list[HeldRun]:
        """Return runs as the service holds them once it has stored what was seen."""
        return [HeldRun(external_id(seen.last(run)), run, max(seen.last(run).attempt, 1)) for run in runs]

    def secrets(self) -> set[str]:
        """Return what must not be seen: what is configured, and what was sent to prove who we are."""
        found = {self.source.token() or "", self.source.password() or ""}
        for asked in self.asked:
            for name, value in asked.headers.items():
                if name.lower() == "authorization" or "token" in name.lower():
                    found |= {value, value.rpartition(" ")[2]}
        return {secret for secret in found if len(secret) > 3}


def external_id(observation: RunObservation) -> str:
    """Return by what a pipeline is known."""
    assert isinstance(observation.pipeline, PipelineRef)
    assert observation.pipeline.external_id is not None
    return observation.pipeline.external_id


def assert_expected(seen: Seen, expected: dict[str, Expected]) -> None:
    """Check that a walk told of all these runs, and told it right."""
    missed = expected.keys() - seen.reports.keys()
    assert not missed, f"{len(missed)} of {len(expected)} runs were missed"
    for run, (status, started_at, finished_at) in expected.items():
        told = seen.last(run)
        assert (told.status, told.finished_at) == (status, finished_at)
        if started_at is not None:
            assert told.started_at == started_at
        assert all(not report.is_unknown_word for report in seen.reports[run])


def assert_storable(report: Report, now: datetime) -> None:
    """Check that the one writer and PostgreSQL take what a connector says."""
    told = report.observation
    ref = told.pipeline
    assert isinstance(ref, PipelineRef)
    texts = (*ref, told.external_run_id, told.error_message, told.status_reason, told.url, told.source, told.payload)
    for text in texts:
        assert text is None or validation.check_json(text) == []
    for name in (ref.name, ref.external_id, told.external_run_id):
        assert name is not None
        assert 1 <= len(name) <= 512
    assert told.source
    assert 0 <= told.attempt < 2**31
    assert told.rows_processed is None or 0 <= told.rows_processed <= validation.INT64_MAX
    assert told.url is None or (validation.is_http_url(told.url) and len(told.url) <= 4096)
    for time, latest in (
        (told.observed_at, now + DAY),
        (told.started_at, now + DAY),
        (told.finished_at, now + DAY),
        (told.scheduled_for, now + 366 * DAY),
    ):
        assert time is None or clock.EPOCH <= time <= latest
    if told.payload is not None:
        assert len(told.payload.encode()) <= PAYLOAD_BYTES
        assert validation.check_json(json.loads(told.payload)) == []


def assert_silent(error: SourceError, secrets: set[str]) -> None:
    """Check that an error, with all that led to it, tells no credential."""
    told = "".join(traceback.format_exception(error)) + repr(vars(error))
    for secret in secrets:
        assert secret not in told
    assert error.code
    assert error.detail
    assert len(error.detail) < 1500


def paths(value: Any, *here: str | int, deep: bool = False) -> Iterator[tuple[str | int, ...]]:
    """Yield the places in a JSON value; ``deep``: in all of it, else down to the first item of each list."""
    if here:
        yield here
    if isinstance(value, dict):
        for key, child in value.items():
            yield from paths(child, *here, key, deep=deep)
    elif isinstance(value, list):
        for index, child in enumerate(value if deep else value[:1]):
            yield from paths(child, *here, index, deep=deep)


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """Return a JSON value with another one in a place; ``...`` takes the place away."""
    copy: Any = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if new is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return copy


class Elsewhere(FakePlatform):
    """Another host: nobody has any business here."""

    def answer(self, asked: Asked) -> Reply:  # noqa: ARG002 - whatever it is asked
        return Reply(document={"runs": []})

    def is_listing(self, asked: Asked) -> bool:  # noqa: ARG002
        return False
