"""Cuts a batch into the bytes of its items without parsing it, a slice at a time.

Pure. ``split_document`` walks ``{"runs": [...]}`` with possessive patterns, so the time is linear in the input
whatever it holds, and the caller may pause between items. Whether an item is JSON is not decided here: that is
``runs/parsing.py``'s to say, which also asks ``slim`` to make an outsized item small before it is parsed.
Tests: ``tests/runs/test_splitting.py``.
"""

import re
from collections.abc import Generator, Iterator

from headway.core import json_text, validation
from headway.core.errors import BadRequestError, HeadwayError, InvalidInputError, Issue, TooLargeError

MAX_ITEMS = 50_000
MAX_BYTES = 64 * 1024 * 1024
OUTSIZED = 1024 * 1024
_BRACE = ord("{")
_FORM = 'the body must be {"runs": [...]}'

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _nested(levels: int) -> bytes:
    """Return the pattern of an object or array whose own values are nested at most so deep."""
    inside = rb'[^"{}\[\]]++|' + _STRING
    if levels:
        inside += b"|" + _nested(levels - 1)
    return rb"[{\[](?:" + inside + rb")*+[}\]]"


_OPEN = re.compile(_SPACE + rb"\{" + _SPACE)
_KEY = re.compile(rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_AFTER_FIELD = re.compile(_SPACE + rb"(?:(,)|\})" + _SPACE)
_BEGIN = re.compile(rb"\[" + _SPACE)
_AFTER_ITEM = re.compile(_SPACE + rb"(?:(,)" + _SPACE + rb"|\])")
# Values as they are nearly always: an object with its pipeline and a payload of a few levels.
_USUAL = re.compile(_nested(5), re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s,"{}\[\]]++', re.DOTALL)
# A string that does not end takes all that is left, or each of its quotes would be tried again.
_TOKEN = re.compile(_STRING + rb"?|[{}\[\]]", re.DOTALL)


def split_document(document: bytes) -> Iterator[bytes]:
    """Yield the items of ``{"runs": [...]}``; what else is wrong with the document is told at its end.

    Raises:
        BadRequestError: it is no JSON, or nested beyond 64 levels.
        InvalidInputError: it is JSON of another form.
        TooLargeError: it has more than ``MAX_ITEMS`` items.
    """
    begin = _OPEN.match(document)
    if begin is None:
        raise _other_form(document)
    position, is_last = begin.end(), document[begin.end() : begin.end() + 1] == b"}"
    if is_last:
        position += 1
    issues: list[Issue] = []
    has_runs = False
    while not is_last:
        name, position = _key_at(document, position)
        if name == "runs" and not has_runs and document[position : position + 1] == b"[":
            has_runs = True
            position = yield from _items(document, position)
        else:
            end = _end_of_value(document, position, validation.MAX_DEPTH - 1)
            if end - position <= OUTSIZED:
                json_text.decode(document[position:end])
            issues.append(_out_of_form(name, has_runs=has_runs))
            position = end
        is_last, position = _after_field(document, position)
        if len(issues) >= validation.MAX_ISSUES:
            raise InvalidInputError(_FORM, issues=issues)
    if document[position:].strip(b" \t\n\r"):
        raise not_json_error()
    if not has_runs and not any(issue.pointer == "/runs" for issue in issues):
        issues.append(Issue("/runs", "missing", "is required"))
    if issues:
        raise InvalidInputError(_FORM, issues=issues)


def _items(document: bytes, position: int) -> Generator[bytes, None, int]:
    """Yield the items of the list at a position; returns where it ends."""
    begin = _BEGIN.match(document, position)
    assert begin is not None  # noqa: S101 - the caller saw its bracket
    position = begin.end()
    if document[position : position + 1] == b"]":
        return position + 1
    count = 0
    while True:
        end = _end_of_value(document, position, validation.MAX_DEPTH - 2)
        count += 1
        if count > MAX_ITEMS:
            raise too_many()
        yield document[position:end]
        after = _AFTER_ITEM.match(document, end)
        if after is None:
            raise not_json_error()
        position = after.end()
        if after[1] is None:
            return position


def slim(item: bytes) -> bytes:
    """Return an outsized item with nothing large in it, so that neither time nor memory to parse it is the sender's.

    A payload beyond ``OUTSIZED`` bytes becomes its marker unread, a text is cut (far beyond what is kept of any), and
    what is no text where no field takes as much becomes an empty list, to be refused as one.

    Raises:
        BadRequestError: it is no JSON object.
        InvalidInputError: it has far more fields than there are.
    """
    begin = _OPEN.match(item)
    if begin is None:
        return item if len(item) <= OUTSIZED else b"[]"
    parts = [b"{"]
    position, is_last = begin.end(), False
    while not is_last:
        name, start = _key_at(item, position)
        end = _end_of_value(item, start, validation.MAX_DEPTH)
        value = item[start:end] if end - start <= OUTSIZED else _slim_value(name, item, start, end)
        parts += (item[position:start], value, b",")
        if len(parts) > 3 * validation.MAX_ISSUES:
            raise InvalidInputError(_FORM, issues=[Issue("", "too_long", "has far more fields than there are")])
        is_last, position = _after_field(item, end)
    parts[-1] = b"}"
    return b"".join(parts) + item[position:]


def _slim_value(name: object, item: bytes, start: int, end: int) -> bytes:
    if item[start] != ord('"'):
        is_payload = name == "payload" and item[start] == ord("{")
        return b'{"headway_truncated":true,"size_bytes":%d}' % (end - start) if is_payload else b"[]"
    head = _LAST_CHARACTER.sub(b"", item[start : start + OUTSIZED])
    whole = _WHOLE.match(head)
    assert whole is not None  # noqa: S101 - every text matches
    return whole[0] + b'"'


_LAST_CHARACTER = re.compile(rb"[\xc0-\xff][\x80-\xbf]*\Z")
# A text without the escape, or the half of a surrogate pair, that the cut fell behind.
_WHOLE = re.compile(rb'"(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB]..(?!.{6})).{4})*+', re.DOTALL)


def _key_at(document: bytes, position: int) -> tuple[object, int]:
    """Return the key at a position and where its value begins."""
    key = _KEY.match(document, position)
    if key is None:
        raise not_json_error()
    if len(key[1]) > OUTSIZED:
        raise InvalidInputError(_FORM, issues=[Issue("", "too_long", "has a key far longer than that of any field")])
    return json_text.decode(key[1]), key.end()


def _after_field(document: bytes, position: int) -> tuple[bool, int]:
    """Return whether the object ends behind a value, and where it goes on."""
    after = _AFTER_FIELD.match(document, position)
    if after is None:
        raise not_json_error()
    return after[1] is None, after.end()


def _end_of_plain(document: bytes, position: int) -> int:
    """Return where a short object without nesting and escapes ends, which most items are; 0 where it is not one."""
    if document[position] != _BRACE:
        return 0
    end = document.find(b"}", position, position + 4096)
    if end < 0 or document.find(b"{", position + 1, end) >= 0 or document.find(b"\\", position, end) >= 0:
        return 0
    # with an even number of quotes before it, this brace stands in no string
    return 0 if document.count(b'"', position, end) % 2 else end + 1


def _end_of_value(document: bytes, position: int, levels: int) -> int:
    if position < len(document) and (end := _end_of_plain(document, position)):
        return end
    match = _USUAL.match(document, position) or _SCALAR.match(document, position)
    if match is not None:
        return match.end()
    depth = 0
    for token in _TOKEN.finditer(document, position):
        kind = document[token.start()]
        if kind in b"{[":
            depth += 1
            if depth > levels:
                raise validation.too_deep_error()
        elif kind in b"}]":
            depth -= 1
            if depth <= 0:
                return token.end()
    raise not_json_error()


def too_many() -> TooLargeError:
    """Return the refusal of a batch with too many items."""
    return TooLargeError(f"a batch takes at most {MAX_ITEMS} observations; send it in parts", code="too_many_items")


def not_json_error(index: int | None = None) -> BadRequestError:
    """Return the refusal of a document that is no JSON."""
    where = "" if index is None else f": item {index}"
    return BadRequestError(f"the body is not JSON in UTF-8{where}", code="invalid_json")


def _out_of_form(name: object, *, has_runs: bool) -> Issue:
    pointer = validation.json_pointer([validation.printable(name)])
    if name != "runs":
        return Issue(pointer, "unknown_field", "is not a known field")
    if has_runs:
        return Issue(pointer, "duplicate_field", "must be given once")
    return Issue(pointer, "invalid_type", "must be a list")


def _other_form(document: bytes) -> HeadwayError:
    """Tell JSON of another form from what is no JSON; a large list is taken at its word."""
    is_large_list = len(document) > OUTSIZED and document.lstrip(b" \t\n\r").startswith(b"[")
    if not is_large_list:
        if len(document) > OUTSIZED:
            return not_json_error()
        json_text.check_depth(document)
        json_text.decode(document)
    return InvalidInputError(_FORM, issues=[Issue("", "invalid_type", "must be an object")])
