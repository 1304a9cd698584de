"""How each platform of the demo speaks of a run: its identity, its page, its words, and whether it tells of starts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from headway.runs.observation import Status

_WORDS = ("pending", "running", "success", "failed", "canceled", "skipped")


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform. ``page`` and ``run_page`` take client, job and run."""

    source: str
    run_id: Callable[[str, datetime], str]  # of a job and its slot, so that a later load names the same run
    page: str
    run_page: str
    words: tuple[str, ...] = _WORDS  # in the order of Status
    tells_starts: bool = True
    tells_queue: bool = False

    def word(self, status: Status) -> str:
        """Return what the platform calls a status."""
        return self.words[_PLACE[status]]


_PLACE = {status: place for place, status in enumerate(Status)}


def _scheduled(_job: str, at: datetime) -> str:
    return f"scheduled__{at.isoformat()}"


def _uuid(job: str, at: datetime) -> str:
    return str(uuid5(NAMESPACE_URL, f"https://example.com/{job}/{at.isoformat()}"))


def _number(_job: str, at: datetime) -> str:
    return str(int(at.timestamp()) // 60 * 7)


def _sync(_job: str, at: datetime) -> str:
    return f"sync-{at:%Y%m%dT%H%M}Z"


PLATFORMS = {
    "airflow": Platform(
        "openlineage",
        _scheduled,
        "https://airflow.{client}.example.com/dags/{job}",
        "https://airflow.{client}.example.com/dags/{job}/runs/{run}",
        ("queued", "running", "success", "failed", "failed", "skipped"),
    ),
    "dbt": Platform(
        "dbt-cloud",
        _number,
        "https://dbt.{client}.example.com/deploy/1042/projects/7/jobs/{job}",
        "https://dbt.{client}.example.com/deploy/1042/projects/7/runs/{run}",
        ("Queued", "Running", "Success", "Error", "Cancelled", "Skipped"),
    ),
    "prefect": Platform(
        "prefect-cloud",
        _uuid,
        "https://prefect.{client}.example.com/deployments/{job}",
        "https://prefect.{client}.example.com/runs/flow-run/{run}",
        ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"),
    ),
    "dagster": Platform(
        "dagster",
        _uuid,
        "https://dagster.{client}.example.com/jobs/{job}",
        "https://dagster.{client}.example.com/runs/{run}",
        ("QUEUED", "STARTED", "SUCCESS", "FAILURE", "CANCELED", "SKIPPED"),
    ),
    "github_actions": Platform(
        "github",
        _number,
        "https://github.example.com/{client}/pipelines/actions/workflows/{job}.yml",
        "https://github.example.com/{client}/pipelines/actions/runs/{run}",
        ("queued", "in_progress", "success", "failure", "cancelled", "skipped"),
        tells_queue=True,
    ),
    "gitlab_ci": Platform(
        "gitlab",
        _number,
        "https://gitlab.example.com/{client}/{job}/-/pipelines",
        "https://gitlab.example.com/{client}/{job}/-/pipelines/{run}",
        tells_queue=True,
    ),
    "cron": Platform(
        "ping",
        _uuid,
        "https://logs.{client}.example.com/cron/{job}",
        "https://logs.{client}.example.com/cron/{job}/{run}",
        ("queued", "start", "exit 0", "exit 1", "exit 143", "exit 75"),
        tells_starts=False,
    ),
    "custom": Platform(
        "batch",
        _sync,
        "https://sync.{client}.example.com/connectors/{job}",
        "https://sync.{client}.example.com/connectors/{job}/history/{run}",
        ("scheduled", "syncing", "completed", "error", "stopped", "paused"),
    ),
}
