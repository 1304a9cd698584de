"""Defensive reading of other people's JSON: what is wanted, from documents of unknown quality.

The doors ask for a value by its path and a type. Rule not to break: nothing here raises, and a value that is absent or
of another type is None (or empty), whatever stands in its place (``tests/core/test_reading.py``,
``tests/ingest/test_openlineage_mapping.py`` feed it arbitrary JSON). Texts come mended: PostgreSQL stores no NUL, and
UTF-8 knows no lone surrogate.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from headway.core import clock, validation

URL_CHARS = 4096
_ID_BITS = 512  # Python writes no number of thousands of digits, and none is an identity

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# What platforms write besides RFC 3339: a blank before the offset, the word UTC, seven or nine digits of a second.
_WORDED_UTC = re.compile(r" ?(?:UTC|GMT)$")
_BLANK_OFFSET = re.compile(r" (?=[+-]\d\d:?\d\d$)")
_LONGEST_TIME = 64  # characters


def at(value: object, *path: str) -> object:
    """Return what stands at a path of keys, None where there is nothing."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def object_at(value: object, *path: str) -> Mapping[str, Any]:
    """Return the object at a path, an empty one where there is none."""
    found = at(value, *path)
    return found if isinstance(found, Mapping) else {}


def objects_at(value: object, *path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in the list at a path."""
    found = at(value, *path)
    if isinstance(found, list):
        yield from (item for item in found if isinstance(item, Mapping))


def text_at(value: object, *path: str) -> str | None:
    """Return the mended text at a path, None where there is none or an empty one."""
    found = at(value, *path)
    return mended(found) if isinstance(found, str) and found else None


def id_at(value: object, *path: str) -> str | None:
    """Return the text or whole number at a path as text: an identity, which some platforms write either way."""
    found = at(value, *path)
    if type(found) is int:
        return str(found) if found.bit_length() <= _ID_BITS else None
    return text_at(value, *path)


def count_at(value: object, *path: str) -> int | None:
    """Return the number at a path if it is a whole one from 0 to 2^63-1."""
    found = at(value, *path)
    return found if type(found) is int and 0 <= found <= validation.INT64_MAX else None


def flag_at(value: object, *path: str) -> bool:
    """Tell whether ``true`` stands at a path."""
    return at(value, *path) is True


def time_at(value: object, *path: str, latest: datetime) -> datetime | None:
    """Return the time at a path if it is one of RFC 3339, with an offset, from 1970 up to ``latest``."""
    return _time(at(value, *path), latest)


def loose_time_at(value: object, *path: str, latest: datetime) -> datetime | None:
    """Return the time at a path as ``time_at``, where ``2026-01-31 06:00:00 UTC`` and the like will do as well."""
    found = at(value, *path)
    if isinstance(found, str) and len(found) <= _LONGEST_TIME:
        found = _BLANK_OFFSET.sub("", _WORDED_UTC.sub("Z", found))
    return _time(found, latest)


def _time(found: object, latest: datetime) -> datetime | None:
    try:
        time = validation.parse_time(found) if isinstance(found, str) else None
    except PydanticCustomError:
        return None
    return time if time is not None and time <= latest else None


def epoch_at(value: object, *path: str, latest: datetime, per_second: int = 1) -> datetime | None:
    """Return the time at a path that counts from 1970, with so many units a second; 0 and below are no time.

    Platforms write such numbers as integers, as floats and as texts.
    """
    found = at(value, *path)
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not found > 0:
        return None
    try:
        time = clock.EPOCH + timedelta(microseconds=round(found * 1_000_000 / per_second))
    except OverflowError:  # infinity as well
        return None
    return time.astimezone(UTC) if time <= latest else None


def mended(text: str) -> str:
    """Return the text with U+FFFD for each character that cannot be stored."""
    return _UNSTORABLE.sub("\ufffd", text)


def url_at(value: object, *path: str) -> str | None:
    """Return the http(s) address at a path, None where it is none that a browser can follow."""
    found = at(value, *path)
    if not isinstance(found, str) or len(found) > URL_CHARS or validation.check_json(found):
        return None
    try:
        urlsplit(found)  # a bracket too many in the host
    except ValueError:
        return None
    return found if validation.is_http_url(found) else None
