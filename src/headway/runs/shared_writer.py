"""Lets concurrent callers of single runs share transactions.

The first submission goes at once; those that arrive while it is under way go together in the next transaction. Every
caller is answered after its own commit. A group waits only briefly for locks, and on any error its members are tried
alone, so that a locked row or a bad neighbour holds nobody else up; whoever meets a locked row tries again until its
patience ends, and takes no connection in between. A caller that hangs up cancels nothing. Callers: the single-run
door, OpenLineage. Tests: ``tests/runs/test_shared_writer.py``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.core import clock
from headway.core.db import Database
from headway.core.errors import UnavailableError
from headway.runs import writer
from headway.runs.numbering import RunKey
from headway.runs.queries import RunRow, get_by_keys
from headway.runs.writer import Outcome, Submission

MAX_GROUP = 256
MAX_WAITING = 10_000
LOCK_TIMEOUT = "200ms"
# How long a caller whose row is locked waits for it in all, and from one try to the next.
PATIENCE_SECONDS = 5.0
PAUSE_SECONDS = 0.1
# So many of those that are tried alone hold a connection at the same time: the pool is for others too.
LANES = 3


class Stored(NamedTuple):
    """What became of one submission, and its run as it stands now (None where it was refused)."""

    outcome: Outcome
    run: RunRow | None


T = TypeVar("T")
R = TypeVar("R")


class Grouping(Generic[T, R]):
    """Runs work in groups, one group at a time: the mechanism, without a database."""

    def __init__(self, work: Callable[[list[T]], Awaitable[list[R]]], alone: Callable[[T], Awaitable[R]]) -> None:
        self._work = work
        self._alone = alone
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None
        self._stragglers: set[asyncio.Task[None]] = set()
        self._lanes = asyncio.Semaphore(LANES)

    @property
    def waiting(self) -> int:
        """Return how many callers wait for a group, or alone for a lock."""
        return len(self._waiting) + len(self._stragglers)

    async def submit(self, item: T) -> R:
        """Do one item's work with whoever comes at the same time; returns after it is done."""
        if self.waiting >= MAX_WAITING:
            raise UnavailableError("too many reports are waiting to be stored; try again", code="overloaded")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await asyncio.shield(future)

    async def drained(self) -> None:
        """Return when all that was submitted is done; part of a graceful stop."""
        while under_way := [task for task in (self._task, *self._stragglers) if task is not None and not task.done()]:
            await asyncio.wait(under_way)

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            try:
                results = await self._work([item for item, _ in group])
            except Exception as error:  # noqa: BLE001 - each caller gets it, or an answer of its own
                self._scatter(group, error)
            else:
                for (_, future), result in zip(group, results, strict=True):
                    _settle(future, result)

    def _scatter(self, group: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        """Try the members of a failed group alone, without holding up the next group."""
        if isinstance(error, UnavailableError) and not _is_busy(error):  # no database, no connection: nobody's fault
            for _, future in group:
                _fail(future, error)
            return
        for item, future in group:
            task = asyncio.create_task(self._try_alone(item, future))
            self._stragglers.add(task)
            task.add_done_callback(self._stragglers.discard)

    async def _try_alone(self, item: T, future: asyncio.Future[R]) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not future.done():
            try:
                async with self._lanes:
                    result = await self._alone(item)
            except Exception as error:  # noqa: BLE001 - its caller gets it
                if not _is_busy(error) or asyncio.get_running_loop().time() > deadline:
                    _fail(future, error)
                else:
                    await asyncio.sleep(PAUSE_SECONDS)
            else:
                _settle(future, result)


def _is_busy(error: Exception) -> bool:
    """Tell whether an error is about rows that somebody else has locked: it may be gone the next time."""
    return isinstance(error, UnavailableError) and error.problem_code == "busy"


def _settle(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[R], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # its caller may have hung up: then nobody else looks at it


class SharedWriter:
    """Stores single submissions, sharing transactions among concurrent callers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._groups = Grouping[Submission, Stored](self._write, self._write_alone)

    @property
    def waiting(self) -> int:
        """Return how many callers wait for a transaction."""
        return self._groups.waiting

    async def submit(self, submission: Submission) -> Stored:
        """Store one submission of one run; returns after its commit."""
        return await self._groups.submit(submission)

    async def drained(self) -> None:
        """Return when all that was submitted is committed."""
        await self._groups.drained()

    async def _write_alone(self, submission: Submission) -> Stored:
        return (await self._write([submission]))[0]

    async def _write(self, submissions: list[Submission]) -> list[Stored]:
        async with self._database.transaction() as connection:
            await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            outcomes = await writer.write(connection, submissions, now=clock.now())
            stored = await _stored_runs(connection, outcomes)
        return [Stored(o, stored.get(o.keys[0]) if o.keys else None) for o in outcomes]


async def _stored_runs(connection: AsyncConnection, outcomes: list[Outcome]) -> dict[RunKey, RunRow]:
    keys = {key for outcome in outcomes for key in outcome.keys}
    if not keys:
        return {}
    rows = await get_by_keys(connection, keys=list(keys))
    return {(row.pipeline_id, row.external_run_id): row for row in rows}
