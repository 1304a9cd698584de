"""Which requests GitHub is asked, and that what they cost and leave out is as the documentation says."""

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from pydantic import ValidationError

from headway.connectors.contract import HeldRun, Page
from headway.connectors.errors import SourceError
from headway.connectors.github_actions import api
from headway.connectors.github_actions.api import GithubActionsApi
from headway.connectors.github_actions.source import GithubActionsSource
from headway.core import clock
from headway.core.validation import format_time
from headway.runs.observation import RunObservation, Status
from tests.connectors.github_actions.subject import HOME, TOKEN_ENV, GithubActionsSubject, GithubRuns
from tests.connectors.platform import Asked, Reply

SUBJECT = GithubActionsSubject()
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = clock.now().replace(microsecond=0)


@pytest.fixture
def github() -> Iterator[GithubRuns]:
    with GithubRuns() as platform:
        yield platform


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


# The engine keeps a connector from sync to sync; here they are kept by their stop event and their settings.
_KEPT: WeakKeyDictionary[threading.Event, dict[str, GithubActionsApi]] = WeakKeyDictionary()


def connected(github: GithubRuns, stop: threading.Event | None = None, **more: Any) -> GithubActionsApi:
    stop = stop or threading.Event()
    kept = _KEPT.setdefault(stop, {})
    if repr(more) not in kept:
        kept[repr(more)] = GithubActionsApi(SUBJECT.source(github.url, **more), stop)
    return kept[repr(more)]


def add(github: GithubRuns, at: datetime, word: str = "success", *, took: timedelta = MINUTE, **more: Any) -> str:
    ends = word not in {"in_progress", "queued"}
    return github.add(
        pipeline=more.pop("pipeline", "orders"),
        word=word,
        created_at=at,
        started_at=at,
        finished_at=at + took if ends else None,
        updated_at=more.pop("updated_at", at + took if ends else at),
    )


def told(connector: GithubActionsApi, pages: Iterable[Page]) -> dict[str, RunObservation]:
    runs = {}
    for page in pages:
        for payload in page.runs:
            report = connector.report(payload, now=clock.now())
            if report is not None:
                runs[report.observation.external_run_id] = report.observation
    connector.http.close()
    return runs


def changed(github: GithubRuns, stop: threading.Event | None = None, **more: Any) -> dict[str, RunObservation]:
    connector = connected(github, stop, **more)
    return told(connector, connector.changed(NOW - 5 * MINUTE))


def paths(asked: Iterable[Asked]) -> list[str]:
    return [request.path for request in asked]


RUNS = f"/repos/{HOME}/actions/runs"


def test_quiet_sync_is_one_free_request_a_repository_and_says_what_the_first_said(
    github: GithubRuns, stop: threading.Event
) -> None:
    github.add_repository("acme/other", 4712)
    run = add(github, NOW - 2 * MINUTE)
    add(github, NOW - HOUR)
    first = changed(github, stop, repositories=[HOME, "acme/other"])
    assert list(first) == [run]
    github.asked.clear()
    spent = github.remaining
    assert changed(github, stop, repositories=[HOME, "acme/other"]) == first
    assert paths(github.asked) == [RUNS, "/repos/acme/other/actions/runs"]
    assert (github.not_modified, github.remaining) == (2, spent)


def test_what_was_left_out_before_is_not_taken_from_memory(github: GithubRuns, stop: threading.Event) -> None:
    old = add(github, NOW - HOUR)
    assert changed(github, stop) == {}
    connector = connected(github, stop)
    assert list(told(connector, connector.changed(NOW - DAY))) == [old]
    assert github.not_modified == 0


def test_memory_goes_with_the_process(github: GithubRuns) -> None:
    add(github, NOW - MINUTE)
    changed(github)
    changed(github)
    assert github.not_modified == 0


def test_new_run_live_run_and_rerun_of_an_old_run_are_seen_at_once(github: GithubRuns, stop: threading.Event) -> None:
    old, live = add(github, NOW - 20 * DAY, "failure"), add(github, NOW - 2 * DAY, "in_progress")
    assert changed(github, stop).keys() == {live}
    github.change(old, word="success", started_at=NOW - 3 * MINUTE, finished_at=NOW - MINUTE, updated_at=NOW - MINUTE)
    github.rows[int(old)]["run_attempt"] = 2
    new = add(github, NOW - MINUTE, "queued")
    seen = changed(github, stop)
    assert seen.keys() == {old, live, new}
    assert (seen[old].attempt, seen[old].status, seen[old].started_at) == (2, Status.SUCCESS, NOW - 3 * MINUTE)
    assert seen[new].status is Status.QUEUED


def test_busy_repository_is_read_beyond_its_newest_page_and_asked_for_live_runs(github: GithubRuns) -> None:
    recent = {add(github, NOW - 4 * MINUTE + number * SECOND / 2, took=SECOND) for number in range(250)}
    add(github, NOW - HOUR)
    live = {add(github, NOW - 9 * DAY, "in_progress"), add(github, NOW - 9 * DAY, "queued")}
    assert changed(github).keys() == recent | live
    statuses = [request.query.get("status") for request in github.asked if request.path == RUNS]
    assert statuses.count("in_progress") == statuses.count("queued") == 1


def test_quiet_sync_of_a_busy_repository_costs_no_quota(github: GithubRuns, stop: threading.Event) -> None:
    runs = [add(github, NOW - 4 * HOUR + number * 30 * SECOND) for number in range(450)]
    changed(github, stop)
    github.asked.clear()
    spent = github.remaining
    changed(github, stop)
    assert github.remaining == spent
    assert len(github.asked) < 20
    deep = runs[10]
    github.rows[int(deep)]["updated_at"] = format_time(NOW - MINUTE)
    assert deep in changed(github, stop)
    assert github.remaining >= spent - 3  # the page that it is on, its workflow and its jobs


def test_live_runs_need_no_search_where_the_newest_page_goes_back_far_enough(github: GithubRuns) -> None:
    for number in range(101):
        add(github, NOW - number * DAY)
    changed(github)
    assert all("status" not in request.query for request in github.asked)


def test_window_is_complete_beyond_the_1000_rows_of_a_search(github: GithubRuns) -> None:
    inside = {add(github, NOW - 2 * HOUR + number * 3 * SECOND) for number in range(1_350)}
    add(github, NOW - 3 * HOUR)
    connector = connected(github)
    assert told(connector, connector.window(NOW - 2 * HOUR, NOW, None)).keys() == inside
    assert len([path for path in paths(github.asked) if path == RUNS]) < 20


def test_window_is_complete_where_a_second_fills_pages(github: GithubRuns) -> None:
    inside = {add(github, NOW - HOUR) for _ in range(350)}
    inside |= {add(github, NOW - HOUR - number * SECOND) for number in range(1, 150)}
    connector = connected(github)
    assert told(connector, connector.window(NOW - 2 * HOUR, NOW, None)).keys() == inside


def test_window_loses_nothing_while_runs_come_and_go(github: GithubRuns) -> None:
    kept = [add(github, NOW - 2 * HOUR + number * SECOND) for number in range(320)]
    doomed = [add(github, NOW - HOUR + number * SECOND) for number in range(150)]

    def shift(_: Asked) -> None:
        for _number in range(40):
            if doomed:
                github.delete(doomed.pop())

    github.between = shift
    connector = connected(github)
    assert told(connector, connector.window(NOW - 3 * HOUR, NOW, None)).keys() >= set(kept)


def test_window_goes_on_from_a_position_in_its_repository(github: GithubRuns) -> None:
    first = [add(github, NOW - HOUR + number * SECOND) for number in range(250)]
    github.add_repository("acme/other", 4712)
    github.home = "acme/other"
    second = add(github, NOW - HOUR)
    more: dict[str, Any] = {"repositories": [HOME, "acme/other"]}
    connector = connected(github, **more)
    pages = list(connector.window(NOW - DAY, NOW, None))
    assert told(connector, pages).keys() == {*first, second}
    again = connected(github, **more)
    rest = told(again, again.window(NOW - DAY, NOW, pages[1].position))
    assert rest.keys() == {*first[:52], second}
    last = connected(github, **more)
    assert told(last, last.window(NOW - DAY, NOW, pages[2].position)).keys() == {second}


def test_jobs_are_asked_of_what_failed_or_may_have_ended_earlier_and_only_once(
    github: GithubRuns, stop: threading.Event
) -> None:
    failed = add(github, NOW - 4 * MINUTE, "failure")
    touched = add(github, NOW - DAY, took=10 * MINUTE, updated_at=NOW - MINUTE)
    add(github, NOW - 3 * MINUTE)
    seen = changed(github, stop)
    assert seen[failed].error_message == "load: failure in step Load"
    assert seen[touched].finished_at == NOW - DAY + 10 * MINUTE
    jobs = [path for path in paths(github.asked) if path.endswith("/jobs")]
    assert sorted(jobs) == sorted(f"{RUNS}/{run}/attempts/1/jobs" for run in (failed, touched))
    add(github, NOW - MINUTE)
    github.asked.clear()
    changed(github, stop)
    assert not [path for path in paths(github.asked) if path.endswith("/jobs")]


def test_scarce_quota_is_not_spent_on_messages(github: GithubRuns) -> None:
    github.remaining = 1_000
    run = add(github, NOW - 2 * MINUTE, "failure")
    assert changed(github)[run].error_message is None


def test_reread_knows_what_is_gone_what_is_renamed_and_what_goes_on(github: GithubRuns, stop: threading.Event) -> None:
    live, doomed = add(github, NOW - DAY, "in_progress"), add(github, NOW - DAY, "queued")
    held = [HeldRun("4711/1", run, 1) for run in (live, doomed)]
    held += [HeldRun("999/1", "77", 1), HeldRun("of another time", "x", 1)]
    github.delete(doomed)
    connector = connected(github, stop)
    (page,) = connector.reread(held)
    assert [run.external_run_id for run in page.gone] == [doomed, "77"]
    assert told(connector, [page]).keys() == {live}
    github.asked.clear()
    again = connected(github, stop)
    assert told(again, again.reread(held[:1])).keys() == {live}
    assert (paths(github.asked), github.not_modified) == ([f"{RUNS}/{live}"], 1)


def test_name_is_the_workflows_even_where_the_run_has_its_own(github: GithubRuns, stop: threading.Event) -> None:
    run = add(github, NOW - 2 * MINUTE)
    github.rows[int(run)]["name"] = "orders for 2026-11-23"
    assert getattr(changed(github, stop)[run].pipeline, "name", "") == "acme/data: orders"
    later = add(github, clock.now(), pipeline="brand-new")
    assert getattr(changed(github, stop)[later].pipeline, "name", "") == "acme/data: brand-new"


def test_only_the_wanted_branches_are_taken(github: GithubRuns) -> None:
    main, other = add(github, NOW - 2 * MINUTE), add(github, NOW - 2 * MINUTE)
    github.rows[int(other)]["head_branch"] = "feature/x"
    assert changed(github, branches=["main", "release-*"]).keys() == {main}


@pytest.mark.parametrize("owner", ["acme", "somebody", "else"])
def test_owner_is_an_organisation_ourselves_or_another_user(github: GithubRuns, owner: str) -> None:
    github.repositories.clear()
    for number in range(120):
        github.add_repository(f"{owner}/repo-{number}", number, archived=number == 3, private=number == 4)
    names = connected(github, repositories=[], owner=owner)._look.repositories().repositories.values()
    assert f"{owner}/repo-3" not in {repository.name for repository in names}
    assert (f"{owner}/repo-4" in {repository.name for repository in names}) is (owner != "else")
    assert len(names) == (118 if owner == "else" else 119)


def test_app_token_reads_a_users_public_repositories(github: GithubRuns) -> None:
    github.login = None
    github.add_repository("else/open", 5000)
    assert [*connected(github, repositories=[], owner="else")._look.repositories().repositories] == [5000]


def test_repository_that_is_not_there_stops_no_other(github: GithubRuns) -> None:
    run = add(github, NOW - MINUTE)
    assert changed(github, repositories=["acme/gone", HOME]).keys() == {run}
    with pytest.raises(SourceError, match="acme/gone is not there") as refused:
        changed(github, repositories=["acme/gone"])
    assert refused.value.code == "not_found"
    moved = connected(github)
    github.trouble.append(Reply(301, headers={"Location": f"{github.url}/repositories/4711"}))
    with pytest.raises(SourceError, match="has moved"):
        list(moved.changed(NOW))


def test_repository_that_went_away_since_it_was_listed_is_told_and_stops_no_other(
    github: GithubRuns, stop: threading.Event
) -> None:
    github.add_repository("acme/other", 4712)
    both: dict[str, Any] = {"repositories": [HOME, "acme/other"]}
    run = add(github, NOW - MINUTE)
    changed(github, stop, **both)
    del github.repositories["acme/other"]
    assert changed(github, stop, **both).keys() == {run}
    changed(github, stop)
    github.repositories.clear()
    with pytest.raises(SourceError, match="acme/data is not there"):
        changed(github, stop)


def test_check_tells_the_product_the_workflows_and_the_quota(github: GithubRuns) -> None:
    add(github, NOW)
    add(github, NOW, pipeline="customers")
    check = connected(github, repositories=[HOME, "acme/gone"], exclude=["*: customers"]).check()
    assert (check.product, list(check.pipelines)) == ("GitHub", ["acme/data: orders"])
    notes = "\n".join(check.notes)
    assert "of 5,000 requests of this hour are left" in notes
    assert "1 repositories" in notes
    assert "acme/gone is not there" in notes


def test_bad_token_is_told_as_such(github: GithubRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = connected(github)
    monkeypatch.setenv(TOKEN_ENV, "wrong-one")
    with pytest.raises(SourceError) as refused:
        connector.check()
    assert refused.value.code == "unauthorized"


def test_memory_is_bounded(github: GithubRuns, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SEEN_ANSWERS", 3)
    connector = connected(github, stop)
    for _ in range(10):
        run = add(github, NOW, "in_progress")
        list(connector.reread([HeldRun("4711/1", run, 1)]))
    assert len(connector._answers) <= 3
    connector.http.close()


@pytest.mark.parametrize(
    "wrong",
    [{"repositories": []}, {"repositories": ["no-owner"]}, {"repositories": ["a/b/../c"]}, {"owner": "a/b"}],
)
def test_source_needs_repositories_of_the_right_form(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SUBJECT.source("https://github.example", **wrong)


def test_source_is_github_com_unless_said_otherwise() -> None:
    source = GithubActionsSource(name="g", platform="github_actions", client="acme", owner="acme")
    assert (source.url, source.sweep) == ("https://api.github.com", 30 * DAY)
