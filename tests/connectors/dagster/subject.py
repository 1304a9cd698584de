"""A Dagster to test against: the GraphQL endpoint of a webserver, as far as the connector asks it.

It looks at the variables of a request and at what its query names; it is no engine of GraphQL. What it does was seen on
Dagster 1.13.27 (``tests/acceptance/platforms/test_dagster.py``): pages go by row, newest first; an unknown cursor gives
an empty page; filters by time are strict; an unknown word of a status is answered with 500.
"""

import json
import operator
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from headway.connectors.contract import Payload
from headway.connectors.dagster import DagsterSource
from headway.runs.observation import Status
from tests.connectors.platform import Asked, Reply
from tests.connectors.subject import FakeRuns

DATA = Path(__file__).parents[2] / "data" / "dagster"
TOKEN, TOKEN_ENV = "user:static-token-of-dagster", "HEADWAY_TEST_DAGSTER_TOKEN"
LOCATION = "shop.py"
# DagsterRunStatus, of Dagster 1.13
WORDS: Mapping[str, Status] = {
    "QUEUED": Status.QUEUED,
    "NOT_STARTED": Status.QUEUED,
    "MANAGED": Status.RUNNING,
    "STARTING": Status.RUNNING,
    "STARTED": Status.RUNNING,
    "SUSPENDED": Status.RUNNING,
    "CANCELING": Status.RUNNING,
    "SUCCESS": Status.SUCCESS,
    "FAILURE": Status.FAILED,
    "CANCELED": Status.CANCELED,
}
RUN_FIELDS = (
    *("runId", "jobName", "repositoryOrigin", "status", "tags", "rootRunId", "parentRunId", "runConfigYaml"),
    *("creationTime", "startTime", "endTime", "updateTime", "assetMaterializations", "eventConnection"),
)
BOUNDS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "updatedAfter": ("updateTime", operator.gt),
    "createdAfter": ("creationTime", operator.gt),
    "createdBefore": ("creationTime", operator.lt),
}


class DagsterRuns(FakeRuns):
    """Keeps runs in the order of their creation. ``token`` is what it wants to see, as Dagster+ does."""

    def __init__(self, *, token: str | None = None, fields: Sequence[str] = RUN_FIELDS, page_limit: int = 1000) -> None:
        super().__init__()
        self.token = token
        self.fields = fields
        self.words = list(WORDS)
        self.page_limit = page_limit
        self.rows: dict[str, dict[str, Any]] = {}
        #: Failure events of a run, each after so many other events of its log.
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.materializations: dict[str, list[dict[str, Any]]] = {}

    def add(
        self,
        *,
        pipeline: str,
        word: str,
        created_at: datetime,
        started_at: datetime | None,
        finished_at: datetime | None,
        updated_at: datetime,
    ) -> str:
        run = str(uuid.uuid4())
        origin = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
        self.rows[run] = {
            "runId": run,
            "jobName": pipeline,
            "creationTime": created_at.timestamp(),
            "parentRunId": None,
            "rootRunId": None,
            "repositoryOrigin": origin,
            "tags": [{"key": "dagster/code_location", "value": LOCATION}],
            "runConfigYaml": "ops: {load: {config: {password: of-the-warehouse}}}",
        }
        self.change(run, word=word, started_at=started_at, finished_at=finished_at, updated_at=updated_at)
        return run

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        self.rows[run] |= {
            "status": word,
            "startTime": started_at and started_at.timestamp(),
            "endTime": finished_at and finished_at.timestamp(),
            "updateTime": updated_at.timestamp(),
        }
        if word == "FAILURE":
            cause = {"message": f"ValueError: {run} broke\n", "cause": None}
            step = {"message": "DagsterExecutionStepExecutionError: Error occurred\n", "cause": cause}
            self.logs.setdefault(
                run,
                [
                    {"__typename": "ExecutionStepFailureEvent", "stepKey": "write", "error": step},
                    {"__typename": "RunFailureEvent", "message": "Execution of run failed.", "error": step},
                ],
            )

    def delete(self, run: str) -> None:
        del self.rows[run]

    def is_listing(self, asked: Asked) -> bool:
        return bool(asked.json["query"].startswith("query Runs"))

    def answer(self, asked: Asked) -> Reply:
        if (asked.method, asked.path) != ("POST", "/graphql"):
            return Reply(404, body=b"<html>not found</html>", headers={"Content-Type": "text/html"})
        if self.token is not None and asked.headers.get("Dagster-Cloud-Api-Token") != self.token:
            return Reply(401, {"error": "Unauthorized"})
        query = asked.json["query"]
        unknown = [field for field in RUN_FIELDS if field not in self.fields and re.search(rf"\b{field}\b", query)]
        if unknown:
            return Reply(400, {"errors": [{"message": f"Cannot query field '{unknown[0]}' on type 'Run'."}]})
        return next(answer for part, answer in self._answers.items() if part in query)(asked.json["variables"])

    @property
    def _answers(self) -> Mapping[str, Callable[[Mapping[str, Any]], Reply]]:
        """What is answered to a query that has these words; the first that fits."""
        return {
            "__type(": self._schema,
            "version": self._about,
            "runOrError": lambda ids: _data(**{name: self._one(run) for name, run in ids.items()}),
            "eventConnection": self._logs,
            "assetMaterializations": self._made,
            "runsOrError": self._list,
        }

    def _schema(self, _: Mapping[str, Any]) -> Reply:
        enum = {"enumValues": [{"name": word} for word in self.words]}
        return _data(run={"fields": [{"name": name} for name in self.fields]}, status=enum)

    def _made(self, variables: Mapping[str, Any]) -> Reply:
        rows = self._named(variables["ids"])
        made = {row["runId"]: self.materializations.get(row["runId"], []) for row in rows}
        return _results([{"runId": run, "assetMaterializations": events} for run, events in made.items()])

    def _logs(self, variables: Mapping[str, Any]) -> Reply:
        return _results([self._log(row, variables) for row in self._named(variables["ids"])])

    def _named(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        return [row for run, row in self.rows.items() if run in ids]

    def _one(self, run: str) -> dict[str, Any]:
        row = self.rows.get(run)
        if row is None:
            return {"__typename": "RunNotFoundError"}
        return {"__typename": "Run", **self._shown(row)}

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if key in self.fields and key != "runConfigYaml"}

    def _list(self, variables: Mapping[str, Any]) -> Reply:
        wanted = variables["filter"]
        for word in wanted.get("statuses", []):
            if word not in self.words:
                message = f"Variable '$filter' got invalid value '{word}' at 'filter.statuses[0]'"
                return Reply(500, {"data": None, "errors": [{"message": message}]})
        # the rows of a database have their ids in the order of creation
        ordered = sorted(self.rows.values(), key=lambda row: row["creationTime"])
        rows = [row for row in reversed(ordered) if _fits(row, wanted)]
        page = rows
        if variables["cursor"] is not None:
            places = {row["runId"]: place for place, row in enumerate(ordered)}
            before = places.get(variables["cursor"], -1)
            page = [row for row in rows if places[row["runId"]] < before]
        page = page[: min(variables["limit"], self.page_limit)]
        return _results([self._shown(row) for row in page], len(rows))

    def _log(self, row: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        events = self.logs.get(row["runId"], [])
        start = int(variables["after"] or 0)
        end = start + min(variables["limit"], self.page_limit)
        log = {"cursor": str(end), "hasMore": end < len(events), "events": events[start:end]}
        return {"runId": row["runId"], "eventConnection": log}

    def _about(self, _: Mapping[str, Any]) -> Reply:
        jobs = [{"name": name} for name in sorted({row["jobName"] for row in self.rows.values()})]
        node = {"name": "__repository__", "location": {"name": LOCATION}, "jobs": jobs}
        entry = {"name": LOCATION, "locationOrLoadError": {"__typename": "RepositoryLocation"}}
        broken = {"__typename": "PythonError", "message": "ModuleNotFoundError: No module named 'shop'\n"}
        entries = [entry, {"name": "broken", "locationOrLoadError": broken}]
        return _data(
            version="1.13.27",
            repositoriesOrError={"__typename": "RepositoryConnection", "nodes": [node]},
            workspaceOrError={"__typename": "Workspace", "locationEntries": entries},
        )


def _data(**data: Any) -> Reply:
    return Reply(document={"data": data})


def _results(rows: Sequence[Mapping[str, Any]], count: int = 0) -> Reply:
    return _data(runsOrError={"__typename": "Runs", "count": count, "results": rows})


def _fits(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if wanted.get("statuses") and row["status"] not in wanted["statuses"]:
        return False
    if wanted.get("runIds") and row["runId"] not in wanted["runIds"]:
        return False
    return all(passes(row[field], wanted[name]) for name, (field, passes) in BOUNDS.items() if name in wanted)


def recordings() -> dict[str, dict[str, Any]]:
    """Return the runs that were recorded, as the connector gives them to the mapping, by what they show."""
    lines = (json.loads(line) for line in (DATA / "runs.ndjson").read_text().splitlines())
    return {line["name"]: line["run"] for line in lines}


class DagsterSubject:
    """The connector of Dagster; the platform asks for a token, as Dagster+ does."""

    platform = "dagster"
    words = WORDS
    success, failed, running, queued = "SUCCESS", "FAILURE", "STARTED", "QUEUED"
    follows_links = False
    #: A run that has ended stays so: a re-execution is a run of its own.
    reopens = False

    def serve(self) -> FakeRuns:
        return DagsterRuns(token=TOKEN)

    def source(self, url: str, **more: Any) -> DagsterSource:
        os.environ[TOKEN_ENV] = TOKEN
        values = {"name": "shop", "platform": "dagster", "client": "acme", "url": url, "token_env": TOKEN_ENV}
        return DagsterSource.model_validate({**values, **more})

    def hostile_link(self, url: str) -> Mapping[str, str]:  # noqa: ARG002 - of the protocol
        return {}

    def recorded(self) -> Sequence[Payload]:
        return list(recordings().values())
