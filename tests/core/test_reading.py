"""Defensive reading: what is there is read, what is odd is None, and nothing raises."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core import clock, reading, validation

LATEST = datetime(2026, 11, 23, 12, tzinfo=UTC)
DOCUMENT: Any = {
    "a": {"b": {"text": "x", "none": None}},
    "empty": "",
    "odd": "a\0b\ud800c",
    "number": 7,
    "float": 7.0,
    "true": True,
    "list": [{"id": 1}, 5, None, {"id": 2}, [{}]],
}


ODD_IDS: tuple[Any, ...] = (None, "", 7.0, True, [], {}, 10**4000)
ODD_COUNTS: tuple[Any, ...] = (2**63, -1, 1.0, True, "1", None, 10**400)


def test_paths_lead_to_what_is_there() -> None:
    assert reading.at(DOCUMENT, "a", "b", "text") == "x"
    assert reading.at(DOCUMENT) is DOCUMENT
    for path in (("a", "c"), ("a", "b", "text", "x"), ("list", "id"), ("number", "x"), ("a", "b", "none", "x")):
        assert reading.at(DOCUMENT, *path) is None


def test_types_are_as_asked_for() -> None:
    assert reading.object_at(DOCUMENT, "a", "b") == {"text": "x", "none": None}
    assert reading.object_at(DOCUMENT, "list") == reading.object_at(None) == {}
    assert list(reading.objects_at(DOCUMENT, "list")) == [{"id": 1}, {"id": 2}]
    assert list(reading.objects_at(DOCUMENT, "a")) == []
    assert reading.text_at(DOCUMENT, "empty") is None
    assert reading.text_at(DOCUMENT, "number") is None
    assert reading.flag_at(DOCUMENT, "true")
    assert not reading.flag_at(DOCUMENT, "number")


def test_texts_come_mended() -> None:
    assert reading.text_at(DOCUMENT, "odd") == "a\ufffdb\ufffdc"
    assert reading.mended("größe 😀") == "größe 😀"


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        *((7, "7"), ("7", "7"), (-(2**63), str(-(2**63))), (2**100, str(2**100)), ("a\0", "a\ufffd")),
        *((odd, None) for odd in ODD_IDS),
    ],
)
def test_identities_are_texts_or_whole_numbers(value: Any, identity: str | None) -> None:
    assert reading.id_at({"id": value}, "id") == identity


@pytest.mark.parametrize(("value", "count"), [(0, 0), (2**63 - 1, 2**63 - 1), *((odd, None) for odd in ODD_COUNTS)])
def test_counts_fit_their_column(value: Any, count: int | None) -> None:
    assert reading.count_at({"n": value}, "n") == count


ODD_EPOCHS: tuple[Any, ...] = (
    *(0, -1, -0.5, 2**40, 10**30, 10**400, -(10**400), 1e308, float("inf"), float("nan"), "1e400", "nan"),
    *("", "x", "9" * 5000, True, None, [], {}, "\0", 1_795_435_201),
)
ODD_URLS: tuple[Any, ...] = (
    *("https://h/" + "x" * 4087, "ftp://h", "javascript:alert(1)", "//h/", "h.test", "", "https://h/a b", "http://"),
    *("https://h/\n", "https://h/\0", "https://h/\ud800", "http://[", None, 5, [], {}),
)
TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
STRICT = {
    "2026-11-22T10:00:00Z": TEN,
    "2026-11-22t10:00z": TEN,
    "2026-11-22 10:00:00+00:00": TEN,
    "2026-11-22T12:00:00+02:00": TEN,
    "2026-11-22T12:00:00+0200": TEN,
    "2026-11-22T10:00:00.5Z": TEN + timedelta(milliseconds=500),
    "2026-11-22T10:00:00.1234567Z": TEN + timedelta(microseconds=123456),
    "2026-11-22T10:00:00.123456789Z": TEN + timedelta(microseconds=123456),
    "1970-01-01T00:00:00Z": clock.EPOCH,
    "2026-11-23T12:00:00Z": LATEST,
}
LOOSE = {
    "2016-08-12 15:23:28 UTC": datetime(2016, 8, 12, 15, 23, 28, tzinfo=UTC),
    "2016-08-12T15:23:28GMT": datetime(2016, 8, 12, 15, 23, 28, tzinfo=UTC),
    "2016-08-12 15:23:28 +0200": datetime(2016, 8, 12, 13, 23, 28, tzinfo=UTC),
    "2016-08-12 15:23:28.123456 -02:30": datetime(2016, 8, 12, 17, 53, 28, 123456, tzinfo=UTC),
}
NO_TIMES: tuple[Any, ...] = (
    *("", "now", "2026-11-22", "2026-11-22T10:00:00", "2026-02-30T00:00:00Z", "2026-11-22T24:00:01Z", "10:00Z"),
    *("1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-23T12:00:01Z"),
    *("2026-11-22T10:00:60Z", "２026-11-22T10:00:00Z", "2026-11-22T10:00:00Z ", "2026-11-22T10:00:00  UTC", "UTC"),
    *(None, 5, 5.5, True, [], {}, "\0", "\ud800", "x" * 10_000),
)


@pytest.mark.parametrize(("text", "expected"), STRICT.items())
def test_times_are_read_in_utc(text: str, expected: datetime) -> None:
    for read in (reading.time_at, reading.loose_time_at):
        found = read({"t": text}, "t", latest=LATEST)
        assert found == expected
        assert found.tzinfo is UTC


@pytest.mark.parametrize(("text", "expected"), LOOSE.items())
def test_times_of_platforms_are_read_where_they_are_expected(text: str, expected: datetime) -> None:
    assert reading.loose_time_at({"t": text}, "t", latest=LATEST) == expected
    assert reading.time_at({"t": text}, "t", latest=LATEST) is None


@pytest.mark.parametrize("value", NO_TIMES)
@pytest.mark.parametrize("read", [reading.time_at, reading.loose_time_at])
def test_what_is_no_time_is_none(read: Callable[..., datetime | None], value: Any) -> None:
    assert read({"t": value}, "t", latest=LATEST) is None


def test_latest_may_have_any_offset() -> None:
    latest = LATEST.astimezone(timezone(timedelta(hours=5)))
    assert reading.time_at({"t": "2026-11-23T12:00:00Z"}, "t", latest=latest) == LATEST
    assert reading.time_at({"t": "2026-11-23T12:00:01Z"}, "t", latest=latest) is None


@pytest.mark.parametrize(
    ("value", "per_second", "expected"),
    [
        (1_763_805_600, 1, datetime(2025, 11, 22, 10, tzinfo=UTC)),
        (1_763_805_600.25, 1, datetime(2025, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("1763805600.25", 1, datetime(2025, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC)),
        (1_763_805_600_123, 1000, datetime(2025, 11, 22, 10, 0, 0, 123_000, tzinfo=UTC)),
        ("1763805600123", 1000, datetime(2025, 11, 22, 10, 0, 0, 123_000, tzinfo=UTC)),
        (1_763_805_600_123_456_789, 10**9, datetime(2025, 11, 22, 10, 0, 0, 123_457, tzinfo=UTC)),
        *((odd, 1, None) for odd in ODD_EPOCHS),
    ],
)
def test_numbers_that_count_from_1970_are_times(value: Any, per_second: int, expected: datetime | None) -> None:
    assert reading.epoch_at({"t": value}, "t", latest=LATEST, per_second=per_second) == expected


@pytest.mark.parametrize("url", ["https://h.test/a?b#c", "http://[::1]:8080/", "HTTPS://H", "https://h/" + "x" * 4086])
def test_addresses_that_a_browser_follows_are_kept(url: str) -> None:
    assert reading.url_at({"u": url}, "u") == url


@pytest.mark.parametrize("url", ODD_URLS)
def test_addresses_that_no_browser_follows_are_none(url: Any) -> None:
    assert reading.url_at({"u": url}, "u") is None


READERS: tuple[Callable[..., object], ...] = (
    reading.at,
    reading.object_at,
    lambda value, *path: list(reading.objects_at(value, *path)),
    reading.text_at,
    reading.id_at,
    reading.count_at,
    reading.flag_at,
    reading.url_at,
    lambda value, *path: reading.time_at(value, *path, latest=LATEST),
    lambda value, *path: reading.loose_time_at(value, *path, latest=LATEST),
    lambda value, *path: reading.epoch_at(value, *path, latest=LATEST, per_second=1000),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | st.text(), inner, max_size=4),
)


@settings(deadline=None)
@given(ANYTHING, st.lists(st.sampled_from("abc"), max_size=3))
def test_nothing_raises_and_what_is_told_can_be_stored(value: Any, path: list[str]) -> None:
    for read in READERS:
        found = read(value, *path)
        if isinstance(found, str) and read is not reading.at:
            assert validation.check_json(found) == []
        if isinstance(found, datetime):
            assert clock.EPOCH <= found <= LATEST


@pytest.mark.parametrize("text", [" " * 300_000 + "x", "2026-11-22" + " " * 300_000 + "UTC", "http://" + "[" * 300_000])
def test_cost_is_linear_on_hostile_texts(text: str) -> None:
    begun = time.process_time()
    for read in READERS:
        read({"t": text}, "t")
    assert time.process_time() - begun < 2  # a quadratic one takes minutes
