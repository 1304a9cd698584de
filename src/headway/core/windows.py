"""Windows of time in queries: half open, ``since`` included, ``until`` not."""

from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

from fastapi import Depends, Query

from headway.core.errors import InvalidInputError, Issue
from headway.core.validation import Time

Since = Annotated[Time | None, Query(description="from this time on")]
Until = Annotated[Time | None, Query(description="before this time")]


class Window(NamedTuple):
    """A window whose ends are known."""

    since: datetime
    until: datetime


class _OptionalWindow:
    """A window as it was asked for, either end of which may be open."""

    def __init__(self, since: Since = None, until: Until = None) -> None:
        if since is not None and until is not None and until <= since:
            raise empty_window()
        self.since, self.until = since, until

    def closed(self, now: datetime, default: timedelta) -> Window:
        """Close the open ends: until now, and since ``default`` before that."""
        until = self.until or now
        since = self.since or until - default
        if until <= since:
            raise empty_window() if self.until is not None else future_since()
        return Window(since, until)


OptionalWindow = Annotated[_OptionalWindow, Depends()]


def empty_window() -> InvalidInputError:
    """Return the refusal of a window without any time in it."""
    issue = Issue("/query/until", "empty_window", "must be after since")
    return InvalidInputError("until must be after since", code="empty_window", issues=[issue])


def future_since() -> InvalidInputError:
    """Return the refusal of a window that has not begun."""
    issue = Issue("/query/since", "empty_window", "lies in the future")
    return InvalidInputError("since lies in the future", code="empty_window", issues=[issue])
