"""The one place that writes runs.

Takes what any number of callers have to say, folded by run (``Submission``), and joins it to the tables in the
caller's transaction with a constant number of statements, whatever its size. The caller commits, and answers only
then. Rows are locked in key order, runs before events, so that overlapping batches cannot deadlock; unchanged rows are
not written. Tests: ``tests/property/test_merge_law.py``, ``tests/runs/test_writer.py``.
"""

import asyncio
import re
from collections import defaultdict
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
from headway.runs import numbering, sql
from headway.runs.merge import RunRecord
from headway.runs.numbering import RunKey
from headway.runs.observation import OPEN_ATTEMPT, RunObservation

# So much is done between two looks at the event loop: some 10 ms. A line has a payload of up to 64 KiB.
SLICE = 2000
COPY_LINES = 400
COPY_CHARS = 512 * 1024


class Submission:
    """What one caller has to say: its observations, folded by run."""

    def __init__(self, principal: Principal, *, register: bool = False) -> None:
        self.principal = principal
        self.register = register
        self.records: dict[tuple[Reference, str], RunRecord] = {}
        self.open: dict[tuple[Reference, str], list[RunObservation]] = {}
        self.items: defaultdict[Reference, list[int]] = defaultdict(list)
        self.size = 0
        self.latest: datetime | None = None

    def add(self, observation: RunObservation, index: int = 0) -> None:
        """Join an observation, the caller's item number ``index``."""
        reference = observation.pipeline
        key = (reference, observation.external_run_id)
        if observation.attempt == OPEN_ATTEMPT:
            self.open.setdefault(key, []).append(observation)
        else:
            alone = RunRecord(observation)
            known = self.records.setdefault(key, alone)
            if known is not alone:
                known.add(observation)
        self.items[reference].append(index)
        self.size += 1
        observed_at = observation.observed_at
        if observed_at is not None and (self.latest is None or observed_at > self.latest):
            self.latest = observed_at

    def lag_seconds(self, now: datetime) -> float | None:
        """Return how old the latest fact told is; None where no time is told."""
        return None if self.latest is None else (now - self.latest).total_seconds()


class Outcome(NamedTuple):
    """What became of a submission. ``refused`` has the items whose pipeline cannot be used, by their index.

    ``outdated`` are those of the unchanged ones that told of an attempt before the stored one, and were dropped.
    """

    inserted: int
    updated: int
    unchanged: int
    refused: dict[int, Refusal]
    keys: list[RunKey]
    outdated: int = 0

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
    merged = _Merged()
    places = [await _merge(merged, s, p) for s, p in zip(submissions, resolved, strict=True)]
    outdated = await _merge_open(connection, merged, submissions, resolved, places)
    new, changed = await _join(connection, merged, now=now)
    outcomes = []
    for submission, pipelines, mine, dropped in zip(submissions, resolved, places, outdated, strict=True):
        inserted = new.intersection(mine)
        refused = _refused(submission, pipelines)
        updated = len(changed.intersection(mine))
        unchanged = submission.size - len(refused) - len(inserted) - updated
        keys = [merged.keys[place] for place in mine]
        outcomes.append(Outcome(len(inserted), updated, unchanged, refused, keys, dropped))
        new -= inserted
        changed |= inserted  # to whoever comes next
    return outcomes


class _Merged:
    """The runs that all submissions tell of, each at a place of its own: numbers are cheaper to handle than keys."""

    def __init__(self) -> None:
        self.places: dict[RunKey, int] = {}
        self.keys: list[RunKey] = []
        self.records: list[RunRecord] = []

    def add(self, key: RunKey, record: RunRecord) -> int:
        """Join a record; returns its place."""
        place = self.places.setdefault(key, len(self.keys))
        if place == len(self.keys):
            self.keys.append(key)
            self.records.append(record)
        else:
            self.records[place] = self.records[place].joined(record)
        return place


T = TypeVar("T")


async def _in_slices(items: Iterable[T]) -> AsyncIterator[list[T]]:
    """Yield items a slice at a time, the event loop free in between."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part
        if len(part) == SLICE:
            await asyncio.sleep(0)


async def _merge(
    merged: _Merged, submission: Submission, pipelines: dict[Reference, UUID | Refusal]
) -> dict[int, None]:
    """Add the records of one submission, which stays as it is: it may be tried again without its neighbours."""
    places: dict[int, None] = {}
    async for part in _in_slices(submission.records.items()):
        for (reference, external_run_id), record in part:
            pipeline_id = pipelines[reference]
            if isinstance(pipeline_id, UUID):
                places[merged.add((pipeline_id, external_run_id), record)] = None
    return places


async def _merge_open(
    connection: AsyncConnection,
    merged: _Merged,
    submissions: Sequence[Submission],
    resolved: Sequence[dict[Reference, UUID | Refusal]],
    places: Sequence[dict[int, None]],
) -> list[int]:
    """Number the reports whose attempt is open and add them; returns how many of each submission were outdated."""
    told = [
        (position, (pipeline_id, external_run_id), reports)
        for position, (submission, pipelines) in enumerate(zip(submissions, resolved, strict=True))
        for (reference, external_run_id), reports in submission.open.items()
        if isinstance(pipeline_id := pipelines[reference], UUID)
    ]
    outdated = [0] * len(submissions)
    if not told:
        return outdated
    numbers = await numbering.number(await _driver(connection), [(key, reports) for _, key, reports in told])
    for (position, key, _), reports in zip(told, numbers, strict=True):
        for report in reports:
            if report is None:
                outdated[position] += 1
            else:
                places[position][merged.add(key, RunRecord(report))] = None
    return outdated


def _refused(submission: Submission, pipelines: dict[Reference, UUID | Refusal]) -> dict[int, Refusal]:
    """Return the items whose pipeline cannot be used, by their index."""
    return {
        index: answer
        for reference, answer in pipelines.items()
        if isinstance(answer, Refusal)
        for index in submission.items[reference]
    }


async def _join(connection: AsyncConnection, merged: _Merged, *, now: datetime) -> tuple[set[int], set[int]]:
    """Join what is merged to the tables; returns the places of the runs that are new and of those that changed."""
    if not merged.keys:
        return set(), set()
    async with (await _driver(connection)).cursor() as cursor:
        staged: dict[str, int] = {}
        await _copy(cursor, "staged_runs", sql.STAGED_RUN_COLUMNS, _run_rows(merged, staged))
        await cursor.execute(sql.JOIN_RUNS, {"now": now})
        new: set[int] = set()
        changed: set[int] = set()
        async for part in _fetched(cursor):
            for run_id, pipeline, external_run_id in part:
                # a row is new where it has the id that it was staged with
                place = staged.get(run_id)
                if place is not None:
                    new.add(place)
                else:
                    changed.add(merged.places[UUID(pipeline), external_run_id])
        await _copy(cursor, "staged_events", sql.EVENT_COLUMNS, _event_rows(merged))
        if len(new) + len(changed) == len(merged.keys):
            await cursor.execute(sql.JOIN_EVENTS, {"now": now})
        else:
            await cursor.execute(sql.JOIN_EVENTS_TOLD, {"now": now})
            async for part in _fetched(cursor):
                changed.update([merged.places[UUID(pipeline), external_run_id] for pipeline, external_run_id in part])
    return new, changed - new


async def _driver(connection: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """Return the driver's own connection, which can COPY."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 - the only driver there is
    return driver


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


def _run_rows(merged: _Merged, staged: dict[str, int]) -> Iterator[str]:
    """Return the lines of runs; ``staged`` takes the ids that they have if they are new."""
    for place, (record, run_id) in enumerate(zip(merged.records, ids.new_id_texts(len(merged.records)), strict=True)):
        staged[run_id] = place
        pipeline_id, name = merged.keys[place]
        s = record.state
        rank = s.rank
        finished_at = _time(s.finished_at)
        external_run_id, reason, source, error, url, payload = _escaped(
            (name, s.status_reason, s.source, s.error_message, s.url, s.payload)
        )
        line = (
            "t" if record.is_single else "f",
            pipeline_id.hex,
            external_run_id,
            run_id,
            _bytea(rank),
            str(s.attempt),
            s.status.value,
            reason,
            source,
            finished_at if s.observed_at is s.finished_at else _time(s.observed_at),
            _time(s.scheduled_for),
            _time(s.started_at),
            finished_at,
            None if s.rows_processed is None else str(s.rows_processed),
            error,
            _other_rank(s.error_rank, rank),
            url,
            _other_rank(s.url_rank, rank),
            payload,
            _other_rank(s.payload_rank, rank),
        )
        yield _line(line)


def _event_rows(merged: _Merged) -> Iterator[str]:
    """Return the lines of the events that are not told by the line of their run."""
    for (pipeline_id, external_run_id), record in zip(merged.keys, merged.records, strict=True):
        if record.is_single:
            continue
        for (attempt, status), e in record.history.items():
            name, error, source = _escaped((external_run_id, e.error_message, e.source))
            line = (
                pipeline_id.hex,
                name,
                str(attempt),
                status.value,
                _time(e.occurred_at),
                _time(e.last_occurred_at),
                _time(e.started_at),
                _time(e.finished_at),
                error,
                None if e.error_rank is None else _bytea(e.error_rank),
                source,
            )
            yield _line(line)


# COPY's text format: https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS-TEXT
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _escaped(texts: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Return texts as COPY takes them. One look at all of them, as few have to be changed."""
    if _SPECIAL.search("".join(filter(None, texts))) is None:
        return texts
    return tuple(None if text is None else text.translate(_ESCAPES) for text in texts)


def _line(fields: tuple[str | None, ...]) -> str:
    """Return the fields as a line of COPY; None is NULL."""
    return "\t".join([r"\N" if field is None else field for field in fields]) + "\n"


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _bytea(value: bytes) -> str:
    return r"\\x" + value.hex()


def _other_rank(carrier: bytes | None, winner: bytes) -> str | None:
    """Return the rank of a value's own report where that is not the deciding one."""
    return None if carrier is None or carrier == winner else _bytea(carrier)
