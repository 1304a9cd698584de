"""When runs are expected: pure rules over a pipeline's schedule.

``next_due`` gives the first expected start after a time; a run meets every slot up to its own time. cronsim decides
what a cron expression means, DST changes included: a daily 02:30 job is due once on the day the clock goes back.
Callers: the pipelines' service on edits, the worker (``health/due.py``).
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

DEFAULT_GRACE_SECONDS = 300
MAX_GRACE_SECONDS = 30 * 86_400


class ScheduleError(ValueError):
    """A schedule that never is; the message says why."""


def check_cron(expression: str, timezone: str) -> None:
    """Refuse a cron expression or time zone that means nothing.

    Raises:
        ScheduleError: with the reason.
    """
    if len(expression.split()) != 5:
        raise ScheduleError("must have five fields: minute hour day month weekday")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=zone(timezone))))
    except CronSimError:
        raise ScheduleError("is not a cron expression such as 0 6 * * *") from None
    except StopIteration:
        raise ScheduleError("is never due") from None


def zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ScheduleError: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ScheduleError("is not an IANA time zone such as Europe/Berlin") from None


def next_due(schedule: dict[str, Any], after: datetime) -> datetime:
    """Return the first expected start after a time, in UTC."""
    if "every_seconds" in schedule:
        return after + timedelta(seconds=schedule["every_seconds"])
    local = after.astimezone(zone(schedule["timezone"]))
    slots = (slot.astimezone(UTC) for slot in CronSim(schedule["cron"], local))
    # begun in the hour that comes twice, the second time, the iterator goes through the first once more
    return next(slot for slot in slots if slot > after)


def grace(schedule: dict[str, Any]) -> timedelta:
    """Return how long after its due time a start is still in time."""
    return timedelta(seconds=schedule["grace_seconds"])
