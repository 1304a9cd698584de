"""New identities: UUIDv7 (RFC 9562), which sort by the time they were made, so that indexes grow at one end."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def _next_ticks() -> int:
    """Return a number that always grows: milliseconds in the upper 48 bits, a finer part in the lower 12."""
    global _last  # noqa: PLW0603 - the one counter of the process
    nanoseconds = time.time_ns()
    ticks = (nanoseconds // 1_000_000 << 12) | (nanoseconds % 1_000_000 * 4096 // 1_000_000)
    with _lock:
        _last = max(_last + 1, ticks)
        return _last


def new_id() -> UUID:
    """Return a UUIDv7."""
    return UUID(new_id_text())


def new_id_text(random: bytes | None = None) -> str:
    """Return a UUIDv7 as PostgreSQL writes it; ``random`` are 8 bytes of its own, where many are drawn at once."""
    ticks = _next_ticks()
    tail = int.from_bytes(random or os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    time_part, tail_part = f"{ticks >> 12:012x}", f"{tail:016x}"
    return f"{time_part[:8]}-{time_part[8:]}-7{ticks & 0xFFF:03x}-{tail_part[:4]}-{tail_part[4:]}"
