"""Which requests to make of the example platform: its paging and its filters.

The list of runs is in the order of their ids and a next link names the last id of its page, so that rows cannot slip
from a page to one that was read already. ``changed_from`` takes runs by their last change; ``live`` adds unfinished ones.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self
from urllib.parse import quote

from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.http import Http
from headway.core import reading
from headway.core.validation import format_time
from tests.connectors.example import mapping
from tests.connectors.example.source import ExampleSource

PAGE = 100


class ExampleConnector:
    """Reads one server."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: ExampleSource, http: Http) -> None:
        self._source = source
        self.http = http

    @classmethod
    def connect(cls, source: ExampleSource, stop: threading.Event) -> Self:
        """Return a connector that has asked for nothing yet."""
        return cls(source, Http(source, stop=stop))

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield what changed since then, and all that is live."""
        yield from self._pages("/api/runs", {"limit": PAGE, "live": "true", "changed_from": format_time(since)})

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield what was created in a window. A position is the link to the page that comes next."""
        span = {"limit": PAGE, "created_from": format_time(since), "created_until": format_time(until)}
        yield from self._pages(position or "/api/runs", None if position else span)

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield runs one by one: a 404 says that a run is gone."""
        for run in held:
            answer = self.http.get(f"/api/runs/{quote(run.external_run_id, safe='')}", missing_ok=True)
            yield Page([], gone=[run]) if answer.status in {404, 410} else Page([_object(answer.data)])

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says."""
        return mapping.report(payload, self._source, now)

    def check(self) -> Check:
        """Ask for the version and the pipelines."""
        about = _object(self.http.get("/api/about").data)
        names = (reading.text_at(item, "name") for item in _list(about, "pipelines"))
        return Check(
            f"Example {reading.text_at(about, 'version') or '(unknown version)'}",
            [name for name in names if name and self._source.takes(name)][:1000],
        )

    def _pages(self, path: str | None, params: Mapping[str, Any] | None) -> Iterator[Page]:
        while path is not None:
            answer = self.http.get(path, params)
            path, params = answer.next_url, None
            yield Page(_list(_object(answer.data), "runs"), position=path)


def _object(data: object) -> Payload:
    if not isinstance(data, Mapping):
        raise SourceError("bad_answer", "the answer is no object; is url that of an Example server?")
    return data


def _list(data: Payload, key: str) -> list[Payload]:
    if not isinstance(data.get(key), list):
        raise SourceError("bad_answer", f"the answer has no list of {key}; is url that of an Example server?")
    return list(reading.objects_at(data, key))
