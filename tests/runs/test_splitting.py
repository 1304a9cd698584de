"""Cutting batches: every list comes apart into its items, and nothing hostile takes more than linear time."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import HeadwayError
from headway.runs.splitting import MAX_ITEMS, OUTSIZED, slim, split_document

SPACES = st.text(" \t\n\r", max_size=3)
KEYS = st.text(max_size=5) | st.sampled_from(['"', "\\", "]", "}", "{[", "runs", "payload"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """Return a batch with white space wherever JSON takes it, and its items."""
    items = draw(st.lists(VALUES, max_size=6))
    ascii_only = draw(st.booleans())

    def spaced(value: Any) -> str:
        before, after = draw(SPACES), draw(SPACES)
        if isinstance(value, list):
            inner = ",".join(map(spaced, value)) or draw(SPACES)
            return f"{before}[{inner}]{after}"
        if isinstance(value, dict):
            pairs = [f"{spaced(k)}:{spaced(v)}" for k, v in value.items()]
            return f"{before}{{{','.join(pairs) or draw(SPACES)}}}{after}"
        return before + json.dumps(value, ensure_ascii=ascii_only) + after

    return spaced({"runs": items}), items


@given(documents())
@settings(max_examples=200, deadline=None)
def test_any_list_of_values_comes_apart_into_them(document: tuple[str, list[Any]]) -> None:
    text, items = document
    encoded = text.encode(errors="replace")
    assert [json.loads(item) for item in split_document(encoded)] == json.loads(encoded)["runs"]
    assert len(items) == len(json.loads(encoded)["runs"])


@given(st.binary(max_size=60) | st.text('{}[]",:\\runs1 ', max_size=60).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_split_or_refused(document: bytes) -> None:
    for candidate in (document, b'{"runs":[' + document, b'{"runs":[' + document + b"]}"):
        try:
            items = list(split_document(candidate))
        except HeadwayError as error:
            assert error.status in (400, 413, 422)  # noqa: PT017 - or no error at all
        else:
            assert all(items)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), st.sampled_from(["before", "behind", "both"]))
@settings(max_examples=100, deadline=None)
def test_other_fields_are_refused_wherever_they_stand(others: dict[str, Any], where: str) -> None:
    others.pop("runs", None)
    others["other"] = 1
    inside = json.dumps(others)[1:-1]
    before = inside + "," if where != "behind" else ""
    behind = "," + inside if where != "before" else ""
    document = f'{{{before}"runs":[{{}}]{behind}}}'.encode()
    with pytest.raises(HeadwayError) as refused:
        list(split_document(document))
    assert refused.value.status == 422
    assert {issue.code for issue in refused.value.issues} == {"unknown_field"}


SIZE = 4 * 1024 * 1024
HOSTILE = {
    "escaped quotes without an end": b'{"runs":["' + b'\\"' * (SIZE // 2),
    "quotes": b'{"runs":[' + b'"' * SIZE,
    "open quotes": b'{"runs":[{"a' * (SIZE // 12),
    "backslashes": b'{"runs":["' + b"\\" * SIZE,
    "open brackets": b'{"runs":[' + b"[" * SIZE,
    "open braces": b'{"runs":[' + b"{" * SIZE,
    "closed brackets": b'{"runs":[' + b"]" * SIZE,
    "pairs that do not match": b'{"runs":[' + b"[}" * (SIZE // 2),
    "six levels over and over": b'{"runs":[' + b"[[[[[[[" * 8 + b"]]]]]]]," * (SIZE // 8),
    "white space": b'{"runs":[' + b" " * SIZE,
    "white space first": b" " * SIZE,
    "white space in between": b'{"runs":[1' + (b" " * 1000 + b",1") * (SIZE // 1002),
    "commas": b'{"runs":[' + b"," * SIZE,
    "one scalar": b'{"runs":[' + b"1" * SIZE,
    "one key": b'{"' + b"k" * SIZE,
    "fields": b"{" + b'"a":1,' * (SIZE // 6),
    "empty objects in an item": b'{"runs":[{"payload":[' + b"{}," * (SIZE // 3) + b"{}]}]}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_take_linear_time(name: str) -> None:
    begun = time.process_time()
    try:
        for _ in split_document(HOSTILE[name]):
            pass
    except HeadwayError as error:
        assert error.status in (400, 413, 422)  # noqa: PT017 - or no error at all
    # far below what anything quadratic takes of 4 MiB, far above what linear does on a busy machine
    assert time.process_time() - begun < 3


def test_one_item_too_many_is_refused() -> None:
    at_most = b'{"runs":[' + b",".join([b"1"] * MAX_ITEMS) + b"]}"
    assert sum(1 for _ in split_document(at_most)) == MAX_ITEMS
    with pytest.raises(HeadwayError) as refused:
        list(split_document(at_most.replace(b"[1", b"[1,1", 1)))
    assert refused.value.status == 413


BIG = "x" * (OUTSIZED + 1)


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({"payload": {"a": BIG}}, {"payload": {"headway_truncated": True, "size_bytes": len(BIG) + 8}}),
        ({"payload": BIG}, {"payload": BIG[: OUTSIZED - 1]}),
        ({"payload": [BIG]}, {"payload": []}),
        ({"a": 1, "error_message": BIG, "b": {"c": [1]}}, {"a": 1, "error_message": BIG[:-2], "b": {"c": [1]}}),
        ({"pipeline": {BIG: 1}}, {"pipeline": []}),
        ([BIG], []),
        (BIG, []),
    ],
)
def test_outsized_item_is_made_small(item: Any, wanted: Any) -> None:
    assert json.loads(slim(json.dumps(item, separators=(",", ":")).encode())) == wanted


@pytest.mark.parametrize("character", ["é", "€", "\U0001f600", "\x01", "\\", '"'])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_outsized_text_is_cut_between_characters(character: str, ascii_only: bool) -> None:
    for shift in range(12):
        text = "x" * shift + character * (OUTSIZED // 2)
        cut = json.loads(slim(json.dumps({"e": text}, ensure_ascii=ascii_only).encode()))["e"]
        assert text.startswith(cut)
        assert len(cut) > OUTSIZED // 13


def test_item_with_far_too_many_fields_is_refused() -> None:
    item = json.dumps({f"k{n}": n for n in range(200_000)}).encode()
    with pytest.raises(HeadwayError) as refused:
        slim(item)
    assert refused.value.issues[0].code == "too_long"
