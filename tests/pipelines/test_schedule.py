"""The pure rules of schedules."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.pipelines import schedule as rules


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(expression: str, timezone: str = "UTC") -> dict[str, object]:
    return {"cron": expression, "timezone": timezone, "grace_seconds": 300}


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        (cron("0 6 * * *"), "2026-11-01T05:59:59.999999", "2026-11-01T06:00"),
        (cron("0 6 * * *"), "2026-11-01T06:00", "2026-11-02T06:00"),
        (cron("0 6 * * *"), "2026-11-01T06:00:00.5", "2026-11-02T06:00"),
        (cron("0 6 * * *", "Europe/Berlin"), "2026-07-01T00:00", "2026-07-01T04:00"),
        (cron("0 6 * * *", "Europe/Berlin"), "2026-12-01T00:00", "2026-12-01T05:00"),
        (cron("0 6 * * *", "Asia/Kolkata"), "2026-12-01T00:00", "2026-12-01T00:30"),
        (cron("*/15 * * * *"), "2026-11-01T05:46", "2026-11-01T06:00"),
        (cron("0 0 * * 1"), "2026-11-02T00:00", "2026-11-09T00:00"),
        (cron("0 0 29 2 *"), "2026-11-01T00:00", "2028-02-29T00:00"),
        (cron("0 0 L * *"), "2026-11-01T00:00", "2026-11-30T00:00"),
        ({"every_seconds": 3600, "grace_seconds": 0}, "2026-11-01T05:46:07.25", "2026-11-01T06:46:07.25"),
        # spring: 02:30 does not exist, and is due when the clock has gone forward
        (cron("30 2 * * *", "Europe/Berlin"), "2027-03-27T12:00", "2027-03-28T01:00"),
        (cron("30 2 * * *", "Europe/Berlin"), "2027-03-28T01:00", "2027-03-29T00:30"),
        # autumn: 02:30 comes twice, and is due once
        (cron("30 2 * * *", "Europe/Berlin"), "2027-10-30T12:00", "2027-10-31T00:30"),
        (cron("30 2 * * *", "Europe/Berlin"), "2027-10-31T00:30", "2027-11-01T01:30"),
        (cron("30 2 * * *", "Europe/Berlin"), "2027-10-31T01:29", "2027-11-01T01:30"),
        # what is due all the time is due in both hours
        (cron("0 * * * *", "Europe/Berlin"), "2027-10-31T00:00", "2027-10-31T01:00"),
    ],
)
def test_next_due_is_the_first_start_after_a_time(schedule: dict[str, object], after: str, due: str) -> None:
    found = rules.next_due(schedule, at(after))
    assert found == at(due)
    assert found.tzinfo is UTC


@given(
    expression=st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 6 * * 1-5", "5 0 1 * *", "0 */3 * * *"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    after=st.one_of(
        st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made aware below
        # about the hour that comes twice in Berlin, on Lord Howe's half hour and in New York
        st.datetimes(datetime(2027, 10, 31), datetime(2027, 10, 31, 3)),  # noqa: DTZ001
        st.datetimes(datetime(2027, 4, 3, 14), datetime(2027, 4, 3, 16)),  # noqa: DTZ001
        st.datetimes(datetime(2027, 11, 7, 5), datetime(2027, 11, 7, 8)),  # noqa: DTZ001
    ),
    more=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_slots_lie_ahead_and_never_go_back(expression: str, timezone: str, after: datetime, more: timedelta) -> None:
    begin = after.replace(tzinfo=UTC)
    due = rules.next_due(cron(expression, timezone), begin)
    assert due > begin
    assert rules.next_due(cron(expression, timezone), begin + more) >= due
    assert rules.next_due(cron(expression, timezone), due - timedelta(microseconds=1)) == due


@pytest.mark.parametrize("expression", ["0 6 * * *", "*/5 0-4,20 1 1-6/2 mon-fri", "0 0 L * *", "0 0 * * 5#2"])
def test_cron_expressions_that_are_taken(expression: str) -> None:
    rules.check_cron(expression, "Europe/Berlin")


@pytest.mark.parametrize(
    ("expression", "timezone", "reason"),
    [
        ("0 6 * *", "UTC", "must have five fields: minute hour day month weekday"),
        ("0 0 6 * * *", "UTC", "must have five fields: minute hour day month weekday"),
        ("@daily", "UTC", "must have five fields: minute hour day month weekday"),
        ("60 6 * * *", "UTC", "is not a cron expression such as 0 6 * * *"),
        ("a b c d e", "UTC", "is not a cron expression such as 0 6 * * *"),
        ("0 0 30 2 *", "UTC", "is not a cron expression such as 0 6 * * *"),
        ("0 6 * * *", "Mars/Olympus", "is not an IANA time zone such as Europe/Berlin"),
        ("0 6 * * *", "../../etc/passwd", "is not an IANA time zone such as Europe/Berlin"),
        ("0 6 * * *", "", "is not an IANA time zone such as Europe/Berlin"),
    ],
)
def test_cron_expressions_that_are_refused(expression: str, timezone: str, reason: str) -> None:
    with pytest.raises(rules.ScheduleError, match=reason.replace("*", r"\*")):
        rules.check_cron(expression, timezone)


def test_grace_is_a_span() -> None:
    assert rules.grace(cron("0 6 * * *")) == timedelta(minutes=5)
