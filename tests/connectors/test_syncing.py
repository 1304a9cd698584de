"""The engine that reads sources: nothing is lost, nothing doubled, whatever happens on the way."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from headway.connectors.claimed import LostClaimError
from headway.connectors.contract import OddPayloadError, Page
from headway.connectors.errors import SourceError
from headway.core import clock
from headway.core.db import Database
from tests.connectors.example import api, mapping
from tests.connectors.example.subject import CREDENTIAL, Platform
from tests.connectors.platform import Asked, Reply
from tests.connectors.syncing import add_live, add_runs, ago, configured, sync, syncer

Db = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def platform() -> Iterator[Platform]:
    with Platform() as served:
        yield served


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries are counted, not waited for."""
    monkeypatch.setattr("headway.connectors.http._jittered", lambda _state: 0.0)


def stored(db: Db) -> dict[str, dict[str, Any]]:
    rows = db.execute("SELECT r.*, p.name FROM runs r JOIN pipelines p ON p.id = r.pipeline_id").fetchall()
    return {row["external_run_id"]: row for row in rows}


def state(db: Db, name: str = "example") -> dict[str, Any]:
    row = db.execute("SELECT * FROM sources WHERE name = %s", (name,)).fetchone()
    assert row is not None
    return row


async def test_first_sync_brings_the_history_and_the_second_changes_nothing(
    database: Database, db: Db, platform: Platform
) -> None:
    ids = add_runs(platform, 700)
    live = add_live(platform)
    first = await sync(database, configured(platform))
    assert set(stored(db)) == {*ids, live}
    assert first.counts["runs_imported"] == 701
    assert state(db)["failures"] == 0
    before = db.execute("SELECT xmin::text, * FROM runs ORDER BY id").fetchall()
    events = db.execute("SELECT xmin::text, * FROM run_events ORDER BY 1, 2, 3, 4, 5").fetchall()
    second = await sync(database, configured(platform), since=ago(days=30))
    assert second.counts["runs_read"] >= 701
    assert (second.counts["runs_imported"], second.counts["runs_updated"]) == (0, 0)
    assert db.execute("SELECT xmin::text, * FROM runs ORDER BY id").fetchall() == before
    assert db.execute("SELECT xmin::text, * FROM run_events ORDER BY 1, 2, 3, 4, 5").fetchall() == events


async def test_history_goes_back_as_far_as_configured_and_further_on_demand(
    database: Database, db: Db, platform: Platform
) -> None:
    add_runs(platform, 300, days=300)
    await sync(database, configured(platform, since="10d"))
    few = len(stored(db))
    assert 5 <= few <= 15
    await sync(database, configured(platform, since="10d"), since=ago(days=400))
    assert len(stored(db)) == 300
    assert state(db)["history_since"] <= ago(days=399)
    assert state(db)["backfill_until"] is None


async def test_quiet_sync_asks_little(database: Database, platform: Platform) -> None:
    add_runs(platform, 1000, pipelines=1000)
    source = configured(platform)
    await sync(database, source)
    platform.asked.clear()
    await sync(database, source)
    assert len(platform.asked) <= 5


async def test_changes_come_by_the_next_sync_and_a_re_run_is_another_attempt(
    database: Database, db: Db, platform: Platform
) -> None:
    source = configured(platform)
    run = add_live(platform)
    await sync(database, source)
    assert stored(db)[run]["status"] == "running"
    first_end = ago(hours=1)
    platform.change(run, word="BROKEN", started_at=ago(hours=2), finished_at=first_end, updated_at=ago(seconds=1))
    await sync(database, source)
    assert stored(db)[run]["status"] == "failed"
    platform.change(run, word="ACTIVE", started_at=ago(minutes=30), finished_at=None, updated_at=ago(seconds=1))
    await sync(database, source)
    assert (stored(db)[run]["status"], stored(db)[run]["attempt"]) == ("running", 2)
    ends = db.execute("SELECT attempt, status, finished_at FROM run_events WHERE status = 'failed'").fetchall()
    assert ends == [{"attempt": 1, "status": "failed", "finished_at": first_end}]


async def test_run_held_as_unfinished_is_asked_for_by_its_id(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    run = add_live(platform)
    await sync(database, source)
    # it ended long ago by the platform's own account of changes: no list by changes shows it
    platform.change(run, word="DONE", started_at=ago(hours=2), finished_at=ago(hours=1), updated_at=ago(hours=1))
    await sync(database, source)
    assert stored(db)[run]["status"] == "success"


async def test_unfinished_run_that_is_gone_becomes_canceled_and_any_later_truth_wins(
    database: Database, db: Db, platform: Platform
) -> None:
    source = configured(platform)
    run, kept = add_live(platform), add_live(platform)
    await sync(database, source)
    saved = platform._runs[run]
    platform.delete(run)
    result = await sync(database, source)
    assert result.counts["runs_gone"] == 1
    gone = stored(db)[run]
    assert (gone["status"], gone["status_reason"], gone["observed_at"]) == ("canceled", "gone_at_source", None)
    assert stored(db)[kept]["status"] == "running"
    platform._runs[run] = saved
    platform.change(run, word="DONE", started_at=ago(hours=2), finished_at=ago(hours=1), updated_at=ago(seconds=1))
    await sync(database, source)
    assert stored(db)[run]["status"] == "success"


async def test_runs_of_another_source_of_the_same_client_are_never_called_gone(
    database: Database, db: Db, platform: Platform
) -> None:
    with Platform() as other:
        run = add_live(other)
        for _ in range(5):
            add_live(platform)
        platform.delete("1")
        await sync(database, configured(other, "other"))
        await sync(database, configured(platform))
        await sync(database, configured(platform))
        assert stored(db)[run]["status"] == "running"


async def test_one_odd_run_never_loses_its_page(
    database: Database, db: Db, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_runs(platform, 50)
    original = mapping.report

    def report(payload: Any, source: Any, now: Any) -> Any:
        if payload["id"] == int(ids[7]):
            raise OddPayloadError("it has two heads")
        if payload["id"] == int(ids[8]):
            raise ZeroDivisionError
        made = original(payload, source, now)
        if payload["id"] == int(ids[9]) and made is not None:  # what no check foresaw, and no column takes
            return made._replace(observation=made.observation._replace(url="\0"))
        return made

    monkeypatch.setattr(mapping, "report", report)
    result = await sync(database, configured(platform))
    assert set(stored(db)) == {*ids} - {ids[7], ids[8], ids[9]}
    assert result.counts["runs_odd"] == 3
    assert result.error is None


async def test_patterns_say_which_pipelines_are_taken(database: Database, db: Db, platform: Platform) -> None:
    add_runs(platform, 30, pipelines=3)
    await sync(database, configured(platform, include=["load-*"], exclude=["*-2"]))
    assert {run["name"] for run in stored(db).values()} == {"load-0", "load-1"}


async def test_new_pipelines_get_the_labels_and_old_ones_keep_theirs(
    database: Database, db: Db, platform: Platform
) -> None:
    add_runs(platform, 3, pipelines=3)
    await sync(database, configured(platform, tags=["finance", "nightly"], environment="staging"))
    rows = db.execute("SELECT tags, environment FROM pipelines").fetchall()
    assert rows == [{"tags": ["finance", "nightly"], "environment": "staging"}] * 3
    db.execute("UPDATE pipelines SET tags = '{}'")
    add_live(platform)
    await sync(database, configured(platform, tags=["finance"], environment="staging"))
    assert db.execute("SELECT DISTINCT tags FROM pipelines").fetchall() == [{"tags": []}]


# ---- trouble


async def test_failing_source_is_slowed_told_and_recovers(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    platform.trouble.extend([Reply(500, {"error": f"no, {CREDENTIAL}"})] * 40)
    pauses = []
    for number in range(1, 5):
        result = await sync(database, source)
        row = state(db)
        assert result.error is not None
        assert (row["failures"], row["last_error_code"], row["claim"]) == (number, "server_error", None)
        assert CREDENTIAL not in row["last_error"]
        pauses.append((row["next_try_at"] - row["last_error_at"]).total_seconds() / source.interval.total_seconds())
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8] or pauses == sorted(pauses)
    platform.trouble.clear()
    assert (await sync(database, source)).error is None
    row = state(db)
    assert (row["failures"], row["last_error"], row["last_error_code"]) == (0, None, None)
    assert row["last_error_at"] is not None


async def test_source_that_asks_to_wait_is_left_alone_so_long(database: Database, db: Db, platform: Platform) -> None:
    platform.trouble.append(Reply(429, {"error": "slow down"}, {"Retry-After": "900"}))
    result = await sync(database, configured(platform))
    assert result.error is not None
    assert result.error.code == "rate_limited"
    assert len(platform.asked) == 1
    assert state(db)["next_try_at"] >= clock.now() + timedelta(seconds=890)
    assert not await syncer(database, configured(platform)).sync_due() or len(platform.asked) > 1


async def test_history_that_cannot_be_read_holds_up_no_changes(
    database: Database, db: Db, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add_live(platform)

    def window(*_: object) -> Iterator[Page]:
        raise SourceError("refused", "this far back there is nothing")

    monkeypatch.setattr(api.ExampleConnector, "window", window)
    source = configured(platform)
    for _ in range(3):
        assert (await sync(database, source)).error is not None
    assert run in stored(db)
    row = state(db)
    assert row["last_synced_at"] is not None
    assert row["next_try_at"] - clock.now() < 1.2 * source.interval


async def test_no_credential_is_in_the_database(database: Database, db: Db, platform: Platform) -> None:
    add_runs(platform, 5)
    await sync(database, configured(platform))
    platform.trouble.extend([Reply(401, {"error": f"bad token {CREDENTIAL}"})] * 5)
    await sync(database, configured(platform))
    for table in ("sources", "runs", "run_events", "pipelines", "clients"):
        for row in db.execute(f"SELECT t::text FROM {table} t").fetchall():
            assert CREDENTIAL not in row["t"]


async def test_deactivated_client_is_left_alone(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    await sync(database, source)
    add_live(platform)
    await sync(database, source)
    db.execute("UPDATE clients SET is_active = false")
    platform.asked.clear()
    result = await sync(database, source)
    assert result.error is not None
    assert (result.error.code, platform.asked) == ("client_inactive", [])


# ---- claims


async def test_two_at_once_never_read_one_source(database: Database, platform: Platform) -> None:
    add_runs(platform, 300)
    source = configured(platform)
    first, second = syncer(database, source), syncer(database, source)
    await first.register()
    results = await asyncio.gather(first.sync(source.name), second.sync(source.name), second.sync(source.name))
    assert sum(result is not None for result in results) == 1


async def test_reader_that_was_taken_for_dead_saves_nothing_more(
    database: Database, db: Db, platform: Platform
) -> None:
    add_runs(platform, 300)
    source = configured(platform)

    def steal(_asked: Asked) -> None:
        db.execute("UPDATE sources SET claim = gen_random_uuid()")

    platform.between = steal
    result = await sync(database, source)
    assert result.is_stopped
    assert stored(db) == {}
    assert state(db)["claim"] is not None, "the claim of the other one stays"


async def test_claim_of_a_dead_reader_runs_out(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    engine = syncer(database, source)
    await engine.register()
    db.execute("UPDATE sources SET claim = gen_random_uuid(), claimed_until = now() + interval '1 minute'")
    assert await engine.sync(source.name) is None
    db.execute("UPDATE sources SET claimed_until = now() - interval '1 second'")
    assert await engine.sync(source.name) is not None


async def test_stop_in_the_middle_loses_nothing_and_the_next_sync_goes_on(
    database: Database, db: Db, platform: Platform
) -> None:
    ids = add_runs(platform, 3000, days=80)
    source = configured(platform, since="90d")
    engine = syncer(database, source)
    await engine.register()
    asked = 0

    def stop(_asked: Asked) -> None:
        nonlocal asked
        asked += 1
        if asked == 15:
            engine.halt()

    platform.between = stop
    result = await engine.sync(source.name)
    assert result is not None
    assert result.is_stopped
    some = len(stored(db))
    assert 0 < some < 3000
    row = state(db)
    assert row["backfill_until"] is not None
    assert row["claim"] is None
    platform.between = None
    platform.asked.clear()
    await sync(database, source)
    assert set(stored(db)) == set(ids)
    read_twice = sum(
        "created_from" in a.query and a.query["created_from"] > str(row["backfill_until"]) for a in platform.asked
    )
    assert read_twice == 0, "what was read is not read again"


async def test_stop_does_not_wait_for_a_platform_that_hangs(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    engine = syncer(database, source)
    await engine.register()
    platform.trouble.append(Reply(200, {"runs": []}, delay_seconds=8))
    reading = asyncio.create_task(engine.sync(source.name))
    while not platform.asked:  # noqa: ASYNC110 - it is asked from a thread
        await asyncio.sleep(0.01)
    engine.halt()
    done, _ = await asyncio.wait({reading}, timeout=5)
    assert done, "it waits for the answer"
    result = reading.result()
    assert result is not None
    assert result.is_stopped
    assert state(db)["claim"] is None


async def test_database_that_goes_away_in_the_middle_loses_nothing(
    database: Database, db: Db, platform: Platform
) -> None:
    ids = add_runs(platform, 600)
    source = configured(platform)
    asked = 0

    def cut(_asked: Asked) -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'headway_app'")

    platform.between = cut
    with contextlib.suppress(Exception):
        await sync(database, source)
    db.execute("UPDATE sources SET claimed_until = now() - interval '1 second' WHERE claim IS NOT NULL")
    platform.between = None
    await sync(database, source)
    assert set(stored(db)) == set(ids)


async def test_cursor_moves_with_its_data_or_not_at_all(
    database: Database, db: Db, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_runs(platform, 100)

    async def lost(*_: object, **__: object) -> bool:
        raise LostClaimError

    source = configured(platform)
    monkeypatch.setattr("headway.connectors.claimed.ClaimedSource._save", lost)
    engine = syncer(database, source)
    await engine.register()
    await engine.sync(source.name)
    assert (stored(db), state(db)["watermark"], state(db)["history_since"]) == ({}, None, None)


# ---- configuration and time


async def test_source_that_moved_is_read_from_its_beginning(database: Database, db: Db, platform: Platform) -> None:
    add_runs(platform, 10)
    await sync(database, configured(platform))
    with Platform() as other:
        add_runs(other, 20, pipelines=20)
        await sync(database, configured(other))
    assert len(db.execute("SELECT FROM pipelines").fetchall()) == 20


async def test_source_that_is_configured_no_more_is_retired_and_comes_back(
    database: Database, db: Db, platform: Platform
) -> None:
    one, two = configured(platform, "one"), configured(platform, "two")
    await syncer(database, one, two).register(retire_others=True)
    await syncer(database, one).register(retire_others=True)
    assert (state(db, "one")["is_active"], state(db, "two")["is_active"]) == (True, False)
    await syncer(database, two).register()
    assert state(db, "two")["is_active"]


async def test_worker_reads_what_is_due_in_the_order_of_waiting(database: Database, db: Db, platform: Platform) -> None:
    engine = syncer(database, configured(platform, "one"), configured(platform, "two"))
    assert await engine.sync_due()
    assert await engine.sync_due()
    assert not await engine.sync_due()
    db.execute("UPDATE sources SET next_try_at = now() - interval '1 hour' WHERE name = 'two'")
    started = state(db, "one")["last_started_at"]
    assert await engine.sync_due()
    assert state(db, "one")["last_started_at"] == started


async def test_lane_for_healthy_sources_leaves_failing_ones_alone(
    database: Database, db: Db, platform: Platform
) -> None:
    engine = syncer(database, configured(platform, "one"), configured(platform, "two"))
    await engine.register()
    db.execute("UPDATE sources SET failures = 3, next_try_at = now() - interval '1 hour' WHERE name = 'one'")
    assert await engine.sync_due(only_healthy=True)
    assert (state(db, "one")["last_started_at"], state(db, "two")["last_started_at"] is None) == (None, False)
    assert not await engine.sync_due(only_healthy=True)
    assert await engine.sync_due()
    assert state(db, "one")["failures"] == 0


async def test_clock_of_the_source_that_is_behind_ours_hides_nothing(
    database: Database, db: Db, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = configured(platform)
    behind = timedelta(minutes=20)
    monkeypatch.setattr(
        "headway.connectors.http.Http._compare_clocks", lambda self, _h: setattr(self, "clock_lag", behind)
    )
    await sync(database, source)
    assert clock.now() - state(db)["watermark"] >= behind


async def test_watermark_of_a_clock_that_was_ahead_hides_nothing(
    database: Database, db: Db, platform: Platform
) -> None:
    source = configured(platform)
    run = add_live(platform)
    await sync(database, source)
    db.execute("UPDATE sources SET watermark = now() + interval '1 hour'")
    platform.change(run, word="DONE", started_at=ago(hours=2), finished_at=ago(minutes=20), updated_at=ago(minutes=20))
    (new,) = add_runs(platform, 1, days=0)
    await sync(database, source)
    assert {stored(db)[name]["status"] for name in (run, new)} == {"success"}
    assert state(db)["watermark"] <= clock.now()


async def test_daily_sweep_finds_what_changed_without_a_trace(database: Database, db: Db, platform: Platform) -> None:
    source = configured(platform)
    (run,) = add_runs(platform, 1, days=1)
    await sync(database, source)
    end = ago(minutes=50)
    platform.change(run, word="BROKEN", started_at=end, finished_at=end, updated_at=ago(days=3))  # not by its changes
    await sync(database, source)
    assert stored(db)[run]["status"] == "success"
    db.execute("UPDATE sources SET swept_at = swept_at - interval '25 hours'")
    await sync(database, source)
    assert stored(db)[run]["status"] == "failed"
