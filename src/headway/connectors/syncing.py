"""Reads sources and stores what they say: the one engine behind ``headway sync`` and the worker.

A sync of a source catches up (everything that changed since its watermark less an overlap, then each run that we hold as
unfinished and did not meet), and goes on with its history, newest first. Whatever is read is saved in one transaction
with how far it was read, under a claim that the same transaction checks: a process killed anywhere loses and doubles
nothing, and no two read one source (``tests/connectors/test_syncing.py``). ``docs/decisions/0015-reading-sources.md``
has the reasons.
"""

import asyncio
import contextlib
import random
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from headway.connectors import queries
from headway.connectors.chunks import Chunk, ChunkReader
from headway.connectors.claimed import CLAIM, ClaimedSource, LostClaimError
from headway.connectors.config import Source
from headway.connectors.contract import Connector, HeldRun
from headway.connectors.errors import SourceError, StoppedError
from headway.connectors.history import History
from headway.connectors.registry import CONNECTORS, Kind
from headway.core import clock
from headway.core.db import Database
from headway.core.errors import HeadwayError
from headway.core.redaction import redact_text
from headway.runs.observation import TERMINAL, RunObservation, Status, observe

# What the source's clock and its late commits may hide from a filter by time.
OVERLAP = timedelta(minutes=5)
# A clock that is further behind is no clock: a cached answer, or a fault.
MOST_CLOCK_LAG = timedelta(days=1)
RENEW_SECONDS = 8.0
HELD_LIMIT = 200
LONGEST_PAUSE = timedelta(hours=1)

log = structlog.get_logger()


class Told(NamedTuple):
    """How far a sync is. ``share`` is how much of the history at hand is read, 0 to 1; None while catching up."""

    source: str
    read: int
    share: float | None
    history_until: datetime | None


class Result(NamedTuple):
    """What came of one sync of a source."""

    source: str
    counts: Mapping[str, int]
    history_since: datetime | None
    error: SourceError | None = None
    is_stopped: bool = False


class Syncer:
    """Reads configured sources on one database; any number may run on it."""

    def __init__(
        self,
        database: Database,
        sources: Mapping[str, Source],
        *,
        kinds: Mapping[str, Kind] = CONNECTORS,
        tell: Callable[[Told], None] | None = None,
    ) -> None:
        self._database = database
        self._sources = sources
        self._kinds = kinds
        self._tell = tell
        self._stop = threading.Event()
        self._is_registered = False
        # kept from sync to sync: logins, names and what was answered before are not asked for again
        self._connectors: dict[str, Connector] = {}

    def halt(self) -> None:
        """Let what is being read stop at its next request or chunk; what was stored stays."""
        self._stop.set()

    def close(self) -> None:
        """Close the connections to all sources."""
        while self._connectors:
            self._connectors.popitem()[1].http.close()

    async def register(self, *, retire_others: bool = False) -> None:
        """Make the rows of the configured sources."""
        rows = [
            {
                "name": source.name,
                "platform": source.platform,
                "client_slug": source.client,
                "url": source.url,
                "environment": source.environment,
                "interval_seconds": int(source.interval.total_seconds()),
            }
            for source in self._sources.values()
        ]
        async with self._database.transaction() as connection:
            await queries.register_sources(connection, rows=rows, now=clock.now())
            if retire_others:
                await queries.retire_others(connection, names=list(self._sources), now=clock.now())
        self._is_registered = True

    async def sync_due(self, *, only_healthy: bool = False) -> bool:
        """Sync the source that is due first, if any; False where none is. A lane of the worker.

        ``only_healthy`` leaves those alone that failed last: one that hangs may hold a lane for minutes.
        """
        if not self._is_registered:
            await self.register(retire_others=True)
        names = list(self._sources)
        return await self._sync(names, since=None, only_due=True, only_healthy=only_healthy) is not None

    async def sync(self, name: str, *, since: datetime | None = None) -> Result | None:
        """Sync one source now, with its history back to ``since`` where given; None while another process reads it."""
        return await self._sync([name], since=since, only_due=False, only_healthy=False)

    async def _sync(
        self, names: Sequence[str], *, since: datetime | None, only_due: bool, only_healthy: bool
    ) -> Result | None:
        claim, now = uuid.uuid4(), clock.now()
        if self._stop.is_set():
            return None
        async with self._database.transaction() as connection:
            row = await queries.claim_next(
                connection,
                names=names,
                claim=claim,
                now=now,
                until=now + CLAIM,
                only_due=only_due,
                only_healthy=only_healthy,
            )
        if row is None:
            return None
        source = self._sources[row.name]
        reading = _Reading(self._database, source, row, self._stop, self._tell)
        return await reading.run(lambda: self._connected(source), since)

    @asynccontextmanager
    async def _connected(self, source: Source) -> AsyncIterator[Connector]:
        """Yield the connector of a source that is claimed; one that met trouble is not used again."""
        connector = self._connectors.pop(source.name, None)
        if connector is None:
            connector = await asyncio.to_thread(self._kinds[source.platform].connect, source, self._stop)
        try:
            yield connector
        except BaseException:
            connector.http.close()
            raise
        self._connectors[source.name] = connector


class _Reading:
    """One sync of one source, under a claim."""

    def __init__(
        self,
        database: Database,
        source: Source,
        row: sa.Row[Any],
        stop: threading.Event,
        tell: Callable[[Told], None] | None,
    ) -> None:
        self._database = database
        self._source = source
        self._row = row
        self._claimed = ClaimedSource(database, source, row.claim)
        self._stop = stop
        self._tell = tell
        self._counts = dict.fromkeys(queries.COUNTED, 0)
        self._history = History(row)
        self._caught_up_at = clock.now()
        self._is_caught_up = False
        self._reread_after: uuid.UUID | None = row.reread_after
        self._watermark: datetime | None = row.watermark

    async def run(
        self, connected: Callable[[], AbstractAsyncContextManager[Connector]], since: datetime | None
    ) -> Result:
        """Read what is to be read, and record how it went.

        Raises:
            HeadwayError: our own database cannot be reached.
        """
        renewing = asyncio.create_task(self._renew())
        error: SourceError | None = None
        is_stopped = False
        try:
            await self._read_all(connected, since)
        except SourceError as trouble:
            error = trouble
        except (StoppedError, LostClaimError) as end:
            is_stopped = True
            log.info("source_sync_left", source=self._source.name, reason=type(end).__name__)
        except HeadwayError:  # our own database: the claim runs out where it cannot be given back
            with contextlib.suppress(HeadwayError):
                await self._release()
            raise
        except Exception as bug:
            log.exception("source_sync_failed", source=self._source.name)
            error = SourceError("internal", f"the connector failed: {type(bug).__name__}; the log says where")
        finally:
            renewing.cancel()
        if error is not None:
            await self._record_failure(error)
        elif is_stopped:
            await self._release()
        else:
            await self._record_success()
        return Result(self._source.name, self._counts, self._history.read_since, error, is_stopped)

    async def _read_all(
        self, connected: Callable[[], AbstractAsyncContextManager[Connector]], since: datetime | None
    ) -> None:
        async with self._database.transaction() as connection:
            if not await queries.is_client_active(connection, slug=self._source.client):
                detail = f"the client {self._source.client} is deactivated; activate it, or take the source out"
                raise SourceError("client_inactive", detail)
        async with connected() as connector:
            reader = ChunkReader(self._source, connector)
            await self._catch_up(connector, reader)
            self._history.plan(self._source, since, now=clock.now())
            while self._history.is_under_way:
                if self._is_due():
                    await self._catch_up(connector, reader)
                await self._read_history(connector, reader)

    async def _catch_up(self, connector: Connector, reader: ChunkReader) -> None:
        """Read what changed, then what we hold as unfinished; with the last of it the watermark moves."""
        started = self._caught_up_at = clock.now()
        met: set[tuple[str | None, str]] = set()
        changed = connector.changed(_since(self._watermark, started))
        async with aclosing(reader.read(changed, self._stop)) as chunks:
            async for chunk in chunks:
                met.update(_unfinished(chunk))
                await self._store(chunk, {})
        async with self._database.transaction() as connection:
            rows = await queries.list_held(
                connection,
                source=self._source.name,
                client_slug=self._source.client,
                after=self._reread_after,
                limit=HELD_LIMIT,
            )
        self._reread_after = rows[-1].id if len(rows) == HELD_LIMIT else None
        pipelines = {(row.pipeline_external_id, row.external_run_id): row.pipeline_id for row in rows}
        held = [HeldRun(r.pipeline_external_id, r.external_run_id, r.attempt) for r in rows]
        unmet = [run for run in held if (run.pipeline_external_id, run.external_run_id) not in met]
        if unmet:
            async with aclosing(reader.read(connector.reread(unmet), self._stop)) as chunks:
                async for chunk in chunks:
                    await self._store(chunk, pipelines)
        # by the source's own clock where that is behind ours: its filters go by it
        self._watermark = started - min(connector.http.clock_lag, MOST_CLOCK_LAG)
        await self._claimed.save(
            watermark=self._watermark,
            reread_after=self._reread_after,
            last_synced_at=clock.now(),
            next_try_at=started + self._source.interval,
        )
        self._is_caught_up = True

    async def _read_history(self, connector: Connector, reader: ChunkReader) -> None:
        """Read one window of the history, or of one that has no windows as much as there is time for."""
        history = self._history
        since, until = history.window(is_windowed=connector.is_windowed)
        read = 0
        pages = connector.window(since, until, history.position)
        async with aclosing(reader.read(pages, self._stop)) as chunks:
            async for chunk in chunks:
                read += chunk.read
                if chunk.is_last:
                    history.finish(since, read)
                elif not connector.is_windowed:
                    history.position = chunk.position
                await self._store(chunk, {}, **history.saved())
                if not chunk.is_last and history.position and self._is_due():
                    return

    def _is_due(self) -> bool:
        """Tell whether changes are to be asked for again."""
        return clock.now() - self._caught_up_at >= self._source.interval

    async def _store(self, chunk: Chunk, held: Mapping[tuple[str, str], uuid.UUID], **place: Any) -> None:
        """Write a chunk, and in the same transaction how far the source is read with it."""
        observations = [*chunk.observations, *(_gone(run, held, self._source.name) for run in chunk.gone)]
        counts = {
            "runs_read": chunk.read,
            "runs_gone": len(chunk.gone),
            "runs_odd": chunk.odd,
            "unknown_words": chunk.unknown_words,
        }
        written = await self._claimed.write(observations, counts, place)
        for key, number in written.items():
            self._counts[key] += number
        if self._tell is not None:
            history = self._history
            share = history.share(self._counts["runs_read"], chunk.total) if place else None
            self._tell(Told(self._source.name, self._counts["runs_read"], share, history.until))

    async def _renew(self) -> None:
        """Keep the claim while a slow source is waited for."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(HeadwayError):
                try:
                    await self._claimed.save(claimed_until=clock.now() + CLAIM)
                except LostClaimError:
                    return

    async def _release(self) -> None:
        with contextlib.suppress(LostClaimError):
            await self._claimed.save(claim=None, claimed_until=None)

    async def _record_success(self) -> None:
        with contextlib.suppress(LostClaimError):
            await self._claimed.save(claim=None, claimed_until=None, failures=0, last_error=None, last_error_code=None)
        if self._row.failures:
            log.info("source_recovered", source=self._source.name, failures=self._row.failures)

    async def _record_failure(self, error: SourceError) -> None:
        failures = self._row.failures + 1
        detail = redact_text(error.detail)
        if failures == 1 or error.code != self._row.last_error_code:
            log.warning("source_failed", source=self._source.name, code=error.code, error=detail)
        now = clock.now()
        # a history that cannot be read is no reason to ask for changes less often
        in_a_row = 1 if self._is_caught_up else failures
        pause = pause_after(in_a_row, interval=self._source.interval, asked_seconds=error.retry_after_seconds)
        with contextlib.suppress(LostClaimError):
            await self._claimed.save(
                claim=None,
                claimed_until=None,
                failures=failures,
                last_error_at=now,
                last_error_code=error.code,
                last_error=detail,
                next_try_at=now + pause,
            )


def pause_after(failures: int, *, interval: timedelta, asked_seconds: float | None) -> timedelta:
    """Return how long to leave a source alone that has failed so often in a row: growing, jittered, an hour at most.

    What the source itself asked for is granted, up to a day.
    """
    grown = min(interval * 2 ** min(failures - 1, 12), max(LONGEST_PAUSE, interval))
    jittered: timedelta = grown * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    asked = timedelta(seconds=min(asked_seconds or 0.0, 86_400.0))
    return max(jittered, asked)


def _since(watermark: datetime | None, started: datetime) -> datetime:
    """Return from when on changes are asked for; a watermark that lies ahead was made by a clock that has been set back."""
    if watermark is not None and watermark > started:
        return started - MOST_CLOCK_LAG
    return (watermark or started) - OVERLAP


def _unfinished(chunk: Chunk) -> Iterator[tuple[str | None, str]]:
    for o in chunk.observations:
        if o.status not in TERMINAL:
            yield getattr(o.pipeline, "external_id", None), o.external_run_id


def _gone(run: HeldRun, pipelines: Mapping[tuple[str, str], uuid.UUID], source: str) -> RunObservation:
    """Return the end of a run that its source no longer knows; without a time, so that any truth that comes later wins."""
    return observe(
        pipeline=pipelines[run.pipeline_external_id, run.external_run_id],
        external_run_id=run.external_run_id,
        attempt=run.attempt,
        status=Status.CANCELED,
        status_reason="gone_at_source",
        source=source,
    )
