"""Tells the service short stories of runs: a word a run, an hour between two, the last one an hour ago."""

from datetime import datetime, timedelta
from typing import Any

from headway.core import clock
from tests.api import Api
from tests.health.reference import stamp

Json = dict[str, Any]

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOW = clock.now().replace(second=0, microsecond=0)  # one for all, so that no test straddles two minutes


def ago(hours: float) -> datetime:
    """Return the time so many hours before the tests began."""
    return NOW - HOUR * hours


def observation(pipeline: Json, external_run_id: str, status: str, started_at: datetime, **more: Any) -> Json:
    """Return what is told of a run that took ten minutes, where it has ended."""
    told = {"pipeline_id": pipeline["id"], "external_run_id": external_run_id, "status": status}
    if status == "queued":
        return told | {"observed_at": stamp(started_at)} | more
    if status == "running":
        return told | {"started_at": stamp(started_at)} | more
    error = {"error_message": f"{external_run_id} {status}"} if status == "failed" else {}
    return told | {"started_at": stamp(started_at), "finished_at": stamp(started_at + 10 * MINUTE)} | error | more


async def tell(api: Api, pipeline: Json, words: str, *, last: float = 1) -> None:
    """Tell of one run a word; the last one started ``last`` hours ago. Runs are called r0, r1, …"""
    statuses = words.split()
    started = [ago(last + len(statuses) - 1 - n) for n in range(len(statuses))]
    result = await api.report(
        *(observation(pipeline, f"r{n}", s, at) for n, (s, at) in enumerate(zip(statuses, started, strict=True)))
    )
    assert result["inserted"] == len(statuses), result


async def run_id(api: Api, pipeline: Json, external_run_id: str) -> str:
    """Return our id of a run."""
    response = await api.get(f"/pipelines/{pipeline['id']}/runs", params={"external_run_id": external_run_id})
    (run,) = response.json()["items"]
    return str(run["id"])


async def items(api: Api, path: str, **parameters: Any) -> list[Json]:
    """Return the items of a list's first page."""
    response = await api.get(path, params=parameters)
    assert response.status_code == 200, response.text
    found: list[Json] = response.json()["items"]
    return found
