"""Attempts of sources that use a run's id again without counting: the rule, and the writer that goes by it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.access.principal import EVERYONE
from headway.core.db import Database
from headway.pipelines.reference import PipelineRef
from headway.runs import attempts, writer
from headway.runs.merge import RunState, join_states, state_of
from headway.runs.observation import OPEN_ATTEMPT, RunObservation, Status, observe
from headway.runs.writer import Outcome, Submission

Db = psycopg.Connection[dict[str, Any]]
DAG = PipelineRef("acme", "airflow", "daily", "shop/daily")
T = datetime(2026, 11, 1, 9, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T + timedelta(minutes=minutes)


def queued(minute: float, **more: Any) -> RunObservation:
    return told(Status.QUEUED, observed_at=at(minute), **more)


def running(start: float, **more: Any) -> RunObservation:
    return told(Status.RUNNING, started_at=at(start), **more)


def ended(start: float | None, end: float, status: Status = Status.SUCCESS, **more: Any) -> RunObservation:
    return told(status, started_at=None if start is None else at(start), finished_at=at(end), **more)


def told(status: Status, *, attempt: int = OPEN_ATTEMPT, **values: Any) -> RunObservation:
    return observe(pipeline=DAG, external_run_id="r1", status=status, source="acme", attempt=attempt, **values)


def stored(report: RunObservation, attempt: int) -> RunState:
    return state_of(attempts.numbered(report, attempt))


@pytest.mark.parametrize(
    ("held", "report", "attempt"),
    [
        (None, running(0), 1),
        (stored(running(0), 1), ended(0, 10), 1),
        (stored(ended(0, 10), 1), ended(0, 10), 1),
        (stored(ended(0, 10), 1), queued(11), 2),
        (stored(ended(0, 10), 1), running(11), 2),
        (stored(ended(0, 10), 1), ended(11, 12), 2),
        (stored(ended(0, 10), 1), ended(0, 12), 1),  # set by hand to another end
        (stored(ended(0, 10), 1), told(Status.RUNNING), 1),  # says nothing of when
        (
            stored(ended(0, 10), 1),
            told(Status.RUNNING, started_at=at(0), observed_at=at(15)),
            2,
        ),  # the first start stays
        (stored(ended(0, 10), 1), running(10), 1),
        (stored(queued(11), 2), ended(0, 10), None),
        (stored(queued(11), 2), running(0), None),
        (stored(queued(11), 2), running(11.5), 2),
        (stored(running(11), 2), queued(11), 2),
        (stored(running(11), 2), ended(0, 10), None),
        (stored(running(11), 2), ended(11, 11), 2),  # an instant
        (stored(ended(11, 12), 2), ended(0, 10), None),
        (stored(ended(11, 12), 2), ended(13, 14), 3),
        (stored(running(11), 1), ended(0, 10), 1),  # of a first attempt all is believed
        (stored(ended(None, 10), 1), ended(None, 12), 1),
    ],
)
def test_rule(held: RunState | None, report: RunObservation, attempt: int | None) -> None:
    assert attempts.attempt_of(held, report) == attempt


def test_numbered_report_ranks_as_one_that_was_counted() -> None:
    assert attempts.numbered(running(3), 7) == running(3, attempt=7)


async def write(database: Database, *reports: RunObservation) -> Outcome:
    submission = Submission(EVERYONE, register=True)
    for index, report in enumerate(reports):
        submission.add(report, index)
    async with database.transaction() as connection:
        (outcome,) = await writer.write(connection, [submission], now=at(60))
    return outcome


def the_run(db: Db) -> dict[str, Any]:
    (row,) = db.execute("SELECT attempt, status, started_at, finished_at, error_message FROM runs").fetchall()
    return row


def the_ends(db: Db) -> list[tuple[int, str, datetime | None]]:
    rows = db.execute(
        "SELECT attempt, status, finished_at FROM run_events WHERE status NOT IN ('queued', 'running') ORDER BY attempt"
    ).fetchall()
    return [(row["attempt"], row["status"], row["finished_at"]) for row in rows]


async def test_cleared_run_goes_back_to_running_and_keeps_the_end_of_its_first_attempt(
    database: Database, db: Db
) -> None:
    for report in (running(0), ended(0, 10, Status.FAILED, error_message="boom"), queued(20), running(21)):
        await write(database, report)
    assert the_run(db) == {
        "attempt": 2,
        "status": "running",
        "started_at": at(21),
        "finished_at": None,
        "error_message": None,
    }
    assert the_ends(db) == [(1, "failed", at(10))]
    await write(database, ended(21, 30))
    assert the_ends(db) == [(1, "failed", at(10)), (2, "success", at(30))]


async def test_replay_of_the_latest_report_changes_and_locks_nothing(database: Database, db: Db) -> None:
    await write(database, ended(0, 10))
    await write(database, ended(20, 30))
    before = db.execute("SELECT xmin::text, xmax::text, * FROM runs").fetchall()
    outcome = await write(database, ended(20, 30))
    assert (outcome.inserted, outcome.updated, outcome.unchanged, outcome.outdated) == (0, 0, 1, 0)
    assert db.execute("SELECT xmin::text, xmax::text, * FROM runs").fetchall() == before


async def test_end_of_an_earlier_attempt_that_comes_late_is_dropped_and_counted(database: Database, db: Db) -> None:
    await write(database, ended(0, 10, Status.FAILED))
    await write(database, queued(20))
    outcome = await write(database, ended(0, 12, Status.FAILED))
    assert (outcome.unchanged, outcome.outdated) == (1, 1)
    assert the_run(db)["status"] == "queued"


async def test_reports_of_one_batch_are_numbered_one_after_another(database: Database, db: Db) -> None:
    outcome = await write(database, running(0), ended(0, 10), running(20), ended(20, 30), running(40))
    assert (outcome.inserted, outcome.unchanged) == (1, 4)
    assert (the_run(db)["attempt"], the_run(db)["status"]) == (3, "running")
    assert [end[0] for end in the_ends(db)] == [1, 2]


async def test_pushed_attempts_and_polled_ones_are_the_same(database: Database, db: Db) -> None:
    await write(database, ended(0, 10, attempt=1))
    await write(database, running(20, attempt=2))
    await write(database, running(20))
    assert the_run(db)["attempt"] == 2
    await write(database, ended(20, 30))
    await write(database, ended(20, 30, attempt=2))
    assert [end[:2] for end in the_ends(db)] == [(1, "success"), (2, "success")]


async def test_two_at_once_that_see_the_same_re_run_make_one_attempt(database: Database, db: Db) -> None:
    await write(database, ended(0, 10))
    await asyncio.gather(*(write(database, running(20)) for _ in range(8)))
    assert (the_run(db)["attempt"], the_run(db)["started_at"]) == (2, at(20))


Life = list[tuple[float, float, float, Status]]


def lay_out(parts: list[tuple[int, int, int, Status]]) -> Life:
    """Return the queue time, start, end and status of each attempt, one after another."""
    now, life = 0.0, []
    for before, wait, length, status in parts:
        queue = now + before
        now = queue + wait + length
        life.append((queue, queue + wait, now, status))
    return life


LIVES = st.lists(
    st.tuples(
        st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.sampled_from([Status.SUCCESS, Status.FAILED])
    ),
    min_size=1,
    max_size=5,
).map(lay_out)


@given(LIVES, st.data())
def test_every_attempt_is_counted_however_often_each_state_is_seen(life: Life, data: st.DataObject) -> None:
    state: RunState | None = None
    for number, (queue, start, end, status) in enumerate(life, 1):
        looks = [queued(queue), running(start), ended(start, end, status)]
        seen = data.draw(st.lists(st.sampled_from([0, 1, 2]), max_size=6))
        for look in [*sorted(seen), 2]:  # each attempt is seen ended at least once
            attempt = attempts.attempt_of(state, looks[look])
            assert attempt == number
            made = state_of(attempts.numbered(looks[look], attempt))
            state = made if state is None else join_states(state, made)
    assert state is not None
    assert (state.attempt, state.status, state.finished_at) == (len(life), life[-1][3], at(life[-1][2]))
