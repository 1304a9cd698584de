"""Turns a pipeline of the demo fleet into observations: its slots, what becomes of each, and who tells what when.

Pure. What becomes of a slot depends on the slot and on the first load alone. ``now`` only cuts off what has not
happened yet, so that a run is under way in one load and ends in a later one; and of what is long past only the ends are
told, as a poll would find them.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

from cronsim import CronSim

from headway.core import clock
from headway.demo.behaviours import Fate, Slot
from headway.demo.fleet import FAKE_SECRETS, DemoPipeline
from headway.demo.platforms import PLATFORMS
from headway.pipelines import schedule as rules
from headway.runs.observation import RunObservation, Status, observe

TREND = timedelta(days=90)
STARTS_TOLD = timedelta(days=10)

# Monday to Sunday, as a share of an ordinary day.
_PACE = (1.15, 1.0, 1.0, 1.0, 1.05, 0.88, 0.85)
_VOLUME = (1.2, 1.02, 1.0, 1.0, 1.08, 0.6, 0.5)
_RERUN_AFTER = timedelta(minutes=5)


class Job(NamedTuple):
    """A pipeline of the fleet as it stands in the database."""

    client: str
    row: DemoPipeline
    pipeline_id: UUID


def observations(job: Job, *, since: datetime, now: datetime, first_load: datetime) -> Iterator[RunObservation]:
    """Yield what was told of a pipeline's runs, slot by slot."""
    row = job.row
    for at, local in slots(row.cadence, since, now):
        # the fleet is made up; the same seed must always give the same run
        dice = Random(f"{job.client}/{row.slug}/{at.isoformat()}")  # noqa: S311
        slot = Slot(at, local, at - first_load, dice)
        fate = Fate()
        if all(behave(slot, fate) for behave in row.story):
            yield from _told(job, slot, fate, now)


def slots(schedule: dict[str, Any] | None, since: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the slots of a schedule after one time and up to another, in UTC and as local time."""
    if schedule is None:
        return
    if "every_seconds" in schedule:
        step = timedelta(seconds=schedule["every_seconds"])
        at = since - (since - clock.EPOCH) % step + step
        while at <= now:
            yield at, at
            at += step
        return
    for local in CronSim(schedule["cron"], since.astimezone(rules.zone(schedule["timezone"]))):
        at = local.astimezone(UTC)
        if at > now:
            return
        yield at, local


def _told(job: Job, slot: Slot, fate: Fate, now: datetime) -> Iterator[RunObservation]:
    row, dice = job.row, slot.dice
    platform = PLATFORMS[row.platform]
    run_id = platform.run_id(row.slug, slot.at)
    always: dict[str, Any] = {
        "pipeline": job.pipeline_id,
        "external_run_id": run_id,
        "source": platform.source,
        "scheduled_for": slot.at,
        "url": platform.run_page.format(client=job.client, job=row.slug, run=quote(run_id)),
    }
    is_recent = slot.at > now - STARTS_TOLD
    begin = slot.at
    for attempt, end in enumerate(fate.ends, start=1):
        started = begin + _milliseconds(row.wait[0] + dice.random() * (row.wait[1] - row.wait[0]))
        finished = started + _milliseconds(_seconds(row, slot, fate))
        failed = end is not Status.SUCCESS
        ended: dict[str, Any] = {
            "status": end,
            "started_at": started,
            "finished_at": finished,
            "rows_processed": None if failed else _rows(row, slot),
            "error_message": _error(fate, slot) if failed else None,
            "payload": _payload(job, slot, fate, attempt),
        }
        if end is Status.SKIPPED:
            ended |= {"started_at": None, "finished_at": started}
        reports: list[tuple[bool, datetime, dict[str, Any]]] = [
            (is_recent and platform.tells_queue, begin, {"status": Status.QUEUED}),
            (is_recent and platform.tells_starts and end is not Status.SKIPPED, started, {"status": Status.RUNNING, "started_at": started}),
            (True, ended["finished_at"], ended),
        ]  # fmt: skip
        for is_told, observed_at, said in reports:
            if is_told and observed_at <= now:
                word = platform.word(said["status"])
                yield observe(**always, **said, attempt=attempt, observed_at=observed_at, status_reason=word)
        begin = finished + _RERUN_AFTER


def _milliseconds(seconds: float) -> timedelta:
    return timedelta(milliseconds=round(seconds * 1000))


def _seconds(row: DemoPipeline, slot: Slot, fate: Fate) -> float:
    """Return how long an attempt takes: log-normal, with the weekday and what the story says."""
    noise = min(max(_normal(slot.dice) * row.spread, -1.2), 1.2)
    return row.seconds * math.exp(noise) * _PACE[slot.local.weekday()] * fate.pace


def _rows(row: DemoPipeline, slot: Slot) -> int | None:
    if row.rows is None:
        return None
    trend = max(1 + row.growth * (slot.age + TREND) / TREND, 0.05)
    noise = math.exp(_normal(slot.dice) * 0.12)
    return round(row.rows * trend * _VOLUME[slot.local.weekday()] * noise)


def _normal(dice: Random) -> float:
    return dice.normalvariate(0, 1)


def _error(fate: Fate, slot: Slot) -> str | None:
    if fate.error is None:
        return None
    return fate.error.format(n=int(slot.dice.random() * 900) + 100, at=slot.at.isoformat(), **FAKE_SECRETS)


def _payload(job: Job, slot: Slot, fate: Fate, attempt: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "job": job.row.name,
        "trigger": "manual" if job.row.schedule is None else "schedule",
        "host": f"worker-{int(slot.dice.random() * 6) + 1}.{job.client}.example.com",
        "try_number": attempt,
    }
    if fate.error is not None and "{password}" in fate.error:
        said["connection"] = {"user": "loader", "password": FAKE_SECRETS["password"]}
    return said
