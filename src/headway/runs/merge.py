"""The merge law: a run is the join over the set of all observations ever received for it.

Pure. ``RunState`` is what one or many observations of a run say together, ``EventState`` what they say of one attempt
in one status. ``join_states`` and ``join_events`` are commutative, associative and idempotent, so order, duplication
and batching of reports change nothing. ``runs/sql.py`` states the same law for PostgreSQL;
``tests/property/test_merge_law.py`` holds both to each other and to the definition in ``docs/decisions/0001-runs-are-joins.md``.
"""

from collections.abc import Mapping
from copy import copy
from datetime import datetime
from typing import NamedTuple, TypeVar

from headway.runs.observation import RunObservation, Status


class RunState(NamedTuple):
    """What is known of a run: the winner's words, and the best of each other value within the winning attempt.

    Each ``*_rank`` is the rank of the observation that the value comes from, None where there is no value.
    """

    rank: bytes
    attempt: int
    status: Status
    status_reason: str | None
    source: str
    observed_at: datetime | None
    scheduled_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rows_processed: int | None
    error_message: str | None
    error_rank: bytes | None
    url: str | None
    url_rank: bytes | None
    payload: str | None
    payload_rank: bytes | None


class EventState(NamedTuple):
    """What is known of one attempt of a run in one status."""

    occurred_at: datetime | None
    last_occurred_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error_message: str | None
    error_rank: bytes | None
    source: str


EventKey = tuple[int, Status]


class RunRecord:
    """The state of one run and its history, as far as the reports at hand tell.

    Nearly all records hold one report: its state then tells its history too, which is not spelled out.
    """

    __slots__ = ("_history", "state")

    def __init__(self, observation: RunObservation) -> None:
        self.state = state_of(observation)
        self._history: dict[EventKey, EventState] | None = None

    @property
    def is_single(self) -> bool:
        """Tell whether the state of this record is that of a single report."""
        return self._history is None

    @property
    def history(self) -> Mapping[EventKey, EventState]:
        """Return what is told of each attempt in each status."""
        if self._history is None:
            return {(self.state.attempt, self.state.status): _only_event(self.state)}
        return self._history

    def add(self, observation: RunObservation) -> None:
        """Join one more observation."""
        if observation.rank != self.state.rank or self._history is not None:
            self._join(RunRecord(observation))

    def joined(self, other: "RunRecord") -> "RunRecord":
        """Return what this and another record of the same run tell together; both stay as they are."""
        both = copy(self)
        both._join(other)  # noqa: SLF001 - its own kind
        return both

    def _join(self, other: "RunRecord") -> None:
        history = dict(self.history)
        for key, event in other.history.items():
            known = history.get(key)
            history[key] = event if known is None else join_events(known, event)
        self._history = history
        self.state = join_states(self.state, other.state)


def _only_event(s: RunState) -> EventState:
    """Return what a state of a single report says of its attempt in its status."""
    return EventState(
        s.observed_at, s.observed_at, s.started_at, s.finished_at, s.error_message, s.error_rank, s.source
    )


def state_of(o: RunObservation) -> RunState:
    """Return what a single observation says of its run."""
    rank = o.rank
    return RunState(
        rank,
        o.attempt,
        o.status,
        o.status_reason,
        o.source,
        o.observed_at,
        o.scheduled_for,
        o.started_at,
        o.finished_at,
        o.rows_processed,
        o.error_message,
        None if o.error_message is None else rank,
        o.url,
        None if o.url is None else rank,
        o.payload,
        None if o.payload is None else rank,
    )


def join_states(a: RunState, b: RunState) -> RunState:
    """Join two states of one run: the higher attempt alone, or the best of both within one attempt."""
    high, low = (a, b) if a.rank >= b.rank else (b, a)
    if high.attempt != low.attempt:
        return high
    error_message, error_rank = _carried(high.error_message, high.error_rank, low.error_message, low.error_rank)
    url, url_rank = _carried(high.url, high.url_rank, low.url, low.url_rank)
    payload, payload_rank = _carried(high.payload, high.payload_rank, low.payload, low.payload_rank)
    return RunState(
        high.rank,
        high.attempt,
        high.status,
        high.status_reason,
        high.source,
        high.observed_at,
        _least(high.scheduled_for, low.scheduled_for),
        _least(high.started_at, low.started_at),
        _greatest(high.finished_at, low.finished_at),
        _greatest(high.rows_processed, low.rows_processed),
        error_message,
        error_rank,
        url,
        url_rank,
        payload,
        payload_rank,
    )


def join_events(a: EventState, b: EventState) -> EventState:
    """Join two accounts of one attempt in one status.

    The source is that of the earliest report; where two name the same time, the first in code-point order.
    """
    first = a if _time_and_source(a) <= _time_and_source(b) else b
    error_message, error_rank = _carried(a.error_message, a.error_rank, b.error_message, b.error_rank)
    return EventState(
        first.occurred_at,
        _greatest(a.last_occurred_at, b.last_occurred_at),
        _least(a.started_at, b.started_at),
        _greatest(a.finished_at, b.finished_at),
        error_message,
        error_rank,
        first.source,
    )


def _time_and_source(event: EventState) -> tuple[bool, datetime | int, str]:
    return (event.occurred_at is None, event.occurred_at or 0, event.source)


T = TypeVar("T", datetime, int)


def _least(a: T | None, b: T | None) -> T | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _greatest(a: T | None, b: T | None) -> T | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def _carried(
    a: str | None, a_rank: bytes | None, b: str | None, b_rank: bytes | None
) -> tuple[str | None, bytes | None]:
    """Return the value of the greater carrier, with its rank."""
    if b_rank is None or (a_rank is not None and a_rank >= b_rank):
        return a, a_rank
    return b, b_rank
