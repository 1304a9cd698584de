"""Reading a source survives kill -9 at any moment: nothing is lost, nothing is there twice, and it goes on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from headway.core import clock
from tests.acceptance.conftest import Service
from tests.connectors.airflow.subject import TOKEN, AirflowRuns

pytestmark = pytest.mark.acceptance

RUNS = 3000
DEADLINE_SECONDS = 120.0
CONFIG = """
[sources.shop]
platform = "airflow"
client = "acme"
url = "{url}"
token_env = "SHOP_AIRFLOW_TOKEN"
interval = "5s"
since = "700d"
"""


@pytest.fixture(scope="module")
def airflow() -> Iterator[AirflowRuns]:
    """Serve an Airflow with two years of runs, slow enough to be killed in the middle."""
    with AirflowRuns() as served:
        for number in range(RUNS):
            start = clock.now() - timedelta(days=699) * ((number + 1) / RUNS)
            end = start + timedelta(minutes=3)
            with served.lock:
                served.add(
                    pipeline=f"dag-{number % 7}",
                    word="failed" if number % 11 == 0 else "success",
                    created_at=start,
                    started_at=start,
                    finished_at=end,
                    updated_at=end,
                )
        served.between = lambda _asked: time.sleep(0.05)
        yield served


@pytest.fixture
def service(airflow: AirflowRuns, make_service: Callable[..., Service], tmp_path: Path) -> Service:
    config = tmp_path / "headway.toml"
    config.write_text(CONFIG.format(url=airflow.url))
    return make_service(environment={"HEADWAY_CONFIG": str(config), "SHOP_AIRFLOW_TOKEN": TOKEN})


def stored(service: Service) -> dict[str, str]:
    with psycopg.connect(service.command("db", "url").stdout.strip()) as connection:
        rows = connection.execute("SELECT external_run_id, status FROM runs").fetchall()
    assert len(rows) == len({name for name, _ in rows})
    return dict(rows)


def wait_until(service: Service, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    with psycopg.connect(service.command("db", "url").stdout.strip(), autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM runs").fetchall()[0][0] < count:
            assert time.monotonic() < deadline, service.log
            time.sleep(0.2)


def worker_of(service: Service) -> int:
    for pid in service.family():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"worker" in words:
            return pid
    raise AssertionError(service.log)


def test_killed_reader_loses_and_doubles_nothing(service: Service, airflow: AirflowRuns) -> None:
    service.start()
    wait_until(service, 300)
    os.kill(worker_of(service), signal.SIGKILL)
    some = len(stored(service))
    wait_until(service, some + 300)
    service.kill_everything()
    service.start()
    assert len(stored(service)) < RUNS, "it was all read before the kill: the test shows nothing"
    wait_until(service, RUNS)
    with airflow.lock:
        truth = {row["run_id"]: row["state"] for row in airflow.rows.values()}
    assert stored(service) == truth
    (source,) = service.get("/sources")["items"]
    assert (source["runs_imported"], source["failures"], source["last_error"]) == (RUNS, 0, None)
    assert TOKEN not in service.log


def test_interrupted_backfill_goes_on_where_it_stood(
    airflow: AirflowRuns, make_service: Callable[..., Service], tmp_path: Path
) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(CONFIG.format(url=airflow.url).replace("700d", "10d"))
    environment = {"HEADWAY_CONFIG": str(config), "SHOP_AIRFLOW_TOKEN": TOKEN}
    service = make_service().start()  # reads nothing by itself: it knows of no source
    backfill = service.begin("sync", "shop", "--since", "2y", environment=environment)
    wait_until(service, 500)
    backfill.send_signal(signal.SIGINT)
    _, said = backfill.communicate(timeout=60)
    assert backfill.returncode == 1
    assert "stopping" in said
    some = len(stored(service))
    assert 500 <= some < RUNS
    asked = len(airflow.asked)
    finished = service.command("sync", "shop", "--since", "2y", env={**os.environ, **environment})
    assert finished.returncode == 0, finished.stderr
    assert len(stored(service)) == RUNS
    assert f"{RUNS - some:,} new" in finished.stderr
    assert len(airflow.asked) - asked < 0.8 * RUNS / 100 + 120, "it began anew"
