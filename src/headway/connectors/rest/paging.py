"""How one list is walked, page by page, in each of the ways that vendors have.

``walk`` is called by ``api.py`` for every list. What it guards against: rows that move while it pages (pages by offset
overlap, and a page that does not touch the one before is asked for again further up), servers that give less than the
page size asked for, and those that give the same page for ever (``tests/connectors/rest/test_paging.py``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from headway.connectors.contract import Payload
from headway.connectors.errors import SourceError
from headway.connectors.http import Answer
from headway.connectors.rest.expressions import Expression
from headway.connectors.rest.parts import Listing, Paging
from headway.core import reading, redaction

Get = Callable[[str, Mapping[str, str] | None], Answer]
CURSOR_CHARS = 4096
MOST_OVERLAP = 10
SAME_PAGES = 3


class Fetched(NamedTuple):
    """A page of a list. ``position`` is where the walk goes on, None where that cannot be told."""

    items: list[Payload]
    position: str | None
    total: int | None


class Seen(NamedTuple):
    """What a pager needs to know of a page. ``ids`` has None for an item without one."""

    answer: Answer
    ids: Sequence[str | None]
    total: int | None


class Pager(Protocol):
    """Where a walk is."""

    def params(self) -> dict[str, str]:
        """Return the parameters that ask for the next page."""
        ...

    def link(self) -> str | None:
        """Return the URL of the next page, where it is asked for by that alone."""
        ...

    def advance(self, page: Seen) -> bool:
        """Take note of a page, and tell whether there is another."""
        ...

    def position(self) -> str | None:
        """Return what ``pager`` takes to go on here."""
        ...


def walk(
    get: Get,
    listing: Listing,
    path: str,
    query: Mapping[str, str],
    *,
    identify: Callable[[Payload], str | None],
    time_of: Callable[[object], datetime | None],
    since: datetime | None,
    position: str | None = None,
) -> Iterator[Fetched]:
    """Yield the pages of a list, from a position on.

    A list that has the newest first is left at what is older than ``since``; an item without that time is kept.

    Raises:
        SourceError: an answer cannot be had or holds no list; the list does not end.
    """
    pager = pager_of(listing.paging, url=path, position=position)
    page: list[tuple[str | None, Payload]] = []
    same = 0
    for _ in range(listing.paging.max_pages):
        link = pager.link()
        answer = get(path, {**query, **pager.params()}) if link is None else get(link, None)
        before, page = page, [(identify(item), item) for item in _items(listing.items, answer, path)]
        ids = [one for one, _ in page]
        same = same + 1 if any(ids) and ids == [one for one, _ in before] else 0
        if same == SAME_PAGES:
            raise SourceError("bad_answer", f"GET {path} answers the same page again and again; check list.paging")
        total = None if listing.total is None else reading.count_at({"": listing.total.find(answer.data)}, "")
        has_more = pager.advance(Seen(answer, ids, total))
        times = [_time_in(item, listing.newest_first_by, time_of) for _, item in page]
        told = {one: item for one, item in before if one is not None}
        items = [
            item
            for (one, item), time in zip(page, times, strict=True)
            if not _is_before(time, since) and (one is None or told.get(one) != item)
        ]
        yield Fetched(items, pager.position(), total)
        last = next((time for time in reversed(times) if time is not None), None)
        if not has_more or _is_before(last, since):
            return
    raise SourceError("bad_answer", f"GET {path} has more than {listing.paging.max_pages} pages")


def _time_in(
    item: Payload, expression: Expression | None, time_of: Callable[[object], datetime | None]
) -> datetime | None:
    return None if expression is None else time_of(expression.find(item))


def _is_before(time: datetime | None, since: datetime | None) -> bool:
    return time is not None and since is not None and time < since


def _items(expression: Expression | None, answer: Answer, path: str) -> list[Payload]:
    """Return the items of an answer; one that is no object comes as an empty one, so that it is counted as odd."""
    found = None if expression is None else expression.find(answer.data)
    if not isinstance(found, list):
        text = "" if expression is None else expression.text
        raise SourceError(
            "bad_answer", f"GET {path}: no list is found in the answer by {text[:200]!r}; check list.items"
        )
    return [item if isinstance(item, dict) else {} for item in found]


def pager_of(paging: Paging, *, url: str, position: str | None) -> Pager:
    """Return what pages in this way, from a position on; one that makes no sense counts as the beginning."""
    if paging.kind == "offset":
        return _Offset(paging, position)
    if paging.kind == "page":
        return _Number(paging, position)
    if paging.kind == "cursor":
        return _Cursor(paging, position)
    return _Link(paging, url, position)


class _Offset:
    def __init__(self, paging: Paging, position: str | None) -> None:
        self._paging = paging
        start = _number(position)
        self._offset = max(0, start - _overlap(paging.page_size)) if start else 0
        self._reached = start
        self._before: set[str] = set()

    def params(self) -> dict[str, str]:
        return {self._paging.parameter or "offset": str(self._offset), **_size(self._paging)}

    def link(self) -> str | None:
        return None

    def position(self) -> str | None:
        return str(self._reached)

    def advance(self, page: Seen) -> bool:
        count, known = len(page.ids), {one for one in page.ids if one is not None}
        if self._offset and self._before and not known & self._before:
            # Rows above have gone, and those below have moved up past the seam.
            self._offset = max(0, self._offset - self._paging.page_size)
            return True
        is_new = not known <= self._before if known else bool(count)
        is_last = _is_last(count, self._offset + count, self._paging.page_size, page.total)
        self._reached = max(self._reached, self._offset + count)
        self._offset += count - _overlap(count)
        self._before = known if _overlap(count) else set()
        return not is_last and (is_new or count >= self._paging.page_size)


class _Number:
    def __init__(self, paging: Paging, position: str | None) -> None:
        self._paging = paging
        # What was seen of an interrupted walk moves down as runs are added, so the last page is asked for again.
        self._page = max(paging.first_page, _number(position) - 1) if position else paging.first_page
        self._seen = (self._page - paging.first_page) * paging.page_size

    def params(self) -> dict[str, str]:
        return {self._paging.parameter or "page": str(self._page), **_size(self._paging)}

    def link(self) -> str | None:
        return None

    def position(self) -> str | None:
        return str(self._page)

    def advance(self, page: Seen) -> bool:
        self._page += 1
        self._seen += len(page.ids)
        return not _is_last(len(page.ids), self._seen, self._paging.page_size, page.total)


class _Cursor:
    def __init__(self, paging: Paging, position: str | None) -> None:
        self._paging = paging
        self._cursor = position or None

    def params(self) -> dict[str, str]:
        own = {} if self._cursor is None else {self._paging.parameter or "cursor": self._cursor}
        return {**own, **_size(self._paging)}

    def link(self) -> str | None:
        return None

    def position(self) -> str | None:
        return self._cursor

    def advance(self, page: Seen) -> bool:
        found = None if self._paging.next is None else self._paging.next.find(page.answer.data)
        cursor = reading.id_at({"": found}, "")
        if cursor is None or len(cursor) > CURSOR_CHARS or cursor == self._cursor:
            return False
        self._cursor = cursor
        return True


class _Link:
    """By a URL that the answer gives; with kind none there is one page."""

    def __init__(self, paging: Paging, url: str, position: str | None) -> None:
        self._paging = paging
        self._url = position if position and position.startswith("/") and paging.kind == "link" else url
        self._link = self._url if self._url != url else None

    def params(self) -> dict[str, str]:
        return _size(self._paging) if self._paging.kind == "link" else {}

    def link(self) -> str | None:
        return self._link

    def position(self) -> str | None:
        if self._link is None:
            return None
        parts = urlsplit(self._link)
        place = f"{parts.path}?{parts.query}"
        return None if len(place) > CURSOR_CHARS or redaction.has_secret(place) else place

    def advance(self, page: Seen) -> bool:
        if self._paging.kind == "none":
            return False
        found = page.answer.next_url if self._paging.next is None else self._paging.next.find(page.answer.data)
        if not isinstance(found, str) or not found:
            return False
        try:
            link = urljoin(self._url, found)
        except ValueError:  # a bracket too many in the host
            return False
        if link == self._link:
            return False
        self._link = self._url = link
        return True


def _is_last(count: int, reached: int, page_size: int, total: int | None) -> bool:
    """Tell whether a page is the last one.

    A server may give less than was asked for because it has a limit of its own. Such limits are round numbers, so a
    short page of a round number of rows is not taken for the end where the total is not told.
    """
    if count == 0:
        return True
    if count >= page_size:
        return False
    return reached >= total if total is not None else count % 5 != 0


def _overlap(count: int) -> int:
    return min(MOST_OVERLAP, max(1, count // 10)) if count > 1 else 0


def _size(paging: Paging) -> dict[str, str]:
    return {paging.size_parameter: str(paging.page_size)} if paging.size_parameter else {}


def _number(position: str | None) -> int:
    return int(position) if position and position.isascii() and position.isdigit() and len(position) < 10 else 0
