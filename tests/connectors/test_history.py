"""The bookkeeping of a backfill: whatever is read and interrupted when, no time is left out."""

import itertools
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.history import MOST_WINDOW, SWEEP_EVERY, History
from tests.connectors.example.source import ExampleSource

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SOURCE = ExampleSource(name="example", platform="example", client="acme", url="http://127.0.0.1")
NOTHING = {
    "history_since": None,
    "backfill_since": None,
    "backfill_from": None,
    "backfill_until": None,
    "backfill_position": None,
    "swept_at": None,
}


def history(**values: Any) -> History:
    row: Any = SimpleNamespace(**{**NOTHING, **values})
    return History(row)


def read_all(h: History, reads: list[int], *, is_windowed: bool = True) -> list[tuple[datetime, datetime]]:
    """Read windows to the end, each with so many runs; returns them."""
    windows = []
    while h.is_under_way:
        window = h.window(is_windowed=is_windowed)
        windows.append(window)
        h.finish(window[0], reads[len(windows) % len(reads)])
    return windows


@given(
    st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=800)),
    st.lists(st.integers(0, 40_000), min_size=1, max_size=20),
    st.integers(0, 30),
)
def test_windows_cover_all_of_it_however_often_it_is_interrupted(
    length: timedelta, reads: list[int], interrupted_after: int
) -> None:
    h = history()
    h.plan(SOURCE, NOW - length, now=NOW)
    windows = []
    while h.is_under_way:
        window = h.window(is_windowed=True)
        windows.append(window)
        h.finish(window[0], reads[len(windows) % len(reads)])
        if len(windows) == interrupted_after:  # another process goes on with what was saved
            h = history(**h.saved())
            h.plan(SOURCE, None, now=NOW)
    assert windows[0][1] == NOW
    assert windows[-1][0] == NOW - length
    assert all(later[0] == earlier[1] for later, earlier in itertools.pairwise(windows))
    assert all(timedelta(0) < until - since <= MOST_WINDOW for since, until in windows)
    assert (h.read_since, h.until) == (NOW - length, None)


def test_first_reading_goes_back_as_far_as_configured() -> None:
    h = history()
    h.plan(SOURCE, None, now=NOW)
    assert read_all(h, [5000])[-1][0] == NOW - SOURCE.since


def test_a_backfill_under_way_is_gone_on_with_and_only_ever_made_longer() -> None:
    h = history(backfill_since=NOW - timedelta(days=90), backfill_from=NOW, backfill_until=NOW - timedelta(days=40))
    h.plan(SOURCE, NOW - timedelta(days=10), now=NOW)
    assert (h.since, h.until) == (NOW - timedelta(days=90), NOW - timedelta(days=40))
    h.plan(SOURCE, NOW - timedelta(days=400), now=NOW)
    assert (h.since, h.until) == (NOW - timedelta(days=400), NOW - timedelta(days=40))


def test_sweep_comes_once_a_day_and_reads_no_more_than_was_asked_for() -> None:
    read = {"history_since": NOW - timedelta(days=3), "swept_at": NOW - SWEEP_EVERY + timedelta(seconds=1)}
    h = history(**read)
    h.plan(SOURCE, None, now=NOW)
    assert not h.is_under_way
    h = history(**read | {"swept_at": NOW - SWEEP_EVERY})
    h.plan(SOURCE, None, now=NOW)
    assert read_all(h, [100])[-1][0] == NOW - timedelta(days=3)
    assert h.saved()["swept_at"] == NOW
    assert h.read_since == NOW - timedelta(days=3)


def test_without_windows_it_is_one_and_its_place_is_kept() -> None:
    h = history()
    h.plan(SOURCE, NOW - timedelta(days=900), now=NOW)
    h.position = "page 7"
    h = history(**h.saved())
    assert h.window(is_windowed=False) == (NOW - timedelta(days=900), NOW)
    assert h.position == "page 7"
    h.finish(NOW - timedelta(days=900), 10)
    assert not h.is_under_way
    assert h.position is None


def test_share_grows_to_one() -> None:
    h = history()
    h.plan(SOURCE, NOW - timedelta(days=100), now=NOW)
    shares = [h.share(0, None)]
    while h.is_under_way:
        h.finish(h.window(is_windowed=True)[0], 5000)
        shares.append(h.share(0, None))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
