"""Nothing acknowledged is ever lost: kill -9 in the middle of ingestion, a dead database, a clean stop."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import requests

from tests.acceptance.conftest import Service

pytestmark = pytest.mark.acceptance

WRITERS = 4


class Writer(threading.Thread):
    """Reports runs without pause and remembers which were acknowledged."""

    def __init__(self, url: str, number: int, pipeline_id: str) -> None:
        super().__init__(daemon=True)
        self.url, self.number, self.pipeline_id = url, number, pipeline_id
        self.acknowledged: set[str] = set()
        self.sent: list[dict[str, Any]] = []
        self.answers: set[int] = set()
        self.stopping = threading.Event()

    def run(self) -> None:
        session = requests.Session()
        count = 0
        while not self.stopping.is_set():
            count += 1
            names = [f"w{self.number}-{count}-{i}" for i in range(1 if self.number % 2 else 50)]
            runs = [{"external_run_id": n, "status": "success", "finished_at": "2026-11-01T06:00:00Z"} for n in names]
            self.sent += runs
            try:
                if len(names) == 1:
                    path = f"/pipelines/{self.pipeline_id}/runs"
                    answer = session.post(f"{self.url}/api/v1{path}", json=runs[0], timeout=30)
                else:
                    batch = {"runs": [{"pipeline_id": self.pipeline_id, **run} for run in runs]}
                    answer = session.post(f"{self.url}/api/v1/runs/batch", json=batch, timeout=30)
            except requests.RequestException:
                time.sleep(0.01)
                continue
            self.answers.add(answer.status_code)
            if answer.status_code in (200, 201):
                self.acknowledged.update(names)


def _pipeline(service: Service) -> str:
    base = f"{service.url}/api/v1"
    requests.post(f"{base}/clients", json={"name": "Acme", "slug": "acme"}, timeout=10)
    body = {"name": "daily", "platform": "cron"}
    made = requests.put(f"{base}/clients/acme/pipelines/daily", json=body, timeout=10)
    return str(made.json()["id"])


def _stored(service: Service) -> list[str]:
    url = service.command("db", "url").stdout.strip()
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT external_run_id FROM runs")]


def _write_for(service: Service, seconds: float, then: Callable[[], object]) -> list[Writer]:
    pipeline_id = _pipeline(service)
    writers = [Writer(service.url, number, pipeline_id) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    time.sleep(seconds)
    then()
    for writer in writers:
        writer.stopping.set()
    for writer in writers:
        writer.join(60)
    return writers


def test_kill_of_every_process_loses_no_acknowledged_run_and_a_replay_makes_no_duplicate(
    make_service: Callable[..., Service],
) -> None:
    service = make_service().start()
    for _ in range(3):
        writers = _write_for(service, 1.5, service.kill_everything)
        acknowledged = set().union(*(writer.acknowledged for writer in writers))
        assert acknowledged, "nothing was acknowledged before the kill: the test shows nothing"
        service.start()
        stored = _stored(service)
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored)
        # whatever its fate was, sending all of it again gives each run once
        pipeline_id = _pipeline(service)
        everything = [{"pipeline_id": pipeline_id, **run} for writer in writers for run in writer.sent]
        for start in range(0, len(everything), 5000):
            batch = {"runs": everything[start : start + 5000]}
            answer = requests.post(f"{service.url}/api/v1/runs/batch", json=batch, timeout=60)
            assert answer.json()["rejected"] == 0
        after = _stored(service)
        assert len(after) == len(set(after))
        assert set(after) >= {run["external_run_id"] for run in everything}
        before = len(after)
        again = requests.post(f"{service.url}/api/v1/runs/batch", json={"runs": everything[:5000]}, timeout=60).json()
        assert again["unchanged"] == again["received"]
        assert len(_stored(service)) == before


def test_clean_stop_in_the_middle_of_ingestion_answers_what_it_took(make_service: Callable[..., Service]) -> None:
    service = make_service().start()
    codes: list[int] = []
    writers = _write_for(service, 1.5, lambda: codes.append(service.stop(signal.SIGINT)))
    assert codes == [0]
    acknowledged = set().union(*(writer.acknowledged for writer in writers))
    assert acknowledged
    assert 500 not in set().union(*(writer.answers for writer in writers))
    service.start()
    assert acknowledged <= set(_stored(service))


def test_dead_database_is_503_with_retry_after_and_the_service_ends_with_it(
    make_service: Callable[..., Service],
) -> None:
    """``headway up`` owns its database: when that dies, all of it stops, and the next start recovers."""
    service = make_service().start()
    pipeline_id = _pipeline(service)
    postmaster = int((next(service.directory.glob("postgres-*")) / "postmaster.pid").read_text().split()[0])
    writer = Writer(service.url, 1, pipeline_id)
    writer.start()
    time.sleep(1)
    import os

    os.kill(postmaster, signal.SIGKILL)
    time.sleep(2)
    writer.stopping.set()
    writer.join(60)
    assert writer.answers <= {200, 201, 503}
    assert service.stop() == 1
    service.start()
    assert writer.acknowledged <= set(_stored(service))


def test_second_up_on_the_same_data_is_refused(service: Service) -> None:
    second = service.command("up", "--port", "0")
    assert second.returncode == 1
    assert "is in use by process" in second.stderr
    assert str(service.pid) in second.stderr


def test_backup_comes_back_after_the_data_is_gone(make_service: Callable[..., Service]) -> None:
    first, second = make_service().start(), make_service().start()
    pipeline_id = _pipeline(first)
    run = {"external_run_id": "kept", "status": "success", "finished_at": "2026-11-01T06:00:00Z"}
    assert requests.post(f"{first.url}/api/v1/pipelines/{pipeline_id}/runs", json=run, timeout=10).status_code == 201
    file = first.directory.parent / "backup.dump"
    assert first.command("backup", str(file)).returncode == 0
    restored = second.command("restore", str(file))
    assert restored.returncode == 0, restored.stderr
    assert second.get(f"/pipelines/{pipeline_id}/runs/latest")["external_run_id"] == "kept"
    refused = second.command("restore", str(file))
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
