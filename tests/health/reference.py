"""The rules of the health reads in plain Python, over what the API itself tells of runs and their history."""

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.api import Api

DECIDED = ("success", "failed", "canceled")
TERMINAL = (*DECIDED, "skipped")
SEVERITY = ("failed", "canceled", "skipped", "success")

Json = dict[str, Any]


class End(NamedTuple):
    """The end of one attempt, in the order in which ends are compared."""

    at: datetime
    run_id: str
    attempt: int
    status: str
    ended_at: datetime


def time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def sure(text: str | None) -> datetime:
    assert text is not None
    return datetime.fromisoformat(text)


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def walk(api: Api, path: str, **parameters: Any) -> list[Json]:
    """Return all items of a list, page by page."""
    items: list[Json] = []
    cursor: str | None = None
    while True:
        response = await api.get(path, params=parameters | ({"cursor": cursor} if cursor else {}))
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        cursor = response.json()["next_cursor"]
        if cursor is None:
            return items


class Past:
    """One pipeline with its runs, latest first, and the ends of all attempts, earliest first."""

    def __init__(
        self, pipeline: Json, runs: list[Json], events: dict[str, list[Json]], next_due: datetime | None
    ) -> None:
        self.pipeline, self.next_due = pipeline, next_due
        self.runs = sorted(runs, key=lambda r: (sure(r["run_at"]), r["id"]), reverse=True)
        self.ends = sorted(end for run in runs for end in ends_of(run, events[run["id"]]))

    @property
    def deadline(self) -> datetime:
        assert self.next_due is not None
        return self.next_due + timedelta(seconds=self.pipeline["schedule"]["grace_seconds"])

    def is_late(self, now: datetime) -> bool:
        if self.next_due is None or self.deadline >= now:
            return False
        began = self.next_due - timedelta(seconds=self.pipeline["schedule"].get("every_seconds", 0))
        is_interval = "every_seconds" in self.pipeline["schedule"]
        return not any(
            run["status"] != "queued" and (sure(run["run_at"]) > began if is_interval else sure(run["run_at"]) >= began)
            for run in self.runs
        )

    def failing(self) -> Json | None:
        told = [run for run in self.runs if run["status"] in DECIDED]
        streak = []
        for run in told:
            if run["status"] != "failed":
                break
            streak.append(run)
        if not streak:
            return None
        success = next((run for run in told if run["status"] == "success"), None)
        return {
            "failing_since": end_of(streak[-1]),
            "consecutive_failures": len(streak),
            "last_error": streak[0]["error_message"],
            "last_failed_run_id": streak[0]["id"],
            "last_success_at": None if success is None else end_of(success),
        }

    def flaky(self, since: datetime) -> Json | None:
        told = [end.status for end in self.ends if end.at >= since and end.status in DECIDED]
        firm = [status for status in told if status != "canceled"]
        flips = sum(a != b for a, b in itertools.pairwise(firm))
        if not flips:
            return None
        failures = told.count("failed")
        return {"total_runs": len(told), "failures": failures, "failure_rate": failures / len(told), "flips": flips}

    def change(self, since: datetime, now: datetime) -> Json | None:
        past = [end for end in self.ends if end.at <= since and end.ended_at <= since]
        was, is_now = status_of(past), status_of(self.ends)
        if is_now == "failed":
            if was == "failed":
                return None
            return self._turn("newly_failing", ("failed",), ("success", "canceled"))
        if self.is_late(now) and self.deadline > since:
            return {"change": "silent", "changed_at": self.deadline, "run_id": None}
        if was == "failed":
            return self._turn("recovered", ("success", "canceled"), ("failed",))
        return self._turn("new", TERMINAL, ()) if self.ends and not past else None

    def _turn(self, change: str, to: tuple[str, ...], after: tuple[str, ...]) -> Json:
        last = max((n for n, end in enumerate(self.ends) if end.status in after), default=-1)
        end = next(end for end in self.ends[last + 1 :] if end.status in to)
        return {"change": change, "changed_at": end.ended_at, "run_id": end.run_id}


def status_of(ends: Iterable[End]) -> str | None:
    told = [end.status for end in ends if end.status != "skipped"]
    return told[-1] if told else None


def end_of(run: Json) -> datetime:
    return sure(run["finished_at"] or run["observed_at"] or run["run_at"])


def ends_of(run: Json, events: list[Json]) -> list[End]:
    """Return the ends of a run's attempts: of the superseded ones from the history, of the current one its own."""
    ends = []
    for attempt in {event["attempt"] for event in events if event["attempt"] < run["attempt"]}:
        own = [event for event in events if event["attempt"] == attempt]
        terminal = [event for event in own if event["status"] in TERMINAL]
        if not terminal:
            continue
        lowest = datetime.min.replace(tzinfo=sure(run["run_at"]).tzinfo)
        winner = max(terminal, key=lambda e: (time(e["last_occurred_at"]) or lowest, -SEVERITY.index(e["status"])))
        started = min((sure(e["started_at"]) for e in own if e["started_at"]), default=None)
        finished = max((sure(e["finished_at"]) for e in own if e["finished_at"]), default=None)
        ended_at = finished or time(winner["last_occurred_at"]) or started or sure(winner["recorded_at"])
        ends.append(End(started or ended_at, run["id"], attempt, winner["status"], ended_at))
    if run["status"] in TERMINAL:
        ends.append(End(sure(run["run_at"]), run["id"], run["attempt"], run["status"], end_of(run)))
    return ends
