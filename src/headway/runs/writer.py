"""The one place that writes runs.

Takes what any number of callers have to say, folded by run (``Submission``), and joins it to the tables in the
caller's transaction with a constant number of statements, whatever its size. The caller commits, and answers only
then. Rows are locked in key order, runs before events, so that overlapping batches cannot deadlock; unchanged rows are
not written. Tests: ``tests/property/test_merge_law.py``, ``tests/runs/test_writer.py``.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import Principal
from headway.core import ids
from headway.pipelines import registry
from headway.pipelines.reference import Reference
from headway.pipelines.registry import Refusal
from headway.runs import sql
from headway.runs.merge import RunRecord
from headway.runs.observation import RunObservation

COPY_SLICE = 500

RunKey = tuple[UUID, str]


class Submission:
    """What one caller has to say: its observations, folded by run."""

    def __init__(self, principal: Principal, *, register: bool = False) -> None:
        self.principal = principal
        self.register = register
        self.records: dict[tuple[Reference, str], RunRecord] = {}
        self.items: dict[Reference, list[int]] = {}
        self.size = 0

    def add(self, observation: RunObservation, index: int = 0) -> None:
        """Join an observation, the caller's item number ``index``."""
        reference = observation.pipeline
        key = (reference, observation.external_run_id)
        record = self.records.get(key)
        if record is None:
            self.records[key] = RunRecord(observation)
        else:
            record.add(observation)
        self.items.setdefault(reference, []).append(index)
        self.size += 1


class Outcome(NamedTuple):
    """What became of a submission. ``refused`` has the items whose pipeline cannot be used, by their index."""

    inserted: int
    updated: int
    unchanged: int
    refused: dict[int, Refusal]
    keys: list[RunKey]

    def counts(self) -> dict[str, int]:
        """Return how many items became what, for the metrics."""
        return {
            "inserted": self.inserted,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "rejected": len(self.refused),
        }


async def write(connection: AsyncConnection, submissions: Sequence[Submission], *, now: datetime) -> list[Outcome]:
    """Join submissions to the tables, in the transaction of ``connection``.

    A run that several submissions tell of is new for the first of them and updated for the others.
    """
    asks = [registry.Ask(list(s.items), s.principal, s.register) for s in submissions]
    resolved = await registry.resolve(connection, asks, now=now)
    merged: dict[RunKey, RunRecord] = {}
    keys: list[list[RunKey]] = []
    for submission, pipelines in zip(submissions, resolved, strict=True):
        mine: dict[RunKey, None] = {}
        for (reference, external_run_id), record in submission.records.items():
            pipeline_id = pipelines[reference]
            if isinstance(pipeline_id, UUID):
                key = (pipeline_id, external_run_id)
                mine[key] = None
                known = merged.setdefault(key, record)
                if known is not record:
                    known.join(record)
        keys.append(list(mine))
    new, changed = await _join(connection, merged, now=now)
    return [_outcome(s, p, k, new, changed) for s, p, k in zip(submissions, resolved, keys, strict=True)]


def _outcome(
    submission: Submission,
    pipelines: dict[Reference, UUID | Refusal],
    keys: list[RunKey],
    new: set[RunKey],
    changed: set[RunKey],
) -> Outcome:
    refused = {
        index: answer
        for reference, answer in pipelines.items()
        if isinstance(answer, Refusal)
        for index in submission.items[reference]
    }
    inserted = [key for key in keys if key in new]
    new.difference_update(inserted)
    changed.update(inserted)
    updated = sum(1 for key in keys if key in changed) - len(inserted)
    unchanged = submission.size - len(refused) - len(inserted) - updated
    return Outcome(len(inserted), updated, unchanged, refused, keys)


async def _join(
    connection: AsyncConnection, records: dict[RunKey, RunRecord], *, now: datetime
) -> tuple[set[RunKey], set[RunKey]]:
    """Join records to the tables; returns the runs that are new and those that changed."""
    if not records:
        return set(), set()
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 - the only driver there is
    async with driver.cursor() as cursor:
        await _copy(cursor, "staged_runs", sql.RUN_COLUMNS, _run_rows(records))
        await cursor.execute(sql.JOIN_RUNS, {"now": now})
        new: set[RunKey] = set()
        changed: set[RunKey] = set()
        async for pipeline_id, external_run_id, is_new in cursor:
            (new if is_new else changed).add((pipeline_id, external_run_id))
        await _copy(cursor, "staged_events", sql.EVENT_COLUMNS, _event_rows(records))
        await cursor.execute(sql.JOIN_EVENTS, {"now": now})
        changed.update([(pipeline_id, external_run_id) async for pipeline_id, external_run_id in cursor])
    return new, changed - new


async def _copy(cursor: psycopg.AsyncCursor[Any], table: str, columns: tuple[str, ...], rows: Iterator[str]) -> None:
    """Send rows of COPY text, a slice at a time, the event loop free in between."""
    async with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        while block := [row for _, row in zip(range(COPY_SLICE), rows, strict=False)]:
            await copy.write("".join(block).encode())
            await asyncio.sleep(0)


def _run_rows(records: dict[RunKey, RunRecord]) -> Iterator[str]:
    for (pipeline_id, external_run_id), record in records.items():
        s = record.state
        rank = s.rank
        yield _line(
            (
                pipeline_id.hex,
                external_run_id.translate(_ESCAPES),
                ids.new_id_text(),
                _bytea(rank),
                str(s.attempt),
                s.status.value,
                _text(s.status_reason),
                s.source.translate(_ESCAPES),
                _time(s.observed_at),
                _time(s.scheduled_for),
                _time(s.started_at),
                _time(s.finished_at),
                _NULL if s.rows_processed is None else str(s.rows_processed),
                _text(s.error_message),
                _other_rank(s.error_rank, rank),
                _text(s.url),
                _other_rank(s.url_rank, rank),
                _text(s.payload),
                _other_rank(s.payload_rank, rank),
            )
        )


def _event_rows(records: dict[RunKey, RunRecord]) -> Iterator[str]:
    for (pipeline_id, external_run_id), record in records.items():
        for (attempt, status), e in record.history.items():
            yield _line(
                (
                    pipeline_id.hex,
                    external_run_id.translate(_ESCAPES),
                    str(attempt),
                    status.value,
                    _time(e.occurred_at),
                    _time(e.last_occurred_at),
                    _time(e.started_at),
                    _time(e.finished_at),
                    _text(e.error_message),
                    _NULL if e.error_rank is None else _bytea(e.error_rank),
                    e.source.translate(_ESCAPES),
                )
            )


# COPY's text format: https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS-TEXT
_NULL = r"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _line(fields: Iterable[str]) -> str:
    return "\t".join(fields) + "\n"


def _text(value: str | None) -> str:
    return _NULL if value is None else value.translate(_ESCAPES)


def _time(value: datetime | None) -> str:
    return _NULL if value is None else value.isoformat()


def _bytea(value: bytes) -> str:
    return r"\\x" + value.hex()


def _other_rank(carrier: bytes | None, winner: bytes) -> str:
    """Return the rank of a value's own report where that is not the deciding one."""
    return _NULL if carrier is None or carrier == winner else _bytea(carrier)
