"""Gives reports their attempt whose source does not count: the part of the one writer that looks before it joins.

Rows are locked in key order before they are looked at, but for those of which nothing new is told: most of what is
polled is known. The rule itself is ``runs/attempts.py``'s. Tests: ``tests/runs/test_attempts.py``.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from headway.runs import attempts, sql
from headway.runs.merge import RunState, join_states, state_of
from headway.runs.observation import RunObservation, Status

RunKey = tuple[UUID, str]


async def number(
    connection: psycopg.AsyncConnection[Any], told: Sequence[tuple[RunKey, list[RunObservation]]]
) -> list[list[RunObservation | None]]:
    """Return the reports with their attempts, in the same places; None for one of an attempt before the stored one."""
    standing = await _find(connection, sql.FIND_STANDING, (key for key, _ in told))
    changing = {key for key, reports in told if key in standing and not _is_known(standing[key], reports)}
    if changing:
        standing |= await _find(connection, sql.LOCK_STANDING, changing)
    return [[_numbered(standing, key, report) for report in reports] for key, reports in told]


def _numbered(standing: dict[RunKey, RunState], key: RunKey, report: RunObservation) -> RunObservation | None:
    """Number one report, and let the run stand as it will with it."""
    stored = standing.get(key)
    attempt = attempts.attempt_of(stored, report)
    if attempt is None:
        return None
    made = attempts.numbered(report, attempt)
    standing[key] = state_of(made) if stored is None else join_states(stored, state_of(made))
    return made


def _is_known(stored: RunState, reports: list[RunObservation]) -> bool:
    """Tell whether each report is the very one that decides the stored run."""
    return all(attempts.numbered(report, stored.attempt).rank == stored.rank for report in reports)


async def _find(
    connection: psycopg.AsyncConnection[Any], statement: str, keys: Iterable[RunKey]
) -> dict[RunKey, RunState]:
    """Return how runs stand, as far as numbering looks at it: the rest of each state is empty."""
    ordered = sorted(set(keys))
    parameters = {"pipeline_ids": [key[0] for key in ordered], "external_run_ids": [key[1] for key in ordered]}
    async with connection.cursor() as cursor:
        await cursor.execute(statement, parameters)
        rows = await cursor.fetchall()
    return {(row[0], row[1]): _state(*row[2:]) for row in rows}


def _state(rank: bytes, attempt: int, status: str, *times: Any) -> RunState:
    observed_at, started_at, finished_at = times
    return RunState(
        rank=bytes(rank),
        attempt=attempt,
        status=Status(status),
        status_reason=None,
        source="",
        observed_at=observed_at,
        scheduled_for=None,
        started_at=started_at,
        finished_at=finished_at,
        rows_processed=None,
        error_message=None,
        error_rank=None,
        url=None,
        url_rank=None,
        payload=None,
        payload_rank=None,
    )
