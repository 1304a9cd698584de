"""How an Airflow is asked: login, filters, paging, and the failed tasks of failed runs.

Every list goes by the id of the row, which never changes: while runs change state between two pages, none moves past
the reader. Rules not to break: times in filters carry ``Z`` (a naive one is answered with 500), and by schedule or
logical date nothing is filtered: backfills, catch-up and cleared runs carry old ones
(``tests/connectors/airflow/test_api.py``, ``tests/acceptance/platforms/test_airflow.py``).
"""

import ipaddress
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from headway.connectors.airflow import mapping
from headway.connectors.airflow.mapping import AirflowSource
from headway.connectors.airflow.tasks import FailedTasks
from headway.connectors.contract import Check, HeldRun, Page, Payload, Report
from headway.connectors.errors import SourceError
from headway.connectors.http import Headers, Http, authorization
from headway.core import reading
from headway.core.validation import format_time

PAGE_RUNS = 100  # [api] maximum_page_limit, where nobody has changed it
OVERLAP_RUNS = 10
STEPS_BACK = 5
REREAD_RUNS = 50
NAMES, DAGS_READ = 1_000, 10_000
LIVE = ("queued", "running")


class AirflowApi:
    """One Airflow, read over its REST API: /api/v2 of 3.x, /api/v1 of 2.x."""

    is_windowed: ClassVar[bool] = True

    def __init__(self, source: AirflowSource, stop: threading.Event) -> None:
        self._source = source
        self._version: str | None = None if source.api == "auto" else source.api
        self._has_updated_at = True
        self.http = Http(source, stop=stop, authorize=self._authorize, renews_on=frozenset({401, 403}))
        self._tasks = FailedTasks(self.http)

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield the live runs, then what changed: a run that ends between the two walks is in the second."""
        self._tasks.begin()
        yield from self._with_tasks(self._walk({"state": list(LIVE)}))
        yield from self._with_tasks(self._since(since))

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield the runs that ended in the window: each ended run has an end, even one that never started.

        Live ones come with the window that reaches up to now (3.x) or with ``changed``.
        """
        filters = {"end_date_gte": format_time(since), "end_date_lte": format_time(until)}
        yield from self._walk(filters, position or "")

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs by their ids; those of a DAG that we may not read any more are neither told nor gone."""
        self._tasks.begin()
        is_let_in = False
        for start in range(0, len(held), REREAD_RUNS):
            runs: list[Payload] = []
            gone: list[HeldRun] = []
            for run in held[start : start + REREAD_RUNS]:
                dag_id = run.pipeline_external_id.removeprefix(self._source.external_id(""))
                try:
                    answer = self.http.get(self._run_path(dag_id, run.external_run_id), missing_ok=True)
                except SourceError as error:
                    if error.code != "forbidden":
                        raise
                    is_let_in = is_let_in or bool(self._first())  # raises where nothing may be read
                    continue
                if answer.status in {404, 410}:
                    gone.append(run)
                else:
                    runs.append(_object(answer.data))
            yield from self._with_tasks(iter([Page(runs, gone=gone)]))

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a run says: ``mapping.report``."""
        return mapping.report(payload, source=self._source, now=now)

    def check(self) -> Check:
        """Ask for the version, the DAGs and one run."""
        version = reading.text_at(_object(self.http.get(f"{self._api()}/version").data), "version")
        if version is None:
            raise SourceError("bad_answer", "Airflow does not tell its version; check url")
        names: list[str] = []
        offset, total = 0, 1
        while offset < min(total, DAGS_READ) and len(names) < NAMES:
            params = {"limit": PAGE_RUNS, "offset": offset, "order_by": "dag_id"}
            data = _object(self.http.get(f"{self._api()}/dags", params).data)
            dag_ids = [reading.text_at(dag, "dag_id") for dag in _list(data, "dags")]
            names += [name for name in dag_ids if name is not None and self._source.takes_dag(name)]
            total = reading.count_at(data, "total_entries") or 0 if dag_ids else 0
            offset += len(dag_ids)
        return Check(f"Airflow {version[:100]}", names[:NAMES], self._notes(self._first()))

    def _first(self) -> Mapping[str, Any]:
        """Return a first page of runs, which proves that we may read them."""
        data = _object(self.http.get(self._list_path(), self._page_params({}, "") | {"limit": 1}).data)
        _list(data, "dag_runs")
        return data

    def _notes(self, first: Mapping[str, Any]) -> list[str]:
        notes = []
        parts = urlsplit(self._source.url)
        has_credentials = bool(self._source.username or self._source.token_env or self._source.token_file)
        if parts.scheme == "http" and has_credentials and not _is_loopback(parts.hostname or ""):
            notes.append("the credentials travel over plain http: use https, or a tunnel")
        if self._version == "v1":
            notes.append("Airflow 2: runs that wait to start have no time of their own in its API")
        elif "next_cursor" not in first:
            notes.append("this Airflow pages by offset only; 3.3 and later page by cursor, which is cheaper and exact")
        return notes

    def _authorize(self) -> Headers:
        """Return the header for our credentials; 3.x gives a token for a user name and a password (24 hours)."""
        if self._source.username is None or self._find_version() == "v1":
            return authorization(self._source)
        document = {"username": self._source.username, "password": self._source.password() or ""}
        try:
            answer = self.http.post(self._source.token_path, document, authorized=False)
        except SourceError as error:
            if error.code != "refused":
                raise
            # What it says to that may repeat the password.
            detail = f"POST {self._source.token_path}: refuses the form of the login; check url and token_path"
            raise SourceError("refused", detail) from None
        token = reading.text_at(answer.data, "access_token")
        if token is None or not token.isascii() or not token.isprintable():
            raise SourceError("bad_answer", f"POST {self._source.token_path}: gives no access_token")
        return {"Authorization": f"Bearer {token}"}

    def _find_version(self) -> str:
        """Return the version of the API: 2.x does not know v2, and the question needs no login where we have none yet."""
        if self._version is None:
            has_token = self._source.username is None
            for version in ("v2", "v1"):
                path = f"/api/{version}/version"
                answer = self.http.request("GET", path, missing_ok=True, authorized=has_token)
                if answer.status not in {404, 410}:
                    self._version = version
                    return version
            raise SourceError("not_found", "there is neither /api/v2 nor /api/v1 of an Airflow below url; check url")
        return self._version

    def _api(self) -> str:
        return f"/api/{self._find_version()}"

    def _list_path(self) -> str:
        return f"{self._api()}/dags/~/dagRuns"

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"{self._api()}/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"

    def _since(self, since: datetime) -> Iterator[Page]:
        """Yield what changed since; where the server has no such filter (an early 2.x), what ended since."""
        if self._has_updated_at:
            try:
                yield from self._walk({"updated_at_gte": format_time(since)})
            except SourceError as error:
                if self._version == "v2" or error.code != "refused":
                    raise
                self._has_updated_at = False
            else:
                return
        yield from self._walk({"end_date_gte": format_time(since)})

    def _page_params(self, filters: Mapping[str, Any], cursor: str) -> dict[str, Any]:
        params = {**filters, "limit": PAGE_RUNS, "order_by": "id"}
        # 2.x refuses parameters that it does not know; 3.0 to 3.2 pass over this one, and answer without a cursor.
        return params if self._find_version() == "v1" else {**params, "cursor": cursor}

    def _walk(self, filters: Mapping[str, Any], cursor: str = "") -> Iterator[Page]:
        """Yield all runs of a query; ``cursor`` is where an earlier walk of the same query stood."""
        while True:
            data = self._ask(filters, cursor)
            runs, total, following = _list(data, "dag_runs"), _total(data), reading.text_at(data, "next_cursor")
            # 3.3 answers by offset, too, where a proxy on the way has dropped the empty parameter.
            is_cut = not cursor and following is None and (total or 0) > len(runs)
            if "next_cursor" not in data or is_cut:
                yield from self._walk_by_offset(filters, data)
                return
            yield Page(runs, following, total)
            if following is None and data["next_cursor"] in (None, ""):
                return
            if following is None or following == cursor:
                raise SourceError("bad_answer", "Airflow gives no cursor to go on with, or the same again")
            cursor = following

    def _ask(self, filters: Mapping[str, Any], cursor: str) -> Mapping[str, Any]:
        try:
            return _object(self.http.get(self._list_path(), self._page_params(filters, cursor)).data)
        except SourceError as error:
            if not cursor or error.code != "refused":
                raise
        # A cursor of before an upgrade (400 "Invalid cursor token"): the walk begins anew.
        return _object(self.http.get(self._list_path(), self._page_params(filters, "")).data)

    def _walk_by_offset(self, filters: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Page]:
        """Yield all runs of a query by offset, from its first page on, so that none is missed.

        In the order of ids a run that enters the query shifts later ones to the right: they come twice. One that
        leaves it shifts them to the left, where the next page would begin too late: so pages overlap, and where none
        of the overlap is seen again, more have left than it holds, and the reader steps back a page. There is no
        position: offsets mean nothing after a pause.
        """
        offset, steps_back = 0, 0
        tail: set[tuple[str | None, str | None]] = set()
        while True:
            runs = _list(data, "dag_runs")
            keys = [_key(run) for run in runs]
            if tail and tail.isdisjoint(keys) and steps_back < STEPS_BACK and offset > 0:
                steps_back += 1
                offset = max(0, offset - PAGE_RUNS)
            else:
                yield Page(runs, None, total := _total(data))
                if not runs or (len(runs) <= OVERLAP_RUNS if total is None else offset + len(runs) >= total):
                    return
                # A server may cap its pages below what we ask for, and no page may be all overlap.
                fresh = len(runs) - min(OVERLAP_RUNS, len(runs) // 2)
                steps_back, tail = 0, set(keys[fresh:])
                offset += fresh
            params = self._page_params(filters, "")
            params.pop("cursor", None)
            data = _object(self.http.get(self._list_path(), {**params, "offset": offset}).data)

    def _with_tasks(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Yield pages in which the failed runs that we take name their failed tasks."""
        for page in pages:
            yield page._replace(runs=[self._named(run) for run in page.runs])

    def _named(self, run: Payload) -> Payload:
        dag_id, run_id = _key(run)
        if run.get("state") != "failed" or not dag_id or not run_id or not self._source.takes_dag(dag_id):
            return run
        end = str(run.get("end_date"))
        tasks = self._tasks.of(f"{self._run_path(dag_id, run_id)}/taskInstances", end)
        return {**run, mapping.FAILED_TASKS: tasks} if tasks else run


def _object(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise SourceError("bad_answer", "Airflow answers with something else than an object; check url")
    return data


def _list(data: Mapping[str, Any], key: str) -> list[Payload]:
    found = data.get(key)
    if not isinstance(found, list):
        raise SourceError("bad_answer", f"Airflow answers without a list of {key}; check url")
    return [item if isinstance(item, Mapping) else {} for item in found]  # an odd run is counted by whoever reads it


def _key(run: Payload) -> tuple[str | None, str | None]:
    return reading.text_at(run, "dag_id"), reading.text_at(run, "dag_run_id")


def _total(data: Mapping[str, Any]) -> int | None:
    """Return how many runs a query has; with a cursor the server counts up to a limit."""
    total, limit = reading.count_at(data, "total_entries"), reading.count_at(data, "total_entries_limit")
    return None if total is None or (limit is not None and total >= limit) else total


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
