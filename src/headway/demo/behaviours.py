"""What may become of the demo's runs: small named strategies, pure.

A pipeline has some of them in its row of ``fleet``; ``plan`` applies them in that order to each slot. The ages of the
story (failing since, silent since, …) are told as time before the fleet's first load, so that a later load tells the
same of the same slot; chance comes from the slot's own dice alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from headway.runs.observation import Status


class Slot(NamedTuple):
    """A time at which a pipeline was to start."""

    at: datetime
    local: datetime
    age: timedelta  # since the first load: negative before it
    dice: Random


@dataclass(slots=True)
class Fate:
    """What becomes of one slot: how each attempt ends, and how it differs from an ordinary one."""

    ends: list[Status] = field(default_factory=lambda: [Status.SUCCESS])
    error: str | None = None
    pace: float = 1.0


# Changes the fate of a slot; False where nothing ran in it.
Behaviour = Callable[[Slot, Fate], bool]


def hiccups(rate: float, *errors: str, rerun: float = 0.5) -> Behaviour:
    """Fail now and then; some share of the failures is run again, and mostly ends well."""

    def behave(slot: Slot, fate: Fate) -> bool:
        if slot.dice.random() < rate:
            fate.error = errors[int(slot.dice.random() * len(errors))]
            fate.ends = [Status.FAILED]
            if slot.dice.random() < rerun:
                again = slot.dice.random()
                fate.ends += [Status.SUCCESS] if again < 0.7 else [Status.FAILED, Status.SUCCESS]
        return True

    return behave


def outage(began: timedelta, error: str, *, ended: timedelta | None = None, attempts: int = 1) -> Behaviour:
    """Fail in every slot from a time before the first load on, to another one or for good."""

    def behave(slot: Slot, fate: Fate) -> bool:
        if slot.age >= -began and (ended is None or slot.age < -ended):
            fate.ends, fate.error, fate.pace = [Status.FAILED] * attempts, error, 0.4
        return True

    return behave


def silent(since: timedelta) -> Behaviour:
    """Not run at all any more."""

    def behave(slot: Slot, _fate: Fate) -> bool:
        return slot.age < -since

    return behave


def new(since: timedelta) -> Behaviour:
    """Not run before it was made."""

    def behave(slot: Slot, _fate: Fate) -> bool:
        return slot.age >= -since

    return behave


def slower(by: float, over: timedelta) -> Behaviour:
    """Take longer and longer: ``by`` times the usual on top at the first load, and somewhat more after it."""

    def behave(slot: Slot, fate: Fate) -> bool:
        fate.pace *= 1 + by * min(max((slot.age + over) / over, 0.0), 1.5)
        return True

    return behave


def canceled(rate: float, reason: str) -> Behaviour:
    """Be stopped by someone now and then."""

    def behave(slot: Slot, fate: Fate) -> bool:
        if slot.dice.random() < rate:
            fate.ends, fate.error, fate.pace = [Status.CANCELED], reason, 0.3
        return True

    return behave


def skipped(reason: str, *, rate: float = 0.0, weekdays: frozenset[int] = frozenset()) -> Behaviour:
    """Be left out by the platform: on some weekdays (0 is Monday), or now and then."""

    def behave(slot: Slot, fate: Fate) -> bool:
        if slot.dice.random() < rate or slot.local.weekday() in weekdays:
            fate.ends, fate.error = [Status.SKIPPED], reason
        return True

    return behave


def on_demand(chance: float) -> Behaviour:
    """Run when someone pushes: in working hours, and not every time."""

    def behave(slot: Slot, _fate: Fate) -> bool:
        return slot.local.weekday() < 5 and 7 <= slot.local.hour < 19 and slot.dice.random() < chance

    return behave
