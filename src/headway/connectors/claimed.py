"""Saves what was read of a source that is claimed: its runs, and in the same transaction how far it was read.

Every statement checks the claim, so a reader that was taken for dead saves nothing more. What somebody else's edits
stand in the way of is tried again; what the database refuses costs the run that it is about, not its page. Called by
``connectors/syncing.py``; ``tests/connectors/test_syncing.py`` kills and doubles readers.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import EVERYONE
from headway.connectors import queries
from headway.connectors.chunks import CHUNK_RUNS
from headway.connectors.config import Source
from headway.core import clock
from headway.core.db import Database
from headway.core.errors import ConflictError, InvalidInputError, UnavailableError
from headway.runs import writer
from headway.runs.observation import RunObservation
from headway.runs.writer import Submission

CLAIM = timedelta(seconds=30)
WRITE_TRIES = 5
_PASSING = frozenset({"busy", "conflict", "name_taken", "slug_taken"})

Counts = dict[str, int]


class LostClaimError(Exception):
    """Another process reads this source now; what was read last is rolled back."""


class ClaimedSource:
    """A source under a claim."""

    def __init__(self, database: Database, source: Source, claim: uuid.UUID) -> None:
        self._database = database
        self._source = source
        self._claim = claim

    async def save(self, **values: Any) -> None:
        """Save columns of the source's row.

        Raises:
            LostClaimError: it is somebody else's now.
        """
        async with self._database.transaction() as connection:
            await self._save(connection, now=clock.now(), **values)

    async def write(
        self, observations: Sequence[RunObservation], counts: Mapping[str, int], place: Mapping[str, Any]
    ) -> Counts:
        """Write what was read with the place up to which it was; returns all counts, those of the writer added.

        Raises:
            LostClaimError: as ``save``.
            HeadwayError: the database cannot be reached.
        """
        for tried in range(1, WRITE_TRIES + 1):
            try:
                return await self._write_once(observations, counts, place)
            except InvalidInputError:
                return await self._write_halves(observations, counts, place)
            except (ConflictError, UnavailableError) as error:
                if tried == WRITE_TRIES or error.problem_code not in _PASSING:
                    raise
            await asyncio.sleep(0.1 * tried)
        raise AssertionError

    async def _write_halves(
        self, observations: Sequence[RunObservation], counts: Mapping[str, int], place: Mapping[str, Any]
    ) -> Counts:
        if len(observations) <= 1:  # this one does not fit
            return await self._write_once([], {**counts, "runs_odd": counts["runs_odd"] + len(observations)}, place)
        middle = len(observations) // 2
        first = await self.write(observations[:middle], dict.fromkeys(counts, 0), {})
        second = await self.write(observations[middle:], counts, place)
        return {key: first[key] + second[key] for key in second}

    async def _write_once(
        self, observations: Sequence[RunObservation], counts: Mapping[str, int], place: Mapping[str, Any]
    ) -> Counts:
        now = clock.now()
        done = {**dict.fromkeys(queries.COUNTED, 0), **counts}
        async with self._database.transaction() as connection:
            for start in range(0, len(observations), CHUNK_RUNS):  # each may register that many pipelines
                await self._join(connection, observations[start : start + CHUNK_RUNS], done, now=now)
            if self._source.tags and observations:
                await queries.tag_new(connection, client_slug=self._source.client, tags=self._source.tags, now=now)
            await self._save(connection, counts=done, claimed_until=now + CLAIM, now=now, **place)
        return done

    async def _join(
        self, connection: AsyncConnection, observations: Sequence[RunObservation], done: Counts, *, now: datetime
    ) -> None:
        submission = Submission(EVERYONE, register=True)
        for index, observation in enumerate(observations):
            submission.add(observation, index)
        (outcome,) = await writer.write(connection, [submission], now=now)
        done["runs_imported"] += outcome.inserted
        done["runs_updated"] += outcome.updated
        done["runs_outdated"] += outcome.outdated
        done["runs_odd"] += len(outcome.refused)

    async def _save(self, connection: AsyncConnection, *, now: datetime, **values: Any) -> None:
        if not await queries.save(connection, name=self._source.name, held_by=self._claim, now=now, **values):
            raise LostClaimError
