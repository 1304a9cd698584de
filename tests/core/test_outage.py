"""A database that goes away: 503 with Retry-After while it is gone, no restart needed when it is back."""

import shutil
from collections.abc import Iterator

import pytest

from headway.embedded.server import EmbeddedServer
from headway.main import create_app
from headway.migrations import runner
from headway.settings import Settings
from tests.api import running
from tests.conftest import FAST, PASSWORDS, readable_directory


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    directory = readable_directory()
    made = EmbeddedServer(directory, settings=FAST)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def test_service_survives_its_database(own_server: EmbeddedServer, settings: Settings) -> None:
    runner.upgrade(own_server.superuser_url(), passwords=PASSWORDS)
    app = create_app(settings, own_server.url(runner.APP, PASSWORDS[runner.APP], "postgres"))
    run = {"external_run_id": "kept", "status": "success", "finished_at": "2026-11-01T06:00:00Z"}
    async with running(app) as api:
        pipeline = await api.make_pipeline()
        path = f"/pipelines/{pipeline['id']}/runs"
        assert (await api.post(path, json=run)).status_code == 201
        own_server.stop()
        batch = {"runs": [{**run, "pipeline_id": pipeline["id"]}]}
        event = {
            "eventTime": "2026-11-01T06:00:00Z",
            "run": {"runId": "r"},
            "job": {"namespace": "n", "name": "n"},
            "producer": "p",
        }
        for method, where, body in (
            ("GET", "/runs", None),
            ("GET", "/clients", None),
            ("GET", "/health/failing", None),
            ("POST", path, run),
            ("POST", "/runs/batch", batch),
            ("POST", "/api/v1/lineage", event),
            ("GET", "/readyz", None),
            ("GET", "/metrics", None),
        ):
            response = await api.request(method, where, json=body)
            assert response.status_code == 503, (method, where, response.text)
            assert int(response.headers["Retry-After"]) >= 1
            assert response.json()["code"] in ("database_unavailable", "not_ready")
        assert (await api.get("/healthz")).status_code == 200
        own_server.start()
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.get(f"{path}/latest")).json()["external_run_id"] == "kept"
        again = await api.post(path, json=run)
        assert again.status_code == 200


async def test_database_without_a_schema_is_not_ready(own_server: EmbeddedServer, settings: Settings) -> None:
    app = create_app(settings, own_server.superuser_url())
    async with running(app) as api:
        response = await api.get("/readyz")
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert "headway migrate" in response.json()["detail"]
