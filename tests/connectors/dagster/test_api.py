"""How Dagster is asked: its paging and its traps, over real sockets."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headway.connectors.contract import HeldRun, Page, Report
from headway.connectors.dagster import DagsterApi, api
from headway.connectors.errors import SourceError
from tests.connectors.dagster.subject import RUN_FIELDS, DagsterRuns, DagsterSubject
from tests.connectors.platform import Reply

NOW = datetime.now(UTC).replace(microsecond=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def dagster() -> Iterator[DagsterRuns]:
    with DagsterRuns() as platform:
        yield platform


@pytest.fixture
def connector(dagster: DagsterRuns) -> Iterator[DagsterApi]:
    with_open_server = DagsterSubject().source(dagster.url, token_env=None)
    made = DagsterApi(with_open_server, threading.Event())
    yield made
    made.http.close()


def _add(dagster: DagsterRuns, word: str, created_at: datetime, *, ends: bool = True) -> str:
    times = {"started_at": created_at, "finished_at": created_at + MINUTE if ends else None}
    return dagster.add(pipeline="orders_load", word=word, created_at=created_at, updated_at=created_at, **times)


def _fill(dagster: DagsterRuns, count: int) -> list[str]:
    """Add runs, ten seconds apart, the oldest first."""
    start = NOW - timedelta(seconds=10 * count)
    return [_add(dagster, "SUCCESS", start + timedelta(seconds=10 * n)) for n in range(count)]


def _window(connector: DagsterApi) -> list[list[str]]:
    return [[run["runId"] for run in page.runs] for page in connector.window(NOW - 1000 * MINUTE, NOW, None)]


def test_quiet_sync_of_a_thousand_jobs_costs_three_requests(dagster: DagsterRuns, connector: DagsterApi) -> None:
    _fill(dagster, 1000)
    assert list(connector.changed(NOW + MINUTE)) == []
    assert len(dagster.asked) == 3
    assert list(connector.changed(NOW + MINUTE)) == []
    assert len(dagster.asked) == 5


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, 300])
def test_window_has_every_run_once(dagster: DagsterRuns, connector: DagsterApi, count: int) -> None:
    made = _fill(dagster, count)
    assert [run for page in _window(connector) for run in page] == made[::-1]


def test_no_run_is_missed_where_the_run_of_a_cursor_is_deleted(dagster: DagsterRuns, connector: DagsterApi) -> None:
    made = _fill(dagster, 350)
    seen: set[str] = set()
    deleted: set[str] = set()
    for page in connector.window(NOW - 1000 * MINUTE, NOW, None):
        seen |= {run["runId"] for run in page.runs}
        if page.runs and len(deleted) < 2:
            with dagster.lock:
                deleted.add(page.runs[-1]["runId"])
                dagster.delete(page.runs[-1]["runId"])
    assert len(deleted) == 2
    assert seen == set(made)


def test_walk_goes_on_from_a_position_whose_run_is_deleted(dagster: DagsterRuns, connector: DagsterApi) -> None:
    made = _fill(dagster, 250)
    first = next(iter(connector.window(NOW - 1000 * MINUTE, NOW, None)))
    dagster.delete(first.runs[-1]["runId"])
    rest = connector.window(NOW - 1000 * MINUTE, NOW, first.position)
    assert {run["runId"] for page in rest for run in page.runs} >= set(made[:150])


def test_server_with_smaller_pages_is_read_to_its_end(dagster: DagsterRuns, connector: DagsterApi) -> None:
    dagster.page_limit = 25
    made = _fill(dagster, 110)
    assert {run for page in _window(connector) for run in page} == set(made)


def test_server_that_repeats_a_page_is_not_read_for_ever(
    dagster: DagsterRuns, connector: DagsterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(dagster, 150)
    listed = dagster._list
    monkeypatch.setattr(dagster, "_list", lambda variables: listed({**variables, "cursor": None}))
    with pytest.raises(SourceError, match="pages do not go on"):
        _window(connector)


def test_unknown_fields_and_words_are_not_asked_for(dagster: DagsterRuns, connector: DagsterApi) -> None:
    dagster.fields = [
        field for field in RUN_FIELDS if field not in {"updateTime", "eventConnection", "assetMaterializations"}
    ]
    dagster.words = [word for word in dagster.words if word != "SUSPENDED"]
    failed, live = _add(dagster, "FAILURE", NOW), _add(dagster, "STARTED", NOW, ends=False)
    runs = {run["runId"]: run for page in connector.changed(NOW - MINUTE) for run in page.runs}
    assert runs.keys() == {failed, live}
    told = connector.report(runs[failed], now=NOW + 2 * MINUTE)
    assert told is not None
    assert (told.observation.status, told.observation.error_message) == ("failed", None)


def test_reasons_of_failures_are_asked_for_together(dagster: DagsterRuns, connector: DagsterApi) -> None:
    failed = [_add(dagster, "FAILURE", NOW - MINUTE) for _ in range(25)]
    (page,) = connector.window(NOW - 2 * MINUTE, NOW, None)
    assert len(dagster.asked) == 1 + 1 + 3  # what it knows, the page, and three times ten reasons
    for run in page.runs:
        told = connector.report(run, now=NOW + MINUTE)
        assert told is not None
        assert told.observation.error_message == f"write: ValueError: {run['runId']} broke"
    assert {run["runId"] for run in page.runs} == set(failed)


def test_reason_at_the_end_of_a_long_log_is_found_and_a_longer_one_is_left(
    dagster: DagsterRuns, connector: DagsterApi
) -> None:
    long, longer = _add(dagster, "FAILURE", NOW), _add(dagster, "FAILURE", NOW)
    other: list[dict[str, Any]] = [{"__typename": "LogMessageEvent"}]
    dagster.logs[long] = other * 2500 + dagster.logs[long]
    dagster.logs[longer] = other * api.EVENTS * api.EVENT_PAGES + dagster.logs[longer]
    reports: dict[str, Report | None] = {}
    for page in connector.window(NOW - MINUTE, NOW + MINUTE, None):
        reports |= {run["runId"]: connector.report(run, now=NOW + MINUTE) for run in page.runs}
    told = {run: report.observation.error_message for run, report in reports.items() if report is not None}
    assert told == {long: f"write: ValueError: {long} broke", longer: None}
    assert len(dagster.asked) == 2 + 1 + 2 + 9


def test_rows_are_asked_for_of_what_ended_lately_and_not_of_history(
    dagster: DagsterRuns, connector: DagsterApi
) -> None:
    run, live = _add(dagster, "SUCCESS", NOW), _add(dagster, "STARTED", NOW, ends=False)
    for made in (run, live):
        dagster.materializations[made] = [{"metadataEntries": [{"label": "dagster/row_count", "intRepr": "12"}]}]

    def rows(pages: Iterator[Page]) -> dict[str, int | None]:
        told = [connector.report(run, now=NOW + 2 * MINUTE) for page in pages for run in page.runs]
        return {each.observation.external_run_id: each.observation.rows_processed for each in told if each}

    assert rows(connector.changed(NOW - MINUTE)) == {run: 12, live: None}
    assert rows(connector.reread([HeldRun("shop.py/orders_load", run, 1)])) == {run: 12}
    asked = len(dagster.asked)
    assert rows(connector.window(NOW - MINUTE, NOW + MINUTE, None)) == {run: None, live: None}
    assert len(dagster.asked) == asked + 1


def test_failures_are_told_where_their_reasons_are_too_much(
    dagster: DagsterRuns, connector: DagsterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {_add(dagster, "FAILURE", NOW - MINUTE) for _ in range(60)}
    refused = Reply(document={"data": None, "errors": [{"message": "statement timeout"}]})
    monkeypatch.setattr(dagster, "_logs", lambda _: refused)
    (page,) = connector.window(NOW - 2 * MINUTE, NOW, None)
    assert {run["runId"] for run in page.runs} == failed
    assert len(dagster.asked) == 2 + api.UNANSWERED


def test_reasons_are_asked_for_again_at_the_next_look(
    dagster: DagsterRuns, connector: DagsterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(dagster, "FAILURE", NOW - MINUTE)
    refused = Reply(document={"data": None, "errors": [{"message": "statement timeout"}]})
    with monkeypatch.context() as patch:
        patch.setattr(dagster, "_logs", lambda _: refused)
        for _ in range(api.UNANSWERED):
            list(connector.window(NOW - 2 * MINUTE, NOW, None))
    reports = [connector.report(run, now=NOW) for page in connector.changed(NOW - 2 * MINUTE) for run in page.runs]
    assert [report and bool(report.observation.error_message) for report in reports] == [True]


def test_held_runs_are_read_by_id_and_only_unknown_ones_are_gone(dagster: DagsterRuns, connector: DagsterApi) -> None:
    made = _fill(dagster, 150)
    gone = made[7]
    dagster.delete(gone)
    held = [HeldRun("shop.py/orders_load", run, 1) for run in made]
    pages = list(connector.reread(held))
    assert {run["runId"] for page in pages for run in page.runs} == set(made) - {gone}
    assert [run for page in pages for run in page.gone] == [held[7]]
    assert len(dagster.asked) == 1 + 2 + 1 + 15  # and rows, of ten at a time


def test_held_run_that_a_list_leaves_out_is_asked_for_by_itself(dagster: DagsterRuns, connector: DagsterApi) -> None:
    dagster.page_limit = 1
    made = _fill(dagster, 3)
    (page,) = connector.reread([HeldRun("shop.py/orders_load", run, 1) for run in made])
    assert {run["runId"] for run in page.runs} == set(made)
    assert page.gone == []


def test_nothing_held_asks_nothing(dagster: DagsterRuns, connector: DagsterApi) -> None:
    assert list(connector.reread([])) == []
    assert dagster.asked == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"data": None, "errors": [{"message": "Unknown type 'RunsFilter'."}]}, "Unknown type 'RunsFilter'"),
        ({"data": {"runsOrError": {"__typename": "PythonError", "message": "OperationalError: locked"}}}, "locked"),
        ({"data": {"runsOrError": None}}, "nothing"),
        ({"data": {"runsOrError": {"__typename": "Runs", "results": None}}}, "no list of runs"),
        ({"data": []}, "no answer of GraphQL"),
        ([], "no answer of GraphQL"),
    ],
)
def test_answer_that_is_none_is_told_in_words(
    dagster: DagsterRuns, connector: DagsterApi, document: Any, said: str
) -> None:
    list(connector.changed(NOW))
    dagster.trouble.append(Reply(document=document))
    with pytest.raises(SourceError, match=re.escape(said)):
        list(connector.changed(NOW))


def test_dagster_plus_gets_its_header() -> None:
    with DagsterSubject().serve() as platform:
        connector = DagsterApi(DagsterSubject().source(platform.url), threading.Event())
        assert list(connector.changed(NOW)) == []
        connector.http.close()
        assert "Authorization" not in platform.asked[0].headers


def test_check_names_version_jobs_and_what_does_not_load(dagster: DagsterRuns, connector: DagsterApi) -> None:
    _add(dagster, "SUCCESS", NOW)
    product, pipelines, notes = connector.check()
    assert (product, pipelines) == ("Dagster 1.13.27", ["shop.py/orders_load"])
    assert notes == ["the code location broken does not load: ModuleNotFoundError: No module named 'shop'"]


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ({"include": ["orders_load"]}, ["orders_load"]),
        ({"exclude": ["orders_load"]}, []),
        ({"include": ["shop.py/*"]}, ["shop.py/orders_load"]),
    ],
)
def test_check_names_a_job_so_that_the_patterns_meet_it(
    dagster: DagsterRuns, patterns: dict[str, list[str]], named: list[str]
) -> None:
    _add(dagster, "SUCCESS", NOW)
    source = DagsterSubject().source(dagster.url, token_env=None, **patterns)
    connector = DagsterApi(source, threading.Event())
    assert connector.check().pipelines == named
    connector.http.close()
    assert all(source.takes(name) for name in named)


def test_configuration_of_a_run_is_not_asked_for(dagster: DagsterRuns, connector: DagsterApi) -> None:
    _fill(dagster, 3)
    _window(connector)
    assert not any(b"runConfig" in asked.body for asked in dagster.asked)
