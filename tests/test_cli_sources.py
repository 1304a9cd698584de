"""The commands about sources, on a real platform of the tests' own: what they print, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headway.core import clock
from tests.connectors.airflow.subject import TOKEN, AirflowRuns
from tests.connectors.platform import Reply
from tests.test_cli import environment as environment  # noqa: PLC0414 - a fixture
from tests.test_cli import headway

Db = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def airflow() -> Iterator[AirflowRuns]:
    with AirflowRuns() as served:
        for number in range(250):
            end = clock.now() - timedelta(days=20) * ((number + 1) / 250)
            times = {"started_at": end - timedelta(minutes=1), "finished_at": end, "updated_at": end}
            served.add(pipeline=f"dag-{number % 3}", word="success", created_at=end - timedelta(minutes=1), **times)
        yield served


@pytest.fixture
def config(environment: dict[str, str], airflow: AirflowRuns, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "headway.toml"
    lines = ("[sources.shop]", 'platform = "airflow"', 'client = "acme"', f'url = "{airflow.url}"')
    file.write_text("\n".join([*lines, 'token_env = "SHOP_TOKEN"', 'exclude = ["*-2"]', ""]))
    return environment | {"HEADWAY_CONFIG": str(file), "SHOP_TOKEN": TOKEN}


def test_check_tells_what_is_there_and_what_would_be_imported(config: dict[str, str]) -> None:
    said = headway("sources", "check", **config)
    assert said.returncode == 0, said.stderr
    assert "✓ shop (airflow, client acme" in said.stdout
    assert "Airflow 3.3.2" in said.stdout
    assert "would import 2 pipelines: dag-0, dag-1" in said.stdout


def test_check_tells_what_is_wrong(config: dict[str, str]) -> None:
    said = headway("sources", "check", **config | {"SHOP_TOKEN": "nonsense-credential"})
    assert said.returncode == 1
    assert "✗ shop" in said.stdout
    assert "nonsense-credential" not in said.stdout + said.stderr
    missing = headway("sources", "check", **{k: v for k, v in config.items() if k != "SHOP_TOKEN"})
    assert "SHOP_TOKEN (token_env) is not set" in missing.stdout


def test_sync_once_brings_all_and_says_so(config: dict[str, str], db: Db) -> None:
    said = headway("sync", "shop", "--once", **config)
    assert said.returncode == 0, said.stderr
    (count,) = db.execute("SELECT count(*) AS n FROM runs").fetchall()
    assert f"shop: {count['n']} runs read: {count['n']} new, 0 changed, history since" in said.stderr
    assert count["n"] == 167
    listed = headway("sources", "list", **config)
    assert "shop" in listed.stdout
    assert "ok" in listed.stdout


def test_sync_of_a_broken_source_exits_with_1_and_the_reason(config: dict[str, str], airflow: AirflowRuns) -> None:
    airflow.trouble.extend([Reply(301, headers={"Location": "https://sso.example/login"})] * 5)
    said = headway("sync", "--once", **config)
    assert said.returncode == 1
    assert "redirect to https://sso.example" in said.stderr
    assert "Traceback" not in said.stderr
    assert TOKEN not in said.stderr


def test_unknown_source_and_wrong_configuration_are_wrong_usage(config: dict[str, str]) -> None:
    said = headway("sync", "shoop", **config)
    assert said.returncode == 2
    assert "no source shoop; it has: shop" in said.stderr
    file = Path(config["HEADWAY_CONFIG"])
    file.write_text(file.read_text() + 'token = "literal-credential"\n')
    for command in (("sync",), ("sources", "check"), ("worker",)):
        wrong = headway(*command, **config)
        assert wrong.returncode == 2
        assert f"{file}:7:" in wrong.stderr
        assert "token_env" in wrong.stderr
        assert "literal-credential" not in wrong.stderr


def test_sync_goes_on_at_its_interval_until_it_is_told_to_stop(
    config: dict[str, str], airflow: AirflowRuns, db: Db
) -> None:
    file = Path(config["HEADWAY_CONFIG"])
    file.write_text(file.read_text() + 'interval = "5s"\n')
    env = {**os.environ, **config}
    argv = [sys.executable, "-m", "headway", "sync"]
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not db.execute("SELECT FROM sources WHERE history_since IS NOT NULL").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        now = clock.now()
        with airflow.lock:
            new = airflow.add(
                pipeline="dag-0", word="running", created_at=now, started_at=now, finished_at=None, updated_at=now
            )
        while not db.execute("SELECT FROM runs WHERE external_run_id = %s", (new,)).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopping" in said
