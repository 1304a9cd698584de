"""Parses JSON documents that callers send: small ones, whole; batches go through ``runs/splitting.py``."""

import json
from typing import Any

from pydantic_core import from_json

from headway.core import validation
from headway.core.errors import BadRequestError, InvalidInputError


def parse(document: bytes) -> Any:
    """Parse a small JSON document and check that it holds nothing that cannot be stored.

    Raises:
        BadRequestError: it is no JSON, or nested too deep.
        InvalidInputError: it holds a NUL, half a surrogate pair, NaN or a number beyond 64 bits.
    """
    check_depth(document)
    value = decode(document)
    issues = validation.check_json(value)
    if issues:
        raise InvalidInputError(f"{issues[0].pointer or 'the body'} {issues[0].detail}", issues=issues)
    return value


def check_depth(document: bytes) -> None:
    """Refuse a document that is nested too deep.

    Raises:
        BadRequestError: it is.
    """
    if validation.is_too_deep(document):
        raise validation.too_deep_error()


def decode(document: bytes) -> Any:
    """Parse JSON with the fast parser; with the lenient one where that refuses what ``check_json`` can name.

    Raises:
        BadRequestError: it is no JSON.
    """
    try:
        return from_json(document, allow_inf_nan=True)
    except ValueError:
        pass
    try:
        return decode_leniently(document)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not JSON in UTF-8", code="invalid_json") from None


def decode_leniently(document: bytes) -> Any:
    """Parse JSON that may hold half surrogate pairs and numbers of any length.

    Raises:
        ValueError, RecursionError: it is no JSON, or nested far too deep.
    """
    return json.loads(document.decode(), parse_int=_int)


def _int(digits: str) -> int:
    """Return a number; one that Python refuses to read for its length is as good as any that is too large."""
    return int(digits) if len(digits) <= 1000 else 10**1000
