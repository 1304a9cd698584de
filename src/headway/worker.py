"""The background work: steps that run again and again until the process is told to stop.

Each step is a function ``(connection, *, now) -> bool`` in one transaction ("was there more to do?"); the loop alone
sleeps. Reading sources takes many transactions, so it has lanes of its own, each a function ``() -> bool``. What fails is
tried again with growing pauses and told once, and once more when it works again. Any number of workers may run: they
claim what they work on. A new step is one line in ``STEPS``.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

import structlog

from headway.connectors.config import Source
from headway.connectors.syncing import Syncer
from headway.core import clock
from headway.core.db import Database
from headway.health import due

log = structlog.get_logger()

MOST_SECONDS = 60.0
# So many sources are read at a time; each waits for its platform most of the while. Half of the lanes are for those
# that did not fail last: a few that hang hold up nobody else.
SYNC_LANES = 4
SYNC_LOOK_SECONDS = 1.0
# Connections of a worker: a transaction and a renewal of its claim for each lane, and one for the steps.
POOL_SIZE = 2 * SYNC_LANES + 1


class Step(NamedTuple):
    """Something to do every so often."""

    name: str
    run: Callable[..., Awaitable[bool]]
    every_seconds: float


STEPS = (Step("advance_due", due.advance_due, 5.0),)


async def work(
    database: Database, steps: tuple[Step, ...] = STEPS, *, stop: asyncio.Event, syncer: Syncer | None = None
) -> None:
    """Run all steps, and read sources, until ``stop`` is set; what is under way is finished."""
    async with asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(_repeat(step.name, partial(tick, database, step), step.every_seconds, stop))
        if syncer is not None:
            for lane in range(1, SYNC_LANES + 1):
                run = partial(syncer.sync_due, only_healthy=lane > SYNC_LANES // 2)
                group.create_task(_repeat(f"sync_sources_{lane}", run, SYNC_LOOK_SECONDS, stop))
            await stop.wait()
            syncer.halt()


async def _repeat(name: str, run: Callable[[], Awaitable[bool]], every_seconds: float, stop: asyncio.Event) -> None:
    failures = 0
    while not stop.is_set():
        try:
            more = await run()
        except Exception as error:
            failures += 1
            if failures == 1:
                log.warning("step_failed", step=name, error=str(error), exc_info=error)
            pause = pause_after(failures, every_seconds=every_seconds)
        else:
            if failures:
                log.info("step_recovered", step=name, failures=failures)
            failures = 0
            pause = 0.0 if more else every_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


def pause_after(failures: int, *, every_seconds: float) -> float:
    """Return how long to leave a step alone that has failed so often in a row."""
    return min(every_seconds * 2.0 ** min(failures, 10), MOST_SECONDS)


async def tick(database: Database, step: Step) -> bool:
    """Run a step once, in a transaction of its own."""
    async with database.transaction() as connection:
        return await step.run(connection, now=clock.now())


async def run(database: Database, sources: Mapping[str, Source]) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("worker_started", steps=[step.name for step in STEPS], sources=sorted(sources))
    syncer = Syncer(database, sources) if sources else None
    try:
        await work(database, stop=stop, syncer=syncer)
    finally:
        if syncer is not None:
            syncer.close()
    log.info("worker_stopped")
