"""Reads a walk in a thread, a chunk ahead of whoever stores it, and maps its runs on the way.

A chunk is as many whole pages as make a good transaction, so memory is bounded by two of them, however long the walk.
One odd run never loses its page: it is counted, and the first few are logged. Used by ``connectors/syncing.py`` alone.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from headway.connectors.config import Source
from headway.connectors.contract import Connector, HeldRun, OddPayloadError, Page, Payload
from headway.connectors.errors import StoppedError
from headway.core import clock
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import RunObservation

CHUNK_RUNS = 1000
CHUNK_SECONDS = 1.0
LOGGED = 3

# So often a wait for the platform looks whether the process is to stop.
LOOK_SECONDS = 0.2

log = structlog.get_logger()


@dataclass
class Chunk:
    """Some pages of a walk."""

    observations: list[RunObservation] = field(default_factory=list)
    gone: list[HeldRun] = field(default_factory=list)
    position: str | None = None
    total: int | None = None
    read: int = 0
    odd: int = 0
    unknown_words: int = 0
    is_last: bool = False


class ChunkReader:
    """Reads the walks of one sync of a source."""

    def __init__(self, source: Source, connector: Connector) -> None:
        self._source = source
        self._connector = connector
        self._logged = 0

    async def read(self, pages: Iterator[Page], stop: threading.Event) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of a walk; the last one says so. Close it (``aclosing``): a thread works for it.

        Raises:
            SourceError: the source cannot be read.
            StoppedError: the process is told to stop.
        """
        ahead = _in_thread(self._take, pages)
        try:
            while True:
                while not ahead.done():
                    await asyncio.wait({ahead}, timeout=LOOK_SECONDS)
                    if stop.is_set():
                        raise StoppedError
                chunk = ahead.result()
                if not chunk.is_last:
                    ahead = _in_thread(self._take, pages)
                yield chunk
                if chunk.is_last:
                    return
        finally:
            # A process that stops does not wait for a platform that hangs: what the thread still reads is stored by nobody.
            while not (ahead.done() or stop.is_set()):
                await asyncio.wait({ahead}, timeout=LOOK_SECONDS)
            if ahead.done():
                ahead.exception()  # seen, so that nobody is told of it twice

    def _take(self, pages: Iterator[Page]) -> Chunk:
        chunk = Chunk()
        now = clock.now()
        due = time.monotonic() + CHUNK_SECONDS
        for page in pages:
            for payload in page.runs:
                self._map(payload, chunk, now)
            chunk.gone += page.gone
            chunk.position, chunk.total = page.position, page.total
            if len(chunk.observations) >= CHUNK_RUNS or time.monotonic() > due:
                return chunk
        chunk.is_last = True
        return chunk

    def _map(self, payload: Payload, chunk: Chunk, now: datetime) -> None:
        try:
            report = self._connector.report(payload, now=now)
        except OddPayloadError as error:
            chunk.odd += 1
            self._log(str(error), None)
            return
        except Exception as error:  # noqa: BLE001 - a mistake in a mapping costs the run that it meets, not its page
            chunk.odd += 1
            self._log(f"the mapping failed: {type(error).__name__}", error)
            return
        if report is None:
            return
        observation = report.observation
        pipeline = observation.pipeline
        if isinstance(pipeline, PipelineRef) and not self._source.takes(pipeline.name, pipeline.external_id):
            return
        chunk.read += 1
        chunk.unknown_words += report.is_unknown_word
        chunk.observations.append(observation)

    def _log(self, reason: str, error: Exception | None) -> None:
        self._logged += 1
        if self._logged <= LOGGED:
            log.warning("source_run_odd", source=self._source.name, reason=reason, exc_info=error)


def _in_thread(work: Callable[[Iterator[Page]], Chunk], pages: Iterator[Page]) -> asyncio.Future[Chunk]:
    """Run a piece of reading in a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Chunk] = loop.create_future()

    def settle(chunk: Chunk | None, error: BaseException | None) -> None:
        if future.done():
            return
        if chunk is not None:
            future.set_result(chunk)
        else:
            future.set_exception(error or RuntimeError("nothing was read"))

    def run() -> None:
        outcome: tuple[Chunk | None, BaseException | None]
        try:
            outcome = work(pages), None
        except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="read-source", daemon=True).start()
    return future
