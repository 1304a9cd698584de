"""Lists are walked to their end in each style, whatever the server makes of the page size."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from headway.connectors.errors import SourceError
from headway.connectors.http import Answer
from headway.connectors.rest.paging import Fetched, walk
from headway.connectors.rest.parts import Listing

Serve = Callable[[str, Mapping[str, str]], Any]


def pages(serve: Serve, settings: Mapping[str, Any], *, since: datetime | None = None, **more: Any) -> list[Fetched]:
    asked: list[Any] = []

    def get(path: str, query: Mapping[str, str] | None) -> Answer:
        asked.append(path)
        assert len(asked) < 500, "the walk does not end"
        made = serve(path, query or {})
        link = made.pop("link", None) if isinstance(made, dict) else None
        return Answer(200, made, {}, link)

    listing = Listing.model_validate({"path": "/runs", "items": "runs", **settings})
    return list(
        walk(
            get,
            listing,
            "/runs",
            {},
            identify=lambda item: str(item["id"]) if "id" in item else None,
            time_of=lambda found: datetime.fromtimestamp(found, UTC) if isinstance(found, int) else None,
            since=since,
            **more,
        )
    )


def ids(found: list[Fetched]) -> list[int]:
    return [item["id"] for page in found for item in page.items]


def rows(count: int) -> list[dict[str, int]]:
    return [{"id": number, "t": 10_000 - number} for number in range(count)]


def by_offset(kept: list[dict[str, int]], most: int) -> Serve:
    def serve(_: str, query: Mapping[str, str]) -> Any:
        start = int(query["offset"])
        return {"runs": kept[start : start + min(int(query["limit"]), most)], "count": len(kept)}

    return serve


OFFSET = {"paging": {"kind": "offset", "page_size": 100}}


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100, 101, 190, 250, 300])
@pytest.mark.parametrize("most", [100, 50, 20, 1])
@pytest.mark.parametrize("total", ["", "count"])
def test_offset_reads_all_even_where_the_server_gives_less(count: int, most: int, total: str) -> None:
    if most == 1 and not total:
        pytest.skip("pages of one row are the end, as far as anybody can tell")
    found = pages(by_offset(rows(count), most), {**OFFSET, "total": total})
    assert set(ids(found)) == set(range(count))
    assert len(ids(found)) == count, "rows of the overlap are told once"


@pytest.mark.parametrize("gone", [1, 10, 25, 100])
def test_rows_that_vanish_above_hide_none_below(gone: int) -> None:
    kept = rows(400)
    serve = by_offset(kept, 100)
    turn = iter(range(3))

    def stir(path: str, query: Mapping[str, str]) -> Any:
        made = serve(path, query)
        if next(turn, None) is not None:
            del kept[:gone]
        return made

    before = {row["id"] for row in kept}
    found = set(ids(pages(stir, OFFSET)))
    assert {row["id"] for row in kept} <= found <= before


def test_same_page_for_ever_is_an_error() -> None:
    with pytest.raises(SourceError) as caught:
        pages(lambda _path, _query: {"runs": rows(100)}, OFFSET)
    assert caught.value.code == "bad_answer"


def test_list_that_does_not_end_is_an_error() -> None:
    turn = iter(range(1000))
    with pytest.raises(SourceError) as caught:
        pages(
            lambda _path, _query: {"runs": [], "next": str(next(turn))},
            {"paging": {"kind": "cursor", "next": "next", "max_pages": 9}},
        )
    assert caught.value.code == "bad_answer"


@pytest.mark.parametrize("first", [0, 1])
def test_numbered_pages(first: int) -> None:
    def serve(_: str, query: Mapping[str, str]) -> Any:
        start = (int(query["page"]) - first) * int(query["size"])
        return {"runs": rows(33)[start : start + int(query["size"])]}

    paging = {"kind": "page", "first_page": first, "page_size": 10, "size_parameter": "size"}
    found = pages(serve, {"paging": paging})
    assert ids(found) == list(range(33))
    again = pages(serve, {"paging": paging}, position=found[1].position)
    assert set(ids(again)) >= set(range(20, 33))


def test_cursor_goes_on_over_empty_pages_to_its_end() -> None:
    answers = {None: ([0, 1], 7), "7": ([], "b"), "b": ([2], None)}

    def serve(_: str, query: Mapping[str, str]) -> Any:
        found, after = answers[query.get("after")]
        return {"runs": [{"id": one} for one in found], "next": after}

    settings = {"paging": {"kind": "cursor", "parameter": "after", "next": "next"}}
    found = pages(serve, settings)
    assert ids(found) == [0, 1, 2]
    assert ids(pages(serve, settings, position=found[0].position)) == [2]


@pytest.mark.parametrize("expression", ["", "links.next"])
def test_link_of_the_answer_or_of_its_headers(expression: str) -> None:
    def serve(path: str, _: Mapping[str, str]) -> Any:
        link = {"/runs": "/runs?from=2", "/runs?from=2": "?from=4", "/runs?from=4": None}[path]
        start = int(path.partition("=")[2] or 0)
        found: dict[str, Any] = {"runs": rows(5)[start : start + 2], "links": {"next": link}}
        return found if expression else {**found, "link": link}

    settings = {"paging": {"kind": "link", "next": expression}}
    found = pages(serve, settings)
    assert ids(found) == [0, 1, 2, 3, 4]
    assert ids(pages(serve, settings, position=found[0].position)) == [2, 3, 4]


def test_newest_first_ends_behind_what_is_older_than_wanted() -> None:
    found = pages(
        by_offset(rows(1000), 100), {**OFFSET, "newest_first_by": "t"}, since=datetime.fromtimestamp(9850, UTC)
    )
    assert ids(found) == list(range(151))
    assert len(found) == 2


@pytest.mark.parametrize("position", ["-1", "x", "٣", "9" * 40, "", ":", "\0"])
def test_position_that_makes_no_sense_is_the_beginning(position: str) -> None:
    assert ids(pages(by_offset(rows(30), 100), OFFSET, position=position)) == list(range(30))


@pytest.mark.parametrize("answer", [None, [], 5, {}, {"runs": {}}, {"runs": None}, {"runs": "x"}])
def test_answer_without_a_list_is_an_error(answer: Any) -> None:
    with pytest.raises(SourceError) as caught:
        pages(lambda _path, _query: answer, OFFSET)
    assert caught.value.code == "bad_answer"
    assert "list.items" in caught.value.detail
