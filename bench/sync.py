"""``headway sync`` on a platform that answers instantly: how fast history comes in, at what memory, and a quiet sync."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.report import Report
from bench.service import Service

PIPELINES = 1_000
CONFIG = """
[sources.{name}]
platform = "airflow"
client = "bench"
url = "http://127.0.0.1:{port}"
token_env = "BENCH_TOKEN"
namespace = "{name}"
interval = "1h"
since = "1d"
"""


class Synced(NamedTuple):
    """What one sync took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    requests: int


def measure(service: Service, report: Report, *, sizes: tuple[int, ...]) -> None:
    """Measure a backfill of two years at several sizes, each followed by a sync that finds nothing new."""
    rows = []
    for runs in sizes:
        with _platform(runs) as port:
            backfill = _sync(service, port, f"bench-{runs}", "--since", "2y")
            quiet = _sync(service, port, f"bench-{runs}", "--once")
        report.progress(f"{runs:,} runs read: {runs / backfill.seconds:,.0f}/s")
        rows.append(
            (
                f"{runs:,}",
                f"{runs / backfill.seconds:,.0f}",
                f"{backfill.cpu_seconds / runs * 5000:.2f}",
                f"{backfill.peak_mb:.0f}",
                f"{backfill.requests:,}",
                f"{quiet.seconds:.1f}",
                f"{quiet.requests}",
            )
        )
    report.table(
        "Reading a platform",
        f"`headway sync --since 2y` of an Airflow with {PIPELINES:,} DAGs that answers instantly, in pages of 100; start "
        "and end of the command included. Target: 4,000 runs/s with flat memory. Then once more, with nothing new.",
        ("runs", "runs/s", "CPU s per 5,000", "peak MB", "requests", "quiet sync s", "its requests"),
        rows,
    )


@contextmanager
def _platform(runs: int) -> Iterator[int]:
    argv = [sys.executable, "-m", "bench.airflow", str(runs), str(PIPELINES)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _sync(service: Service, port: int, name: str, *options: str) -> Synced:
    config = Path(service.directory) / f"{name}.toml"
    config.write_text(CONFIG.format(name=name, port=port), encoding="utf-8")
    env = {**os.environ, "HEADWAY_CONFIG": str(config), "BENCH_TOKEN": "instant"}
    argv = [sys.executable, "-m", "headway", "sync", name, "--data", str(service.directory / "data"), *options]
    before = _asked(port)
    started = time.monotonic()
    process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        sys.exit(f"headway sync failed:\n{said}")
    return Synced(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, _asked(port) - before)


def _asked(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/asked", timeout=10) as answer:
        return int(answer.read())
