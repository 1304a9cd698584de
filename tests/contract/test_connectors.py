"""The contract of pull connectors, judged over real sockets: one suite for all of them.

A new connector takes part with its line in ``tests/connectors/subjects.py``. It must lose no run, whatever moves while
it pages; name none as gone that may be there; turn whatever a platform does to it into a ``SourceError`` that tells no
credential; take its credential nowhere else; and say of each run only what can be stored. ``tests/connectors/example``
is judged as well, so the suite itself is known to pass for what is right.
"""

import functools
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.connectors import http, registry
from headway.connectors.contract import Check, Connector, HeldRun, OddPayloadError, Page
from headway.connectors.errors import SourceError, StoppedError
from headway.runs.observation import OPEN_ATTEMPT, TERMINAL, Status
from tests.connectors.example.subject import ExampleSubject
from tests.connectors.judging import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Elsewhere,
    Seen,
    Stage,
    assert_expected,
    assert_silent,
    assert_storable,
    connect,
    external_id,
    paths,
    replaced,
)
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import Subject
from tests.connectors.subjects import SUBJECTS

JUDGED: tuple[Subject, ...] = (ExampleSubject(), *SUBJECTS)
UNKNOWN_WORD = "zz_brand_new"
OVERLAP = 5 * MINUTE


def label(subject: Subject) -> str:
    """Return what a subject goes by: its platform, with its own name where several share one."""
    others = [other for other in JUDGED if other.platform == subject.platform]
    name = type(subject).__name__.removesuffix("Subject").lower()
    return subject.platform if len(others) == 1 else f"{subject.platform}-{name}"


each_subject = pytest.mark.parametrize("subject", JUDGED, ids=label)


@pytest.fixture(params=JUDGED, ids=label)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return a running platform with a subject's connector."""
    with Stage(request.param) as made:
        yield made


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pauses between tries; the tries remain."""
    monkeypatch.setattr(http, "_pause", lambda _: 0.0)
    monkeypatch.setattr(http, "ANSWER_BYTES", 1024 * 1024)


def test_every_platform_of_the_registry_is_judged() -> None:
    assert {subject.platform for subject in SUBJECTS} == registry.CONNECTORS.keys()


# Nothing is lost.


def test_changed_reports_every_run_on_every_page(stage: Stage) -> None:
    expected = stage.fill(450)
    seen = stage.changed(stage.now - 6 * HOUR)
    assert_expected(seen, expected)
    assert seen.reports.keys() == expected.keys()
    assert seen.odd == 0
    assert len({external_id(seen.last(run)) for run in expected}) == 7


def test_window_reports_every_run_on_every_page(stage: Stage) -> None:
    expected = stage.fill(450, live=False)
    seen = stage.window(stage.now - 6 * HOUR, stage.now + MINUTE)
    assert_expected(seen, expected)
    assert seen.odd == 0


def test_empty_platform_has_no_runs(stage: Stage) -> None:
    connector = stage.connect()
    assert not stage.changed(stage.now - DAY, connector).reports
    assert not stage.window(stage.now - DAY, stage.now, connector=connector).reports
    assert not stage.walk(connector, connector.reread([])).reports


@pytest.mark.parametrize("kind", ["changed", "window"])
def test_rows_that_move_between_pages_are_seen_in_the_end(stage: Stage, kind: str) -> None:
    expected = stage.fill(350)
    finished = [run for run, what in expected.items() if what.status is Status.SUCCESS]
    running = {run: what for run, what in expected.items() if what.status is Status.RUNNING}
    deleted: set[str] = set()
    added: set[str] = set()
    now_done = {}
    turns = iter(range(8))

    def stir(_: Asked) -> None:
        if next(turns, None) is None:
            return
        for run in (finished.pop(), finished.pop(0)):
            stage.platform.delete(run)
            deleted.add(run)
        run, what = running.popitem()
        assert what.started_at is not None
        stage.finish(run, stage.now, started_at=what.started_at)
        now_done[run] = what._replace(status=Status.SUCCESS, finished_at=stage.now)
        added.update(
            stage.add(word, stage.now - 12 * SECOND) for word in (stage.subject.success, stage.subject.running)
        )

    stage.platform.between = stir
    if kind == "changed":
        first = stage.changed(stage.now - 6 * HOUR)
    else:
        first = stage.window(stage.now - 6 * HOUR, stage.now + MINUTE)
    stage.platform.between = None
    second = stage.changed(stage.now - OVERLAP)
    assert deleted, "the platform says of no request that it is a listing"
    both = Seen(
        {run: first.reports.get(run, []) + second.reports.get(run, []) for run in {*first.reports, *second.reports}}
    )
    assert_expected(both, {run: what for run, what in {**expected, **now_done}.items() if run not in deleted})
    assert added <= both.reports.keys()


def test_window_finds_its_time_and_does_not_read_what_lies_far_outside(stage: Stage) -> None:
    stage.fill(150, since=stage.now - 20 * DAY, live=False)
    expected = stage.fill(150, since=stage.now - 10 * DAY, live=False)
    stage.fill(150, since=stage.now - 2 * DAY, live=False)
    connector = stage.connect()
    seen = stage.window(stage.now - 10 * DAY - MINUTE, stage.now - 9 * DAY, connector=connector)
    assert_expected(seen, expected)
    if connector.is_windowed:
        assert sum(seen.sizes) <= len(expected)


def test_two_windows_that_touch_lose_nothing_between_them(stage: Stage) -> None:
    expected = stage.fill(60, since=stage.now - 3 * DAY, live=False, spacing=SECOND)
    border = stage.now - 3 * DAY + 30 * SECOND
    one = stage.window(border - DAY, border)
    two = stage.window(border, border + DAY)
    assert expected.keys() <= one.reports.keys() | two.reports.keys()


def test_walk_resumed_from_any_position_loses_nothing(stage: Stage) -> None:
    expected = stage.fill(450, live=False)
    since, until = stage.now - 6 * HOUR, stage.now + MINUTE
    pages = list(stage.connect().window(since, until, None))
    had = Seen()
    resumed = {0, 1, len(pages) // 2, len(pages) - 2}
    for number, page in enumerate(pages):
        stage.take(stage.connect(), page, had)
        if page.position is not None and number in resumed:
            rest = stage.window(since, until, page.position)
            assert expected.keys() <= had.reports.keys() | rest.reports.keys()
    if not stage.connect().is_windowed:
        assert any(page.position is not None for page in pages[:-1]), "a walk over everything can be resumed"


def test_live_runs_are_among_changed_however_old_they_are(stage: Stage) -> None:
    stage.fill(150, since=stage.now - 5 * DAY, live=False)
    live = {stage.add(word, stage.now - 4 * DAY) for word in (stage.subject.running, stage.subject.queued) * 3}
    seen = stage.changed(stage.now - OVERLAP)
    assert live <= seen.reports.keys()


def test_what_changed_at_the_very_beginning_is_among_changed(stage: Stage) -> None:
    since = stage.now - OVERLAP
    runs = {stage.add(stage.subject.success, since + number * SECOND - 12 * SECOND) for number in range(5)}
    assert runs <= stage.changed(since).reports.keys()


def test_run_that_is_opened_again_is_reported_in_each_state(stage: Stage) -> None:
    if not getattr(stage.subject, "reopens", True):
        pytest.skip("on this platform a run that has ended stays so")
    connector = stage.connect()
    created = stage.now - 50 * MINUTE
    run = stage.add(stage.subject.failed, created)
    first = stage.changed(stage.now - HOUR, connector).last(run)
    again = stage.now - 2 * MINUTE
    with stage.platform.lock:
        stage.platform.change(run, word=stage.subject.running, started_at=again, finished_at=None, updated_at=again)
    second = stage.changed(stage.now - OVERLAP, connector).last(run)
    stage.finish(run, stage.now, started_at=again)
    third = stage.changed(stage.now - OVERLAP, connector).last(run)
    assert [first.status, second.status, third.status] == [Status.FAILED, Status.RUNNING, Status.SUCCESS]
    assert [second.finished_at, third.finished_at] == [None, stage.now]
    # Either the platform counts, and the second attempt outranks the first, or the one writer numbers it by its start.
    if second.attempt == OPEN_ATTEMPT:
        assert first.attempt == third.attempt == OPEN_ATTEMPT
        assert second.started_at == third.started_at == again
    else:
        assert first.attempt < second.attempt == third.attempt
        assert first.rank < second.rank < third.rank


def test_reread_tells_runs_as_they_are_now_and_names_those_that_are_gone(stage: Stage) -> None:
    connector = stage.connect()
    runs = [stage.add(stage.subject.running, stage.now - HOUR, pipeline=f"etl-{n % 3}") for n in range(24)]
    held = stage.held(runs, stage.changed(stage.now - DAY, connector))
    deleted, ended = set(runs[:5]), set(runs[5:10])
    with stage.platform.lock:
        for run in deleted:
            stage.platform.delete(run)
    for run in ended:
        stage.finish(run, stage.now, started_at=stage.now - HOUR + 2 * SECOND)
    seen = stage.walk(connector, connector.reread(held))
    assert {run.external_run_id for run in seen.gone} == deleted
    assert set(seen.gone) <= set(held)
    assert seen.reports.keys() == set(runs) - deleted
    for run in set(runs) - deleted:
        assert seen.last(run).status == (Status.SUCCESS if run in ended else Status.RUNNING)


def test_reread_of_two_hundred_runs_loses_none(stage: Stage) -> None:
    connector = stage.connect()
    runs = [stage.add(stage.subject.running, stage.now - HOUR) for _ in range(200)]
    held = stage.held(runs, stage.changed(stage.now - DAY, connector))
    seen = stage.walk(connector, connector.reread(held))
    assert seen.reports.keys() == set(runs)
    assert not seen.gone


def test_second_walk_over_unchanged_runs_says_the_same(stage: Stage) -> None:
    stage.fill(120)
    first, second = stage.connect(), stage.connect()
    before = stage.walk(first, first.changed(stage.now - 6 * HOUR))
    after = stage.walk(second, second.changed(stage.now - 6 * HOUR), now=stage.now + 2 * HOUR)
    assert before.ranks() == after.ranks()
    assert all(len(ranks) == 1 for ranks in before.ranks().values())


def test_only_pipelines_that_are_included_are_reported(stage: Stage) -> None:
    expected = stage.fill(70, live=False)
    seen = stage.changed(stage.now - DAY, stage.connect(include=["*etl-1*", "*etl-2*"], exclude=["*etl-2*"]))
    assert seen.reports.keys() == set(list(expected)[1::7])


# What a run says.


def test_every_word_maps_as_the_platform_means_it(stage: Stage) -> None:
    words = stage.subject.words
    runs = {
        word: stage.add(
            word, stage.now - HOUR + number * SECOND, ends=status in TERMINAL, starts=status is not Status.QUEUED
        )
        for number, (word, status) in enumerate(words.items())
    }
    seen = stage.changed(stage.now - DAY)
    assert {word: seen.last(run).status for word, run in runs.items()} == dict(words)
    assert [word for word, run in runs.items() if seen.reports[run][-1].is_unknown_word] == []


@pytest.mark.parametrize(("ends", "status"), [(False, Status.RUNNING), (True, Status.FAILED)])
def test_unknown_word_is_shown_and_kept(stage: Stage, ends: bool, status: Status) -> None:
    run = stage.add(UNKNOWN_WORD, stage.now - 10 * MINUTE, ends=ends)
    report = stage.changed(stage.now - HOUR).reports[run][-1]
    assert report.is_unknown_word
    assert report.observation.status is status
    assert UNKNOWN_WORD in (report.observation.status_reason or "")


def test_missing_times_are_no_trouble(stage: Stage) -> None:
    subject = stage.subject
    created = stage.now - 10 * MINUTE
    runs = {
        stage.add(word, created, ends=False, starts=False): subject.words[word]
        for word in (subject.queued, subject.running, subject.success, subject.failed)
    }
    seen = stage.changed(stage.now - HOUR)
    assert seen.odd == 0
    for run, status in runs.items():
        if run in seen.reports or status not in TERMINAL:
            assert (seen.last(run).status, seen.last(run).started_at, seen.last(run).finished_at) == (
                status,
                None,
                None,
            )


@pytest.mark.parametrize("subject", [s for s in JUDGED if hasattr(s, "plan")], ids=label)
def test_run_that_is_planned_for_later_is_not_reported(subject: Any) -> None:
    with Stage(subject) as stage:
        run = stage.add(subject.queued, stage.now - MINUTE)
        with stage.platform.lock:
            subject.plan(stage.platform, run, stage.now + 3 * HOUR)
        assert run not in stage.changed(stage.now - HOUR).reports
        with stage.platform.lock:
            subject.plan(stage.platform, run, stage.now - MINUTE)
        assert run in stage.changed(stage.now - HOUR).reports


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ODD_TIMES: tuple[Any, ...] = (
    None, ..., "", 0, -1, 1.5, True, 10**30, 1e300, 253402300800, [], {}, "now", "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999999999Z", "2026-11-22T10:00:00",
    "2026-11-22", "2026-11-22 10:00:00 UTC", "2026-11-22T10:00:00.123456789Z", "2026-11-22T10:00:00+05:30",
    "2099-01-01T00:00:00Z", 4_000_000_000, 4_000_000_000_000, 4e9, "4000000000",
    "2026-02-30T00:00:00Z", "2026-11-22T10:00:60Z", "1e400", "nan", "９", "\0", "\ud800", "-62135596800", "x" * 5000,
)  # fmt: skip


@functools.cache
def _idle(number: int) -> Connector:
    return connect(JUDGED[number], JUDGED[number].source("http://127.0.0.1:9"))


def idle(subject: Subject) -> Connector:
    """Return a connector that makes no requests: it is there for its mapping."""
    return _idle(JUDGED.index(subject))


def take(subject: Subject, payload: Any) -> None:
    """Check that a payload is refused in order, or says what can be stored."""
    try:
        report = idle(subject).report(payload, now=NOW)
    except OddPayloadError:
        return
    if report is not None:
        assert_storable(report, NOW)


@each_subject
def test_recorded_payloads_are_runs(subject: Subject) -> None:
    reports = [idle(subject).report(payload, now=NOW) for payload in subject.recorded()]
    assert any(reports)
    for report in reports:
        if report is not None:  # one of a plan
            assert_storable(report, NOW)
            assert not report.is_unknown_word


@each_subject
def test_odd_values_in_any_place_are_no_trouble(subject: Subject) -> None:
    for payload in subject.recorded()[:4]:
        for path in paths(json.loads(json.dumps(payload))):
            for value in ODD_TIMES:
                take(subject, replaced(payload, path, value))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = {"a": [value]}
    return value


HOSTILE = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [2**31, 2**63, 10**400, -(10**400), "", "\0", "a\0b", "\ud800", "\udfff\ud800", "x" * 600, "7" * 300]
    ),
    st.sampled_from(
        ["http://u:p@h/", "http://h/\0", "http://[", "javascript:alert(1)", "//h/", "http://h:99999/", "../..", "%00"]
    ),
    st.sampled_from(ODD_TIMES[:1] + ODD_TIMES[2:]),
    st.text(st.characters(), max_size=30),
    st.builds(nested, st.sampled_from([1, 30, 200])),
    st.recursive(
        st.none() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)


@each_subject
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_hostile_payload_is_odd_or_can_be_stored(subject: Subject, data: st.DataObject) -> None:
    payload: Any = data.draw(
        st.sampled_from([json.loads(json.dumps(one)) for one in subject.recorded()]), label="payload"
    )
    for _ in range(data.draw(st.integers(1, 3), label="mutations")):
        places = list(paths(payload, deep=True))
        if not places:
            break
        payload = replaced(
            payload, data.draw(st.sampled_from(places), label="place"), data.draw(HOSTILE | st.just(...), label="value")
        )
    take(subject, payload)


@each_subject
def test_payload_without_its_run_is_odd(subject: Subject) -> None:
    for payload in ({}, {"id": None}, {"zz": 1}):
        with pytest.raises(OddPayloadError):
            idle(subject).report(payload, now=NOW)


# Whatever a platform does to us.


class Operation:
    """Something that is asked of a connector; all of its pages are taken."""

    def __init__(self, name: str, stage: Stage) -> None:
        self.name, self.stage = name, stage
        self.gone: list[HeldRun] = []
        self.seen = Seen()
        self.check: Check | None = None
        self.held = [HeldRun("etl-0", "1", 1)]

    def run(self, connector: Connector) -> None:
        now = self.stage.now
        if self.name == "check":
            self.check = connector.check()
            return
        pages: dict[str, Callable[[], Iterator[Page]]] = {
            "changed": lambda: connector.changed(now - DAY),
            "window": lambda: connector.window(now - DAY, now + MINUTE, None),
            "reread": lambda: connector.reread(self.held),
        }
        for page in itertools.islice(pages[self.name](), 100):
            self.stage.take(connector, page, self.seen)


OPERATIONS = ("changed", "window", "reread", "check")


def troubled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, reply: Callable[[Asked], Reply]
) -> tuple[Operation, Connector, int]:
    """Let a connector work once, then let the platform answer whatever it is asked with a reply."""
    operation = Operation(name, stage)
    runs = [stage.add(stage.subject.running, stage.now - HOUR)]
    connector = stage.connect()
    operation.held = stage.held(runs, stage.changed(stage.now - DAY, connector))
    monkeypatch.setattr(stage.platform, "answer", reply)
    return operation, connector, len(stage.asked)


def echo(status: int, headers: Mapping[str, str] | None = None) -> Callable[[Asked], Reply]:
    """Answer with an error that repeats all that was sent: some servers do."""

    def reply(asked: Asked) -> Reply:
        said = {"error": " ".join(asked.headers.values()), "headers": dict(asked.headers), "body": repr(asked.body)}
        return Reply(status, {"message": said["error"], **said}, headers or {})

    return reply


def always(reply: Reply) -> Callable[[Asked], Reply]:
    return lambda _: reply


# What is done to us, the code that it must have (None: the connector's own), and how many requests it may cost.
TROUBLES: Mapping[str, tuple[Callable[[Asked], Reply], str | None, int]] = {
    "400": (echo(400), None, 4),
    "401": (echo(401), "unauthorized", 4),
    "403": (echo(403), None, 4),
    "404": (echo(404), None, 4),
    "418": (echo(418), None, 4),
    "429": (echo(429), "rate_limited", 4),
    "429-with-a-short-wait": (echo(429, {"Retry-After": "0"}), "rate_limited", 4),
    "429-with-a-long-wait": (echo(429, {"Retry-After": "3600"}), "rate_limited", 1),
    "500": (echo(500), "server_error", 4),
    "503-with-a-long-wait": (echo(503, {"Retry-After": "120"}), "server_error", 1),
    "silence": (always(Reply(document={}, delay_seconds=0.1)), "timeout", 4),
    "closed-mid-body": (always(Reply(document={"runs": []}, hang_up=3)), "unreachable", 4),
    "web-page": (always(Reply(body=b"<!doctype html><title>Sign in</title>")), "not_json", 1),
    "truncated": (always(Reply(body=b'{"runs": [{"id": 1}, {"id"')), "not_json", 1),
    "deep": (always(Reply(body=b"[" * 100_000)), "not_json", 1),
    "not-utf-8": (always(Reply(body=b'{"runs": "\xff\xfe"}')), "not_json", 1),
    "huge": (always(Reply(body=b'{"runs": [' + b" " * 1_200_000 + b"]}")), "answer_too_large", 1),
    "broken-gzip": (always(Reply(body=b"no gzip", headers={"Content-Encoding": "gzip"})), "bad_answer", 1),
}  # fmt: skip
RETRIED = frozenset({"429", "429-with-a-short-wait", "500", "silence", "closed-mid-body"})


def refused(stage: Stage, run: Callable[[], None], trouble: str) -> SourceError:
    """Return the error that a trouble becomes, which tells no credential."""
    with pytest.MonkeyPatch.context() as patch:
        if trouble == "silence":
            patch.setattr(http, "READ_SECONDS", 0.01)
        with pytest.raises(SourceError) as caught:
            run()
    assert_silent(caught.value, stage.secrets())
    return caught.value


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_trouble_becomes_a_source_error(stage: Stage, subtests: pytest.Subtests, name: str) -> None:
    for trouble, (reply, code, most) in TROUBLES.items():
        if (name, trouble) == ("reread", "404"):
            continue  # which says that the run is gone
        with subtests.test(trouble=trouble), pytest.MonkeyPatch.context() as patch:
            operation, connector, before = troubled(stage, patch, name, reply)
            error = refused(stage, functools.partial(operation.run, connector), trouble)
            assert code is None or error.code == code
            assert (2 if trouble in RETRIED else 1) <= len(stage.asked) - before <= most
            assert not operation.seen.gone
            if trouble.endswith("long-wait"):
                assert (error.retry_after_seconds or 0) >= 120
            stage.platform.delete(operation.held[0].external_run_id)


@pytest.mark.usefixtures("_hasty")
def test_trouble_at_the_first_request_becomes_a_source_error(stage: Stage, subtests: pytest.Subtests) -> None:
    for trouble, (reply, _, most) in TROUBLES.items():
        with subtests.test(trouble=trouble), pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage.platform, "answer", reply)
            before = len(stage.asked)
            refused(stage, functools.partial(Operation("changed", stage).run, stage.connect()), trouble)
            assert 1 <= len(stage.asked) - before <= most


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_platform_that_is_not_there_becomes_a_source_error(stage: Stage, name: str) -> None:
    operation = Operation(name, stage)
    run = stage.add(stage.subject.running, stage.now - HOUR)
    operation.held = stage.held([run], stage.changed(stage.now - DAY))
    with Elsewhere() as closed:
        url = closed.url
    with pytest.raises(SourceError) as caught:
        operation.run(stage.connect(url=url))
    assert caught.value.code == "unreachable"
    assert_silent(caught.value, stage.secrets())


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_failure_that_passes_is_tried_again(stage: Stage, name: str) -> None:
    connector = stage.connect()
    run = stage.add(stage.subject.running, stage.now - HOUR)
    operation = Operation(name, stage)
    operation.held = stage.held([run], stage.changed(stage.now - DAY, connector))
    stage.platform.trouble.extend([Reply(503), Reply(502)])
    operation.run(connector)
    assert not stage.platform.trouble
    assert name == "check" or run in operation.seen.reports


@pytest.mark.parametrize("name", OPERATIONS)
def test_stop_ends_tries_and_walks_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stop = threading.Event()
    connector = stage.connect(stop)
    run = stage.add(stage.subject.running, stage.now - HOUR)
    operation = Operation(name, stage)
    operation.held = stage.held([run], stage.changed(stage.now - DAY, connector))

    def last_words(_: Asked) -> Reply:
        stop.set()
        return Reply(503, headers={"Retry-After": "20"})

    monkeypatch.setattr(stage.platform, "answer", last_words)
    before = len(stage.asked)
    with pytest.raises(StoppedError):
        operation.run(connector)
    assert len(stage.asked) - before == 1
    with pytest.raises(StoppedError):
        operation.run(connector)
    assert len(stage.asked) - before == 1


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_redirect_is_not_followed(stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with Elsewhere() as elsewhere:
        host = elsewhere.url.removeprefix("http://")
        targets = itertools.cycle((f"http://{host}/api/runs", f"//{host}/", f"http://u:p@{host}/"))
        operation, connector, _ = troubled(stage, monkeypatch, name, stage.platform.answer)
        for status, target in zip((301, 302, 303, 307, 308), targets, strict=False):
            monkeypatch.setattr(stage.platform, "answer", always(Reply(status, headers={"Location": target})))
            before = len(stage.asked)
            with pytest.raises(SourceError) as caught:
                operation.run(connector)
            assert caught.value.code == "redirected"
            assert len(stage.asked) == before + 1
            assert_silent(caught.value, stage.secrets())
        assert elsewhere.asked == []


@pytest.mark.parametrize("subject", [s for s in JUDGED if s.follows_links], ids=label)
@pytest.mark.parametrize("shape", ["http://{evil}", "http://{good}@{evil}", "//{evil}", "https://{good}", "@{evil}"])
@pytest.mark.parametrize("name", ["changed", "window"])
def test_next_link_to_another_host_is_not_followed(
    subject: Subject, shape: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stage(subject) as stage, Elsewhere() as elsewhere:
        stage.fill(5)
        connector = stage.connect()
        answer = stage.platform.answer
        target = shape.format(good=stage.platform.url[7:], evil=elsewhere.url[7:])

        def with_link(asked: Asked) -> Reply:
            made = answer(asked)
            if not stage.platform.is_listing(asked) or len(stage.asked) > 40:
                return made
            return made._replace(headers={**made.headers, **subject.hostile_link(target)})

        monkeypatch.setattr(stage.platform, "answer", with_link)
        if shape == "@{evil}":  # relative to where it stood: the platform itself is asked, or it is refused
            monkeypatch.setattr(http, "_pause", lambda _: 0.0)
        with pytest.raises(SourceError) as caught:
            Operation(name, stage).run(connector)
        assert shape.startswith("@") or caught.value.code == "foreign_link"
        assert_silent(caught.value, stage.secrets())
        assert elsewhere.asked == []


GARBAGE: tuple[Any, ...] = (
    None,
    [],
    {},
    5,
    "text",
    True,
    [[]],
    [None],
    [5],
    {"data": None},
    {"error": "no"},
    {"zz": []},
)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_answer_of_the_wrong_shape_becomes_a_source_error(stage: Stage, subtests: pytest.Subtests, name: str) -> None:
    for garbage in GARBAGE:
        with subtests.test(garbage=garbage), pytest.MonkeyPatch.context() as patch:
            assert_taken_for_no_answer(stage, patch, name, garbage)


def assert_taken_for_no_answer(stage: Stage, patch: pytest.MonkeyPatch, name: str, garbage: Any) -> None:
    answer = stage.platform.answer
    kinds = set()

    def reply(asked: Asked) -> Reply:
        if name not in {"changed", "window"} or stage.platform.is_listing(asked):
            kinds.add(type(answer(asked).document))
        return Reply(document=garbage, body=json.dumps(garbage).encode())

    operation, connector, before = troubled(stage, patch, name, reply)
    try:
        operation.run(connector)
    except SourceError as error:
        assert_silent(error, stage.secrets())
    else:
        # An empty list may be the truth, and where pipelines are listed, a strange one is left out.
        is_list = isinstance(garbage, list) and list in kinds
        is_truth = is_list and (name == "check" or (garbage == [] and kinds == {list}))
        assert is_truth or operation.seen.odd, "what is no answer was taken for one"
    assert len(stage.asked) - before <= 10
    assert not operation.seen.gone
    assert not operation.seen.reports


WAYS = 40  # of those there are: others each time, the same for the same seed
WRONG: tuple[Any, ...] = (None, ..., 5, -1, "x", True, [], {}, [5], [None], {"zz": 1})


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", OPERATIONS)
def test_answer_with_something_wrong_anywhere_in_it_is_no_bug(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    answer = stage.platform.answer
    operation, connector, before = troubled(stage, monkeypatch, name, answer)
    operation.run(connector)
    sample = [answer(asked) for asked in stage.asked[before:]]
    ways = [
        (number, path, wrong)
        for number, made in enumerate(sample[:6])
        for path, wrong in itertools.product(paths(made.document), WRONG)
    ]
    for number, path, wrong in random.sample(ways, min(WAYS, len(ways))):
        turn = itertools.count()

        def reply(
            asked: Asked, number: int = number, path: tuple[str | int, ...] = path, wrong: Any = wrong,
            turn: Iterator[int] = turn,
        ) -> Reply:  # fmt: skip
            own = answer(asked)
            if next(turn) != number:
                return own
            try:
                return own._replace(document=replaced(own.document, path, wrong))
            except (KeyError, IndexError, TypeError):
                return own

        monkeypatch.setattr(stage.platform, "answer", reply)
        operation.seen = Seen()
        before = len(stage.asked)
        try:
            operation.run(connector)
        except SourceError as error:
            assert_silent(error, stage.secrets())
        assert not operation.seen.gone
        assert len(stage.asked) - before <= len(sample) + 30, "it asks and asks"


# What is sent, and how much.


def test_credential_stands_in_no_url_and_no_request_lacks_it(stage: Stage) -> None:
    runs = stage.fill(120)
    connector = stage.connect()
    connector.check()
    seen = stage.changed(stage.now - DAY, connector)
    stage.window(stage.now - DAY, stage.now, connector=connector)
    stage.walk(connector, connector.reread(stage.held(list(runs)[:3], seen)))
    secrets = stage.secrets()
    for asked in stage.asked:
        place = json.dumps([asked.path, asked.queries])
        assert not any(secret in place for secret in secrets)


def test_quiet_walk_over_a_thousand_pipelines_is_a_handful_of_requests(stage: Stage) -> None:
    for number in range(1000):
        stage.add(stage.subject.success, stage.now - 40 * DAY + number * MINUTE, pipeline=f"etl-{number}")
    connector = stage.connect()
    before = len(stage.asked)
    seen = stage.changed(stage.now - OVERLAP, connector)
    assert not seen.reports
    assert 1 <= len(stage.asked) - before <= getattr(stage.subject, "quiet_requests", 10)


def test_check_names_the_product_and_the_pipelines(stage: Stage) -> None:
    stage.fill(40)
    told = stage.connect().check()
    assert told.product
    for number in range(7):
        assert any(f"etl-{number}" in name for name in told.pipelines)
    assert isinstance(told.pipelines, Sequence)
    assert len(told.pipelines) <= 1000


def test_check_leaves_out_pipelines_that_are_not_included(stage: Stage) -> None:
    stage.fill(40)
    told = stage.connect(include=["*etl-3*"]).check()
    assert told.pipelines
    assert all("etl-3" in name for name in told.pipelines)


def test_nothing_is_asked_before_a_walk_begins(stage: Stage) -> None:
    connector = stage.connect()
    assert connector.http.requests == 0
    assert stage.asked == []


def test_requests_are_counted(stage: Stage) -> None:
    stage.fill(20)
    connector = stage.connect()
    stage.changed(stage.now - DAY, connector)
    assert connector.http.requests == len(stage.asked)
