"""Lengths of time as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.durations import MOST, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(days=14)),
        ("2y", timedelta(days=730)),
        (" 5m\n", timedelta(minutes=5)),
        ("50y", MOST),
    ],
)
def test_length_is_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "m", "0s", "-5m", "+5m", "05m", "1.5h", "5 m", "5M", "5min", "1h30m", "P1D", "00:05:00"),
        *("٥m", "５m", "51y", "99999999999y", "9" * 5000 + "s", "5m;", "1e3s"),
    ],
)
def test_what_is_no_length_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 5m or 90d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=90), "90s"),
        (timedelta(hours=36), "36h"),
        (timedelta(days=14), "14d"),
        (timedelta(milliseconds=1999), "1s"),
    ],
)
def test_length_is_written_in_its_largest_whole_unit(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


@given(st.integers(1, 999_999_999))
def test_what_is_written_is_read_as_the_same(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    assert parse_duration(format_duration(length)) == length


@given(st.text(max_size=20) | st.from_regex(r"\d{1,12}[smhdwyx]"))
def test_any_text_is_a_length_or_a_value_error(text: str) -> None:
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) < length <= MOST
