"""Concurrent callers of single runs share transactions, and nothing else: not their locks, errors or hang-ups."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import event

from headway.access.principal import EVERYONE
from headway.core.db import Database
from headway.core.errors import HeadwayError, UnavailableError
from headway.pipelines.reference import PipelineRef
from headway.runs import shared_writer, sql
from headway.runs.observation import Status, observe
from headway.runs.shared_writer import Grouping, SharedWriter, Stored
from headway.runs.writer import Submission

Db = psycopg.Connection[dict[str, Any]]
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAILY = PipelineRef("acme", "airflow", "daily")


def submission(name: str, *, status: Status = Status.SUCCESS, pipeline: PipelineRef | UUID = DAILY) -> Submission:
    made = Submission(EVERYONE, register=True)
    made.add(observe(pipeline=pipeline, external_run_id=name, status=status, source="api", observed_at=NOW))
    return made


def statuses(db: Db) -> dict[str, str]:
    rows = db.execute("SELECT external_run_id, status FROM runs").fetchall()
    return {row["external_run_id"]: row["status"] for row in rows}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_writer, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(shared_writer, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(shared_writer, "PAUSE_SECONDS", 0.02)


def commits(database: Database) -> list[None]:
    seen: list[None] = []
    event.listen(database.engine.sync_engine, "commit", lambda _connection: seen.append(None))
    return seen


# --- the mechanism


class Recorder:
    """Work that notes its groups, and waits to be let on."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.let_on = asyncio.Event()

    async def work(self, items: list[str]) -> list[str]:
        self.groups.append(items)
        await self.let_on.wait()
        if "bad" in items and len(items) > 1:
            raise RuntimeError("bad neighbour")
        return [await self.alone(item) for item in items]

    async def alone(self, item: str) -> str:
        if item == "bad":
            raise ValueError(item)
        return item.upper()


async def started(make: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(make())
    await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


async def test_first_goes_at_once_and_those_that_come_meanwhile_go_together() -> None:
    recorder = Recorder()
    grouping = Grouping(recorder.work, recorder.alone)
    tasks = [await started(lambda name=name: grouping.submit(name)) for name in ("a", "b", "c")]  # type: ignore[misc]
    await asyncio.sleep(0)
    assert recorder.groups == [["a"]]
    assert grouping.waiting == 2
    recorder.let_on.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]
    assert recorder.groups == [["a"], ["b", "c"]]


async def test_bad_neighbour_gets_its_own_error_and_the_others_their_answers() -> None:
    recorder = Recorder()
    recorder.let_on.set()
    grouping = Grouping(recorder.work, recorder.alone)
    answers = await asyncio.gather(*(grouping.submit(i) for i in ("a", "b", "bad", "c")), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["A", "B", "bad", "C"]
    assert isinstance(answers[2], ValueError)
    assert await grouping.submit("d") == "D"


async def test_too_many_that_wait_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_writer, "MAX_WAITING", 2)
    recorder = Recorder()
    grouping = Grouping(recorder.work, recorder.alone)
    tasks = [asyncio.create_task(grouping.submit("a"))]
    await asyncio.sleep(0.01)  # it is under way, and does not wait any more
    tasks += [asyncio.create_task(grouping.submit(name)) for name in "bc"]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError) as caught:
        await grouping.submit("d")
    assert caught.value.problem_code == "overloaded"
    recorder.let_on.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]


async def test_group_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_writer, "MAX_GROUP", 3)
    recorder = Recorder()
    recorder.let_on.set()
    grouping = Grouping(recorder.work, recorder.alone)
    await asyncio.gather(*(grouping.submit(str(n)) for n in range(7)))
    assert max(len(group) for group in recorder.groups) == 3


async def test_drained_waits_for_all_even_those_that_are_tried_alone() -> None:
    recorder = Recorder()
    grouping = Grouping(recorder.work, recorder.alone)
    tasks = [asyncio.create_task(grouping.submit(name)) for name in ("a", "bad", "b")]
    await asyncio.sleep(0)
    draining = asyncio.create_task(grouping.drained())
    await asyncio.sleep(0.01)
    assert not draining.done()
    recorder.let_on.set()
    await draining
    assert grouping.waiting == 0
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    assert [str(answer) for answer in answers] == ["A", "bad", "B"]
    await grouping.drained()  # nothing is under way


# --- on the database


async def test_many_callers_share_few_commits_and_each_gets_its_own_run(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    await writer.submit(submission("first"))
    seen = commits(database)
    stored = await asyncio.gather(*(writer.submit(submission(f"run-{n}")) for n in range(60)))
    assert [s.run.external_run_id for s in stored if s.run] == [f"run-{n}" for n in range(60)]
    assert [s.outcome.inserted for s in stored] == [1] * 60
    assert 1 <= len(seen) <= 2
    assert len(statuses(db)) == 61


async def test_callers_that_tell_of_one_run_all_get_it_as_it_is_in_the_end(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    await writer.submit(submission("first"))
    told = [Status.QUEUED, Status.RUNNING, Status.FAILED, Status.RUNNING]
    stored = await asyncio.gather(
        writer.submit(submission("first")), *(writer.submit(submission("x", status=status)) for status in told)
    )
    assert [s.run.status for s in stored[1:] if s.run] == ["failed"] * 4
    assert [s.outcome.inserted for s in stored] == [0, 1, 0, 0, 0]
    assert statuses(db)["x"] == "failed"


async def test_answer_comes_after_the_commit(database: Database, db: Db) -> None:
    writer = SharedWriter(database)

    async def caller(name: str) -> bool:
        await writer.submit(submission(name))
        return name in statuses(db)

    assert all(await asyncio.gather(*(caller(f"run-{n}") for n in range(30))))


async def test_what_the_database_refuses_fails_its_own_caller_alone(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    bad = submission("bad")
    bad.records = {(DAILY, "x" * 513): next(iter(bad.records.values()))}
    names = [f"run-{n}" for n in range(10)]
    answers = await asyncio.gather(
        *(writer.submit(submission(name)) for name in names), writer.submit(bad), return_exceptions=True
    )
    assert [answer.run.external_run_id for answer in answers if isinstance(answer, Stored) and answer.run] == names
    assert isinstance(answers[-1], Exception)
    assert set(statuses(db)) == set(names)


async def test_bad_report_of_the_same_run_does_not_come_along_when_the_others_are_tried_alone(
    database: Database, db: Db
) -> None:
    writer = SharedWriter(database)
    await writer.submit(submission("first"))
    bad = submission("x", status=Status.FAILED)
    record = next(iter(bad.records.values()))
    record.state = record.state._replace(attempt=2**31, rank=b"\xff" + record.state.rank)  # the greatest, too great
    answers = await asyncio.gather(
        writer.submit(submission("first")),
        writer.submit(submission("x")),
        writer.submit(bad),
        return_exceptions=True,
    )
    assert [isinstance(answer, Stored) for answer in answers] == [True, True, False]
    assert statuses(db) == {"first": "success", "x": "success"}


@pytest.mark.usefixtures("impatient")
async def test_locked_row_holds_up_its_own_callers_alone(database: Database, db: Db) -> None:
    """Even where more of them wait for it than there are lanes and connections."""
    writer = SharedWriter(database)
    await writer.submit(submission("locked", status=Status.RUNNING))
    begun = time.monotonic()
    with db.transaction():
        db.execute("SELECT 1 FROM runs WHERE external_run_id = 'locked' FOR UPDATE")
        held = [asyncio.create_task(writer.submit(submission("locked"))) for _ in range(8)]
        await asyncio.sleep(0)
        free = await asyncio.gather(*(writer.submit(submission(f"run-{n}")) for n in range(10)))
        assert [s.outcome.inserted for s in free] == [1] * 10
        assert not all(task.done() for task in held)
        answers = await asyncio.gather(*held, return_exceptions=True)
    assert {type(answer) for answer in answers} == {UnavailableError}
    assert {answer.problem_code for answer in answers if isinstance(answer, HeadwayError)} == {"busy"}
    assert time.monotonic() - begun >= 0.5
    assert statuses(db)["locked"] == "running"
    await writer.submit(submission("locked"))
    assert statuses(db)["locked"] == "success"


async def test_row_that_is_let_go_in_time_is_written(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    await writer.submit(submission("locked", status=Status.RUNNING))
    with db.transaction():
        db.execute("SELECT 1 FROM runs FOR UPDATE")
        held = asyncio.create_task(writer.submit(submission("locked")))
        await asyncio.sleep(0.5)
        assert not held.done()
    assert (await held).outcome.updated == 1


async def test_caller_that_hangs_up_cancels_nothing(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    tasks = [asyncio.create_task(writer.submit(submission(f"run-{n}"))) for n in range(6)]
    await asyncio.sleep(0.005)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 3
    await writer.drained()
    assert len(statuses(db)) == 6


async def test_nobody_waits_long_for_a_database_that_is_not_there(unused_tcp_port: int) -> None:
    database = Database(f"postgresql://headway_app@127.0.0.1:{unused_tcp_port}/headway", on_connect=sql.STAGING)
    writer = SharedWriter(database)
    try:
        answers = await asyncio.wait_for(
            asyncio.gather(*(writer.submit(submission(f"run-{n}")) for n in range(20)), return_exceptions=True), 10
        )
    finally:
        await database.dispose()
    assert {answer.problem_code for answer in answers if isinstance(answer, UnavailableError)} == {
        "database_unavailable"
    }
    assert len(answers) == 20


async def test_writer_recovers_after_its_connections_were_cut(database: Database, db: Db) -> None:
    writer = SharedWriter(database)
    await asyncio.gather(*(database_ping(database) for _ in range(4)))
    await writer.submit(submission("before", status=Status.RUNNING))
    with db.transaction():
        db.execute("SELECT 1 FROM runs FOR UPDATE")  # so that it is cut in the middle
        held = asyncio.create_task(writer.submit(submission("before")))
        await asyncio.sleep(0.1)
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'headway_app'"
        )
        with pytest.raises(UnavailableError) as caught:
            await held
    assert caught.value.problem_code == "database_unavailable"
    assert (await writer.submit(submission("before"))).outcome.updated == 1
    stored = await asyncio.gather(*(writer.submit(submission(f"run-{n}")) for n in range(10)))
    assert [s.outcome.inserted for s in stored] == [1] * 10


async def database_ping(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql("SELECT pg_sleep(0.05)")


async def test_one_report_of_an_unknown_pipeline_is_refused_beside_others_that_are_stored(database: Database) -> None:
    writer = SharedWriter(database)
    unknown = submission("x", pipeline=UUID(int=1))
    first, good, refused = await asyncio.gather(
        writer.submit(submission("a")), writer.submit(submission("b")), writer.submit(unknown)
    )
    assert (first.outcome.inserted, good.outcome.inserted) == (1, 1)
    assert refused.run is None
    assert [refusal.code for refusal in refused.outcome.refused.values()] == ["unknown_pipeline"]
