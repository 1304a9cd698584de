"""Which attempt a report is about whose source uses a run's id again without counting (Airflow's clear, GitLab's retry).

Pure. The one writer asks with the run's row locked, since this alone of all joins depends on the order of arrival: two
re-runs between two looks count as one. A report that shows the run alive after its stored end is about the next
attempt; an end from before the stored attempt began belongs to an earlier one and is dropped; anything else is about the
stored attempt (``docs/decisions/0014-open-attempts.md``, ``tests/runs/test_attempts.py``).
"""

import struct
from datetime import datetime

from headway.runs.merge import RunState
from headway.runs.observation import TERMINAL, RunObservation, Status

_ATTEMPT = struct.Struct(">I")


def attempt_of(stored: RunState | None, report: RunObservation) -> int | None:
    """Return the attempt that an open report is about, None where it is one before the stored attempt."""
    if stored is None:
        return 1
    alive_at = _alive_at(report.status, report.started_at, report.observed_at)
    if alive_at is not None and stored.finished_at is not None and alive_at > stored.finished_at:
        return stored.attempt + 1
    began_at = _alive_at(stored.status, stored.started_at, stored.observed_at)
    told_at = report.finished_at if report.status in TERMINAL else alive_at
    # A start from before the stored one may be the better knowledge of it, one from before it was queued is not.
    can_be_earlier = report.status in TERMINAL or stored.status is Status.QUEUED
    if stored.attempt > 1 and can_be_earlier and told_at is not None and began_at is not None and told_at < began_at:
        return None
    return stored.attempt


def numbered(report: RunObservation, attempt: int) -> RunObservation:
    """Return an open report with its attempt, and with the rank that it has by it."""
    return report._replace(attempt=attempt, rank=_ATTEMPT.pack(attempt) + report.rank[_ATTEMPT.size :])


def _alive_at(status: Status, started_at: datetime | None, observed_at: datetime | None) -> datetime | None:
    """Return the latest time at which an attempt is known not to have ended: its start, or when it was seen so."""
    if status in TERMINAL:
        return started_at
    return max((t for t in (started_at, observed_at) if t is not None), default=None)
