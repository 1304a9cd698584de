"""The worker's loop: steps are repeated, a failing one is told once, and nothing ends it but its stop."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog

from headway import worker
from headway.core import logging
from headway.core.db import Database
from headway.worker import Step


async def _for_a_moment(database: Database, step: Step, seconds: float) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.work(database, (step,), stop=stop))
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_step_is_run_again_at_once_while_there_is_more(database: Database) -> None:
    left = [True, True, False]
    calls = []

    async def step(_connection: object, *, now: datetime) -> bool:
        calls.append(now)
        return left[len(calls) - 1]

    await _for_a_moment(database, Step("counted", step, 60), 0.5)
    assert len(calls) == 3


@pytest.fixture
def _everything_logged() -> Iterator[None]:
    logging.configure("info", "json")
    yield
    logging.configure("warning", "json")


@pytest.mark.usefixtures("_everything_logged")
async def test_failing_step_is_told_once_and_once_more_when_it_works_again(database: Database) -> None:
    failures = 3
    calls = 0

    async def step(_connection: object, *, now: datetime) -> bool:
        nonlocal calls
        calls += 1
        if calls <= failures:
            message = "out of order"
            raise RuntimeError(message)
        return False

    with structlog.testing.capture_logs() as logs:
        await _for_a_moment(database, Step("moody", step, 0.01), 1)
    assert [line["event"] for line in logs] == ["step_failed", "step_recovered"]
    assert calls > failures


@pytest.mark.parametrize("failures", [1, 20, 5000])
def test_pause_after_failures_grows_to_its_limit(failures: int) -> None:
    assert 0 < worker.pause_after(failures, every_seconds=5.0) <= worker.MOST_SECONDS
