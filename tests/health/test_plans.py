"""The hot reads reach runs by index, whatever their number: no plan scans the table."""

import psycopg
import pytest

from headway.core.db import Database
from headway.embedded.server import EmbeddedServer
from headway.main import create_app
from headway.migrations import runner
from headway.settings import load_settings
from tests.api import running
from tests.conftest import PASSWORDS, CloneDatabase
from tests.health.recorder import nodes, plan, recorded

# 100 pipelines of 5 clients, 200 runs each, the last of them in this hour; one in 20 failed, one in 50 was run again.
FLEET = """
INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at)
SELECT gen_random_uuid(), 'c' || n, 'c' || n, 'k' || n, now(), now() FROM generate_series(1, 5) n;
INSERT INTO pipelines (id, client_id, slug, name, platform, schedule, next_due_at, ping_uuid, created_at, updated_at)
SELECT gen_random_uuid(), c.id, 'p' || n, 'p' || n, 'dbt', '{"every_seconds": 3600, "grace_seconds": 60}',
       now() - n * interval '1 minute', gen_random_uuid(), now(), now()
FROM generate_series(1, 100) n JOIN clients c ON c.slug = 'c' || (1 + n % 5);
INSERT INTO runs (pipeline_id, external_run_id, id, started_at, finished_at, created_at, updated_at, attempt, status,
                  source, rank, payload)
SELECT p.id, 'r' || n, gen_random_uuid(), at, at + interval '1 minute', at, at, 1 + (n % 50 = 0)::int,
       CASE WHEN (n + ascii(right(p.slug, 1))) % 20 = 0 THEN 'failed' ELSE 'success' END, 'api', '',
       jsonb_build_object('text', repeat('x', 200))
FROM pipelines p CROSS JOIN generate_series(0, 199) n
CROSS JOIN LATERAL (SELECT now() - n * interval '1 hour' - interval '5 minutes' AS at) t;
INSERT INTO run_events (pipeline_id, external_run_id, attempt, status, last_occurred_at, recorded_at, source)
SELECT pipeline_id, external_run_id, a, CASE WHEN a < attempt THEN 'failed' ELSE status END, run_at, run_at, 'api'
FROM runs CROSS JOIN LATERAL generate_series(1, attempt) a;
"""


@pytest.fixture(scope="module")
def full(server: EmbeddedServer, clone_database: CloneDatabase) -> str:
    """Return the URL of a database with 20,000 runs."""
    name = clone_database()
    with psycopg.connect(server.superuser_url(name), autocommit=True) as connection:
        connection.execute(FLEET)
        connection.execute("VACUUM ANALYZE")
    return server.url(runner.APP, PASSWORDS[runner.APP], name)


# What is read, and an index that must serve it.
READS = {
    "/pipelines/{pipeline}/runs/latest": "ix_runs_pipeline_id_run_at",
    "/pipelines/{pipeline}/runs": "ix_runs_pipeline_id_run_at",
    "/pipelines/{pipeline}/runs?order=asc&since={since}": "ix_runs_pipeline_id_run_at",
    "/pipelines/{pipeline}/runs?status=failed": "ix_runs_pipeline_id_rare",
    "/pipelines/{pipeline}/runs?external_run_id=r7": "pk_runs",
    "/runs": "ix_runs_run_at",
    "/runs?since={since}&order=asc": "ix_runs_run_at",
    "/runs?status=failed": "ix_runs_rare",
    "/runs?status=failed&status=canceled&status=running": "ix_runs_rare",
    "/runs?status=failed&status=success": "ix_runs_run_at",
    "/runs?external_run_id=r7": "pk_runs",
    "/runs?client=c1": "ix_runs_pipeline_id_run_at",
    "/runs?client=c1&status=failed": "ix_runs_pipeline_id_rare",
    "/runs/{run}": "ix_runs_id",
    "/runs/{run}/events": "pk_run_events",
    "/clients/c1/runs/summary": "ix_runs_pipeline_id_run_at",
    "/health/failing": "ix_runs_pipeline_id_rare",
    "/health/failing?client=c1": "ix_runs_pipeline_id_rare",
    "/health/late": "ix_runs_pipeline_id_run_at",
    "/health/changes": "ix_runs_reattempted",
    "/health/changes?client=c1": "ix_runs_reattempted",
    "/metrics": "ix_runs_pipeline_id_run_at",
}


async def test_hot_reads_scan_no_table_of_runs(full: str) -> None:
    async with running(create_app(load_settings({}, auth="none"), full)) as api:
        database: Database = api.app.state.database
        run = (await api.get("/runs", params={"limit": 1})).json()["items"][0]
        for path, index in READS.items():
            with recorded(database) as sent:
                whole = path.format(pipeline=run["pipeline_id"], since=run["run_at"], run=run["id"])
                assert (await api.get(whole)).status_code == 200
            plans = [await plan(database, statement) for statement in sent]
            found = [node for top in plans for node in nodes(top)]
            scanned = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
            assert not scanned & {"runs", "run_events"}, path
            assert index in {node.get("Index Name") for node in found}, path
