"""Cursors: whatever a sort key holds comes back out of them, and made-up ones are refused."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import paging
from headway.core.errors import InvalidInputError

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=512)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
ASKED = paging.question("list", a=1)


@given(NAMES, TIMES, st.integers(-(2**63), 2**63 - 1), st.uuids())
def test_sort_key_survives_the_way_through_a_cursor(name: str, time: datetime, number: int, key: UUID) -> None:
    cursor = paging.encode(ASKED, (name, time, number, key))
    assert paging.decode(cursor, ASKED, (str, datetime, int, UUID)) == [name, time, number, key]


@pytest.mark.parametrize("character", ["\U0001f600", "é", '"', "\x01", "\\"])
def test_cursor_of_the_longest_name_can_be_sent_back(character: str) -> None:
    assert len(paging.encode(ASKED, (character * 512, UUID(int=0)))) <= paging.CURSOR_CHARS


@given(st.text(max_size=100) | st.binary(max_size=60).map(lambda b: paging.encode(ASKED, [b.hex()])))
def test_made_up_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        paging.decode(cursor, ASKED, (datetime, UUID))
    assert refused.value.problem_code == "invalid_cursor"
    assert refused.value.issues[0].pointer == "/query/cursor"


def test_cursor_is_bound_to_its_question() -> None:
    cursor = paging.encode(ASKED, ("a",))
    for other in (paging.question("list", a=2), paging.question("other", a=1), paging.question("list", a=1, b=2)):
        with pytest.raises(InvalidInputError) as refused:
            paging.decode(cursor, other, (str,))
        assert refused.value.problem_code == "cursor_mismatch"
    assert paging.question("list", b=None, a=1) == ASKED


def test_no_cursor_is_the_first_page() -> None:
    assert paging.decode(None, ASKED, (str,)) is None


@pytest.mark.parametrize(("rows", "items", "has_next"), [(0, 0, False), (2, 2, False), (3, 2, True)])
def test_page_has_a_cursor_while_there_is_more(rows: int, items: int, has_next: bool) -> None:
    made = paging.page(range(rows), limit=2, asked=ASKED, key=lambda row: (row,), item=str)
    assert made.items == [str(n) for n in range(items)]
    assert made.next_cursor == (paging.encode(ASKED, (1,)) if has_next else None)
