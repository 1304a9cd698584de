"""Runs posted one by one from many connections: acknowledged, and so durable, a second."""

import asyncio
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator

import uvloop

from bench.ingest import register
from bench.report import Report, percentile
from bench.service import API, Service

CONNECTIONS = 32
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def measure(service: Service, report: Report, *, seconds: float, repetitions: int) -> None:
    """Measure in several rounds; the load client has one of the processors for itself at times."""
    paths = [
        f"{API}/pipelines/{p.id[:8]}-{p.id[8:12]}-{p.id[12:16]}-{p.id[16:20]}-{p.id[20:]}/runs"
        for p in register(service)
    ]
    requests = (_request(paths[n % len(paths)], n) for n in itertools.count())
    rows, rates = [], []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_round(service.port, requests, 0.5))
        for number in range(1, repetitions + 1):
            before = service.cpu()
            latencies = runner.run(_round(service.port, requests, seconds))
            after = service.cpu()
            rates.append(len(latencies) / seconds)
            used = ((after.api - before.api) / len(latencies), (after.postgres - before.postgres) / len(latencies))
            times = (percentile(latencies, 0.5) * 1000, percentile(latencies, 0.95) * 1000)
            report.progress(f"single runs {number} of {repetitions}: {rates[-1]:,.0f}/s")
            rows.append((rates[-1], *times, *(value * 1000 for value in used)))
    medians = [statistics.median(values) for values in zip(*rows, strict=True)]
    report.table(
        "Single runs",
        f"`POST /pipelines/{{id}}/runs` from {CONNECTIONS} connections for {seconds:g} s, {repetitions} times; medians. "
        "Each answer comes after the commit. The load client runs on the same processors.",
        ("acknowledged/s", "p50 ms", "p95 ms", "API CPU ms a run", "PostgreSQL CPU ms a run"),
        [
            (
                f"{medians[0]:,.0f}",
                *(f"{value:.1f}" for value in medians[1:3]),
                *(f"{value:.2f}" for value in medians[3:]),
            )
        ],
    )


def _request(path: str, number: int) -> bytes:
    body = json.dumps(
        {
            "external_run_id": f"single__{number:09d}",
            "status": "success",
            "started_at": "2026-01-01T06:00:00Z",
            "finished_at": "2026-01-01T06:04:00Z",
            "rows_processed": number,
            "url": f"https://airflow.example/runs/{number}",
        }
    )
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


async def _round(port: int, requests: Iterator[bytes], seconds: float) -> list[float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_caller(port, requests, until, latencies))
    return latencies


async def _caller(port: int, requests: Iterator[bytes], until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < until:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"HTTP/1.1 201"):
            sys.exit(f"not stored: {head[:100]!r} {body[:500]!r}")
        latencies.append(time.perf_counter() - start)
    writer.close()
