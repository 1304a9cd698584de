"""What the API and Prometheus tell of sources."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from headway.core.db import Database
from tests.access.keys import make_key
from tests.api import Api
from tests.connectors.example.subject import Platform
from tests.connectors.platform import Reply
from tests.connectors.syncing import add_runs, ago, configured, sync

Db = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def platform() -> Iterator[Platform]:
    with Platform() as served:
        yield served


async def test_source_tells_what_it_brought_and_how_far_it_is_read(
    api: Api, database: Database, platform: Platform
) -> None:
    add_runs(platform, 30)
    await sync(database, configured(platform))
    source = (await api.get("/sources/example")).json()
    assert source["runs_imported"] == 30
    assert (source["failures"], source["last_error"], source["is_overdue"], source["backfill"]) == (
        0,
        None,
        False,
        None,
    )
    assert source["last_synced_at"] >= source["last_started_at"]
    assert 0 <= source["lag_seconds"] < 60
    assert (await api.get("/sources")).json()["items"] == [source | {"lag_seconds": pytest.approx(0, abs=60)}]


async def test_failing_source_tells_what_is_wrong_and_when_it_is_tried_again(
    api: Api, database: Database, platform: Platform
) -> None:
    platform.trouble.append(Reply(403, {"error": "not for you"}))
    await sync(database, configured(platform))
    source = (await api.get("/sources/example")).json()
    assert (source["failures"], source["last_error_code"]) == (1, "forbidden")
    assert "not for you" in source["last_error"]
    assert source["next_try_at"] > source["last_error_at"]
    assert source["last_synced_at"] is None


@pytest.mark.parametrize(("minutes", "is_overdue"), [(2.9, False), (3.1, True)])
async def test_source_is_overdue_after_three_intervals(
    api: Api, database: Database, db: Db, platform: Platform, minutes: float, is_overdue: bool
) -> None:
    await sync(database, configured(platform))
    db.execute("UPDATE sources SET last_synced_at = now() - %s", (timedelta(minutes=minutes),))
    assert (await api.get("/sources/example")).json()["is_overdue"] is is_overdue
    metrics = (await api.get("/metrics")).text
    assert f'headway_source_overdue{{client="acme",platform="example",source="example"}} {float(is_overdue)}' in metrics


async def test_source_that_was_never_read_is_overdue_too_and_a_retired_one_never(
    api: Api, database: Database, db: Db, platform: Platform
) -> None:
    await sync(database, configured(platform))
    db.execute("UPDATE sources SET last_synced_at = NULL, created_at = %s", (ago(hours=1),))
    assert (await api.get("/sources/example")).json()["is_overdue"] is True
    db.execute("UPDATE sources SET is_active = false")
    assert (await api.get("/sources/example")).json()["is_overdue"] is False
    assert "headway_source_overdue{" not in (await api.get("/metrics")).text


async def test_list_is_paged_by_name(api: Api, database: Database, platform: Platform) -> None:
    for name in ("c", "a", "b"):
        await sync(database, configured(platform, name))
    page = (await api.get("/sources?limit=2")).json()
    assert [source["name"] for source in page["items"]] == ["a", "b"]
    rest = (await api.get(f"/sources?limit=2&cursor={page['next_cursor']}")).json()
    assert ([source["name"] for source in rest["items"]], rest["next_cursor"]) == (["c"], None)


async def test_bound_key_sees_its_own_clients_sources_alone(keyed: Api, database: Database, platform: Platform) -> None:
    add_runs(platform, 1)
    for name in ("acme", "globex"):
        await sync(database, configured(platform, f"{name}-example", client=name))
    bound = keyed.with_key(await make_key(database, "read", client="acme"))
    assert [source["name"] for source in (await bound.get("/sources")).json()["items"]] == ["acme-example"]
    assert (await bound.get("/sources/globex-example")).json()["code"] == "source_not_found"
    metrics = (await bound.get("/metrics")).text
    assert "acme-example" in metrics
    assert "globex" not in metrics
