"""Which part of a source's past is still to be read: pure bookkeeping over its row.

History is read newest first, from now back to where it is to begin, in windows; how far that is, is saved with each
chunk of runs. The first reading, what ``--since`` asks for and the daily sweep for late changes are all such a backfill,
one at a time. Called by ``connectors/syncing.py``; ``tests/connectors/test_history.py`` guards that no time is left out.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from headway.connectors.config import Source

SWEEP_EVERY = timedelta(days=1)
FIRST_WINDOW, LEAST_WINDOW, MOST_WINDOW = timedelta(days=1), timedelta(hours=1), timedelta(days=30)
FULL_WINDOW_RUNS, THIN_WINDOW_RUNS = 10_000, 2_000


class History:
    """Which part of a source's past is still to be read: from ``until`` back to ``since``, newest first."""

    def __init__(self, row: sa.Row[Any]) -> None:
        self.read_since: datetime | None = row.history_since
        self.since: datetime | None = row.backfill_since
        self.begun: datetime | None = row.backfill_from
        self.until: datetime | None = row.backfill_until
        self.position: str | None = row.backfill_position
        self._swept_at: datetime | None = row.swept_at
        self._length = FIRST_WINDOW

    @property
    def is_under_way(self) -> bool:
        """Tell whether there is a backfill to go on with."""
        return self.until is not None

    def plan(self, source: Source, asked: datetime | None, *, now: datetime) -> None:
        """Begin what is due: the first reading, what was asked for, or the daily sweep; go on with what is under way."""
        if self.until is not None:
            if asked is not None and self.since is not None and asked < self.since:
                self.since = asked
            return
        if asked is not None:
            self._begin(asked, now)
        elif self.read_since is None:
            self._begin(now - source.since, now)
        elif self._swept_at is None or now - self._swept_at >= SWEEP_EVERY:
            self._begin(max(now - source.sweep, self.read_since), now)

    def _begin(self, since: datetime, now: datetime) -> None:
        self.since, self.begun, self.until, self.position = since, now, now, None

    def window(self, *, is_windowed: bool) -> tuple[datetime, datetime]:
        """Return the part to read next."""
        assert self.since is not None  # noqa: S101 - a history under way has both ends
        assert self.until is not None  # noqa: S101
        return (max(self.since, self.until - self._length) if is_windowed else self.since), self.until

    def finish(self, since: datetime, read: int) -> None:
        """Note that all from ``since`` on is read; the next window is longer after a thin one, shorter after a full one."""
        if read > FULL_WINDOW_RUNS:
            self._length = max(self._length / 2, LEAST_WINDOW)
        elif read < THIN_WINDOW_RUNS:
            self._length = min(self._length * 2, MOST_WINDOW)
        self.until, self.position = since, None
        if self.since is not None and since <= self.since:
            self.read_since = self.since if self.read_since is None else min(self.read_since, self.since)
            self._swept_at = self.begun
            self.since = self.begun = self.until = None

    def share(self, read: int, total: int | None) -> float:
        """Return how much of it is read, 0 to 1: by its time, or by the number of its runs where the source tells."""
        if self.since is None or self.until is None or self.begun is None:
            return 1.0
        whole = (self.begun - self.since).total_seconds()
        by_time = (self.begun - self.until).total_seconds() / whole if whole > 0 else 1.0
        return max(by_time, min(read / total, 1.0) if total and self.position else 0.0)

    def saved(self) -> dict[str, Any]:
        """Return the columns that hold it."""
        return {
            "history_since": self.read_since,
            "backfill_since": self.since,
            "backfill_from": self.begun,
            "backfill_until": self.until,
            "backfill_position": self.position,
            "swept_at": self._swept_at,
        }
