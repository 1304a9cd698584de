"""Which requests GitLab is asked, what they cost, and that nothing is lost between them."""

import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from pydantic import ValidationError

from headway.connectors.contract import HeldRun, Page
from headway.connectors.errors import SourceError
from headway.connectors.gitlab_ci import api
from headway.connectors.gitlab_ci.api import GitlabCiApi, GitlabCiSource
from headway.core import clock
from headway.runs.observation import RunObservation, Status
from tests.connectors.gitlab_ci.subject import TOKEN, GitlabCiSubject, GitlabRuns
from tests.connectors.platform import Asked

SUBJECT = GitlabCiSubject()
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = clock.now().replace(microsecond=0)
LIST = "/api/v4/projects/501/pipelines"


@pytest.fixture
def gitlab() -> Iterator[GitlabRuns]:
    with GitlabRuns() as platform:
        platform.add_project("acme/orders")
        yield platform


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


# The engine keeps a connector from sync to sync; here they are kept by their stop event and their settings.
_KEPT: WeakKeyDictionary[threading.Event, dict[str, GitlabCiApi]] = WeakKeyDictionary()


def connected(gitlab: GitlabRuns, stop: threading.Event | None = None, **more: Any) -> GitlabCiApi:
    stop = stop or threading.Event()
    kept = _KEPT.setdefault(stop, {})
    if repr(more) not in kept:
        kept[repr(more)] = GitlabCiApi(SUBJECT.source(gitlab.url, **more), stop)
    return kept[repr(more)]


def add(gitlab: GitlabRuns, at: Any, word: str = "success", *, pipeline: str = "orders") -> str:
    is_live = word in {"running", "pending"}
    return gitlab.add(
        pipeline=pipeline,
        word=word,
        created_at=at - MINUTE,
        started_at=None if word == "pending" else at - MINUTE,
        finished_at=None if is_live else at,
        updated_at=at,
    )


def told(connector: GitlabCiApi, pages: Iterable[Page]) -> dict[str, RunObservation]:
    runs = {}
    for page in pages:
        for payload in page.runs:
            report = connector.report(payload, now=clock.now())
            if report is not None:
                runs[report.observation.external_run_id] = report.observation
    connector.http.close()
    return runs


def changed(gitlab: GitlabRuns, stop: threading.Event | None = None, **more: Any) -> dict[str, RunObservation]:
    connector = connected(gitlab, stop, **more)
    return told(connector, connector.changed(NOW - 5 * MINUTE))


def paths(asked: Iterable[Asked]) -> list[str]:
    return [request.path for request in asked]


def test_quiet_sync_is_one_request_a_project_and_says_what_the_first_said(
    gitlab: GitlabRuns, stop: threading.Event
) -> None:
    gitlab.add_project("acme/idle")
    failed, other = add(gitlab, NOW - MINUTE, "failed"), add(gitlab, NOW - 2 * MINUTE)
    add(gitlab, NOW - HOUR)
    first = changed(gitlab, stop)
    assert first.keys() == {failed, other}
    assert first[failed].error_message == "load (stage run): script failure"
    gitlab.asked.clear()
    assert changed(gitlab, stop) == first
    assert paths(gitlab.asked) == [LIST, "/api/v4/projects/502/pipelines"]


def test_changed_pipeline_is_asked_for_once_a_change(gitlab: GitlabRuns, stop: threading.Event) -> None:
    run = add(gitlab, NOW - 3 * MINUTE, "running")
    changed(gitlab, stop)
    gitlab.change(run, word="success", started_at=NOW - HOUR, finished_at=NOW, updated_at=NOW)
    gitlab.asked.clear()
    assert changed(gitlab, stop)[run].status is Status.SUCCESS
    assert paths(gitlab.asked) == [LIST, f"{LIST}/{run}"]


def test_retry_is_seen_however_old_the_pipeline(gitlab: GitlabRuns, stop: threading.Event) -> None:
    run = add(gitlab, NOW - 40 * DAY, "failed")
    assert changed(gitlab, stop) == {}
    gitlab.retry(run, NOW - MINUTE)
    seen = changed(gitlab, stop)[run]
    assert (seen.status, seen.started_at, seen.finished_at) == (Status.RUNNING, None, None)
    assert seen.observed_at == NOW - MINUTE


def test_live_pipelines_are_asked_for_once_an_hour(
    gitlab: GitlabRuns, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = {add(gitlab, NOW - 9 * DAY, "running"), add(gitlab, NOW - 9 * DAY, "pending")}
    assert changed(gitlab, stop).keys() == live
    assert changed(gitlab, stop) == {}
    later = clock.now() + HOUR
    monkeypatch.setattr(clock, "now", lambda: later)
    assert changed(gitlab, stop).keys() == live


def test_window_is_complete_where_a_moment_fills_pages(gitlab: GitlabRuns) -> None:
    inside = {add(gitlab, NOW - HOUR) for _ in range(250)}
    inside |= {add(gitlab, NOW - HOUR + number * SECOND) for number in range(1, 120)}
    connector = connected(gitlab)
    pages = list(connector.window(NOW - 2 * HOUR, NOW, None))
    assert sum(len(page.runs) for page in pages) == len(inside)
    assert told(connector, pages).keys() == inside


def test_window_goes_on_from_a_position_in_its_project(gitlab: GitlabRuns) -> None:
    first = [add(gitlab, NOW - HOUR + number * SECOND) for number in range(250)]
    second = add(gitlab, NOW - HOUR, pipeline="customers")
    connector = connected(gitlab)
    pages = list(connector.window(NOW - DAY, NOW, None))
    assert told(connector, pages).keys() == {*first, second}
    again = connected(gitlab)
    assert told(again, again.window(NOW - DAY, NOW, pages[1].position)).keys() == {*first[198:], second}
    last = connected(gitlab)
    assert second in told(last, last.window(NOW - DAY, NOW, pages[2].position))


def test_reread_knows_what_is_gone_and_reads_a_project_that_left(gitlab: GitlabRuns) -> None:
    live, doomed = add(gitlab, NOW - DAY, "running"), add(gitlab, NOW - DAY, "running")
    gitlab.add_project("elsewhere/moved")
    away = add(gitlab, NOW - DAY, "running")
    gitlab.rows[int(away)]["project_id"] = 502
    gitlab.delete(doomed)
    held = [HeldRun("501", live, 1), HeldRun("501", doomed, 1), HeldRun("502", away, 1), HeldRun("x", "y", 1)]
    connector = connected(gitlab)
    (page,) = connector.reread(held)
    assert page.gone == [held[1]]
    seen = told(connector, [page])
    assert seen.keys() == {live, away}
    assert getattr(seen[away].pipeline, "name", "") == "elsewhere/moved"


def test_links_that_lead_elsewhere_do_not_matter(gitlab: GitlabRuns) -> None:
    numbers = [gitlab.add_project(f"acme/p-{number}", archived=number == 7) for number in range(250)]
    listed = connected(gitlab)._list().projects
    assert listed.keys() == {501, *numbers} - {numbers[7]}


def test_project_that_cannot_be_read_stops_no_other(gitlab: GitlabRuns) -> None:
    run = add(gitlab, NOW - MINUTE)
    closed = gitlab.add_project("acme/closed")
    gitlab.forbidden.add(closed)
    more: dict[str, Any] = {"group": None, "projects": ["acme/closed", "acme/orders", "acme/gone"]}
    assert changed(gitlab, **more).keys() == {run}
    with pytest.raises(SourceError) as refused:
        changed(gitlab, group=None, projects=["acme/closed"])
    assert refused.value.code == "forbidden"
    with pytest.raises(SourceError, match="acme/gone is not there"):
        changed(gitlab, group=None, projects=["acme/gone"])


def test_project_that_went_away_since_it_was_listed_is_told(gitlab: GitlabRuns, stop: threading.Event) -> None:
    changed(gitlab, stop)
    gitlab.projects.clear()
    with pytest.raises(SourceError, match="acme/orders is not there any more"):
        changed(gitlab, stop)


def test_only_the_wanted_branches_are_taken(gitlab: GitlabRuns) -> None:
    main, other = add(gitlab, NOW - MINUTE), add(gitlab, NOW - MINUTE)
    gitlab.rows[int(other)]["ref"] = "feature/x"
    assert changed(gitlab, branches=["main", "v*"]).keys() == {main}


def test_check_tells_the_product_the_projects_and_the_token(gitlab: GitlabRuns) -> None:
    gitlab.add_project("acme/scratch")
    check = connected(gitlab, exclude=["*/scratch"]).check()
    assert (check.product, list(check.pipelines)) == ("GitLab 18.6.0-ee", ["acme/orders"])
    notes = "\n".join(check.notes)
    assert "the token expires on 2027-01-31" in notes
    assert "2 projects" in notes


def test_token_goes_in_gitlabs_own_header(gitlab: GitlabRuns) -> None:
    changed(gitlab)
    assert {asked.headers.get("PRIVATE-TOKEN") for asked in gitlab.asked} == {TOKEN}
    assert all("Authorization" not in asked.headers for asked in gitlab.asked)


def test_memory_is_bounded(gitlab: GitlabRuns, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "KNOWN_PIPELINES", 3)
    for _ in range(10):
        add(gitlab, NOW - MINUTE)
    connector = connected(gitlab, stop)
    assert len(told(connector, connector.changed(NOW - HOUR))) == 10
    assert len(connector._details) <= 3


def test_source_needs_a_group_or_projects() -> None:
    with pytest.raises(ValidationError):
        SUBJECT.source("https://gitlab.example", group=None)
    source = GitlabCiSource.model_validate(
        {"name": "g", "platform": "gitlab_ci", "client": "acme", "projects": ["acme/orders"]}
    )
    assert source.url == "https://gitlab.com"
