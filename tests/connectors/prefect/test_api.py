"""Which requests are made of a Prefect, and what comes of them; the contract suite judges the rest."""

import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headway.connectors.contract import HeldRun
from headway.connectors.errors import SourceError
from headway.connectors.prefect.api import PrefectApi, PrefectSource
from headway.core import clock
from tests.connectors.platform import Asked
from tests.connectors.prefect.subject import FakePrefect

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def platform() -> Iterator[FakePrefect]:
    with FakePrefect() as made:
        yield made


def _connect(platform: FakePrefect, **more: Any) -> PrefectApi:
    source = PrefectSource(name="flows", platform="prefect", client="acme", url=platform.url, **more)
    return PrefectApi(source, threading.Event())


def _add(platform: FakePrefect, word: str, at: datetime = NOW - HOUR, pipeline: str = "orders") -> str:
    return platform.add(
        pipeline=pipeline,
        word=word,
        created_at=at,
        started_at=None if word in {"SCHEDULED", "PENDING"} else at,
        finished_at=at if word in {"COMPLETED", "FAILED"} else None,
        updated_at=at,
    )


def _listed(platform: FakePrefect) -> list[dict[str, Any]]:
    return [asked.json for asked in platform.asked if platform.is_listing(asked)]


@pytest.mark.parametrize("word", ["RUNNING", "COMPLETED"])
def test_more_runs_of_one_time_than_a_page_has_are_all_read_once(platform: FakePrefect, word: str) -> None:
    runs = [_add(platform, word) for _ in range(450)] + [_add(platform, word, NOW - HOUR / 2)]
    api = _connect(platform)
    read = [run["id"] for page in api.changed(NOW - 2 * HOUR) for run in page.runs]
    assert sorted(read) == sorted(runs)
    assert all("offset" not in asked for asked in _listed(platform))
    api.http.close()


def test_window_goes_on_from_a_position_within_one_time(platform: FakePrefect) -> None:
    runs = {_add(platform, "COMPLETED") for _ in range(450)}
    api = _connect(platform)
    first = next(api.window(NOW - 2 * HOUR, NOW, None))
    rest = [run["id"] for page in api.window(NOW - 2 * HOUR, NOW, first.position) for run in page.runs]
    assert {run["id"] for run in first.runs} | set(rest) == runs
    assert first.total == 450
    api.http.close()


def test_run_that_ends_between_the_two_lists_is_read_as_ended(platform: FakePrefect) -> None:
    run = _add(platform, "RUNNING")

    def end(_: Asked) -> None:
        platform.between = None
        platform.change(run, word="FAILED", started_at=NOW - HOUR, finished_at=NOW, updated_at=NOW)

    platform.between = end
    api = _connect(platform)
    read = [seen for page in api.changed(NOW - HOUR) for seen in page.runs]
    assert [seen["state_type"] for seen in read] == ["RUNNING", "FAILED"]
    api.http.close()


def test_runs_planned_for_later_are_not_fetched_and_late_ones_are(platform: FakePrefect) -> None:
    later = {_add(platform, "SCHEDULED", NOW + timedelta(days=n)) for n in range(1, 300)}
    late = _add(platform, "SCHEDULED/Late", NOW - timedelta(days=40))
    api = _connect(platform)
    pages = [*api.changed(NOW - HOUR), *api.window(NOW - HOUR, NOW + timedelta(days=365), None)]
    read = {run["id"] for page in pages for run in page.runs}
    assert late in read
    assert later.isdisjoint(read)
    api.http.close()


def test_run_that_was_started_before_its_plan_is_live(platform: FakePrefect) -> None:
    run = _add(platform, "RUNNING")
    platform.plan(run, NOW + timedelta(days=1))
    api = _connect(platform)
    assert [seen["id"] for page in api.changed(NOW) for seen in page.runs] == [run]
    assert api.report(platform.runs[run], now=NOW) is not None
    api.http.close()


def test_names_of_a_thousand_deployments_are_asked_for_once(platform: FakePrefect) -> None:
    for number in range(1000):
        _add(platform, "COMPLETED", NOW - HOUR + timedelta(seconds=number), f"orders/{number}")
    api = _connect(platform)
    for _ in range(2):
        pages = list(api.changed(NOW - 2 * HOUR))
        names = {api.report(run, now=clock.now()) for page in pages for run in page.runs}
        assert len(names) == 1000
    asked = [asked.path for asked in platform.asked]
    assert asked.count("/api/flows/filter") == 1
    assert asked.count("/api/deployments/filter") == 10
    assert asked.count("/api/flow_runs/filter") == 2 * (1 + 6)
    api.http.close()


def test_quiet_sync_is_two_requests(platform: FakePrefect) -> None:
    for number in range(1000):
        _add(platform, "COMPLETED", NOW - 48 * HOUR, f"orders/{number}")
    api = _connect(platform)
    assert [page.runs for page in api.changed(NOW - HOUR)] == [[], []]
    assert api.http.requests == 2
    api.http.close()


def test_run_that_a_list_leaves_out_is_gone_only_by_its_own_404(
    platform: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, deleted = _add(platform, "RUNNING"), _add(platform, "RUNNING")
    platform.delete(deleted)
    monkeypatch.setattr(platform, "_fits", lambda row, *_: row.get("id") != kept)
    api = _connect(platform)
    held = [HeldRun("flow", run, 1) for run in (kept, deleted, "of-another-platform")]
    (page,) = api.reread(held)
    assert [run["id"] for run in page.runs] == [kept]
    assert page.gone == [held[1]]
    api.http.close()


def test_pages_that_do_not_go_on_are_an_error(platform: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(200):
        _add(platform, "RUNNING")
    monkeypatch.setattr(platform, "_fits", lambda *_: True)
    api = _connect(platform)
    with pytest.raises(SourceError) as caught:
        list(api.changed(NOW - HOUR))
    assert caught.value.code == "bad_answer"
    api.http.close()


@pytest.mark.parametrize("credential", [None, "basic", "bearer"])
def test_server_with_csrf_protection_gets_its_token(monkeypatch: pytest.MonkeyPatch, credential: str | None) -> None:
    monkeypatch.setenv("PREFECT_SECRET", "geheim-ß" if credential is None else "hunter2hunter2")
    given: dict[str, dict[str, Any]] = {
        "basic": {"username": "admin", "password_env": "PREFECT_SECRET"},
        "bearer": {"token_env": "PREFECT_SECRET"},
    }
    wanted = {
        "basic": f"Basic {base64.b64encode(b'admin:hunter2hunter2').decode()}",
        "bearer": "Bearer hunter2hunter2",
    }
    with FakePrefect(credential=wanted.get(credential or ""), csrf=True) as platform:
        run = _add(platform, "RUNNING")
        api = _connect(platform, **given.get(credential or "", {}))
        assert [seen["id"] for page in api.changed(NOW - HOUR) for seen in page.runs] == [run]
        platform.tokens.clear()  # they expire
        assert [seen["id"] for page in api.changed(NOW - HOUR) for seen in page.runs] == [run]
        api.http.close()


def test_check_tells_the_version_and_names_deployments_and_flows_without_one(platform: FakePrefect) -> None:
    _add(platform, "COMPLETED", pipeline="orders/nightly")
    _add(platform, "COMPLETED", pipeline="adhoc")
    told = _connect(platform).check()
    assert told.product == "Prefect 3.8.8"
    assert told.pipelines == ["adhoc", "orders/nightly"]
    assert _connect(platform, include=["orders/*"]).check().pipelines == ["orders/nightly"]


def test_check_takes_what_has_no_version_for_cloud_and_tells_of_another_major_one() -> None:
    with FakePrefect(version=None) as cloud:
        assert _connect(cloud).check().product == "Prefect Cloud"
    with FakePrefect(version="2.20.1") as old:
        assert any("2.20.1" in note for note in _connect(old).check().notes)


WORKSPACE = "https://api.prefect.cloud/api/accounts/0b9fe310/workspaces/8e7cfb40"


@pytest.mark.parametrize(
    ("url", "ui_url", "api", "ui"),
    [
        ("http://host:4200", None, "http://host:4200/api", "http://host:4200"),
        ("http://host:4200/api/", None, "http://host:4200/api", "http://host:4200"),
        ("https://host/prefect", None, "https://host/prefect/api", "https://host/prefect"),
        ("http://host:4200", "https://flows.example/", "http://host:4200/api", "https://flows.example"),
        (WORKSPACE, None, WORKSPACE, "https://app.prefect.cloud/account/0b9fe310/workspace/8e7cfb40"),
    ],
)
def test_url_is_taken_as_users_have_it(url: str, ui_url: str | None, api: str, ui: str) -> None:
    source = PrefectSource(name="flows", platform="prefect", client="acme", url=url, ui_url=ui_url)
    assert (source.url, source.ui) == (api, ui)
