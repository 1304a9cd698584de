"""What ``headway sync`` and ``headway sources`` show: progress while sources are read, and what a check found."""

import asyncio
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from headway.connectors import queries
from headway.connectors.config import Source
from headway.connectors.contract import Check
from headway.connectors.errors import SourceError
from headway.connectors.registry import CONNECTORS
from headway.connectors.schemas import is_overdue
from headway.connectors.syncing import Result, Syncer, Told
from headway.core import clock
from headway.core.db import Database

AT_A_TIME = 4
POOL_SIZE = 2 * AT_A_TIME + 1
# A line so often where there is no terminal to draw bars on.
LINE_SECONDS = 5.0
RETRY_SECONDS = 2.0
SHOWN_PIPELINES = 10
MOST_PIPELINES = 1000  # that a check names


async def sync(database: Database, sources: Mapping[str, Source], *, since: datetime | None, once: bool) -> bool:
    """Sync sources, once or at their intervals until a signal; returns whether all went well to the end."""
    with Board() as board:
        syncer = Syncer(database, sources, tell=board.tell)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, stop, syncer, board)
        turns = asyncio.Semaphore(AT_A_TIME)
        try:
            await syncer.register()
            went_well = await asyncio.gather(
                *(_sync_one(syncer, source, since, once, stop, turns, board) for source in sources.values())
            )
        finally:
            syncer.close()
    return all(went_well) and not (once and stop.is_set())


def _stop(stop: asyncio.Event, syncer: Syncer, board: "Board") -> None:
    if not stop.is_set():
        board.say("stopping; what is read is stored, and the same command goes on from there")
    stop.set()
    syncer.halt()


async def _sync_one(
    syncer: Syncer,
    source: Source,
    since: datetime | None,
    once: bool,
    stop: asyncio.Event,
    turns: asyncio.Semaphore,
    board: "Board",
) -> bool:
    went_well, is_waiting = True, False
    while not stop.is_set():
        async with turns:
            result = await syncer.sync(source.name, since=since)
        if result is None:
            if not is_waiting and not stop.is_set():
                board.say(f"{source.name}: another process reads it now; waiting for it")
            is_waiting = True
            await _pause(stop, RETRY_SECONDS)
            continue
        is_waiting, since = False, None
        went_well = result.error is None
        board.finish(result)
        if once:
            break
        await _pause(stop, source.interval.total_seconds())
    return went_well


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


class Board:
    """Shows how far each source is: bars on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            console=self._console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._since: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, highlight=False)

    def tell(self, told: Told) -> None:
        """Show how far a source is."""
        begun = self._since.setdefault(told.source, time.monotonic())
        rate = told.read / max(time.monotonic() - begun, 0.001)
        said = f"{told.read:,} runs read"
        if told.share is not None:
            until = f", history back to {told.history_until:%Y-%m-%d}" if told.history_until is not None else ""
            said += f" ({rate:,.0f}/s){until}"
        if not self._console.is_terminal:
            now = time.monotonic()
            if now - self._last_line.setdefault(told.source, now) >= LINE_SECONDS:
                self._last_line[told.source] = now
                share = "" if told.share is None else f", {told.share:.0%}"
                self.say(f"{told.source}: {said}{share}")
            return
        bar = self._bars.get(told.source)
        if bar is None:
            bar = self._bars[told.source] = self._progress.add_task(told.source, total=None, said="")
        total = None if told.share is None else 1.0
        self._progress.update(bar, total=total, completed=told.share or 0.0, said=said)

    def finish(self, result: Result) -> None:
        """Say what came of a sync."""
        self._since.pop(result.source, None)
        bar = self._bars.pop(result.source, None)
        if bar is not None:
            self._progress.remove_task(bar)
        counts = result.counts
        parts = [
            f"{counts['runs_read']:,} runs read: {counts['runs_imported']:,} new, {counts['runs_updated']:,} changed"
        ]
        parts += [
            f"{counts[name]:,} {word}"
            for name, word in (
                ("runs_gone", "gone at the source"),
                ("runs_odd", "not understood"),
                ("unknown_words", "with an unknown status"),
                ("runs_outdated", "of an earlier attempt"),
            )
            if counts[name]
        ]
        if result.history_since is not None:
            parts.append(f"history since {result.history_since:%Y-%m-%d}")
        if result.is_stopped:
            parts.append("stopped before its end")
        self.say(f"{result.source}: {', '.join(parts)}")
        if result.error is not None:
            self.say(f"{result.source}: {result.error.detail}")


def check(sources: Mapping[str, Source]) -> bool:
    """Try each source and print what it is and what it would import, or what is wrong; returns whether all are well."""
    console = Console(soft_wrap=True)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        tried = [(source, pool.submit(_check, source)) for source in sources.values()]
        went_well = True
        for source, future in tried:
            found = future.result()
            for line in _told(source, found):
                console.print(line, markup=False, highlight=False)
            went_well &= isinstance(found, Check)
    return went_well


def _check(source: Source) -> Check | SourceError:
    try:
        connector = CONNECTORS[source.platform].connect(source, threading.Event())
        try:
            return connector.check()
        finally:
            connector.http.close()
    except SourceError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a connector met what it did not foresee; the others are checked too
        return SourceError("internal", f"the connector failed: {type(error).__name__}")


def _told(source: Source, found: Check | SourceError) -> list[str]:
    head = f"{source.name} ({source.platform}, client {source.client}, {source.url})"
    if isinstance(found, SourceError):
        return [f"✗ {head}", f"    {found.code}: {found.detail}"]
    names = sorted(found.pipelines)
    more = f" and {len(names) - SHOWN_PIPELINES:,} more" if len(names) > SHOWN_PIPELINES else ""
    many = f"{MOST_PIPELINES:,} or more" if len(names) >= MOST_PIPELINES else f"{len(names):,}"
    shown = f": {', '.join(names[:SHOWN_PIPELINES])}{more}" if names else ""
    lines = [f"✓ {head}", f"    {found.product}", f"    would import {many} pipelines{shown}"]
    if not names and (source.include or source.exclude):
        lines.append("    note: do include and exclude leave anything? Whole names are matched, * stands for anything")
    return [*lines, *(f"    note: {note}" for note in found.notes)]


async def show(database: Database, names: Sequence[str]) -> None:
    """Print how each source stands."""
    async with database.transaction() as connection:
        rows = await queries.list_sources(connection)
    now = clock.now()
    table = Table(box=None, header_style="bold")
    for column in ("source", "platform", "client", "state", "last sync", "history since", "runs", "next try"):
        table.add_column(column, no_wrap=column != "state")
    for row in rows:
        if names and row.name not in names:
            continue
        table.add_row(
            row.name,
            row.platform,
            row.client_slug,
            _state(row, now),
            _moment(row.last_synced_at),
            _moment(row.history_since),
            f"{row.runs_imported:,}",
            _moment(row.next_try_at),
        )
    Console(width=None if Console().is_terminal else 200).print(table)


def _state(row: sa.Row[Any], now: datetime) -> str:
    if not row.is_active:
        return "not configured"
    overdue = "overdue; " if is_overdue(row, now=now) else ""
    if row.last_error is not None:
        return f"{overdue}{row.failures} failed in a row: {row.last_error}"
    if row.backfill_until is not None:
        return f"{overdue}reading history, back to {row.backfill_until:%Y-%m-%d}"
    return overdue.rstrip("; ") or ("ok" if row.last_synced_at else "not read yet")


def _moment(time_: datetime | None) -> str:
    return "-" if time_ is None else f"{time_:%Y-%m-%d %H:%M}"
