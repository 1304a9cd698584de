"""Keyset paging: a page begins after the last row of the one before, wherever rows were inserted meanwhile.

A cursor holds the sort key of that row and a digest of what was asked; with other filters it is refused. It is opaque
to callers, not secret: it names nothing that the page before did not show.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from headway.core.errors import InvalidInputError, Issue
from headway.core.validation import format_time, parse_time

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
CURSOR_CHARS = 8192  # a name of 512 characters, each escaped, fits

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items a page")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_CHARS, description="next_cursor of the page before")]

T = TypeVar("T")
R = TypeVar("R")


class Page(BaseModel, Generic[T]):
    """One page of a list; ``next_cursor`` is null on the last."""

    items: list[T]
    next_cursor: str | None


def question(name: str, **filters: object) -> str:
    """Return a digest of what a list was asked for: its name, order and filters, the limit left out."""
    text = json.dumps([name, {k: str(v) for k, v in sorted(filters.items()) if v is not None}])
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def encode(asked: str, key: Sequence[object]) -> str:
    """Return the cursor that begins after the row with this sort key."""
    text = json.dumps([asked, *(_plain(part) for part in key)], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str | None, asked: str, kinds: Sequence[type]) -> list[Any] | None:
    """Return the sort key that a cursor holds, None without one.

    Raises:
        InvalidInputError: it is none of ours (``invalid_cursor``) or was made with other filters (``cursor_mismatch``).
    """
    if cursor is None:
        return None
    try:
        made_for, *key = json.loads(base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), b"-_", validate=True))
        typed = [_typed(part, kind) for part, kind in zip(key, kinds, strict=True)] if made_for == asked else None
    except Exception:  # noqa: BLE001 - whatever a made-up cursor does not hold
        raise _refusal("invalid_cursor", "is not a cursor of this list") from None
    if typed is None:
        raise _refusal("cursor_mismatch", "was made with other filters; begin again without it")
    return typed


def page(
    rows: Sequence[R], *, limit: int, asked: str, key: Callable[[R], Sequence[object]], item: Callable[[R], T]
) -> Page[T]:
    """Make a page of rows, of which one more than ``limit`` was read to see whether there is another."""
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(items=[item(row) for row in rows], next_cursor=encode(asked, key(rows[-1])) if more else None)


def _refusal(code: str, detail: str) -> InvalidInputError:
    return InvalidInputError(f"the cursor {detail}", code=code, issues=[Issue("/query/cursor", code, detail)])


def _plain(part: object) -> object:
    if isinstance(part, datetime):
        return format_time(part)
    return str(part) if isinstance(part, UUID) else part


def _typed(part: Any, kind: type) -> Any:
    if kind is datetime:
        return parse_time(part)
    if kind is UUID:
        return UUID(part)
    if kind is str and isinstance(part, str) and "\0" not in part:
        part.encode()
        return part
    if kind is int and type(part) is int and -(2**63) <= part < 2**63:
        return part
    raise ValueError
