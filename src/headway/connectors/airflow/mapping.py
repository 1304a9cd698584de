"""What Airflow says of a DAG run, and how an Airflow is configured as a source.

Pure: ``api.py`` fetches the payloads, ``report`` reads them. Rule not to break: a pulled run and one that OpenLineage
pushes are one run, so the pipeline is ``namespace/dag_id`` and the run goes by its ``dag_run_id``; a clear runs it
again under the same id without a counter, so its attempt is left open and the writer numbers it
(``tests/connectors/airflow/test_mapping.py``).
"""

from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field

from headway.connectors.config import Source
from headway.connectors.contract import (
    Payload,
    Report,
    identity,
    latest_fact,
    latest_plan,
    pipeline_ref,
    status_of,
)
from headway.core import reading, validation
from headway.runs.observation import OPEN_ATTEMPT, TERMINAL, Status, observe

# The ids of a failed run's failed tasks: ``api.py`` adds them, Airflow's answer about a run has no such field.
FAILED_TASKS = "headway_failed_tasks"
TEXT_CHARS = 512
TASKS_NAMED = 20
EVER = datetime.max.replace(tzinfo=UTC)

# airflow.utils.state.DagRunState, of 2.x and 3.x alike.
WORDS = {
    "queued": Status.QUEUED,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failed": Status.FAILED,
}


class AirflowSource(Source):
    """An Airflow: its API server (3.x) or webserver (2.x)."""

    platform: Literal["airflow"]
    namespace: str = Field("default", min_length=1, max_length=200, description="namespace of its OpenLineage jobs")
    api: Literal["auto", "v1", "v2"] = Field("auto", description="version of the REST API; 2.x has v1, 3.x has v2")
    token_path: str = Field(
        "/auth/token", pattern=r"^/[^/\s?#]\S*$", description="where 3.x gives a token for a user name and a password"
    )

    def external_id(self, dag_id: str) -> str:
        """Return by what the pipeline of a DAG is known, here and in what OpenLineage pushes."""
        return f"{self.namespace}/{dag_id}"

    def takes_dag(self, dag_id: str) -> bool:
        """Tell whether the runs of a DAG are to be imported."""
        return self.takes(dag_id, self.external_id(dag_id))


def report(payload: Payload, *, source: AirflowSource, now: datetime) -> Report | None:
    """Return what a DAG run of the API says; None for one that is left out or planned for later than ``now``.

    Raises:
        OddPayloadError: it lacks its id or that of its DAG.
    """
    dag_id, run_id = identity(payload, "dag_id"), identity(payload, "dag_run_id")
    if not source.takes_dag(dag_id):
        return None
    fact, plan = latest_fact(now), latest_plan(now)
    started_at = reading.time_at(payload, "start_date", latest=fact)
    finished_at = reading.time_at(payload, "end_date", latest=fact)
    word = reading.text_at(payload, "state")
    status, is_unknown = status_of(word, WORDS, has_ended=finished_at is not None)
    scheduled_for = _scheduled_for(payload)
    if status is Status.QUEUED and scheduled_for is not None and scheduled_for > now:
        return None
    observed_at = reading.time_at(payload, "queued_at", latest=fact) if status is Status.QUEUED else None
    tasks = _failed_tasks(payload) if status is Status.FAILED else []
    observation = observe(
        pipeline=pipeline_ref(
            client=source.client,
            platform="airflow",
            name=dag_id,
            external_id=source.external_id(dag_id),
            environment=source.environment,
        ),
        external_run_id=run_id,
        status=status,
        source=source.name,
        attempt=OPEN_ATTEMPT,
        observed_at=observed_at or (finished_at if status in TERMINAL else started_at),
        scheduled_for=scheduled_for if scheduled_for is not None and scheduled_for <= plan else None,
        started_at=started_at,
        finished_at=finished_at,
        error_message=_error(tasks),
        status_reason=word,
        url=_url(payload, source.url, dag_id, run_id),
        payload=_payload(payload, tasks, plan),
    )
    return Report(observation, is_unknown)


def _scheduled_for(payload: Payload) -> datetime | None:
    """Return when the run was to start: ``run_after`` of 3.x; 2.x knows only the date that it works for."""
    times = (reading.time_at(payload, key, latest=EVER) for key in ("run_after", "logical_date", "execution_date"))
    return next((time for time in times if time is not None), None)


def _failed_tasks(payload: Payload) -> list[str]:
    found = reading.at(payload, FAILED_TASKS)
    if not isinstance(found, list):
        return []
    return [reading.mended(name)[:TEXT_CHARS] for name in found if isinstance(name, str)]


def _error(tasks: list[str]) -> str | None:
    """Return a text for people: Airflow has none on a run, the traceback is in the log of the task."""
    if not tasks:
        return None
    more = f" and {len(tasks) - TASKS_NAMED} more" if len(tasks) > TASKS_NAMED else ""
    return f"failed tasks: {', '.join(tasks[:TASKS_NAMED])}{more}"


def _url(payload: Payload, base: str, dag_id: str, run_id: str) -> str | None:
    """Return the run's page in Airflow's UI; a run of 2.x is known by its execution_date."""
    dag, run = quote(dag_id, safe=""), quote(run_id, safe="")
    path = f"/dags/{dag}/grid?dag_run_id={run}" if "execution_date" in payload else f"/dags/{dag}/runs/{run}"
    return reading.url_at({"url": base + path}, "url")


def _payload(payload: Payload, tasks: list[str], latest: datetime) -> dict[str, Any]:
    """Return what a reader wants to know of the run besides: no ``conf``, whose values may be secrets."""
    times = {key: reading.time_at(payload, key, latest=latest) for key in ("logical_date", "execution_date")}
    interval = {
        key: reading.time_at(payload, key, latest=latest) for key in ("data_interval_start", "data_interval_end")
    }
    versions = [reading.count_at(version, "version_number") for version in reading.objects_at(payload, "dag_versions")]
    members = {
        **{key: (reading.text_at(payload, key) or "")[:TEXT_CHARS] for key in ("run_type", "triggered_by", "note")},
        **{key: validation.format_time(time) for key, time in (times | interval).items() if time is not None},
        "dag_version": max((number for number in versions if number is not None), default=None),
        "failed_tasks": tasks[:TASKS_NAMED],
    }
    return {key: value for key, value in members.items() if value}
