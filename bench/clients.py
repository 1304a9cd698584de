"""Client processes: forked with their data at hand, started at the same moment, timed by the machine's one clock."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier

COUNT = 2
LONGEST_SECONDS = 7200.0

Work = Callable[[], None]
_given: list[tuple[Callable[[int], Work], Barrier]] = []


def run(prepare: Callable[[int], Work]) -> float:
    """Run one job in each process; returns the seconds from the first start to the last end.

    ``prepare`` gets the process's number, connects, and returns the job that is timed.
    """
    context = multiprocessing.get_context("fork")
    given = (prepare, context.Barrier(COUNT))
    with ProcessPoolExecutor(COUNT, mp_context=context, initializer=_given.append, initargs=(given,)) as pool:
        times = list(pool.map(_client, range(COUNT), timeout=LONGEST_SECONDS))
    return max(end for _, end in times) - min(start for start, _ in times)


def _client(number: int) -> tuple[float, float]:
    ((prepare, barrier),) = _given
    job = prepare(number)
    barrier.wait(60)
    start = time.monotonic()
    job()
    return start, time.monotonic()
