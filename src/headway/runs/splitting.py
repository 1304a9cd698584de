"""Cuts a batch into the bytes of its items without parsing it, a slice at a time.

Pure. ``split_document`` finds the items of ``{"runs": [...]}`` with possessive patterns, so the time is linear in the
input whatever it holds, and the caller may pause between slices. Whether an item is JSON is not decided here.
"""

import re
from collections.abc import Iterator

from headway.core import json_text, validation
from headway.core.errors import BadRequestError, InvalidInputError, Issue, TooLargeError

MAX_ITEMS = 50_000
MAX_BYTES = 64 * 1024 * 1024

_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _nested(levels: int) -> bytes:
    """Return the pattern of an object or array whose own values are nested at most so deep."""
    inside = rb'[^"{}\[\]]++|' + _STRING
    if levels:
        inside += b"|" + _nested(levels - 1)
    return rb"[{\[](?:" + inside + rb")*+[}\]]"


_HEAD = re.compile(rb'\s*+\{\s*+"runs"\s*+:\s*+\[\s*+')
_EMPTY = re.compile(rb"\][\s]*+\}\s*+\Z")
# Items as they are nearly always: an object with its pipeline and a payload of a few levels.
_ITEM = re.compile(_nested(5), re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s,"{}\[\]]++', re.DOTALL)
_NEXT = re.compile(rb"\s*+(,)\s*+|\s*+\]\s*+\}\s*+\Z")
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)


def split_document(document: bytes) -> Iterator[bytes]:
    """Yield the items of ``{"runs": [...]}``.

    Raises:
        BadRequestError: it is no JSON, or nested beyond 64 levels.
        InvalidInputError: it is JSON of another form.
        TooLargeError: it has more than ``MAX_ITEMS`` items.
    """
    head = _HEAD.match(document)
    if head is None:
        raise _other_form(document)
    position = head.end()
    if _EMPTY.match(document, position):
        return
    count = 0
    while True:
        end = _end_of_value(document, position)
        count += 1
        if count > MAX_ITEMS:
            raise too_many()
        yield document[position:end]
        after = _NEXT.match(document, end)
        if after is None:
            raise _not_json()
        if after[1] is None:
            return
        position = after.end()


def _end_of_value(document: bytes, position: int) -> int:
    match = _ITEM.match(document, position) or _SCALAR.match(document, position)
    if match is not None:
        return match.end()
    depth = 0
    for token in _TOKEN.finditer(document, position):
        kind = document[token.start()]
        if kind in b"{[":
            depth += 1
            if depth > validation.MAX_DEPTH - 2:
                raise BadRequestError(f"the body is nested beyond {validation.MAX_DEPTH} levels", code="too_deep")
        elif kind in b"}]":
            depth -= 1
            if depth <= 0:
                return token.end()
    raise _not_json()


def too_many() -> TooLargeError:
    """Return the refusal of a batch with too many items."""
    return TooLargeError(f"a batch takes at most {MAX_ITEMS} observations; send it in parts", code="too_many_items")


def not_json_error(index: int | None = None) -> BadRequestError:
    """Return the refusal of a document that is no JSON."""
    where = "" if index is None else f": item {index}"
    return BadRequestError(f"the body is not JSON in UTF-8{where}", code="invalid_json")


def _not_json() -> BadRequestError:
    return not_json_error()


def _other_form(document: bytes) -> BadRequestError | InvalidInputError:
    """Tell JSON of another form from what is no JSON; of a large document only that it is not ours."""
    form = 'the body must be {"runs": [...]}'
    if len(document) > 1024 * 1024:
        return BadRequestError(form, code="invalid_json")
    if validation.is_too_deep(document):
        return BadRequestError(f"the body is nested beyond {validation.MAX_DEPTH} levels", code="too_deep")
    value = json_text.decode(document)
    if not isinstance(value, dict):
        return InvalidInputError(form, issues=[Issue("", "invalid_type", "must be an object")])
    issues = [
        Issue(validation.json_pointer([validation.printable(key)]), "unknown_field", "is not a known field")
        for key in value
        if key != "runs"
    ]
    if "runs" not in value:
        issues.append(Issue("/runs", "missing", "is required"))
    elif not isinstance(value["runs"], list):
        issues.append(Issue("/runs", "invalid_type", "must be a list"))
    return InvalidInputError(form, issues=issues or [Issue("/runs", "invalid_format", "must be the only field, once")])
