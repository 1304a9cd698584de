"""What a large batch may cost the process that takes it: memory, and time during which nobody else is served."""

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from headway.access.principal import EVERYONE
from headway.core import clock, collector
from headway.runs import ingestion

MIB = 1024 * 1024
PEAK_MIB = 300
BLOCK_SECONDS = 0.05


def lines(count: int, payload: int) -> Iterator[bytes]:
    for number in range(count):
        yield json.dumps(
            {
                "pipeline": {"client": "acme", "name": f"pipeline-{number % 500}", "platform": "airflow"},
                "external_run_id": f"run-{number}",
                "status": "success",
                "started_at": "2026-01-01T00:00:00Z",
                "finished_at": "2026-01-01T01:00:00Z",
                "payload": {"words": ["word"] * (payload // 8)},
            }
        ).encode()


@pytest.fixture
def settled_collector() -> Iterator[None]:
    """Set Python's collector as a serving process does."""
    before = gc.get_threshold()
    collector.settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


_CHILD = textwrap.dedent("""
    import asyncio, json, resource, sys
    from headway.main import create_app
    from headway.settings import load_settings
    from tests.contract.asgi import call
    from tests.contract.test_cost import lines

    def chunks():
        yield b'{"runs":['
        for number, line in enumerate(lines(50_000, 64)):
            yield line if number == 0 else b"," + line
        yield b"]}"

    async def main():
        app = create_app(load_settings({}, auth="none"), sys.argv[1])
        headers = [(b"content-type", b"application/json")]
        answer = await call(app, "POST", "/api/v1/runs/batch", query=b"register=1", headers=headers, chunks=chunks())
        assert json.loads(answer.body)["inserted"] == 50_000, answer
        await app.state.database.dispose()

    asyncio.run(main())
    try:  # what getrusage says begins, on Linux, with the peak of the process that forked this one
        print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024)
    except FileNotFoundError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
""")


def test_batch_of_50000_observations_keeps_the_process_small(app_url: str, db: psycopg.Connection[Any]) -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD, app_url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = int(done.stdout.split()[-1]) / MIB
    print(f"peak {peak:.0f} MiB")
    assert peak < PEAK_MIB


@pytest.mark.parametrize(("count", "payload"), [(20_000, 64), (200, 60_000)], ids=["small items", "large items"])
@pytest.mark.usefixtures("settled_collector")
async def test_parsing_a_batch_leaves_the_event_loop_free(count: int, payload: int) -> None:
    document = b'{"runs":[' + b",".join(lines(count, payload)) + b"]}"
    blocks: list[float] = []

    async def tick() -> None:
        last = time.thread_time()  # which stands still while others have the processor
        while True:
            await asyncio.sleep(0)
            blocks.append(time.thread_time() - last)
            last = time.thread_time()

    ticker = asyncio.create_task(tick())
    batch = ingestion.Batch(EVERYONE, register=True, now=clock.now())
    await ingestion.take_document(batch, document)
    assert batch.received == count
    ticker.cancel()
    assert max(blocks) < BLOCK_SECONDS
