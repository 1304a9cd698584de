"""Made-up runs, as a source would send them and as the service's writer copies them.

The same run has two renderings, so that the service and the bare baseline get the same data: ``wire`` (JSON) and
``copied`` (COPY text of the columns ``headway.runs.sql.RUN_COLUMNS``).
"""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

PLATFORMS = ("airflow", "dbt", "prefect", "dagster", "github_actions", "cron")
NULL = r"\N"
_ORDER = {"running": (1, 0), "success": (2, 0), "skipped": (2, 1), "canceled": (2, 2), "failed": (2, 3)}
_ERRORS = (
    "OperationalError: server closed the connection unexpectedly while loading {table}; 3 of 3 tries failed after 412 s",
    "Task {table} exited with code 1: column mismatch: expected 41 columns, found 40 in row {row}; see its schema",
    "TimeoutError: no answer from the warehouse within 1800 s (query of {table}, step 7 of 9, row {row})",
)


class Pipeline(NamedTuple):
    """A pipeline to report runs of; every twentieth fails often."""

    id: str
    client: str
    name: str
    platform: str
    is_fragile: bool


class Run(NamedTuple):
    """One run; ``finished_at`` and the like are left out of a rendering while it is running."""

    pipeline: Pipeline
    external_run_id: str
    id: str
    status: str
    attempt: int
    started_at: datetime
    finished_at: datetime
    rows: int
    error: str | None
    payload: dict[str, object] | None
    digest: str

    @property
    def seen_at(self) -> datetime:
        """When its source reported it."""
        return self.started_at if self.status == "running" else self.finished_at

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://{self.pipeline.platform}.{self.pipeline.client}.example/runs/{self.external_run_id}"

    @property
    def rank(self) -> str:
        """A rank as the service makes it, with a digest of no meaning; in hexadecimal."""
        phase, severity = _ORDER[self.status]
        span = self.seen_at - datetime(1970, 1, 1, tzinfo=UTC)
        return f"{self.attempt:08x}{phase:02x}{span // timedelta(microseconds=1) + 1:016x}{severity:02x}{self.digest}"

    def wire(self) -> bytes:
        """Return the observation as JSON; every second pipeline is named by its natural reference."""
        p = self.pipeline
        item: dict[str, object] = {"external_run_id": self.external_run_id, "status": self.status, "url": self.url}
        if int(p.id[-1], 16) % 2:
            item["pipeline_id"] = f"{p.id[:8]}-{p.id[8:12]}-{p.id[12:16]}-{p.id[16:20]}-{p.id[20:]}"
        else:
            item["pipeline"] = {"client": p.client, "name": p.name, "platform": p.platform}
        item["started_at"] = _z(self.started_at)
        if self.status != "running":
            item |= {"finished_at": _z(self.finished_at), "rows_processed": self.rows}
        if self.error is not None:
            item["error_message"] = self.error
        if self.payload is not None:
            item["payload"] = self.payload
        return json.dumps(item, separators=(",", ":")).encode()

    def copied(self) -> str:
        """Return the row of COPY text, its newline left out."""
        has_ended = self.status != "running"
        return (
            f"{self.pipeline.id}\t{self.external_run_id}\t{self.id}\t\\\\x{self.rank}\t{self.attempt}\t{self.status}\t{NULL}"
            f"\tapi\t{self.seen_at.isoformat()}\t{NULL}\t{self.started_at.isoformat()}"
            f"\t{self.finished_at.isoformat() if has_ended else NULL}\t{self.rows if has_ended else NULL}"
            f"\t{self.error or NULL}\t{NULL}\t{self.url}\t{NULL}"
            f"\t{json.dumps(self.payload) if self.payload else NULL}\t{NULL}"
        )

    def events(self) -> str:
        """Return the rows of its history, COPY text of ``EVENT_COLUMNS`` and ``recorded_at``."""
        rows = [_event(self)]
        if self.attempt > 1:
            start = self.started_at - timedelta(minutes=9)
            rows.append(
                _event(self._replace(attempt=1, status="failed", started_at=start, finished_at=self.started_at))
            )
        if self.status != "running" and self.digest < "4":  # a quarter of the sources also tell of starts
            rows.append(_event(self._replace(status="running", error=None)))
        return "".join(rows)


def _event(run: Run) -> str:
    seen, finished = run.seen_at.isoformat(), NULL if run.status == "running" else run.finished_at.isoformat()
    error = f"{run.error}\t\\\\x{run.rank}" if run.error else f"{NULL}\t{NULL}"
    return (
        f"{run.pipeline.id}\t{run.external_run_id}\t{run.attempt}\t{run.status}\t{seen}\t{seen}"
        f"\t{run.started_at.isoformat()}\t{finished}\t{error}\tapi\t{seen}\n"
    )


def make_run(rng: Random, pipeline: Pipeline, number: int, started_at: datetime, until: datetime) -> Run:
    """Make a run; about 5 % fail, 2 % are canceled or skipped, 1 % are second attempts, ``until`` some still run."""
    draw, dice = rng.random(), rng.random()
    failing = 0.4 if pipeline.is_fragile else 0.032
    status = "failed" if draw < failing else "canceled" if dice < 0.01 else "skipped" if dice < 0.02 else "success"
    finished_at = started_at + timedelta(seconds=rng.expovariate(1 / 240))
    is_ended = finished_at < until
    error, payload = None, None
    if is_ended and status == "failed":
        error = rng.choice(_ERRORS).format(table=f"{pipeline.client}.orders_{number % 97}", row=number)
    if dice > 0.8:
        payload = {
            "trigger": "schedule",
            "commit": f"{number:012x}",
            "bytes": number * 977,
            "worker": f"w-{number % 31}",
        }
    moment = int(started_at.timestamp() * 1000)
    return Run(
        pipeline,
        f"scheduled__{number:09d}",
        f"{moment:012x}7{number & 0xFFF:03x}{1 << 63 | rng.getrandbits(62):016x}",
        status if is_ended else "running",
        2 if 0.5 < dice < 0.51 else 1,
        started_at,
        finished_at,
        rng.randrange(2_000_000),
        error,
        payload,
        f"{rng.getrandbits(128):032x}",
    )


def _z(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
