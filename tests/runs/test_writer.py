"""The one place that writes runs: what it costs, what it counts, and what happens when several write at once."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from headway.access.principal import EVERYONE
from headway.core.db import Database
from headway.embedded.server import EmbeddedServer
from headway.migrations import runner
from headway.pipelines.reference import PipelineRef, Reference
from headway.runs import sql, writer
from headway.runs.observation import Status, observe
from headway.runs.writer import Outcome, Submission
from tests.conftest import PASSWORDS, CloneDatabase

Db = psycopg.Connection[dict[str, Any]]
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAILY = PipelineRef("acme", "airflow", "daily")


def submission(*observations: dict[str, Any], pipeline: Reference = DAILY) -> Submission:
    made = Submission(EVERYONE, register=True)
    for index, values in enumerate(observations):
        made.add(observe(**{"status": Status.SUCCESS, "source": "api", "pipeline": pipeline} | values), index)
    return made


def run(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"external_run_id": f"run-{number:04d}", "finished_at": NOW} | more


async def write(database: Database, *submissions: Submission, now: datetime = NOW) -> list[Outcome]:
    async with database.transaction() as connection:
        return await writer.write(connection, submissions, now=now)


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.inserted, outcome.updated, outcome.unchanged


# --- what it costs


@contextmanager
def counted_statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Count all that goes to the server, whoever sends it: each statement of an executemany, and COPY too."""
    sent: list[Any] = []

    def wrap(kind: Any, name: str) -> None:
        original = getattr(kind, name)

        def counting(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            many = name == "executemany"
            sent.extend([query] * (len(arguments[0]) if many else 1))
            return original(self, query, *arguments, **options)

        patch.setattr(kind, name, counting)

    with monkeypatch.context() as patch:
        for name in ("execute", "executemany", "copy"):
            wrap(psycopg.AsyncCursor, name)
        yield sent


@pytest.mark.parametrize("pipelines", [1, 0])
async def test_number_of_statements_does_not_depend_on_the_size(
    database: Database, monkeypatch: pytest.MonkeyPatch, db: Db, pipelines: int
) -> None:
    """Of one known pipeline, and of as many new pipelines, each of a new client, as there are runs."""

    async def cost(size: int) -> int:
        made = Submission(EVERYONE, register=True)
        for n in range(size):
            place = PipelineRef("acme", "airflow", "daily") if pipelines else PipelineRef(f"c{size}-{n}", "cron", "x")
            made.add(observe(pipeline=place, source="api", status=Status.SUCCESS, external_run_id=f"{size}-{n}"), n)
        with counted_statements(monkeypatch) as sent:
            (outcome,) = await write(database, made)
        assert outcome.inserted == size
        return len(sent)

    await cost(1)  # registers the known one
    assert await cost(50) == await cost(100) < 16


async def test_large_batch_does_not_hold_up_the_event_loop(database: Database) -> None:
    made = submission(*(run(n) for n in range(12_000)))
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.create_task(tick())
    try:
        await write(database, made)
    finally:
        ticking.cancel()
    assert turns > 12_000 / writer.COPY_LINES * 2


# --- what it writes

HOSTILE = [
    "back\\slash \\n \\t \\\\ \\",
    "tab\there",
    "line\nfeed\r\ncarriage\rreturn",
    "\\N",
    "\\.",
    "\\.\n",
    "'quotes' \"double\" $$dollar$$ %(now)s %s {}",
    "ünïcödé \u2028\u2029\ufeff\x7f\x01\x1f",
    "\U0001f680" * 512,
    "x" * 512,
    " leading and trailing ",
    "NULL",
]


async def test_hostile_texts_arrive_byte_for_byte(database: Database, db: Db) -> None:
    made = submission(
        *(
            {
                "external_run_id": text,
                "status": Status.FAILED,
                "error_message": text,
                "status_reason": text[:500],
                "url": f"https://a.example/?q={text}",
                "payload": {text: [text, {"deep": text}]},
                "source": text,
            }
            for text in HOSTILE
        )
    )
    (outcome,) = await write(database, made)
    assert counts(outcome) == (len(HOSTILE), 0, 0)
    rows = {row["external_run_id"]: row for row in db.execute("SELECT * FROM runs").fetchall()}
    assert rows.keys() == set(HOSTILE)
    for (_, text), record in made.records.items():
        row, state = rows[text], record.state
        assert (row["error_message"], row["source"], row["status_reason"]) == (text, text, text[:500])
        assert (row["url"], row["rank"]) == (state.url, state.rank)
        assert row["payload"] == {text: [text, {"deep": text}]}
    events = db.execute("SELECT external_run_id, error_message, source FROM run_events").fetchall()
    assert {tuple(event.values()) for event in events} == {(text, text, text) for text in HOSTILE}
    assert counts((await write(database, made))[0]) == (0, 0, len(HOSTILE))


async def test_empty_texts_are_not_null(database: Database, db: Db) -> None:
    made = submission(run(error_message="", status_reason="", source="", payload={}, status=Status.FAILED))
    await write(database, made)
    row = db.execute("SELECT error_message, status_reason, source, payload, url FROM runs").fetchone()
    assert row == {"error_message": "", "status_reason": "", "source": "", "payload": {}, "url": None}


async def test_identity_and_first_sight_stay_when_a_run_changes(database: Database, db: Db) -> None:
    later = NOW + timedelta(hours=1)
    await write(database, submission(run(status=Status.RUNNING, started_at=NOW)))
    (before,) = db.execute("SELECT * FROM runs").fetchall()
    (outcome,) = await write(database, submission(run()), now=later)
    assert counts(outcome) == (0, 1, 0)
    (after,) = db.execute("SELECT * FROM runs").fetchall()
    assert (after["id"], after["created_at"], after["status"]) == (before["id"], NOW, "success")
    assert (before["updated_at"], after["updated_at"]) == (NOW, later)
    history = db.execute("SELECT status, recorded_at FROM run_events ORDER BY recorded_at").fetchall()
    assert [tuple(event.values()) for event in history] == [("running", NOW), ("success", later)]
    await write(database, submission(run(status=Status.RUNNING, started_at=NOW - timedelta(hours=1))), now=later)
    assert db.execute("SELECT recorded_at FROM run_events WHERE status = 'running'").fetchall() == [
        {"recorded_at": NOW}
    ]


async def test_time_of_change_does_not_go_back(database: Database, db: Db) -> None:
    """A transaction that had to wait for another's row may have begun before it."""
    await write(database, submission(run(status=Status.RUNNING)))
    await write(database, submission(run()), now=NOW - timedelta(minutes=1))
    assert db.execute("SELECT status, updated_at FROM runs").fetchall() == [{"status": "success", "updated_at": NOW}]


async def test_higher_attempt_supersedes_and_the_history_keeps_the_lower_one(database: Database, db: Db) -> None:
    failed = run(status=Status.FAILED, error_message="disk full", url="https://a.example/1", rows_processed=9)
    again = run(status=Status.RUNNING, attempt=2, started_at=NOW + timedelta(hours=1))
    await write(database, submission(failed))
    await write(database, submission(again))
    await write(database, submission(failed | {"error_message": "late news of the first attempt"}))
    (row,) = db.execute("SELECT * FROM runs").fetchall()
    assert (row["status"], row["attempt"], row["started_at"]) == ("running", 2, NOW + timedelta(hours=1))
    assert {row[name] for name in ("finished_at", "error_message", "url", "rows_processed", "error_rank")} == {None}
    history = db.execute("SELECT attempt, status, finished_at FROM run_events ORDER BY attempt").fetchall()
    assert [tuple(event.values()) for event in history] == [(1, "failed", NOW), (2, "running", None)]


# --- what it counts


async def test_run_that_several_submissions_tell_of_is_new_for_the_first(database: Database) -> None:
    one, two = submission(run(1, status=Status.RUNNING), run(2)), submission(run(1), run(1), run(3))
    other = Submission(EVERYONE)
    other.add(observe(pipeline=PipelineRef("acme", "airflow", "unheard of"), source="api", **_success(9)), 4)
    first, second, third = await write(database, one, two, other)
    assert (counts(first), counts(second)) == ((2, 0, 0), (1, 1, 1))
    assert (counts(third), list(third.refused)) == ((0, 0, 0), [4])
    assert [counts(o) for o in await write(database, one, two)] == [(0, 0, 2), (0, 0, 3)]


def _success(number: int) -> dict[str, Any]:
    return run(number, status=Status.SUCCESS)


async def test_submission_stays_as_it_is_when_a_neighbour_tells_of_the_same_run(database: Database, db: Db) -> None:
    """Or it would bring its neighbour's report along when it is tried again alone."""
    mine, neighbour = submission(run(1, status=Status.RUNNING)), submission(run(1, status=Status.FAILED))
    async with database.engine.connect() as connection:  # and no commit
        await writer.write(connection, [mine, neighbour], now=NOW)
    await write(database, mine)
    assert db.execute("SELECT status FROM runs").fetchall() == [{"status": "running"}]
    assert db.execute("SELECT status FROM run_events").fetchall() == [{"status": "running"}]


async def test_run_named_in_two_ways_in_one_submission_is_one_run(database: Database, db: Db) -> None:
    await write(database, submission(run(1)))
    pipeline_id: UUID = db.execute("SELECT id FROM pipelines").fetchall()[0]["id"]
    made = submission(run(2, status=Status.RUNNING))
    made.add(observe(pipeline=pipeline_id, source="api", **_success(2)), 1)
    (outcome,) = await write(database, made)
    assert counts(outcome) == (1, 0, 1)
    assert db.execute("SELECT status FROM runs WHERE external_run_id = 'run-0002'").fetchall() == [
        {"status": "success"}
    ]


async def test_tables_may_be_partitioned_by_pipeline(server: EmbeddedServer, clone_database: CloneDatabase) -> None:
    name = clone_database()
    with psycopg.connect(server.superuser_url(name), autocommit=True) as admin:
        for table in ("runs", "run_events"):
            admin.execute(f"ALTER TABLE {table} RENAME TO whole_{table}")
            admin.execute(f"CREATE TABLE {table} (LIKE whole_{table} INCLUDING ALL) PARTITION BY HASH (pipeline_id)")
            for part in range(2):
                values = f"FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
                admin.execute(f"CREATE TABLE {table}_{part} PARTITION OF {table} {values}")
            admin.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {runner.APP}")
    database = Database(server.url(runner.APP, PASSWORDS[runner.APP], name), on_connect=sql.STAGING)
    try:
        for expected in ((2, 0, 0), (0, 0, 2)):
            assert counts((await write(database, submission(run(1), run(2))))[0]) == expected
        failed = run(1, status=Status.FAILED)
        assert counts((await write(database, submission(failed, run(3))))[0]) == (1, 1, 0)
    finally:
        await database.dispose()


async def test_several_writes_may_share_a_transaction(database: Database, db: Db) -> None:
    async with database.transaction() as connection:
        await writer.write(connection, [submission(run(1, status=Status.RUNNING))], now=NOW)
        (outcome,) = await writer.write(connection, [submission(run(1), run(2))], now=NOW)
    assert counts(outcome) == (1, 1, 0)
    assert [row["status"] for row in db.execute("SELECT status FROM runs").fetchall()] == ["success", "success"]


# --- several at once


async def test_overlapping_batches_in_opposite_orders_end_in_the_joined_state(database: Database, db: Db) -> None:
    """Rows are locked in key order, runs before events: nobody waits in a circle."""
    chance = random.Random(7)  # noqa: S311 - no secret
    numbers = range(40)
    states: list[dict[str, Any]] = [
        {"status": Status.QUEUED},
        {"status": Status.RUNNING, "started_at": NOW},
        {"status": Status.FAILED, "error_message": "x"},
        {"status": Status.SUCCESS, "rows_processed": 5},
        {"status": Status.RUNNING, "attempt": 2, "started_at": NOW + timedelta(hours=2)},
    ]
    for round_number in range(12):
        batches = []
        for state in states:
            mine = chance.sample(numbers, 30)
            batches.append(submission(*(run(round_number * 100 + n, **state) for n in mine)))
        outcomes = await asyncio.gather(*(write(database, batch) for batch in batches))
        assert sum(o.inserted for (o,) in outcomes) == len({key for batch in batches for key in batch.records})
        stored = {r["external_run_id"]: r for r in db.execute("SELECT * FROM runs").fetchall()}
        for batch in batches:
            for (_, external_run_id), record in batch.records.items():
                assert stored[external_run_id]["rank"] >= record.state.rank
    assert {row["n"] for row in db.execute("SELECT count(*) AS n FROM runs WHERE status = 'failed'").fetchall()} != {0}
    # every report in any order is the same again
    before = db.execute("SELECT ctid, xmin, xmax FROM runs ORDER BY ctid").fetchall()
    for (outcome,) in await asyncio.gather(*(write(database, batch) for batch in batches)):
        assert counts(outcome)[:2] == (0, 0)
    assert db.execute("SELECT ctid, xmin, xmax FROM runs ORDER BY ctid").fetchall() == before


async def test_replay_does_not_wait_for_rows_that_somebody_holds(database: Database, db: Db) -> None:
    made = submission(run(1), run(2))
    await write(database, made)
    with db.transaction():
        db.execute("SELECT 1 FROM runs FOR UPDATE")
        db.execute("SELECT 1 FROM run_events FOR UPDATE")
        (outcome,) = await asyncio.wait_for(write(database, made), 5)
    assert counts(outcome) == (0, 0, 2)


async def test_writer_that_waited_joins_what_it_finds(database: Database) -> None:
    """READ COMMITTED: the statement began before the other one's commit and must not go by what it saw then."""
    async with database.transaction() as connection:
        await writer.write(connection, [submission(run(1, status=Status.RUNNING, started_at=NOW))], now=NOW)
        waiting = asyncio.create_task(write(database, submission(run(1, status=Status.SUCCESS)), now=NOW))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    # the pipeline was registered by the one, and the other waited for it already there
    (outcome,) = await waiting
    assert counts(outcome) == (0, 1, 0)


async def test_batch_that_is_cancelled_leaves_its_connection_usable(app_url: str, db: Db) -> None:
    database = Database(app_url, pool_size=1, on_connect=sql.STAGING)
    try:
        made = submission(*(run(n) for n in range(3000)))
        for delay in (0.0, 0.005, 0.02, 0.04, 0.08):
            task = asyncio.create_task(write(database, made))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
        (outcome,) = await write(database, made)
        assert outcome.inserted + outcome.unchanged == 3000
        assert db.execute("SELECT count(*) AS n FROM runs").fetchall() == [{"n": 3000}]
    finally:
        await database.dispose()
