"""What input must look like before anything is done with it, and how a refusal is worded.

Holds the field types that the wire models share, the checks that apply to any JSON (NUL, lone surrogates, numbers that
no column or jsonb takes), and the translation of Pydantic's errors into ours. Callers are the request gate, the batch
parser and the doors. No refusal repeats the value it refuses (``tests/contract/test_bad_input.py``).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from headway.core import clock
from headway.core.errors import BadRequestError, Issue

MAX_DEPTH = 64
MAX_ISSUES = 100  # of one document or item: who sends more mistakes needs no longer list
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FUTURE = timedelta(days=1)

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?P<offset>[Zz]|[+-]\d\d:?\d\d)?", re.ASCII)

# Pydantic's error type: our code and what to say. {expected} and the like come from the error's context.
_CODES: Mapping[str, tuple[str, str]] = {
    "missing": ("missing", "is required"),
    "extra_forbidden": ("unknown_field", "is not a known field"),
    "json_invalid": ("invalid_json", "is not JSON"),
    "string_too_long": ("too_long", "must have at most {max_length} characters"),
    "string_too_short": ("too_short", "must have at least {min_length} characters"),
    "too_long": ("too_long", "must have at most {max_length} items"),
    "too_short": ("too_short", "must have at least {min_length} items"),
    "enum": ("unknown_value", "must be {expected}"),
    "literal_error": ("unknown_value", "must be {expected}"),
    "greater_than_equal": ("out_of_range", "must be {ge} or more"),
    "greater_than": ("out_of_range", "must be more than {gt}"),
    "less_than_equal": ("out_of_range", "must be {le} or less"),
    "less_than": ("out_of_range", "must be less than {lt}"),
    "int_parsing_size": ("out_of_range", "is too large a number"),
    "finite_number": ("not_a_number", "must be a finite number"),
    "string_pattern_mismatch": ("invalid_format", "does not have the required form"),
}


class Wire(BaseModel):
    """Base of what callers send: unknown fields are refused, so that typing errors are seen."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time into UTC, cut to microseconds.

    Raises:
        PydanticCustomError: with the code of what is wrong.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise PydanticCustomError("invalid_time", "must be an RFC 3339 time such as 2026-01-31T06:00:00Z")
    if match["offset"] is None:
        raise PydanticCustomError("time_without_offset", "must carry an offset: Z, or +02:00 and the like")
    try:
        time = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("invalid_time", "is no such time") from None
    if time < clock.EPOCH:
        raise PydanticCustomError("time_out_of_range", "must not be before 1970")
    return time


def check_not_after(time: datetime, latest: datetime) -> None:
    """Refuse a time that lies too far ahead.

    Raises:
        PydanticCustomError: it does.
    """
    if time > latest:
        raise PydanticCustomError("time_out_of_range", "lies too far in the future")


def _time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_type", "must be a text with an RFC 3339 time")
    return parse_time(value)


def _uuid(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str) or not UUID_PATTERN.fullmatch(value):
        raise PydanticCustomError("invalid_uuid", "must be a UUID")
    return UUID(value)


def _http_url(value: str) -> str:
    if not is_http_url(value):
        raise PydanticCustomError("invalid_url", "must be an http:// or https:// URL")
    return value


def is_http_url(value: str) -> bool:
    """Tell whether a text is a URL that a browser can follow."""
    return _URL.fullmatch(value) is not None


UUID_PATTERN = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URL = re.compile(
    r"https?://(?:[^\s\x00-\x20\x7f/?#@]*@)?(?:\[[0-9a-f:.]+\]|[^\s\x00-\x20\x7f/?#@:\[\]]+)(?::[0-9]{1,5})?"
    r"(?:[/?#][^\s\x00-\x20\x7f]*)?",
    re.IGNORECASE,
)


def format_time(time: datetime) -> str:
    """Return a time as the API shows it: RFC 3339, UTC, ``Z``, with microseconds where there are any."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[datetime, BeforeValidator(_time, json_schema_input_type=datetime)]
# A time as the API shows it.
UtcTime = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Uuid = Annotated[UUID, BeforeValidator(_uuid, json_schema_input_type=UUID)]
HttpUrl = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_http_url)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]


def _no_id(slug: str) -> str:
    """Refuse a slug that a path would take for an id."""
    if UUID_PATTERN.fullmatch(slug):
        raise PydanticCustomError("invalid_format", "must not look like an id")
    return slug


ClientSlug = Annotated[Slug, AfterValidator(_no_id)]


def json_pointer(parts: Iterable[object]) -> str:
    """Return an RFC 6901 pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def printable(part: object) -> object:
    """Return a part of a pointer that can be written as JSON text, whatever key a caller made up."""
    return part if not isinstance(part, str) else part.encode(errors="replace").decode().replace("\0", "?")[:100]


def issues_of(errors: Iterable[Mapping[str, Any]], prefix: Sequence[object] = ()) -> list[Issue]:
    """Translate the first of Pydantic's errors (``error.errors(include_url=False, include_input=False)``)."""
    found = []
    for error in islice(errors, MAX_ISSUES):
        location = [part for part in error["loc"] if part not in _UNION_TAGS]
        code, detail = _CODES.get(error["type"], ("", ""))
        context = error.get("ctx") or {}
        if code:
            detail = detail.format(**context)
        elif error["type"].endswith(("_type", "_parsing", "_from_float")) or error["type"] in _TYPE_ERRORS:
            code, detail = "invalid_type", str(error["msg"]).replace("Input should be", "must be")
        else:
            code, detail = error["type"], str(error["msg"]).removeprefix("Value error, ")
        found.append(Issue(json_pointer(map(printable, (*prefix, *location))), code, detail))
    return found


_UNION_TAGS = {"function-before", "CronSchedule", "IntervalSchedule"}
_TYPE_ERRORS = {
    "is_instance_of",
    "decimal_parsing",
    "bool_parsing",
    "uuid_parsing",
    "model_attributes_type",
    "value_error",
}


def check_json(value: object, prefix: Sequence[object] = ()) -> list[Issue]:
    """Find what no text or jsonb column takes, anywhere in a parsed JSON value, keys included."""
    found: list[Issue] = []
    pending: list[tuple[tuple[object, ...], object]] = [(tuple(prefix), value)]
    while pending and len(found) < MAX_ISSUES:
        path, node = pending.pop()
        if isinstance(node, dict):
            for key, child in node.items():
                if (wrong_key := _text_problem(key)) is not None:
                    found.append(Issue(json_pointer(map(printable, (*path, key))), *wrong_key))
                pending.append(((*path, key), child))
        elif isinstance(node, list):
            pending.extend(((*path, i), child) for i, child in enumerate(node))
        elif (problem := _scalar_problem(node)) is not None:
            found.append(Issue(json_pointer(map(printable, path)), *problem))
    return found


def _scalar_problem(value: object) -> tuple[str, str] | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "not_a_number", "must be a finite number"
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return "out_of_range", "must fit into 64 bits"
    return None


def _text_problem(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return "nul_character", "must not contain a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "lone_surrogate", "must not contain half of a surrogate pair"
    return None


_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"{[}]", b"\1\1\xff\xff")  # as signed numbers: one level down, one level up
_NO_BRACKETS = bytes(set(range(256)) - set(b"{[}]"))


def is_too_deep(document: bytes, limit: int = MAX_DEPTH) -> bool:
    """Tell whether a JSON text is nested beyond a limit, without parsing it. Linear."""
    if document.count(b"{") + document.count(b"[") <= limit:
        return False
    steps = _STRINGS.sub(b"", document).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > limit


def too_deep_error() -> BadRequestError:
    """Return the refusal of a document that is nested too deep."""
    return BadRequestError(f"the body is nested beyond {MAX_DEPTH} levels", code="too_deep")


def _storable(value: str) -> str:
    problem = _text_problem(value)
    if problem is not None:
        raise PydanticCustomError(problem[0], problem[1])
    return value


# A text of a query parameter that is compared with a column.
FilterText = Annotated[
    str | None,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(lambda v: v if v is None else _storable(v)),
]
