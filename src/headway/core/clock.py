"""The one place that reads the clock.

Rules and statements take ``now`` as an argument; only the edges (a route, a worker tick, a command) call this.
Tests pass times of their own instead of patching.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
