"""The observation: what any door has to say about a run, as one immutable value.

``observe`` is the only way to make one. It redacts, cuts and completes what the source gave, and encodes the total
order of ``docs/decisions/0001-runs-are-joins.md`` in ``rank``: Python compares bytes, SQL compares ``bytea``, and neither knows more. Doors call
it; ``runs/merge.py`` joins what it returns. Rule not to break: nothing about the receipt takes part in a rank, or a
replay would change things (``tests/property/test_merge_law.py``).
"""

import hashlib
import json
import struct
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from headway.core import clock, redaction
from headway.pipelines.reference import PipelineRef

ERROR_MESSAGE_BYTES = 8 * 1024
PAYLOAD_BYTES = 64 * 1024
STATUS_REASON_CHARS = 500
# The attempt of a report from a source that uses a run's id again without counting: the one writer numbers it.
OPEN_ATTEMPT = 0


class Status(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    SKIPPED = "skipped"


TERMINAL = frozenset({Status.SUCCESS, Status.FAILED, Status.CANCELED, Status.SKIPPED})

# (phase, severity): the first orders what one attempt goes through, the second breaks a tie between its ends.
_ORDER = {
    Status.QUEUED: (0, 0),
    Status.RUNNING: (1, 0),
    Status.SUCCESS: (2, 0),
    Status.SKIPPED: (2, 1),
    Status.CANCELED: (2, 2),
    Status.FAILED: (2, 3),
}


def phase(status: Status) -> int:
    """Return 0 for queued, 1 for running, 2 for an end."""
    return _ORDER[status][0]


class RunObservation(NamedTuple):
    """One report about one run. Texts are redacted and cut, times are UTC, ``payload`` is canonical JSON."""

    pipeline: UUID | PipelineRef
    external_run_id: str
    status: Status
    attempt: int
    observed_at: datetime | None
    scheduled_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rows_processed: int | None
    error_message: str | None
    status_reason: str | None
    url: str | None
    payload: str | None
    source: str
    rank: bytes


def observe(
    *,
    pipeline: UUID | PipelineRef,
    external_run_id: str,
    status: Status,
    source: str,
    attempt: int = 1,
    observed_at: datetime | None = None,
    scheduled_for: datetime | None = None,
    started_at: datetime | None = None,
    finished_at: datetime | None = None,
    rows_processed: int | None = None,
    error_message: str | None = None,
    status_reason: str | None = None,
    url: str | None = None,
    payload: dict[str, Any] | None = None,
) -> RunObservation:
    """Make an observation from checked values (``runs/parsing.py`` or a mapping checks them).

    ``observed_at`` is the source's own time for the fact; where it gives none, the end of an end or the start of a
    running report stands for it. ``finished_at`` counts on ends alone. ``attempt`` is 1 or more, or ``OPEN_ATTEMPT``.
    """
    order, severity = _ORDER[status]
    finished_at = utc(finished_at) if order == 2 else None
    observed_at, scheduled_for, started_at = utc(observed_at), utc(scheduled_for), utc(started_at)
    if observed_at is None:
        observed_at = finished_at if order == 2 else started_at if order == 1 else None
    if error_message is not None:
        error_message = cut_utf8(
            redaction.redact_text(_beginning(error_message, ERROR_MESSAGE_BYTES * 2)), ERROR_MESSAGE_BYTES
        )
    if status_reason is not None:
        status_reason = redaction.redact_text(_beginning(status_reason, STATUS_REASON_CHARS * 2))[:STATUS_REASON_CHARS]
    if url is not None:
        url = redaction.redact_url(url)
    document = None if payload is None else _canonical(payload)
    content = "\0".join(
        (
            "" if status_reason is None else "=" + status_reason,
            "" if scheduled_for is None else str(_microseconds(scheduled_for)),
            "" if started_at is None else str(_microseconds(started_at)),
            "" if finished_at is None else str(_microseconds(finished_at)),
            "" if rows_processed is None else str(rows_processed),
            "" if error_message is None else "=" + error_message,
            "" if url is None else "=" + url,
            document or "",
            source,
        )
    )
    rank = _HEAD.pack(attempt, order, _microseconds(observed_at), severity) + _digest(content)
    return RunObservation(
        pipeline,
        external_run_id,
        status,
        attempt,
        observed_at,
        scheduled_for,
        started_at,
        finished_at,
        rows_processed,
        error_message,
        status_reason,
        url,
        document,
        source,
        rank,
    )


def utc(time: datetime | None) -> datetime | None:
    """Return a time in UTC, in which one instant has one form.

    Raises:
        ValueError: the time has no offset, and guessing one is not for us.
    """
    if time is None or time.tzinfo is UTC:
        return time
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return time.astimezone(UTC)


def cut_utf8(text: str, limit: int) -> str:
    """Return the longest prefix of ``text`` that has at most ``limit`` bytes of UTF-8."""
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore")


def _beginning(text: str, limit: int) -> str:
    """Return as much of a text as is worth redacting, without the word that the cut went through."""
    return text if len(text) <= limit else text[:limit].rsplit(None, 1)[0]


_HEAD = struct.Struct(">IBQB")


def _microseconds(time: datetime | None) -> int:
    """Return a number that orders times, none lowest; times before 1970 are refused at the doors."""
    if time is None:
        return 0
    span = time - clock.EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds + 1


def _digest(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def _canonical(payload: dict[str, Any]) -> str:
    """Return the redacted payload as JSON with sorted keys, or a marker in its place where it is too large."""
    text = _to_json(payload)
    size = len(text) if text.isascii() else len(text.encode())
    if size > PAYLOAD_BYTES:
        return f'{{"headway_truncated":true,"size_bytes":{size}}}'
    redacted = redaction.redact_value(payload)
    return text if redacted is payload else _to_json(redacted)


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
