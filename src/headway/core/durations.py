"""Lengths of time as people write them: 45s, 30m, 12h, 90d, 2w, 2y."""

import re
from datetime import timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_DURATION = re.compile(r"([1-9]\d{0,8})([smhdwy])", re.ASCII)
MOST = timedelta(days=50 * 365)


def parse_duration(text: str) -> timedelta:
    """Return the length that a text such as 90d says; a year has 365 days.

    Raises:
        ValueError: it says none, or more than 50 years.
    """
    match = _DURATION.fullmatch(text.strip())
    length = None if match is None else int(match[1]) * _SECONDS[match[2]]
    if length is None or length > MOST.total_seconds():
        msg = "must be a number and one of s, m, h, d, w, y, such as 5m or 90d"
        raise ValueError(msg)
    return timedelta(seconds=length)


def format_duration(length: timedelta) -> str:
    """Return a length in its largest whole unit: 90d, 12h, 45s."""
    seconds = int(length.total_seconds())
    unit = next((u for u in ("d", "h", "m") if seconds and seconds % _SECONDS[u] == 0), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"
