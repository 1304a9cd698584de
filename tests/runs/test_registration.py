"""Pipelines that reports name for the first time: one of each, whoever comes at once, and only where one may."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from headway.access.principal import EVERYONE, Principal, Scope
from headway.core.db import Database
from headway.core.errors import ConflictError
from headway.pipelines import queries, registry
from headway.pipelines.reference import PipelineRef, Reference
from headway.pipelines.registry import Ask, Refusal
from headway.runs import sql
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
INGEST = Principal("loader", frozenset({Scope.INGEST}))


def ref(name: str = "daily", *, client: str = "acme", **more: Any) -> PipelineRef:
    return PipelineRef(client, "airflow", name, **more)


async def resolve(
    database: Database, *references: Reference, principal: Principal = EVERYONE, register: bool = True
) -> list[Any]:
    async with database.transaction() as connection:
        (answers,) = await registry.resolve(connection, [Ask(references, principal, register)], now=NOW)
    return [answers[reference] for reference in references]


def pipelines(db: Db) -> list[tuple[Any, ...]]:
    rows = db.execute("SELECT name, slug, external_id, environment FROM pipelines ORDER BY created_at, name").fetchall()
    return [tuple(row.values()) for row in rows]


def run(reference: dict[str, Any], number: int) -> dict[str, Any]:
    return {"pipeline": reference, "external_run_id": f"run-{number}", "status": "success"}


# --- at once


async def test_callers_that_register_one_pipeline_at_once_get_one(api: Api, db: Db) -> None:
    reference = {"client": "acme", "name": "daily", "platform": "airflow", "external_id": "dag-1"}
    results = await asyncio.gather(*(api.report(run(reference, n), register=True) for n in range(20)))
    assert [(r["inserted"], r["rejected"]) for r in results] == [(1, 0)] * 20
    assert pipelines(db) == [("daily", "daily", "dag-1", "prod")]
    assert len(db.execute("SELECT 1 FROM clients").fetchall()) == 1
    assert len(db.execute("SELECT 1 FROM runs").fetchall()) == 20


async def test_twenty_connections_that_register_overlapping_sets_in_any_order_get_one_of_each(
    app_url: str, db: Db
) -> None:
    """Clients are made, then locked, in key order: nobody waits in a circle."""
    database = Database(app_url, pool_size=20, on_connect=sql.STAGING)
    chance = random.Random(3)  # noqa: S311 - no secret
    try:
        for number in range(4):
            everything = [ref(f"p{p}", client=f"c{number}-{c}") for c in range(6) for p in range(3)]
            answers = await asyncio.gather(
                *(resolve(database, *chance.sample(everything, chance.randint(1, 18))) for _ in range(20))
            )
            assert not [answer for mine in answers for answer in mine if isinstance(answer, Refusal)]
    finally:
        await database.dispose()
    rows = db.execute("SELECT c.slug, p.name FROM pipelines p JOIN clients c ON c.id = p.client_id").fetchall()
    assert len(rows) == len({tuple(row.values()) for row in rows}) >= 60


# --- identity


async def test_same_reference_means_the_same_pipeline_again(database: Database, db: Db) -> None:
    first = await resolve(database, ref(), ref(environment="dev"), ref("hourly", external_id="h"))
    assert len(set(first)) == 3
    assert await resolve(database, ref(), ref(environment="dev"), ref("hourly", external_id="h")) == first
    assert await resolve(database, *first, register=False) == first
    assert len(pipelines(db)) == 3


async def test_environment_that_is_not_given_is_prod(database: Database, db: Db) -> None:
    answers = await resolve(database, ref(), ref(environment="prod"))
    assert answers[0] == answers[1]
    assert pipelines(db) == [("daily", "daily", None, "prod")]


async def test_external_id_wins_over_the_name(database: Database, db: Db) -> None:
    (known,) = await resolve(database, ref("old name", external_id="dag-1"))
    assert await resolve(database, ref("new name", external_id="dag-1", environment="dev")) == [known]
    assert pipelines(db) == [("old name", "old-name", "dag-1", "prod")]


async def test_one_external_id_under_two_names_in_one_batch_is_one_pipeline(database: Database, db: Db) -> None:
    answers = await resolve(database, ref("b", external_id="dag-1"), ref("a", external_id="dag-1", environment="dev"))
    assert answers[0] == answers[1]
    assert len(pipelines(db)) == 1


async def test_taken_name_gets_the_external_id_added(database: Database, db: Db) -> None:
    (plain,) = await resolve(database, ref())
    answers = await resolve(database, ref(external_id="x"), ref(external_id="y"), ref())
    assert len({plain, *answers}) == 3
    assert {row[0] for row in pipelines(db)} == {"daily", "daily (x)", "daily (y)"}
    assert await resolve(database, ref("daily", external_id="x"), register=False) == answers[:1]


async def test_reference_without_external_id_has_the_plain_name_whatever_the_order(database: Database, db: Db) -> None:
    """It is found by that name alone; so too where the name is one that another would get."""
    asked = (ref(external_id="x"), ref("daily (x)"), ref())
    answers = await resolve(database, *asked)
    assert len(set(answers)) == 3
    assert await resolve(database, *asked) == answers
    assert {(row[0], row[2]) for row in pipelines(db)} >= {("daily", None), ("daily (x)", None)}


async def test_longest_names_and_ids_still_find_a_name(database: Database, db: Db) -> None:
    name, ids = "n" * 512, ["e" * 512, "f" * 512]
    answers = await resolve(database, ref(name), *(ref(name, external_id=e) for e in ids))
    assert len(set(answers)) == 3
    assert max(len(row[0]) for row in pipelines(db)) <= 512


async def test_names_with_one_slug_get_slugs_of_their_own(database: Database, db: Db) -> None:
    names = ["Daily load", "daily-load", "DAILY  LOAD!", "日次", "週次", "x" * 300, "x" * 301]
    answers = await resolve(database, *(ref(name) for name in names))
    answers += await resolve(database, ref("daily load", environment="dev"), ref("daily_load"))
    slugs = [row[1] for row in pipelines(db)]
    assert len(set(answers)) == len(slugs) == len(set(slugs)) == 9
    assert {"daily-load", "pipeline"} <= set(slugs)


# --- who may


async def test_client_is_made_only_by_who_may(database: Database, db: Db) -> None:
    assert await resolve(database, ref(), principal=INGEST) == [registry.UNKNOWN_CLIENT]
    (made,) = await resolve(database, ref())
    assert await resolve(database, ref(), principal=INGEST) == [made]
    (other,) = await resolve(database, ref("hourly"), principal=INGEST)
    assert other != made
    assert db.execute("SELECT slug, name FROM clients").fetchall() == [{"slug": "acme", "name": "acme"}]


async def test_default_client_is_made_for_everybody_who_is_not_bound(database: Database, db: Db) -> None:
    (made,) = await resolve(database, ref(client="default"), principal=INGEST)
    assert not isinstance(made, Refusal)
    assert [row["slug"] for row in db.execute("SELECT slug FROM clients").fetchall()] == ["default"]


async def test_bound_principal_knows_its_own_client_alone(database: Database, db: Db) -> None:
    (other,) = await resolve(database, ref(client="other"))
    await resolve(database, ref())
    acme = db.execute("SELECT id FROM clients WHERE slug = 'acme'").fetchall()[0]["id"]
    bound = Principal("acme", frozenset(Scope), acme, "acme")
    mine, theirs, by_id, new, nobody = await resolve(
        database,
        ref("mine"),
        ref(client="other"),
        other,
        ref("new", client="other"),
        ref(client="default"),
        principal=bound,
    )
    assert not isinstance(mine, Refusal)
    assert (theirs, new, nobody) == (registry.UNKNOWN_CLIENT,) * 3
    assert by_id == registry.UNKNOWN_ID
    assert {row["slug"] for row in db.execute("SELECT slug FROM clients").fetchall()} == {"acme", "other"}


async def test_one_callers_rights_are_not_anothers(database: Database, db: Db) -> None:
    """Callers that share a transaction: who may not register gets no pipeline but one that is there."""
    asks = [
        Ask([ref("a"), ref("b")], INGEST, register=False),
        Ask([ref("a"), ref("c", client="nobody's")], INGEST, register=True),
        Ask([ref("a")], EVERYONE, register=True),
    ]
    async with database.transaction() as connection:
        one, two, three = await registry.resolve(connection, asks, now=NOW)
    assert one[ref("b")] == registry.UNKNOWN_PIPELINE
    assert two[ref("c", client="nobody's")] == registry.UNKNOWN_CLIENT
    assert one[ref("a")] == two[ref("a")] == three[ref("a")]
    assert [row[0] for row in pipelines(db)] == ["a"]


async def test_nothing_is_registered_where_nobody_asks_for_it(database: Database, db: Db) -> None:
    assert await resolve(database, ref(), register=False) == [registry.UNKNOWN_PIPELINE]
    assert db.execute("SELECT 1 FROM clients").fetchall() == []


# --- limits and accidents


async def test_request_registers_a_thousand_pipelines_and_refuses_the_rest(database: Database, db: Db) -> None:
    strange = [ref(f"s{n}", client="nobody's") for n in range(20)]
    wanted = [ref(f"p{n}") for n in range(1005)]
    await resolve(database, ref("known"))
    answers = await resolve(database, *strange, *wanted, ref("known"), principal=INGEST)
    refused = [answer for answer in answers[20:] if isinstance(answer, Refusal)]
    assert answers[:20] == [registry.UNKNOWN_CLIENT] * 20  # and they take nobody's place
    assert refused == [registry.TOO_MANY_NEW] * 5
    assert len(pipelines(db)) == 1001
    again = await resolve(database, *wanted, principal=INGEST)
    assert not [answer for answer in again if isinstance(answer, Refusal)]


async def test_client_whose_name_is_the_new_slug_does_not_stand_in_the_way(api: Api, db: Db) -> None:
    for slug, name in (("a", "acme"), ("b", "acme (client)")):
        assert (await api.post("/clients", json={"slug": slug, "name": name})).status_code == 201
    result = await api.report(run({"client": "acme", "name": "daily", "platform": "airflow"}, 1), register=True)
    assert result["inserted"] == 1
    assert len(db.execute("SELECT 1 FROM clients").fetchall()) == 3


async def test_client_made_by_hand_meanwhile_is_used(database: Database, db: Db) -> None:
    with db.transaction():
        _insert_client(db, slug="acme", name="Acme")
        waiting = asyncio.create_task(resolve(database, ref()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    (made,) = await waiting
    assert not isinstance(made, Refusal)
    assert [row["name"] for row in db.execute("SELECT name FROM clients").fetchall()] == ["Acme"]


async def test_name_that_another_client_takes_meanwhile_is_a_conflict_to_try_again(database: Database, db: Db) -> None:
    with db.transaction():
        _insert_client(db, slug="other", name="acme")
        waiting = asyncio.create_task(resolve(database, ref()))
        await asyncio.sleep(0.2)
    with pytest.raises(ConflictError):
        await waiting
    (made,) = await resolve(database, ref())
    assert not isinstance(made, Refusal)


async def test_registration_waits_for_nobody_who_only_reports(database: Database, db: Db) -> None:
    """Reports hold their pipeline and client for a foreign key's sake alone."""
    (known,) = await resolve(database, ref())
    with db.transaction():
        db.execute("SELECT 1 FROM clients FOR KEY SHARE")
        db.execute("SELECT 1 FROM pipelines FOR KEY SHARE")
        (made,) = await asyncio.wait_for(resolve(database, ref("hourly")), 5)
    assert made != known


async def test_look_up_of_many_pipelines_is_cut_into_few_queries(
    database: Database, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LOOK_UP_SLICE", 3)
    wanted = [ref(f"p{n}") for n in range(10)]
    answers = await resolve(database, *wanted)
    async with database.transaction() as connection:
        found = await queries.find_references(connection, references=[*wanted, *answers])
    assert [found[reference][0] for reference in wanted] == answers
    assert [found[answer][0] for answer in answers] == answers


def _insert_client(db: Db, *, slug: str, name: str) -> None:
    db.execute(
        "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at)"
        " VALUES (gen_random_uuid(), %s, %s, %s, %s, %s)",
        (slug, name, slug, NOW, NOW),
    )
