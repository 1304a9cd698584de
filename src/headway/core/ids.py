"""New identities: UUIDv7 (RFC 9562), which sort by the time they were made, so that indexes grow at one end."""

import os
import threading
import time
from collections.abc import Iterator
from uuid import UUID

_lock = threading.Lock()
_last = 0


def _take_ticks(count: int) -> int:
    """Return the first of some numbers that always grow: milliseconds in the upper 48 bits, a finer part in the lower 12."""
    global _last  # noqa: PLW0603 - the one counter of the process
    nanoseconds = time.time_ns()
    ticks = (nanoseconds // 1_000_000 << 12) | (nanoseconds % 1_000_000 * 4096 // 1_000_000)
    with _lock:
        first = max(_last + 1, ticks)
        _last = first + count - 1
        return first


def new_id() -> UUID:
    """Return a UUIDv7."""
    return UUID(next(new_id_texts(1)))


def new_id_texts(count: int) -> Iterator[str]:
    """Yield UUIDv7s as PostgreSQL writes them; time and chance are asked for all of them at once."""
    first, random = _take_ticks(count), os.urandom(8 * count)
    for n in range(count):
        ticks = first + n
        tail = int.from_bytes(random[8 * n : 8 * n + 8]) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        head, end = f"{ticks >> 12:012x}", f"{tail:016x}"
        yield f"{head[:8]}-{head[8:]}-7{ticks & 0xFFF:03x}-{end[:4]}-{end[4:]}"
