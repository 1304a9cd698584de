"""The one place that writes runs.

Takes what any number of callers have to say, folded by run (``Submission``), and joins it to the tables in the
caller's transaction with a constant number of statements, whatever its size. The caller commits, and answers only
then. Rows are locked in key order, runs before events, so that overlapping batches cannot deadlock; unchanged rows are
not written. Tests: ``tests/property/test_merge_law.py``, ``tests/runs/test_writer.py``.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar
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

# So much is done between two looks at the event loop: some 10 ms. A line has a payload of up to 64 KiB.
SLICE = 2000
COPY_LINES = 400
COPY_CHARS = 512 * 1024

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
    keys = [await _merge(merged, s, p) for s, p in zip(submissions, resolved, strict=True)]
    new, changed = await _join(connection, merged, now=now)
    return [await _outcome(s, p, k, new, changed) for s, p, k in zip(submissions, resolved, keys, strict=True)]


T = TypeVar("T")


async def _in_slices(items: Iterable[T]) -> AsyncIterator[list[T]]:
    """Yield items a slice at a time, the event loop free in between."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part
        if len(part) == SLICE:
            await asyncio.sleep(0)


async def _merge(
    merged: dict[RunKey, RunRecord], submission: Submission, pipelines: dict[Reference, UUID | Refusal]
) -> list[RunKey]:
    """Add the records of one submission, which stays as it is: it may be tried again without its neighbours."""
    keys: dict[RunKey, None] = {}
    async for part in _in_slices(submission.records.items()):
        for (reference, external_run_id), record in part:
            pipeline_id = pipelines[reference]
            if isinstance(pipeline_id, UUID):
                key = (pipeline_id, external_run_id)
                keys[key] = None
                known = merged.setdefault(key, record)
                if known is not record:
                    merged[key] = known.joined(record)
    return list(keys)


async def _outcome(
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
    inserted = updated = 0
    async for part in _in_slices(keys):
        mine = new.intersection(part)
        inserted += len(mine)
        updated += len(changed.intersection(part))
        new -= mine
        changed |= mine  # to whoever comes next
    unchanged = submission.size - len(refused) - inserted - updated
    return Outcome(inserted, updated, unchanged, refused, keys)


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
        staged: dict[str, RunKey] = {}
        await _copy(cursor, "staged_runs", sql.STAGED_RUN_COLUMNS, _run_rows(records, staged))
        await cursor.execute(sql.JOIN_RUNS, {"now": now})
        new: set[RunKey] = set()
        changed: set[RunKey] = set()
        async for part in _fetched(cursor):
            # a row is new where it has the id that it was staged with
            new.update([staged[run_id] for run_id, _, _ in part if run_id in staged])
            changed.update([(UUID(pipeline), external) for run_id, pipeline, external in part if run_id not in staged])
        await _copy(cursor, "staged_events", sql.EVENT_COLUMNS, _event_rows(records))
        if len(new) + len(changed) == len(records):
            await cursor.execute(sql.JOIN_EVENTS, {"now": now})
        else:
            await cursor.execute(sql.JOIN_EVENTS_TOLD, {"now": now})
            async for part in _fetched(cursor):
                changed.update([(UUID(pipeline), external_run_id) for pipeline, external_run_id in part])
    return new, changed - new


async def _fetched(cursor: psycopg.AsyncCursor[Any]) -> AsyncIterator[list[Any]]:
    """Yield the rows of a result a slice at a time, the event loop free in between."""
    while part := await cursor.fetchmany(SLICE):
        yield part
        await asyncio.sleep(0)


async def _copy(cursor: psycopg.AsyncCursor[Any], table: str, columns: tuple[str, ...], rows: Iterator[str]) -> None:
    """Send rows of COPY text, a slice at a time, the event loop free in between."""
    async with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        block: list[str] = []
        size = 0
        for row in rows:
            block.append(row)
            size += len(row)
            if len(block) == COPY_LINES or size > COPY_CHARS:
                await copy.write("".join(block).encode())
                await asyncio.sleep(0)
                block, size = [], 0
        await copy.write("".join(block).encode())


def _run_rows(records: dict[RunKey, RunRecord], staged: dict[str, RunKey]) -> Iterator[str]:
    """Return the lines of runs; ``staged`` takes the ids that they have if they are new."""
    for (key, record), random in zip(records.items(), _randoms(), strict=False):
        run_id = ids.new_id_text(random)
        staged[run_id] = key
        s = record.state
        rank = s.rank
        finished_at = _time(s.finished_at)
        yield _line(
            (
                "t" if record.is_single else "f",
                key[0].hex,
                _escaped(key[1]),
                run_id,
                _bytea(rank),
                str(s.attempt),
                s.status.value,
                _text(s.status_reason),
                _escaped(s.source),
                finished_at if s.observed_at is s.finished_at else _time(s.observed_at),
                _time(s.scheduled_for),
                _time(s.started_at),
                finished_at,
                _NULL if s.rows_processed is None else str(s.rows_processed),
                _text(s.error_message),
                _other_rank(s.error_rank, rank),
                _text(s.url),
                _other_rank(s.url_rank, rank),
                _text(s.payload),
                _other_rank(s.payload_rank, rank),
            )
        )


def _randoms() -> Iterator[bytes]:
    """Yield the random parts of ids, drawn many at a time: asking the system costs as much as the rest of an id."""
    while True:
        drawn = os.urandom(8 * COPY_LINES)
        yield from (drawn[start : start + 8] for start in range(0, len(drawn), 8))


def _event_rows(records: dict[RunKey, RunRecord]) -> Iterator[str]:
    """Return the lines of the events that are not told by the line of their run."""
    for (pipeline_id, external_run_id), record in records.items():
        if record.is_single:
            continue
        for (attempt, status), e in record.history.items():
            yield _line(
                (
                    pipeline_id.hex,
                    _escaped(external_run_id),
                    str(attempt),
                    status.value,
                    _time(e.occurred_at),
                    _time(e.last_occurred_at),
                    _time(e.started_at),
                    _time(e.finished_at),
                    _text(e.error_message),
                    _NULL if e.error_rank is None else _bytea(e.error_rank),
                    _escaped(e.source),
                )
            )


# COPY's text format: https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS-TEXT
_NULL = r"\N"
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _line(fields: Iterable[str]) -> str:
    return "\t".join(fields) + "\n"


def _escaped(value: str) -> str:
    return value if _SPECIAL.search(value) is None else value.translate(_ESCAPES)


def _text(value: str | None) -> str:
    return _NULL if value is None else _escaped(value)


def _time(value: datetime | None) -> str:
    return _NULL if value is None else value.isoformat()


def _bytea(value: bytes) -> str:
    return r"\\x" + value.hex()


def _other_rank(carrier: bytes | None, winner: bytes) -> str:
    """Return the rank of a value's own report where that is not the deciding one."""
    return _NULL if carrier is None or carrier == winner else _bytea(carrier)
