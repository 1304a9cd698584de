"""Defensive reading of OpenLineage events: what is wanted, from JSON of unknown quality.

``ingest/openlineage.py`` asks for a value by its path and a type. Rule not to break: nothing here raises, and a value
that is absent or of another type is None (or empty), whatever stands in its place
(``tests/ingest/test_openlineage_mapping.py`` feeds it arbitrary JSON). Texts come mended: PostgreSQL stores no NUL,
and UTF-8 knows no lone surrogate.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from headway.core import validation

URL_CHARS = 4096

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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


def count_at(value: object, *path: str) -> int | None:
    """Return the number at a path if it is a whole one from 0 to 2^63-1."""
    found = at(value, *path)
    return found if type(found) is int and 0 <= found <= validation.INT64_MAX else None


def time_at(value: object, *path: str, latest: datetime) -> datetime | None:
    """Return the time at a path if it is one of RFC 3339, with an offset, from 1970 up to ``latest``."""
    found = at(value, *path)
    try:
        time = validation.parse_time(found) if isinstance(found, str) else None
    except PydanticCustomError:
        return None
    return time if time is not None and time <= latest else None


def mended(text: str) -> str:
    """Return the text with U+FFFD for each character that cannot be stored."""
    return _UNSTORABLE.sub("\ufffd", text)


def parent_of(run_facets: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parent facet, which older integrations (Dagster, Great Expectations) call ``parentRun``."""
    return object_at(run_facets, "parent") or object_at(run_facets, "parentRun")


def rows_written(event: Mapping[str, Any]) -> int | None:
    """Return the sum of the rows that the outputs count, None where none does."""
    statistics = (
        count_at(output, "outputFacets", "outputStatistics", "rowCount") for output in objects_at(event, "outputs")
    )
    counts = [count for count in statistics if count is not None]
    total = sum(counts)
    return total if counts and total <= validation.INT64_MAX else None


def error_message(run_facets: Mapping[str, Any], *, with_trace: bool) -> str | None:
    """Return the error, on request with the stack trace below it."""
    message = text_at(run_facets, "errorMessage", "message")
    trace = text_at(run_facets, "errorMessage", "stackTrace") if with_trace else None
    return "\n".join(text for text in (message, trace) if text) or None


def log_url(run_facets: Mapping[str, Any]) -> str | None:
    """Return the http(s) address of the log of an Airflow task, the one page that a known facet names."""
    found = at(run_facets, "airflow", "taskInstance", "log_url")
    if not isinstance(found, str) or len(found) > URL_CHARS or validation.check_json(found):
        return None
    try:
        urlsplit(found)  # a bracket too many in the host
    except ValueError:
        return None
    return found if validation.is_http_url(found) else None
