"""Which requests a Prefect 3 API is asked: flow runs by time, by state and by id, and the names of their pipelines.

The API has neither a filter nor a sort by when a run changed, and its pages are offsets, which shift while runs move.
So every walk of runs goes by a time: sorted by it, each page begins at the time where the last one ended, without the
runs of that very time that are had already; what leaves or enters the list moves nothing else. Rule not to break: no
offset in a walk of runs (``tests/connectors/prefect/test_api.py``).
"""

import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field, field_validator

from headway.connectors.config import PlainUrl, Source
from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.http import Headers, Http, authorization
from headway.connectors.prefect import mapping
from headway.core import clock, reading, validation

PAGE_ROWS = 200  # more is refused
NAME_ROWS = 100  # a deployment brings the schema of its parameters along
CACHED_NAMES = 50_000
CHECKED_PIPELINES = 1_000

_T = TypeVar("_T")

ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")  # what a later version adds counts as live
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/([^/]+)/workspaces/([^/]+)", re.IGNORECASE)


class PrefectSource(Source):
    """A Prefect server, or a workspace of Prefect Cloud."""

    platform: Literal["prefect"]
    url: PlainUrl = Field(description="the server, with or without /api; for Cloud the URL of the workspace's API")
    ui_url: PlainUrl | None = Field(None, description="where the user interface is, if not with the API")

    @field_validator("url")
    @classmethod
    def _api(cls, url: str) -> str:
        """Return the API's address: both forms are at hand, the one in the browser and ``PREFECT_API_URL``."""
        return url if re.search(r"/api(/|$)", url) else f"{url}/api"

    @property
    def ui(self) -> str:
        """Where the pages of the user interface are."""
        if self.ui_url is not None:
            return self.ui_url
        if cloud := _CLOUD.fullmatch(self.url):
            return f"https://app.prefect.cloud/account/{cloud[1]}/workspace/{cloud[2]}"
        return self.url.removesuffix("/api")


class _Order(NamedTuple):
    """A sort, the filter that goes on from a row, and the row's value for both."""

    sort: str
    field: str
    bound: str
    columns: tuple[str, ...]

    def time(self, row: Payload) -> str | None:
        """Return the time by which a row is sorted."""
        return next((time for column in self.columns if (time := reading.text_at(row, column)) is not None), None)


# The server sorts and filters starts by coalesce(start_time, expected_start_time). A run that starts during the walk
# moves to the present, where the walk has not been yet.
_BY_START = _Order("START_TIME_ASC", "start_time", "after_", ("start_time", "expected_start_time"))
_BY_END = _Order("END_TIME_DESC", "end_time", "before_", ("end_time",))


class PrefectApi:
    """Reads one Prefect; see ``connectors/contract.py``."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: PrefectSource, stop: threading.Event) -> None:
        self._source = source
        self._caller, self._is_first_try = str(uuid.uuid4()), True
        self.http = Http(source, stop=stop, authorize=self._authorize, renews_on=frozenset({401, 403}))
        self._names: dict[str, dict[str, str | None]] = {"flows": {}, "deployments": {}}

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield the live runs that are due, then those that ended at or after ``since``.

        In this order: what ends between the two is in the second. What started and is neither live nor ended does not
        exist, so starts need not be asked for. A run that is put from one end to another by hand keeps its first end
        time and is only found by its start.
        """
        due = {"start_time": {"before_": _said(clock.now())}}  # the plan stays in the future where "run now" is pressed
        live = {"state": {"type": {"not_any_": ENDS}}, "end_time": {"is_null_": True}}
        yield from self._walk(due | live, _BY_START)
        yield from self._walk({"end_time": {"after_": _said(since)}}, _BY_END)

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield the runs that started, or were to start, in the window; a position is the time of a page's last run."""
        last = _said(min(until, clock.now()))
        window = {"start_time": {"after_": _said(since), "before_": last}}
        total = None
        if position is None:
            total = self.http.post("/flow_runs/count", {"flow_runs": _top_level(window)}).data
            if type(total) is not int:
                raise SourceError("bad_answer", "POST /flow_runs/count: answers no number; check url")
        for page in self._walk(window, _BY_START, position):
            yield page._replace(total=total)

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs as they are; one that a list leaves out is gone only if asked for alone it is a 404."""
        for some in _slices(held, PAGE_ROWS):
            ids = [run.external_run_id for run in some if validation.UUID_PATTERN.fullmatch(run.external_run_id)]
            rows = self._list("flow_runs", {"id": {"any_": ids}}, limit=PAGE_ROWS)
            missing = set(ids) - {reading.text_at(row, "id") for row in rows}
            gone = []
            for run in some:
                if run.external_run_id in missing:
                    alone = self.http.get(f"/flow_runs/{run.external_run_id}", missing_ok=True)
                    if alone.status in {404, 410}:
                        gone.append(run)
                    else:
                        rows.append(_object(alone.data))
            yield Page(self._named(rows), gone=gone)

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says, see ``mapping.report``."""
        return mapping.report(payload, source=self._source, ui=self._source.ui, now=now)

    def check(self) -> Check:
        """Return the server's version, its deployments, and the flows that have none."""
        answer = self.http.get("/admin/version", missing_ok=True)  # Cloud has no such page
        is_cloud = answer.status in {404, 410}
        if not is_cloud and not isinstance(answer.data, str):
            raise SourceError("bad_answer", "GET /admin/version: answers no version; check url")
        version = "Cloud" if is_cloud else reading.mended(answer.data)[:50]
        deployments = list(self._all("deployments"))
        flows = list(self._all("flows"))
        named = {reading.text_at(flow, "id"): reading.text_at(flow, "name") or "?" for flow in flows}
        deployed = {reading.text_at(deployment, "flow_id") for deployment in deployments}
        of_flow = [(reading.text_at(d, "id"), named.get(reading.text_at(d, "flow_id"), "?"), d) for d in deployments]
        known = [(key, f"{flow}/{reading.text_at(d, 'name')}") for key, flow, d in of_flow]
        known += [(key, name) for key, name in named.items() if key not in deployed]
        taken = sorted(name for key, name in known if self._source.takes(name, key))
        notes = ["runs that another flow started are part of that flow's run, and not imported"]
        if not is_cloud and not version.startswith("3."):
            notes.append(f"this is Prefect {version}; Headway knows Prefect 3")
        if max(len(deployments), len(flows)) >= CHECKED_PIPELINES:
            notes.append(f"only the first {CHECKED_PIPELINES:,} deployments and flows were looked at; all are imported")
        return Check(f"Prefect {version}", taken[:CHECKED_PIPELINES], notes)

    def _walk(self, wanted: Mapping[str, Any], order: _Order, edge: str | None = None) -> Iterator[Page]:
        """Yield the top-level runs of a filter, from the time ``edge`` on. It is the position of the pages, too."""
        had: set[str] = set()  # ids of the time ``edge``
        while True:
            bounded = wanted if edge is None else _from_edge(wanted, order, edge, had)
            rows = self._list("flow_runs", _top_level(bounded), limit=PAGE_ROWS, sort=order.sort)
            if len(rows) < PAGE_ROWS:
                yield Page(self._named(rows))
                return
            times = {str(reading.text_at(row, "id")): order.time(row) for row in rows}
            reached = times[str(reading.text_at(rows[-1], "id"))]
            if reached is None or times.keys() <= had:
                raise SourceError("bad_answer", "POST /flow_runs/filter: the pages of the answer do not go on")
            had = {key for key, time in times.items() if time == reached} | (had if reached == edge else set())
            edge = reached
            yield Page(self._named(rows), position=edge)

    def _list(self, what: str, wanted: Mapping[str, Any], **more: Any) -> list[Payload]:
        """Return the objects of one answer; one that is no object is an empty one, to be counted as odd."""
        answer = self.http.post(f"/{what}/filter", {what: wanted, **more})
        if not isinstance(answer.data, list):
            raise SourceError("bad_answer", f"POST /{what}/filter: answers no list; check url")
        return [_object(row) for row in answer.data]

    def _all(self, what: str) -> Iterator[Payload]:
        """Yield the first deployments or flows, 1,000 at most; the walk is for people to read, and by offsets."""
        for offset in range(0, CHECKED_PIPELINES, PAGE_ROWS):
            rows = self._list(what, {}, limit=PAGE_ROWS, offset=offset, sort="NAME_ASC")
            if any(reading.text_at(row, "id") is None for row in rows):
                raise SourceError("bad_answer", f"POST /{what}/filter: answers something without an id; check url")
            yield from rows
            if len(rows) < PAGE_ROWS:
                return

    def _named(self, rows: Sequence[Payload]) -> list[Payload]:
        """Return the runs with the names of their flow and deployment, which the API has elsewhere."""
        flows = self._names_of("flows", [reading.text_at(row, "flow_id") for row in rows])
        deployments = self._names_of("deployments", [reading.text_at(row, "deployment_id") for row in rows])
        return [
            {
                **row,
                mapping.NAMES: {
                    "flow": flows.get(reading.text_at(row, "flow_id") or ""),
                    "deployment": deployments.get(reading.text_at(row, "deployment_id") or ""),
                },
            }
            for row in rows
        ]

    def _names_of(self, what: str, wanted: Sequence[str | None]) -> Mapping[str, str | None]:
        """Return names by id, asking for those that are not known yet: neither a flow nor a deployment is renamed."""
        known = self._names[what]
        if len(known) > CACHED_NAMES:
            known.clear()
        missing = dict.fromkeys(w for w in wanted if w and w not in known and validation.UUID_PATTERN.fullmatch(w))
        for some in _slices(list(missing), NAME_ROWS):
            rows = self._list(what, {"id": {"any_": some}}, limit=NAME_ROWS)
            found = {reading.text_at(row, "id"): reading.text_at(row, "name") for row in rows}
            known.update({key: found.get(key) for key in some})
        return known

    def _authorize(self) -> Headers:
        """Return who we are; once refused, with the token that a server with CSRF protection wants of every POST."""
        headers = {**authorization(self._source), "Prefect-Csrf-Client": self._caller}
        if self._is_first_try:
            self._is_first_try = False
            return headers
        try:
            caller = {"client": self._caller}
            answer = self.http.request("GET", "/csrf-token", params=caller, headers=headers, authorized=False)
        except SourceError:  # 422 where it is off; the refusal that led here is what the operator must hear of
            return headers
        token = reading.text_at(answer.data, "token")
        return headers if token is None else {**headers, "Prefect-Csrf-Token": token}


def _top_level(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {**wanted, "parent_task_run_id": {"is_null_": True}}


def _from_edge(wanted: Mapping[str, Any], order: _Order, edge: str, had: set[str]) -> dict[str, Any]:
    """Return the filter that goes on from a time, which is included, without the runs of it that are had."""
    bounded = {**wanted, order.field: {**wanted.get(order.field, {}), order.bound: edge}}
    return {**bounded, "id": {"not_any_": sorted(had)}} if had else bounded


def _slices(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _said(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _object(value: object) -> Payload:
    return value if isinstance(value, Mapping) else {}
