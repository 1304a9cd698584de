"""Reads over HTTP on a large fleet, which is copied into the tables as the service would have stored it."""
# ruff: noqa: S311 - nothing here is a secret

import itertools
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import psycopg

from bench import clients
from bench.data import PLATFORMS, Pipeline, make_run
from bench.report import Report, percentile
from bench.service import API, Service, call
from headway.runs.sql import EVENT_COLUMNS, RUN_COLUMNS

CLIENTS = 200
SPAN = timedelta(days=730)
SLICE = 20_000
REQUESTS = 100
LONGEST_SECONDS = 60.0  # for one kind of read
WARM_UP = 5


def load_fleet(service: Service, report: Report, runs: int) -> list[Pipeline]:
    """Fill the tables with a fleet of two years, in order of time, few pipelines running often and many rarely."""
    started, until = time.monotonic(), datetime.now(UTC)
    rng = Random(3)
    pipelines = _make_inventory(service, rng, 2_000 if runs < 10_000_000 else 10_000, until)
    weights = list(itertools.accumulate(1 / (n + 20) for n in range(len(pipelines))))

    def prepare(number: int) -> clients.Work:
        connection = psycopg.connect(service.database_url)
        connection.execute("SET session_replication_role = replica")  # the foreign key holds, as we know

        def job() -> None:
            for first in range(number * SLICE, runs, SLICE * clients.COUNT):
                mine = Random(first)
                count = min(SLICE, runs - first)
                chosen = mine.choices(pipelines, cum_weights=weights, k=count)
                made = [
                    make_run(mine, p, first + n, until - SPAN + SPAN * ((first + n + mine.random()) / runs), until)
                    for n, p in enumerate(chosen)
                ]
                with connection.cursor() as cursor:
                    with cursor.copy(
                        f"COPY runs ({', '.join(RUN_COLUMNS)}, created_at, updated_at) FROM STDIN"
                    ) as copy:
                        copy.write("".join(f"{r.copied()}\t{r.seen_at}\t{r.seen_at}\n" for r in made))
                    with cursor.copy(f"COPY run_events ({', '.join(EVENT_COLUMNS)}, recorded_at) FROM STDIN") as copy:
                        copy.write("".join(r.events() for r in made))
                connection.commit()
                if first // SLICE % max(1, runs // SLICE // 10) == 0:
                    report.progress(f"fleet: {first + count:,} of {runs:,} runs")

        return job

    clients.run(prepare)
    with psycopg.connect(service.database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    report.progress(f"fleet of {runs:,} runs in {time.monotonic() - started:.0f} s")
    return pipelines


def _make_inventory(service: Service, rng: Random, count: int, now: datetime) -> list[Pipeline]:
    """Make clients and pipelines: a few large clients, two thirds of the pipelines with a schedule, 2 % of those late."""
    known = [(uuid.UUID(int=rng.getrandbits(128), version=4), f"fleet-{n}") for n in range(CLIENTS)]
    made = []
    with psycopg.connect(service.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE runs, run_events, pipelines, clients CASCADE")
        with cursor.copy("COPY clients (id, slug, name, ping_key, created_at, updated_at) FROM STDIN") as copy:
            for client_id, slug in known:
                copy.write_row((client_id, slug, slug, f"key-{slug}", now, now))
        columns = "id, client_id, slug, name, platform, ping_uuid, schedule, next_due_at, created_at, updated_at"
        with cursor.copy(f"COPY pipelines ({columns}) FROM STDIN") as copy:
            for n in range(count):
                client_id, client = known[n if n < CLIENTS else int(CLIENTS * rng.random() ** 2)]
                pipeline_id, ping = (uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(2))
                pipeline = Pipeline(
                    pipeline_id.hex, client, f"pipeline-{n}", PLATFORMS[n % len(PLATFORMS)], n % 20 == 7
                )
                due = now + timedelta(seconds=rng.uniform(-3, 97) * 3600) if n % 3 else None
                every = '{"every_seconds": 86400, "grace_seconds": 900}' if due else None
                copy.write_row(
                    (
                        pipeline_id,
                        client_id,
                        pipeline.name,
                        pipeline.name,
                        pipeline.platform,
                        ping,
                        every,
                        due,
                        now,
                        now,
                    )
                )
                made.append(pipeline)
    return made


def measure(service: Service, report: Report, runs: int) -> None:
    """Measure each kind of read at one connection, over random pipelines and clients."""
    pipelines, rng = load_fleet(service, report, runs), Random(4)
    month = (datetime.now(UTC) - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    reads: tuple[tuple[str, Callable[[Pipeline], str], float | None], ...] = (
        ("latest run of a pipeline", lambda p: f"/pipelines/{_id(p)}/runs/latest", 10),
        ("pipeline, page of 100", lambda p: f"/pipelines/{_id(p)}/runs?limit=100", 20),
        ("pipeline, failed, page of 100", lambda p: f"/pipelines/{_id(p)}/runs?limit=100&status=failed", 20),
        ("client, page of 100", lambda p: f"/runs?limit=100&client={p.client}", 20),
        ("client, failed, page of 100", lambda p: f"/runs?limit=100&client={p.client}&status=failed", 20),
        ("fleet, page of 100", lambda _: "/runs?limit=100", 20),
        ("fleet, failed, page of 100", lambda _: "/runs?limit=100&status=failed", 20),
        ("summary of a client, 24 h", lambda p: f"/clients/{p.client}/runs/summary", 50),
        ("summary of a client, 30 days", lambda p: f"/clients/{p.client}/runs/summary?since={month}", None),
        ("failing", lambda _: "/health/failing", None),
        ("changes, 24 h", lambda _: "/health/changes", None),
        ("late", lambda _: "/health/late", None),
        ("flaky, 30 days", lambda _: "/health/flaky?days=30", None),
        ("time series, 7 days", lambda _: "/health/timeseries?bucket=hour", None),
    )
    connection, rows = service.connect(), []
    for name, path, target in reads:
        times: list[float] = []
        end = time.monotonic() + LONGEST_SECONDS
        while len(times) < REQUESTS + WARM_UP and (len(times) <= WARM_UP or time.monotonic() < end):
            asked = API + path(rng.choice(pipelines))
            start = time.perf_counter()
            call(connection, "GET", asked)
            times.append((time.perf_counter() - start) * 1000)
        p50, p95 = (percentile(times[WARM_UP:], share) for share in (0.5, 0.95))
        met = "" if target is None else "yes" if p95 < target else "**no**"
        rows.append(
            (name, f"{p50:.1f}", f"{p95:.1f}", "" if target is None else f"{target:g}", met, str(len(times) - WARM_UP))
        )
        report.progress(f"{name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    report.table(
        f"Reads at {runs:,} runs",
        f"{CLIENTS} clients, {len(pipelines):,} pipelines, two years, 5 % failures; one connection, a random pipeline or client "
        f"each time, after {WARM_UP} requests to warm up. Targets are for p95.",
        ("read", "p50 ms", "p95 ms", "target ms", "met", "requests"),
        rows,
    )


def _id(pipeline: Pipeline) -> str:
    return str(uuid.UUID(pipeline.id))
