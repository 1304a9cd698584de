"""Batches over HTTP beside the bare statement that PostgreSQL would need at least, in pairs; and the memory of a large one."""
# ruff: noqa: S311 - nothing here is a secret

import gzip
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from typing import NamedTuple

import psycopg

from bench import clients
from bench.data import PLATFORMS, Pipeline, Run, make_run
from bench.report import Report
from bench.service import API, Service, call
from headway.runs.sql import RUN_COLUMNS, STAGING

BATCH = 5_000
PIPELINES = 200
LARGE_BATCH = 50_000
JSON, NDJSON = "application/json", "application/x-ndjson"

_COLUMNS = ", ".join(RUN_COLUMNS)
_TABLE = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.runs (LIKE public.runs INCLUDING GENERATED, PRIMARY KEY (pipeline_id, external_run_id));
CREATE INDEX ON bench.runs (pipeline_id, run_at);
"""
_UPSERT = f"""
INSERT INTO bench.runs AS r ({_COLUMNS}, created_at, updated_at) SELECT {_COLUMNS}, now(), now() FROM staged_runs
ON CONFLICT (pipeline_id, external_run_id) DO UPDATE SET
    {", ".join(f"{c} = excluded.{c}" for c in (*RUN_COLUMNS[3:], "updated_at"))}
WHERE r.rank < excluded.rank
"""


class Sample(NamedTuple):
    """One timed load: runs a second, and processor seconds for each 5,000."""

    rate: float
    api: float
    postgres: float


class Load:
    """Batches for each client process, and the two ways to send them."""

    def __init__(self, service: Service, runs: Sequence[Run]) -> None:
        self._service, self._runs = service, runs
        self._batches = [runs[start : start + BATCH] for start in range(0, len(runs), BATCH)]

    @cached_property
    def copied(self) -> list[bytes]:
        """The batches as COPY text."""
        return ["".join(f"{run.copied()}\n" for run in batch).encode() for batch in self._batches]

    @cached_property
    def documents(self) -> list[bytes]:
        """The batches as JSON."""
        return [b'{"runs":[' + b",".join(run.wire() for run in batch) + b"]}" for batch in self._batches]

    @cached_property
    def lines(self) -> list[bytes]:
        """The batches as NDJSON, packed."""
        return [gzip.compress(b"\n".join(run.wire() for run in batch), 6) for batch in self._batches]

    def bare(self) -> Sample:
        """COPY and upsert, without a service."""
        copied = self.copied

        def prepare(number: int) -> clients.Work:
            connection = psycopg.connect(self._service.database_url)
            connection.execute(STAGING)
            connection.commit()

            def job() -> None:
                for rows in copied[number :: clients.COUNT]:
                    with connection.cursor() as cursor:
                        with cursor.copy(f"COPY staged_runs ({_COLUMNS}) FROM STDIN") as copy:
                            copy.write(rows)
                        cursor.execute(_UPSERT)
                    connection.commit()

            return job

        return self._timed(prepare)

    def http(self, expected: str, media: str = JSON) -> Sample:
        """POST to the batch door; every answer must say that all runs were ``expected``."""
        bodies = self.documents if media == JSON else self.lines

        def prepare(number: int) -> clients.Work:
            connection = self._service.connect()
            call(connection, "GET", "/readyz")

            def job() -> None:
                for body in bodies[number :: clients.COUNT]:
                    encoding = "identity" if media == JSON else "gzip"
                    answer = post(connection, body, media, encoding)
                    if answer[expected] != answer["received"]:
                        sys.exit(f"not all {expected}: {json.dumps(answer)[:2000]}")

            return job

        return self._timed(prepare)

    def _timed(self, prepare: Callable[[int], clients.Work]) -> Sample:
        before = self._service.cpu()
        seconds = clients.run(prepare)
        after = self._service.cpu()
        share = BATCH / len(self._runs)
        used = (after.api - before.api) * share, (after.postgres - before.postgres) * share
        return Sample(len(self._runs) / seconds, *used)


def post(connection: object, body: bytes, media: str, encoding: str, query: str = "") -> dict[str, int]:
    """Send one batch and return its counts."""
    headers = {"content_type": media} | ({"content_encoding": encoding} if encoding != "identity" else {})
    answer: dict[str, int] = call(connection, "POST", f"{API}/runs/batch{query}", body, **headers)  # type: ignore[arg-type]
    return answer


def make_runs(rng: Random, pipelines: Sequence[Pipeline], count: int, first: int) -> list[Run]:
    """Make new runs of the last 30 days."""
    now = datetime.now(UTC)
    return [
        make_run(rng, rng.choice(pipelines), first + n, now - timedelta(seconds=rng.uniform(7200, 30 * 86_400)), now)
        for n in range(count)
    ]


def register(service: Service) -> list[Pipeline]:
    """Make the pipelines through the batch door; returns them with their ids."""
    names = [(f"client-{n % 20}", f"pipeline {n}", PLATFORMS[n % len(PLATFORMS)]) for n in range(PIPELINES)]
    unknown = [
        {"pipeline": {"client": c, "name": n, "platform": p}, "external_run_id": "first", "status": "success"}
        for c, n, p in names
    ]
    post(service.connect(), json.dumps({"runs": unknown}).encode(), JSON, "identity", "?register=true")
    with psycopg.connect(service.database_url) as connection:
        rows = connection.execute(
            "SELECT replace(p.id::text, '-', ''), c.slug, p.name, p.platform FROM pipelines p "
            "JOIN clients c ON c.id = p.client_id WHERE p.name LIKE 'pipeline %' ORDER BY p.id"
        )
        return [Pipeline(row[0], row[1], row[2], row[3], n % 20 == 0) for n, row in enumerate(rows)]


def measure(service: Service, report: Report, *, batches: int, repetitions: int) -> None:
    """Measure new runs, updates and replays, each beside its baseline."""
    pipelines, rng, first = register(service), Random(1), 0
    with psycopg.connect(service.database_url) as connection:
        connection.execute(_TABLE)
    names = ("new runs, JSON", "new runs, NDJSON + gzip", "updates, JSON", "unchanged replays, JSON")
    pairs: dict[str, list[tuple[Sample, Sample]]] = {name: [] for name in names}
    item_bytes = 0
    for repetition in range(1, repetitions + 1):
        made = [make_runs(rng, pipelines, batches * BATCH, first + n * batches * BATCH) for n in range(3)]
        first += 3 * batches * BATCH
        whole, lines, ended = (Load(service, runs) for runs in made)
        started = Load(service, [run._replace(status="running", error=None) for run in made[2]])
        item_bytes = sum(map(len, whole.documents)) // len(made[0])
        bare = whole.bare()
        pairs[names[0]].append((bare, whole.http("inserted")))
        pairs[names[1]].append((bare, lines.http("inserted", NDJSON)))
        started.bare()
        started.http("inserted")
        pairs[names[2]].append((ended.bare(), ended.http("updated")))
        pairs[names[3]].append((whole.bare(), whole.http("unchanged")))
        shown = ", ".join(
            f"{name} {taken[-1][1].rate:,.0f}/s of {taken[-1][0].rate:,.0f}/s" for name, taken in pairs.items()
        )
        report.progress(f"ingestion {repetition} of {repetitions}: {shown}")
    gain = statistics.median(r.rate / n.rate for (_, r), (_, n) in zip(pairs[names[3]], pairs[names[0]], strict=True))
    targets = ("0.20", "0.20", "", f"faster than new ({gain:.2f})")
    report.table(
        "Ingestion",
        f"Batches of {BATCH:,} over HTTP from {clients.COUNT} client processes, {item_bytes} bytes a run on average, "
        f"{batches * BATCH:,} runs a repetition, {repetitions} repetitions; medians. Service and baseline take turns, and "
        "the ratio is the median of the pairs'. Processor seconds are those of 5,000 runs. The baseline is COPY into a "
        "temporary table and one `INSERT … SELECT … ON CONFLICT DO UPDATE … WHERE` the report is a greater one, from as "
        "many processes, on the same server, into a table with the columns of `runs`, its primary key, one index on "
        "(pipeline_id, run_at) and neither foreign key nor history.",
        (
            "",
            "runs/s",
            "baseline rows/s",
            "ratio",
            "target",
            "met",
            "API CPU s",
            "PostgreSQL CPU s",
            "baseline's CPU s",
        ),
        [
            _row(name, pairs[name], target, is_met=gain > 1 if name == names[3] else None)
            for name, target in zip(names, targets, strict=True)
        ],
    )


def _row(name: str, pairs: list[tuple[Sample, Sample]], target: str, *, is_met: bool | None) -> tuple[str, ...]:
    ratio = statistics.median(s.rate / bare.rate for bare, s in pairs)
    bare, ours = (
        [statistics.median(values) for values in zip(*samples, strict=True)] for samples in zip(*pairs, strict=True)
    )
    met = is_met if is_met is not None else ratio >= 0.2 if target else None
    word = "" if met is None else "yes" if met else "**no**"
    rates = f"{ours[0]:,.0f}", f"{bare[0]:,.0f}", f"{ratio:.2f}"
    return (name, *rates, target, word, f"{ours[1]:.3f}", f"{ours[2]:.3f}", f"{bare[2]:.3f}")


def measure_memory(service: Service, report: Report) -> None:
    """Measure the peak of the API process over one batch of 50,000; first of all, since the peak is over its life."""
    runs = make_runs(Random(2), register(service), LARGE_BATCH, 500_000_000)
    rows = [("at rest", "", f"{service.memory_mb('VmRSS'):,.0f}", "", "")]
    items = [run.wire() for run in runs]
    body, connection = b'{"runs":[' + b",".join(items) + b"]}", service.connect()
    for name, body_bytes, media, encoding in (
        ("JSON", body, JSON, "identity"),
        ("NDJSON + gzip", gzip.compress(b"\n".join(items), 6), NDJSON, "gzip"),
    ):
        post(connection, body_bytes, media, encoding)
        peak = service.memory_mb("VmHWM")
        rows.append((name, f"{len(body_bytes) / 1e6:.1f}", f"{peak:,.0f}", "300", "yes" if peak < 300 else "**no**"))
    report.table(
        "Memory",
        f"Resident memory of the API process at its highest, over a batch of {LARGE_BATCH:,} new runs.",
        ("batch", "body MB", "MB", "target MB", "met"),
        rows,
    )
