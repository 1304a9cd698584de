import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headway.connectors.airflow.api import AirflowApi
from headway.connectors.airflow.mapping import FAILED_TASKS, AirflowSource
from headway.connectors.contract import HeldRun, Page
from headway.connectors.errors import SourceError
from headway.core import clock
from tests.connectors.airflow.subject import PASSWORD_ENV, TOKEN_ENV, USER, AirflowRuns, credentials
from tests.connectors.platform import Asked, Reply

NOW = clock.now().replace(microsecond=0)
HOUR = timedelta(hours=1)

# The kinds of server there are: cursors (3.3), offsets (3.0 to 3.2), Airflow 2 with and without a filter for changes.
SERVERS: dict[str, dict[str, Any]] = {
    "3.3": {},
    "3.0": {"has_cursor": False},
    "2.11": {"major": 2},
    "2.5": {"major": 2, "has_updated_at": False},
}


@pytest.fixture(autouse=True)
def _credentials() -> Iterator[None]:
    with credentials():
        yield


@pytest.fixture(params=SERVERS)
def airflow(request: pytest.FixtureRequest) -> Iterator[AirflowRuns]:
    """Each kind of server in turn."""
    with AirflowRuns(**SERVERS[request.param]) as platform:
        yield platform


@pytest.fixture
def airflow_3() -> Iterator[AirflowRuns]:
    with AirflowRuns() as platform:
        yield platform


@pytest.fixture
def connect() -> Iterator[Callable[..., AirflowApi]]:
    made: list[AirflowApi] = []

    def make(platform: AirflowRuns, **more: Any) -> AirflowApi:
        credential = {} if "username" in more else {"token_env": TOKEN_ENV}
        values = {"name": "air", "platform": "airflow", "client": "acme", "url": platform.url, **credential, **more}
        made.append(AirflowApi(AirflowSource.model_validate(values), threading.Event()))
        return made[-1]

    yield make
    for api in made:
        api.http.close()


def _fill(platform: AirflowRuns, count: int, word: str = "success", *, end: datetime = NOW) -> list[str]:
    return [
        platform.add(
            pipeline=f"dag_{number % 7}",
            word=word,
            created_at=end - 3 * HOUR,
            started_at=None if word == "queued" else end - 2 * HOUR,
            finished_at=end if word in {"success", "failed"} else None,
            updated_at=end,
        )
        for number in range(count)
    ]


def _ids(pages: Iterable[Page]) -> list[str]:
    return [str(run["dag_run_id"]) for page in pages for run in page.runs]


def test_all_changes_and_all_live_runs_are_found_on_every_kind_of_server(
    airflow: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    old = _fill(airflow, 120, end=NOW - 48 * HOUR)
    live = _fill(airflow, 130, "running", end=NOW - 48 * HOUR) + _fill(airflow, 20, "queued", end=NOW - 48 * HOUR)
    new = _fill(airflow, 230)
    found = _ids(connect(airflow).changed(NOW - HOUR))
    assert set(found) == {*live, *new}
    assert not set(old) & set(found)


def test_window_finds_every_run_that_ended_in_it(airflow: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    before, after = _fill(airflow, 30, end=NOW - 72 * HOUR), _fill(airflow, 30, end=NOW - 2 * HOUR)
    within = _fill(airflow, 240, end=NOW - 48 * HOUR)
    never_started = airflow.add(
        pipeline="idle",
        word="failed",
        created_at=NOW - 50 * HOUR,
        started_at=None,
        finished_at=NOW - 48 * HOUR,
        updated_at=NOW - 48 * HOUR,
    )
    pages = list(connect(airflow).window(NOW - 60 * HOUR, NOW - 40 * HOUR, None))
    assert set(_ids(pages)) == {*within, never_started}
    assert not {*before, *after} & set(_ids(pages))
    assert {page.total for page in pages} == {241}


def test_rows_that_leave_between_pages_take_none_of_the_others_along(
    airflow: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    runs = _fill(airflow, 350, end=NOW - 48 * HOUR)
    cleared: set[str] = set()

    def clear_some(asked: Asked) -> None:
        for run in [run for run in runs if run not in cleared][: 40 if len(cleared) < 200 else 0]:
            cleared.add(run)
            airflow.change(run, word="queued", started_at=None, finished_at=None, updated_at=NOW)

    airflow.between = clear_some
    found = _ids(connect(airflow).window(NOW - 60 * HOUR, NOW - 40 * HOUR, None))
    assert set(runs) - cleared <= set(found)
    assert len(cleared) >= 120


def test_runs_that_change_between_pages_are_all_found(airflow: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    runs = _fill(airflow, 350, end=NOW - timedelta(minutes=30))

    def touch(asked: Asked) -> None:
        for run in runs[::9]:
            airflow.change(run, word="success", started_at=NOW - HOUR, finished_at=NOW, updated_at=clock.now())

    airflow.between = touch
    assert set(_ids(connect(airflow).changed(NOW - HOUR))) == set(runs)


def test_window_goes_on_where_it_stood(airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    runs = _fill(airflow_3, 350)
    first = next(connect(airflow_3).window(NOW - HOUR, NOW, None))
    assert first.position is not None
    rest = _ids(connect(airflow_3).window(NOW - HOUR, NOW, first.position))
    assert _ids([first]) + rest == runs


def test_empty_parameter_that_a_proxy_drops_costs_no_run(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _fill(airflow_3, 250)
    answer = airflow_3.answer

    def without_empty_ones(asked: Asked) -> Reply:
        return answer(asked._replace(query={key: value for key, value in asked.query.items() if value}))

    monkeypatch.setattr(airflow_3, "answer", without_empty_ones)
    assert set(_ids(connect(airflow_3).window(NOW - HOUR, NOW, None))) == set(runs)


def test_position_that_the_server_no_longer_takes_begins_anew(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    runs = _fill(airflow_3, 150)
    assert _ids(connect(airflow_3).window(NOW - HOUR, NOW, "of-another-version")) == runs


def test_server_that_gives_one_cursor_for_ever_is_left(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    for cursor in ("kQI", 7):
        stuck = Reply(document={"dag_runs": [], "total_entries": 0, "next_cursor": cursor})
        airflow_3.trouble.clear()
        airflow_3.trouble.extend([stuck] * 3)
        with pytest.raises(SourceError, match="no cursor to go on with"):
            list(connect(airflow_3, api="v2").changed(NOW))


@pytest.mark.parametrize("limit", [1, 2, 25])
def test_smaller_pages_than_asked_for_are_read_to_the_end(
    airflow: AirflowRuns, connect: Callable[..., AirflowApi], limit: int
) -> None:
    airflow.page_limit = limit
    runs = _fill(airflow, 60)
    assert set(_ids(connect(airflow).changed(NOW - HOUR))) == set(runs)


def test_reread_tells_what_is_and_what_is_gone(airflow: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    there, deleted = _fill(airflow, 2, "running")
    airflow.delete(deleted)
    held = [HeldRun("default/dag_0", there, 1), HeldRun("default/dag_1", deleted, 2)]
    (page,) = connect(airflow).reread(held)
    assert _ids([page]) == [there]
    assert page.gone == [held[1]]


def test_run_that_may_not_be_read_is_neither_told_nor_gone(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    run, other = _fill(airflow_3, 2, "running")
    api = connect(airflow_3, api="v2")
    held = [HeldRun("default/dag_0", run, 1), HeldRun("default/dag_1", other, 1)]
    forbidden = Reply(403, {"detail": "Forbidden"})
    airflow_3.trouble.extend([forbidden] * 2)
    (page,) = api.reread(held)
    assert _ids([page]) == [other]
    assert page.gone == []
    airflow_3.trouble.extend([forbidden] * 4)
    with pytest.raises(SourceError) as raised:
        list(api.reread(held))
    assert raised.value.code == "forbidden"


def test_quiet_sync_of_a_thousand_dags_takes_a_handful_of_requests(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    for number in range(1000):
        airflow_3.add(
            pipeline=f"dag_{number}",
            word="success",
            created_at=NOW - 9 * HOUR,
            started_at=NOW - 9 * HOUR,
            finished_at=NOW - 8 * HOUR,
            updated_at=NOW - 8 * HOUR,
        )
    api = connect(airflow_3, username=USER, password_env=PASSWORD_ENV)
    assert _ids(api.changed(NOW - HOUR)) == []
    assert [asked.path for asked in airflow_3.asked] == [
        "/api/v2/version",
        "/auth/token",
        "/api/v2/dags/~/dagRuns",
        "/api/v2/dags/~/dagRuns",
    ]
    list(api.changed(NOW - HOUR))
    assert len(airflow_3.asked) == 6


def test_failed_runs_name_their_failed_tasks_and_are_asked_once(
    airflow: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    (failed,) = _fill(airflow, 1, "failed")
    airflow.failed_tasks[failed] = ["write", "load", "write"]
    api = connect(airflow)
    for _ in range(3):
        (run,) = [run for page in api.changed(NOW - HOUR) for run in page.runs]
        assert run[FAILED_TASKS] == ["load", "write"]
        report = api.report(run, now=NOW)
        assert report is not None
        assert report.observation.error_message == "failed tasks: load, write"
    assert sum(asked.path.endswith("/taskInstances") for asked in airflow.asked) == 1
    airflow.failed_tasks[failed] = ["load"]
    airflow.change(failed, word="failed", started_at=NOW, finished_at=NOW + HOUR, updated_at=NOW)
    (page,) = api.reread([HeldRun("default/dag_0", failed, 2)])
    assert page.runs[0][FAILED_TASKS] == ["load"]
    windows = api.window(NOW - HOUR, NOW + HOUR, None)
    assert all(FAILED_TASKS not in run for page in windows for run in page.runs)


def test_trouble_with_tasks_fails_nothing_and_is_not_repeated(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _fill(airflow_3, 5, "failed")
    api = connect(airflow_3, api="v2")
    answer = airflow_3.answer
    refused = []

    def without_tasks(asked: Asked) -> Reply:
        if asked.path.endswith("/taskInstances"):
            refused.append(asked)
            return Reply(403, {"detail": "Forbidden"})
        return answer(asked)

    monkeypatch.setattr(airflow_3, "answer", without_tasks)
    assert _ids(api.changed(NOW - HOUR)) == runs
    assert len(refused) == 2, "once, and once more with new credentials"


def test_tasks_of_dags_that_are_left_out_are_not_asked_for(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    _fill(airflow_3, 3, "failed")
    list(connect(airflow_3, include=["other"]).changed(NOW - HOUR))
    assert not [asked for asked in airflow_3.asked if asked.path.endswith("/taskInstances")]


@pytest.mark.parametrize("status", [401, 403])
def test_token_that_expired_is_renewed_once(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi], status: int
) -> None:
    (run,) = _fill(airflow_3, 1)
    api = connect(airflow_3, username=USER, password_env=PASSWORD_ENV)
    list(api.changed(NOW - HOUR))
    airflow_3.tokens.clear()
    if status == 401:
        airflow_3.trouble.append(Reply(401, {"detail": "Not authenticated"}))
    assert _ids(api.changed(NOW - HOUR)) == [run]
    assert sum(asked.path == "/auth/token" for asked in airflow_3.asked) == 2


def test_wrong_password_is_said_without_it(
    airflow_3: AirflowRuns, connect: Callable[..., AirflowApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_ENV, "not-the-password")
    api = connect(airflow_3, username=USER, password_env=PASSWORD_ENV)
    with pytest.raises(SourceError) as raised:
        api.check()
    assert raised.value.code == "unauthorized"
    api = connect(airflow_3, username=USER, password_env=PASSWORD_ENV, api="v2")
    airflow_3.trouble.append(Reply(422, {"detail": [{"input": {"password": "not-the-password"}}]}))
    with pytest.raises(SourceError) as raised:
        api.check()
    assert "not-the-password" not in raised.value.detail


def test_airflow_2_takes_user_and_password_as_they_are(connect: Callable[..., AirflowApi]) -> None:
    with AirflowRuns(major=2) as platform:
        (run,) = _fill(platform, 1)
        api = connect(platform, username=USER, password_env=PASSWORD_ENV)
        assert _ids(api.changed(NOW - HOUR)) == [run]
        assert "/auth/token" not in {asked.path for asked in platform.asked}


def test_check_names_the_product_and_the_dags_to_import(
    airflow: AirflowRuns, connect: Callable[..., AirflowApi]
) -> None:
    _fill(airflow, 7)
    check = connect(airflow, exclude=["dag_3"]).check()
    assert check.product == ("Airflow 3.3.2" if airflow.major == 3 else "Airflow 2.11.0")
    assert check.pipelines == [f"dag_{number}" for number in range(7) if number != 3]
    assert bool(check.notes) is not airflow.has_cursor


def test_check_reads_no_more_than_a_thousand_names(airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    for number in range(1050):
        airflow_3.add(
            pipeline=f"dag_{number}", word="queued", created_at=NOW, started_at=None, finished_at=None, updated_at=NOW
        )
    assert len(connect(airflow_3).check().pipelines) == 1000
    assert len(airflow_3.asked) == 13


def test_something_that_is_no_airflow_is_told_apart(airflow_3: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    airflow_3.trouble.extend([Reply(404, {})] * 2)
    with pytest.raises(SourceError, match="neither /api/v2 nor /api/v1"):
        connect(airflow_3).check()
    documents: list[Any] = [[], {"dag_runs": None}, {"runs": []}]
    for document in documents:
        airflow_3.trouble.append(Reply(document=document))
        with pytest.raises(SourceError) as raised:
            list(connect(airflow_3, api="v2").changed(NOW))
        assert raised.value.code == "bad_answer"


def test_times_in_filters_have_an_offset(airflow: AirflowRuns, connect: Callable[..., AirflowApi]) -> None:
    api = connect(airflow)
    since = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)
    list(api.changed(since))
    list(api.window(since, NOW, None))
    sent = [value for asked in airflow.asked for key, value in asked.query.items() if key.endswith(("_gte", "_lte"))]
    assert "2026-11-22T05:30:00Z" in sent
    assert all(value.endswith("Z") for value in sent)


def test_credentials_over_plain_http_are_noted(connect: Callable[..., AirflowApi]) -> None:
    with AirflowRuns() as platform:
        for url, is_noted in (
            ("http://airflow.example.com", True),
            ("https://airflow.example.com", False),
            ("http://localhost:8080", False),
            ("http://[::1]:8080", False),
        ):
            notes = connect(platform, url=url)._notes({"next_cursor": None})
            assert any("plain http" in note for note in notes) is is_noted, url
