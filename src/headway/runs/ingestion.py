"""What happens between the body of a request and the one writer.

Items are taken from the body in slices, the event loop free in between, folded by run as they come, and written in one
transaction; the answer is made after its commit. Called by ``runs/routes.py``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from headway.access.principal import Principal
from headway.core import clock
from headway.core.db import Database
from headway.core.errors import ConflictError, HeadwayError, InvalidInputError, Issue
from headway.runs import parsing, splitting, writer
from headway.runs.parsing import BrokenItem, RefusedItem
from headway.runs.schemas import BatchResult, ItemError
from headway.runs.writer import Outcome, Submission

SLICE_SECONDS = 0.01
MAX_ERRORS = 1000
SOURCE = "api"


class Batch:
    """A batch on its way in: what was taken so far, and what was wrong with the rest."""

    def __init__(self, principal: Principal, *, register: bool, now: datetime) -> None:
        self.submission = Submission(principal, register=register)
        self.rejected: dict[int, list[Issue]] = {}
        self.received = 0
        self._now = now

    async def take(self, items: Iterable[bytes], *, broken_is_fatal: bool) -> None:
        """Parse and fold some items, the event loop free every ``SLICE_SECONDS``.

        Raises:
            BadRequestError: an item is no JSON, where that means that the whole document is none.
            TooLargeError: there are too many.
        """
        due = time.perf_counter() + SLICE_SECONDS
        for raw in items:
            if self.received == splitting.MAX_ITEMS:
                raise splitting.too_many()
            parsed = parsing.parse_item(raw, source=SOURCE, now=self._now)
            if isinstance(parsed, BrokenItem | RefusedItem):
                if broken_is_fatal and isinstance(parsed, BrokenItem):
                    raise splitting.not_json_error(self.received)
                self._reject(self.received, parsed.issues)
            else:
                self.submission.add(parsed, self.received)
            self.received += 1
            if time.perf_counter() >= due:
                await asyncio.sleep(0)
                due = time.perf_counter() + SLICE_SECONDS

    def _reject(self, index: int, issues: list[Issue]) -> None:
        # of what is not shown, the number is enough: 50,000 items can have 100 mistakes each
        self.rejected[index] = issues if len(self.rejected) < MAX_ERRORS else []

    def refuse(self, outcome: Outcome) -> None:
        """Note the items whose pipeline cannot be used."""
        for index, refusal in outcome.refused.items():
            self.rejected[index] = [Issue(refusal.pointer, refusal.code, refusal.detail)]

    def errors(self) -> list[ItemError]:
        """Return what was wrong, of the first items that were not taken."""
        return [
            ItemError(index=index, pointer=f"/runs/{index}{issue.pointer}", code=issue.code, detail=issue.detail)
            for index in sorted(self.rejected)[:MAX_ERRORS]
            for issue in self.rejected[index]
        ]


class NothingStoredError(InvalidInputError):
    """Batch refused."""

    code = "batch_refused"


async def take_document(batch: Batch, document: bytes) -> None:
    """Take the items of ``{"runs": [...]}``."""
    await batch.take(splitting.split_document(document), broken_is_fatal=True)


async def take_lines(batch: Batch, pieces: AsyncIterator[bytes]) -> None:
    """Take NDJSON as it arrives, one observation a line; blank lines do not count."""
    rest = bytearray()
    async for piece in pieces:
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest += piece
            continue
        await batch.take(_lines(bytes(rest) + head), broken_is_fatal=False)
        rest = bytearray(tail)
    await batch.take(_lines(bytes(rest)), broken_is_fatal=False)


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


async def store(database: Database, batch: Batch, *, atomic: bool) -> BatchResult:
    """Write a batch and say what became of it; returns after the commit.

    Raises:
        NothingStoredError: something was wrong with an item of an ``atomic`` batch.
    """
    if atomic and batch.rejected:
        raise _nothing_stored(batch)
    try:
        outcome = await _write(database, batch, atomic=atomic)
    except ConflictError:  # the inventory was edited under a registration: once more, on what it is now
        outcome = await _write(database, batch, atomic=atomic)
    batch.refuse(outcome)
    return BatchResult(
        received=batch.received,
        inserted=outcome.inserted,
        updated=outcome.updated,
        unchanged=outcome.unchanged,
        rejected=len(batch.rejected),
        errors=batch.errors(),
    )


async def _write(database: Database, batch: Batch, *, atomic: bool) -> Outcome:
    async with database.transaction() as connection:
        (outcome,) = await writer.write(connection, [batch.submission], now=clock.now())
        if atomic and outcome.refused:
            batch.refuse(outcome)
            raise _nothing_stored(batch)  # and rolled back
    return outcome


def _nothing_stored(batch: Batch) -> HeadwayError:
    issues = [Issue(e.pointer, e.code, e.detail) for e in batch.errors()]
    count = len(batch.rejected)
    return NothingStoredError(f"{count} of {batch.received} items are wrong; nothing was stored", issues=issues)
