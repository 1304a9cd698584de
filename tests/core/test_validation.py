"""What the shared checks of input accept and refuse, and that their time is linear."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from headway.core import json_text, validation
from headway.core.errors import BadRequestError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-01-31T06:00:00Z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31t06:00:00z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31 06:00:00+00:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31T06:00Z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31T06:00:00-0530", datetime(2026, 1, 31, 11, 30, tzinfo=UTC)),
        ("2026-01-31T06:00:00.123456789Z", datetime(2026, 1, 31, 6, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-31T06:00:00,5Z", datetime(2026, 1, 31, 6, 0, 0, 500000, tzinfo=UTC)),
        ("1970-01-01T01:00:00+01:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_of_rfc_3339_are_taken(text: str, wanted: datetime) -> None:
    assert validation.parse_time(text) == wanted


@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", fullmatch=True))
def test_any_text_is_a_time_from_1970_on_or_refused(text: str) -> None:
    try:
        time_ = validation.parse_time(text)
    except PydanticCustomError as error:
        assert error.type in {"invalid_time", "time_without_offset", "time_out_of_range"}  # noqa: PT017 - or a time
    else:
        assert time_.year >= 1970
        assert validation.parse_time(validation.format_time(time_)) == time_


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_what_passes_can_be_written_as_utf8_json(value: Any) -> None:
    issues = validation.check_json(value)
    if not issues:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        assert "\\u0000" not in text.replace("\\\\", "")
        text.encode()
    json.dumps([issue.pointer for issue in issues], ensure_ascii=False).encode()


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@given(JSON, st.integers(0, 5))
def test_depth_is_counted_without_parsing(value: Any, limit: int) -> None:
    text = json.dumps(value).encode(errors="surrogatepass")
    assert validation.is_too_deep(text, limit) == (_depth(value) > limit)


@pytest.mark.parametrize("unit", [b'"', b"\\", b'\\"', b'"\\', b"{", b"}", b"[{", b"{}", b'"{', b'""'])
def test_depth_takes_linear_time(unit: bytes) -> None:
    begun = time.process_time()
    validation.is_too_deep(b"[" * 65 + unit * (1024 * 1024 // len(unit)))
    assert time.process_time() - begun < 1


@given(st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()))
def test_small_documents_are_parsed_or_refused(document: bytes) -> None:
    try:
        json_text.decode(document)
    except BadRequestError as error:
        assert error.problem_code == "invalid_json"  # noqa: PT017 - or a value


@pytest.mark.parametrize("url", ["http://h", "https://h/", "HTTP://h:1/a?b#c", "https://[::1]/x", "http://h/%20"])
def test_urls_that_a_browser_follows(url: str) -> None:
    assert validation.is_http_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "http:",
        "http://",
        "http:///x",
        "ftp://h",
        "javascript:1",
        " http://h",
        "http://h\n",
        "http://h /",
        "http://h\x01",
    ],
)
def test_urls_that_it_does_not(url: str) -> None:
    assert not validation.is_http_url(url)


def test_pointers_can_be_printed_whatever_a_key_holds() -> None:
    assert validation.json_pointer(map(validation.printable, ("a/b", "~", "\0", "\ud800", 3))) == "/a~1b/~0/?/?/3"
    assert len(str(validation.printable("x" * 1000))) == 100
