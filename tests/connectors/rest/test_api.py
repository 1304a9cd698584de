"""Which requests a rest source makes: how it logs in, what it asks with, how it goes on after an interruption."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headway.connectors.contract import Connector, HeldRun
from headway.connectors.errors import SourceError
from headway.connectors.rest import api, mapping
from headway.connectors.rest.api import connect
from headway.connectors.rest.source import merged
from tests.connectors.platform import Asked, FakePlatform, Reply
from tests.connectors.rest.platforms import CLIENT_SECRET, FakeAirbyte, FakeDatabricks, FakeFlow
from tests.connectors.rest.subject import FLOW, AirbyteSubject, DatabricksSubject, LinkedRestSubject, make

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Scripted(FakePlatform):
    """Answers what it is told to."""

    def __init__(self, script: Callable[[Asked], Reply]) -> None:
        super().__init__()
        self.script = script

    def answer(self, asked: Asked) -> Reply:
        return self.script(asked)

    def is_listing(self, asked: Asked) -> bool:  # noqa: ARG002 - all are
        return True


@pytest.fixture
def connected() -> Iterator[Callable[..., Connector]]:
    """Return a maker of connectors, closed at the end."""
    made: list[Connector] = []

    def make_one(settings: Mapping[str, Any], url: str, **more: Any) -> Connector:
        made.append(connect(make(settings, url, **{"token_env": "REST_TOKEN", **more}), threading.Event()))
        return made[-1]

    yield make_one
    for one in made:
        one.http.close()


def empty(_: Asked) -> Reply:
    return Reply(document={"executions": []})


def fill(platform: Any, count: int, word: str) -> list[str]:
    return [
        platform.add(
            pipeline=f"etl-{number % 3}",
            word=word,
            created_at=NOW + number * timedelta(seconds=1),
            started_at=NOW + number * timedelta(seconds=1),
            finished_at=NOW + HOUR,
            updated_at=NOW + HOUR,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("auth", "more", "header", "value"),
    [
        ({"kind": "headers", "headers": {"Authorization": "Token {token}"}}, {}, "Authorization", "Token {}"),
        ({"kind": "headers", "headers": {"X-N8N-API-KEY": "{token}"}}, {}, "X-N8N-API-KEY", "{}"),
        ({"kind": "standard", "headers": {}}, {}, "Authorization", "Bearer {}"),
        (
            {"kind": "standard", "headers": {}},
            {"username": "ada", "password_env": "REST_TOKEN"},
            "Authorization",
            "Basic YWRhOnJlc3QtdG9rZW4tNDcxMS1hYmNkZWZnaA==",
        ),
    ],
)
def test_credentials_go_into_the_headers_that_are_configured(
    connected: Callable[..., Connector], auth: dict[str, Any], more: dict[str, Any], header: str, value: str
) -> None:
    settings = {**FLOW, "auth": auth}
    with Scripted(empty) as platform:
        list(connected(settings, platform.url, **more).changed(NOW))
        assert platform.asked
        for asked in platform.asked:
            assert asked.headers[header] == value.format(os.environ["REST_TOKEN"])
            assert asked.headers["X-Flow-Team"] == "data"


def test_short_lived_token_is_renewed_when_it_has_expired(connected: Callable[..., Connector]) -> None:
    subject = AirbyteSubject()
    with FakeAirbyte() as platform:
        fill(platform, 3, "succeeded")
        connector = connect(subject.source(platform.url), threading.Event())
        assert sum(len(page.runs) for page in connector.changed(NOW)) == 3
        assert len(platform.tokens) == 1
        platform.tokens.clear()
        assert sum(len(page.runs) for page in connector.changed(NOW)) == 3
        assert len(platform.tokens) == 1
        connector.http.close()


@pytest.mark.parametrize(
    "document", [None, {}, {"access_token": None}, {"access_token": "a\nb"}, {"access_token": ""}, []]
)
def test_token_answer_without_a_token_is_an_error(document: Any) -> None:
    with Scripted(lambda _: Reply(document=document, body=None if document else b"{}")) as platform:
        connector = connect(AirbyteSubject().source(platform.url), threading.Event())
        with pytest.raises(SourceError) as caught:
            list(connector.changed(NOW))
        assert caught.value.code == "bad_answer"
        connector.http.close()


def test_token_request_that_is_echoed_tells_no_secret() -> None:
    with Scripted(lambda asked: Reply(400, {"you sent": asked.json})) as platform:
        connector = connect(AirbyteSubject().source(platform.url), threading.Event())
        with pytest.raises(SourceError) as caught:
            list(connector.changed(NOW))
        assert CLIENT_SECRET not in caught.value.detail
        connector.http.close()


@pytest.mark.parametrize(
    ("written", "since", "until"),
    [
        ("iso", "2026-11-22T12:00:00Z", "2026-11-22T13:00:01Z"),
        ("epoch_s", "1795348800", "1795352401"),
        ("epoch_ms", "1795348800250", "1795352400251"),
    ],
)
def test_times_are_written_as_the_vendor_reads_them_and_leave_nothing_out(
    connected: Callable[..., Connector], written: str, since: str, until: str
) -> None:
    window = {"query": {"from": "{since}", "to": "{until}", "who": "{nobody}"}, "time_format": written}
    settings = merged(FLOW, {"window": {**window, "newest_first_by": ""}, "parameters": {"nobody": ""}})
    with Scripted(empty) as platform:
        connector = connected(settings, platform.url)
        assert connector.is_windowed
        start = NOW + timedelta(microseconds=250_300)
        list(connector.window(start, start + HOUR, None))
        assert platform.asked[0].query == {"from": since, "to": until, "limit": "50", "offset": "0"}


def test_long_window_is_asked_for_in_pieces(connected: Callable[..., Connector]) -> None:
    window = {"query": {"from": "{since}", "to": "{until}"}, "longest_window": "7d", "newest_first_by": ""}
    settings = merged(FLOW, {"window": {**window, "time_format": "epoch_s"}})
    with Scripted(empty) as platform:
        list(connected(settings, platform.url).window(NOW, NOW + timedelta(days=17), None))
        asked = [(int(one.query["from"]), int(one.query["to"])) for one in platform.asked]
    start = int(NOW.timestamp())
    week = 7 * 86_400
    assert asked == [(start, start + week), (start + week, start + 2 * week), (start + 2 * week, start + 17 * 86_400)]


def test_parameter_with_several_values_is_asked_for_with_each(connected: Callable[..., Connector]) -> None:
    """Fivetran has a list for each connection, and its items do not say whose they are."""
    settings = merged(
        FLOW,
        {
            "parameters": {"connection": ["a/b", "c"]},
            "list": {"path": "/v1/connections/{connection}/history"},
            "changed": [{}],
            "fields": {"pipeline_id": "headway_parameters.connection", "pipeline_name": ""},
        },
    )
    with Scripted(lambda asked: Reply(document={"executions": [{"id": asked.path, "state": "DONE"}]})) as platform:
        connector = connected(settings, platform.url)
        runs = [run for page in connector.changed(NOW) for run in page.runs]
        pages = list(connector.window(NOW, NOW, None))
        assert [page.position for page in pages] == ["0:1", "1:1"]
        resumed = list(connector.window(NOW, NOW, pages[1].position))
        reports = [connector.report(run, now=NOW) for run in runs]
    assert {report.observation.pipeline[3] for report in reports if report} == {"a/b", "c"}  # type: ignore[index]
    assert [asked.path for asked in platform.asked[:2]] == ["/v1/connections/a/b/history", "/v1/connections/c/history"]
    assert len(resumed) == 1


def test_cursor_that_has_expired_starts_the_walk_again(connected: Callable[..., Connector]) -> None:
    paging = {"kind": "cursor", "parameter": "before", "next": "next", "page_size": 10}
    with FakeFlow("cursor") as platform:
        runs = fill(platform, 30, "DONE")
        connector = connected(merged(FLOW, {"list": {"paging": paging}}), platform.url)
        pages = list(connector.window(NOW - HOUR, NOW + HOUR, "0:expired"))
    assert {str(run["id"]) for page in pages for run in page.runs} == set(runs)


def test_refusal_that_means_gone_is_gone_and_another_is_an_error() -> None:
    with FakeDatabricks() as platform:
        (run,) = fill(platform, 1, "RUNNING")
        connector = connect(DatabricksSubject().source(platform.url), threading.Event())
        held = [HeldRun("101", run, 1), HeldRun("101", "999", 1)]
        (page,) = connector.reread(held)
        assert [one["run_id"] for one in page.runs] == [int(run)]
        assert list(page.gone) == held[1:]
        platform.trouble.append(Reply(400, {"error_code": "INVALID_STATE", "message": "try later"}))
        with pytest.raises(SourceError):
            list(connector.reread(held))
        connector.http.close()


@pytest.mark.parametrize("run_id", ["../flows", "a/b", "a?b", "..", "."])
def test_run_id_cannot_leave_its_place_in_the_path(connected: Callable[..., Connector], run_id: str) -> None:
    with FakeFlow() as platform:
        connector = connected(FLOW, platform.url)
        pages = list(connector.reread([HeldRun("flow:etl", run_id, 1)]))
        assert all(asked.path.startswith("/v2/executions/") for asked in platform.asked)
        assert all("/" not in asked.path.removeprefix("/v2/executions/") for asked in platform.asked)
    assert not any(page.gone for page in pages) or run_id not in {"..", "."}


def test_vendor_without_a_way_to_ask_for_one_run_rereads_none(connected: Callable[..., Connector]) -> None:
    settings = {key: value for key, value in FLOW.items() if key != "get"}
    with FakeFlow() as platform:
        assert list(connected(settings, platform.url).reread([HeldRun("flow:etl", "1", 1)])) == []
        assert platform.asked == []


def test_check_tells_what_the_configuration_does_not_fit(connected: Callable[..., Connector]) -> None:
    run = {"id": 1, "flow": {"key": "k", "title": "orders"}, "state": "HALTED"}
    settings = {key: value for key, value in FLOW.items() if key != "pipelines"}
    with Scripted(lambda _: Reply(document={"executions": [run, {"state": "DONE"}]})) as platform:
        told = connected(settings, platform.url).check()
    assert told.product == "Flow 2"
    assert list(told.pipelines) == ["orders"]
    assert any("HALTED" in note for note in told.notes)
    assert any("1 of the latest 2 runs" in note for note in told.notes)


def test_runs_are_read_where_pipelines_may_not_be_listed() -> None:
    with FakeAirbyte() as platform:
        fill(platform, 2, "succeeded")
        answer = platform.answer

        def refuse(asked: Asked) -> Reply:
            return Reply(403, {}) if asked.path == "/v1/connections" else answer(asked)

        platform.answer = refuse  # type: ignore[method-assign]
        connector = connect(AirbyteSubject().source(platform.url), threading.Event())
        assert sum(len(page.runs) for page in connector.changed(NOW)) == 2
        assert any("cannot be listed" in note for note in connector.check().notes)
        connector.http.close()


def test_pipeline_that_is_renamed_goes_by_its_new_name_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAirbyte() as platform:
        fill(platform, 1, "succeeded")
        connector = connect(AirbyteSubject().source(platform.url), threading.Event())

        def names() -> list[str]:
            return [run[mapping.PIPELINE_NAME] for page in connector.changed(NOW) for run in page.runs]

        assert names() == ["etl-0"]
        platform.pipelines["sales"] = platform.pipelines.pop("etl-0")
        assert names() == ["etl-0"]
        monkeypatch.setattr(api, "NAMES_LAST", timedelta())
        assert names() == ["sales"]
        connector.http.close()


def test_next_link_may_be_relative() -> None:
    with FakeFlow("link") as platform:
        runs = fill(platform, 120, "DONE")
        connector = connect(LinkedRestSubject().source(platform.url), threading.Event())
        found = {str(run["id"]) for page in connector.window(NOW - HOUR, NOW + HOUR, None) for run in page.runs}
        connector.http.close()
    assert found == set(runs)
