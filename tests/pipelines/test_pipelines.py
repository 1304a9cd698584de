"""Pipelines, through HTTP, with what is left in the table."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg

from headway.core.db import Database
from tests.access.keys import make_key
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
FIELDS = {
    *("id", "client_id", "slug", "name", "platform", "pipeline_type", "external_id", "environment", "description"),
    *("url", "tags", "owner", "schedule", "success_target", "is_active", "ping_uuid", "created_at", "updated_at"),
}
FULL = {
    "name": "Daily Load",
    "platform": "airflow",
    "slug": "daily",
    "pipeline_type": "ingestion",
    "external_id": "dag:daily",
    "environment": "staging",
    "description": "Loads it all",
    "url": "https://airflow.example.com/dags/daily",
    "tags": ["core"],
    "owner": "data team",
    "schedule": {"every_seconds": 3600, "grace_seconds": 60},
    "success_target": 99.5,
}


def rows(db: Db) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM pipelines ORDER BY created_at").fetchall()


async def post(api: Api, client: str = "acme", **body: Any) -> Any:
    return await api.post(f"/clients/{client}/pipelines", json={"name": "daily", "platform": "airflow"} | body)


async def test_pipeline_is_made_whole_and_read_back(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    response = await api.post("/clients/acme/pipelines", json=FULL)
    assert response.status_code == 201
    made = response.json()
    assert made.keys() == FIELDS
    assert {name: made[name] for name in FULL} == FULL
    assert (made["client_id"], made["is_active"]) == (client["id"], True)
    assert made["created_at"] == made["updated_at"]
    (row,) = rows(db)
    assert {name: row[name] for name in FULL} == FULL
    assert str(row["ping_uuid"]) == made["ping_uuid"]
    assert (await api.get(f"/pipelines/{made['id']}")).json() == made
    assert (await api.get("/pipelines")).json() == {"items": [made], "next_cursor": None}


async def test_absent_and_null_fields_take_their_defaults(api: Api) -> None:
    await api.make_client("acme")
    nothing: dict[str, Any] = dict.fromkeys(FULL.keys() - {"name", "platform"})
    cases: list[tuple[str, dict[str, Any]]] = [("one", {}), ("two", nothing)]
    for name, extra in cases:
        made = (await post(api, name=name, **extra)).json()
        assert made["slug"] == name
        assert (made["pipeline_type"], made["environment"], made["tags"]) == ("other", "prod", [])
        for empty in ("external_id", "description", "url", "owner", "schedule", "success_target"):
            assert made[empty] is None


async def test_client_is_named_by_id_or_slug(api: Api) -> None:
    client = await api.make_client("acme")
    made = (await post(api, client["id"])).json()
    for way in ("acme", client["id"]):
        assert (await api.get(f"/clients/{way}/pipelines")).json()["items"] == [made]
        assert (await api.get("/pipelines", params={"client": way})).json()["items"] == [made]
    for response in (
        await post(api, "nobody"),
        await api.get("/clients/nobody/pipelines"),
        await api.get("/pipelines", params={"client": "nobody"}),
        await api.put("/clients/nobody/pipelines/x", json={"name": "x", "platform": "dbt"}),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "client_not_found")


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "/name", "too_short"),
    ({"name": "n" * 513}, "/name", "too_long"),
    ({"name": None}, "/name", "invalid_type"),
    ({"platform": "Airflow"}, "/platform", "invalid_format"),
    ({"platform": "p" * 65}, "/platform", "too_long"),
    ({"platform": ""}, "/platform", "invalid_format"),
    ({"slug": "Daily"}, "/slug", "invalid_format"),
    ({"slug": "d" * 101}, "/slug", "too_long"),
    ({"pipeline_type": "etl"}, "/pipeline_type", "unknown_value"),
    ({"environment": "production"}, "/environment", "unknown_value"),
    ({"external_id": ""}, "/external_id", "too_short"),
    ({"external_id": "e" * 513}, "/external_id", "too_long"),
    ({"url": "javascript:alert(1)"}, "/url", "invalid_url"),
    ({"url": "/relative"}, "/url", "invalid_url"),
    ({"url": "https://e.com/" + "u" * 4096}, "/url", "too_long"),
    ({"description": "d" * 10_001}, "/description", "too_long"),
    ({"owner": "o" * 201}, "/owner", "too_long"),
    ({"tags": [1]}, "/tags/0", "invalid_type"),
    ({"success_target": -0.1}, "/success_target", "out_of_range"),
    ({"success_target": 100.1}, "/success_target", "out_of_range"),
    ({"success_target": "99"}, "/success_target", "invalid_type"),
    ({"success_target": True}, "/success_target", "invalid_type"),
    ({"is_active": False}, "/is_active", "unknown_field"),
    ({"client_id": str(uuid4())}, "/client_id", "unknown_field"),
    ({"ping_uuid": str(uuid4())}, "/ping_uuid", "unknown_field"),
    ({"next_due_at": "2026-01-01T00:00:00Z"}, "/next_due_at", "unknown_field"),
]


async def test_invalid_pipeline_is_refused(api: Api, db: Db) -> None:
    await api.make_client("acme")
    for body, pointer, code in INVALID:
        response = await post(api, **body)
        assert response.status_code == 422, body
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == [(pointer, code)]
    assert rows(db) == []


async def test_success_target_is_a_percentage(api: Api) -> None:
    for target in (0, 0.5, 99.95, 100):
        assert (await api.make_pipeline(name=f"{target} %", success_target=target))["success_target"] == target


async def test_unique_are_slug_name_and_external_id(api: Api, db: Db) -> None:
    first = await api.make_pipeline(name="daily", external_id="x1")
    clashes = [
        ({"name": "other", "slug": "daily"}, "slug_taken"),
        ({"name": "daily"}, "name_taken"),
        ({"name": "daily", "slug": "free"}, "name_taken"),
        ({"name": "third", "external_id": "x1"}, "external_id_taken"),
        ({"name": "third", "external_id": "x1", "environment": "dev"}, "external_id_taken"),
    ]
    for body, code in clashes:
        response = await post(api, **body)
        assert (response.status_code, response.json()["code"]) == (409, code), body
        assert "daily" not in response.json()["detail"]
    assert [str(r["id"]) for r in rows(db)] == [first["id"]]
    fine = [
        {"name": "daily", "platform": "dbt", "slug": "a"},
        {"name": "daily", "environment": "dev", "slug": "b"},
        {"name": "x", "platform": "dbt", "external_id": "x1"},
        {"name": "no id 1"},
        {"name": "no id 2"},
    ]
    for body in fine:
        assert (await post(api, **body)).status_code == 201, body
    await api.make_client("other")
    assert (await post(api, "other", name="daily", external_id="x1")).status_code == 201
    second = (await post(api, name="second", external_id="x2")).json()
    for body, code in (
        ({"slug": "daily"}, "slug_taken"),
        ({"name": "daily"}, "name_taken"),
        ({"external_id": "x1"}, "external_id_taken"),
    ):
        response = await api.patch(f"/pipelines/{second['id']}", json=body)
        assert (response.status_code, response.json()["code"]) == (409, code)
    put = await api.put("/clients/acme/pipelines/new", json={"name": "daily", "platform": "airflow"})
    assert (put.status_code, put.json()["code"]) == (409, "name_taken")


async def test_namesakes_on_other_platforms_get_slugs_of_their_own(api: Api) -> None:
    await api.make_client("acme")
    wanted = [
        ({}, "daily"),
        ({"platform": "dbt"}, "daily-dbt"),
        ({"platform": "dbt", "environment": "dev"}, "daily-dbt-2"),
        ({"platform": "dbt", "name": "Daily!"}, "daily-dbt-3"),
        ({"name": "x" * 200}, "x" * 100),
        ({"name": "x" * 201}, "x" * 60 + "-airflow"),
        ({"name": "日本"}, "pipeline"),
    ]
    for body, slug in wanted:
        response = await post(api, **body)
        assert (response.status_code, response.json().get("slug")) == (201, slug)


async def test_every_filter_narrows_the_list(api: Api) -> None:
    await api.make_client("acme")
    await api.make_client("other")
    await api.post("/clients/acme/pipelines", json=FULL)
    await post(api, name="100% sure", platform="dbt", tags=["core", "gold"])
    await post(api, name="a_b", pipeline_type="quality")
    await post(api, name="aXb", environment="dev")
    await post(api, "other", name="ÜBER", external_id="dag:other")
    await post(api, name="gone")
    gone = (await api.get("/pipelines", params={"slug": "gone"})).json()["items"][0]
    await api.delete(f"/pipelines/{gone['id']}")

    async def names(path: str = "/pipelines", **params: str) -> list[str]:
        return [p["name"] for p in (await api.get(path, params=params)).json()["items"]]

    everything = ["100% sure", "Daily Load", "aXb", "a_b", "ÜBER"]
    assert await names() == everything
    assert await names(is_active="true") == everything
    assert await names(is_active="false") == ["gone"]
    assert await names(client="other") == ["ÜBER"]
    assert await names(platform="dbt") == ["100% sure"]
    assert await names(pipeline_type="quality") == ["a_b"]
    assert await names(environment="dev") == ["aXb"]
    assert await names(tag="core") == ["100% sure", "Daily Load"]
    assert await names(tag="cor") == []
    assert await names(external_id="dag:daily") == ["Daily Load"]
    assert await names(slug="daily") == ["Daily Load"]
    assert await names(q="0%") == ["100% sure"]
    assert await names(q="A_B") == ["a_b"]
    assert await names(q="über") == ["ÜBER"]
    assert await names(q="\\") == []
    assert await names(q="a", tag="core", platform="airflow") == ["Daily Load"]
    assert await names("/clients/acme/pipelines", q="b") == ["aXb", "a_b"]
    assert await names("/clients/acme/pipelines", is_active="false") == ["gone"]
    for wrong in ({"pipeline_type": "etl"}, {"environment": "live"}, {"is_active": "2"}, {"q": "a\0"}, {"nope": "1"}):
        response = await api.get("/pipelines", params=wrong)
        assert response.status_code == 422, wrong
        assert response.json()["errors"][0]["pointer"] == f"/query/{next(iter(wrong))}"
    twice = await api.get("/clients/acme/pipelines", params={"client": "acme"})
    assert twice.json()["errors"][0]["code"] == "unknown_parameter"


async def test_list_goes_by_name_in_code_points_then_id_and_pages_are_stable(api: Api) -> None:
    await api.make_client("acme")
    made = []
    for number, name in enumerate(["zebra", "Zebra", "apple", "Äpfel", "Apple", "apple", "apple", "öl"]):
        made.append((await post(api, name=name, platform=f"p{number}")).json())
    wanted = [p["id"] for p in sorted(made, key=lambda p: (p["name"], UUID(p["id"])))]
    assert [p["name"] for p in made if p["id"] == wanted[1]] == ["Zebra"]
    for path in ("/pipelines", "/clients/acme/pipelines"):
        seen: list[str] = []
        cursor: str | None = None
        while cursor is not None or not seen:
            params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
            page = (await api.get(path, params=params)).json()
            seen += [p["id"] for p in page["items"] if not p["name"].startswith("0")]
            cursor = page["next_cursor"]
            await post(api, name=f"0 {path} {len(seen)}")
            if cursor is not None:
                mismatch = await api.get(path, params={"cursor": cursor, "tag": "x"})
                assert mismatch.json()["code"] == "cursor_mismatch"
        assert seen == wanted


async def test_deactivated_pipeline_is_out_of_lists_until_it_is_brought_back(api: Api, db: Db) -> None:
    made = await api.make_pipeline(schedule={"every_seconds": 3600})
    path = f"/pipelines/{made['id']}"
    assert (await api.delete(path)).status_code == 204
    assert (await api.delete(path)).status_code == 204
    assert (await api.get("/pipelines")).json()["items"] == []
    (listed,) = (await api.get("/pipelines", params={"is_active": "false"})).json()["items"]
    assert listed == (await api.get(path)).json()
    assert listed["is_active"] is False
    assert rows(db)[0]["next_due_at"] is None
    back = (await api.patch(path, json={"is_active": True})).json()
    assert back["is_active"] is True
    assert rows(db)[0]["next_due_at"] is not None
    assert [p["id"] for p in (await api.get("/pipelines")).json()["items"]] == [made["id"]]


async def test_deactivated_pipeline_still_takes_its_runs(api: Api) -> None:
    made = await api.make_pipeline()
    await api.delete(f"/pipelines/{made['id']}")
    response = await api.post(f"/pipelines/{made['id']}/runs", json={"status": "success"})
    assert response.status_code == 201


async def test_patch_leaves_what_is_absent_and_null_empties_what_can_be_empty(api: Api) -> None:
    await api.make_client("acme")
    made = (await api.post("/clients/acme/pipelines", json=FULL)).json()
    path = f"/pipelines/{made['id']}"
    assert (await api.patch(path, json={})).json() == made
    never_null = ("name", "platform", "slug", "pipeline_type", "environment", "tags", "is_active")
    assert (await api.patch(path, json=dict.fromkeys(never_null))).json() == made
    can_be_null = ("external_id", "description", "url", "owner", "schedule", "success_target")
    emptied = (await api.patch(path, json=dict.fromkeys(can_be_null))).json()
    assert {name: emptied[name] for name in can_be_null} == dict.fromkeys(can_be_null)
    assert {name: emptied[name] for name in never_null} == {name: made[name] for name in never_null}
    assert emptied["updated_at"] > made["updated_at"]
    filled = (await api.patch(path, json={name: FULL[name] for name in can_be_null})).json()
    assert filled | {"updated_at": None} == made | {"updated_at": None}
    changed = {"name": "New", "slug": "new", "platform": "dbt", "pipeline_type": "export", "environment": "dev"}
    assert (await api.patch(path, json=changed)).json() | {"updated_at": None} == made | changed | {"updated_at": None}


async def test_whose_a_pipeline_is_never_changes(api: Api) -> None:
    made = await api.make_pipeline()
    other = await api.make_client("other")
    for body in ({"client_id": other["id"]}, {"client": "other"}, {"id": other["id"]}, {"ping_uuid": other["id"]}):
        response = await api.patch(f"/pipelines/{made['id']}", json=body)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "unknown_field")
    assert (await api.get(f"/pipelines/{made['id']}")).json() == made


async def test_unknown_pipeline_is_404_and_a_wrong_id_422(api: Api) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        unknown = await api.request(method, f"/pipelines/{uuid4()}", **body)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "pipeline_not_found")
        wrong = await api.request(method, "/pipelines/daily", **body)
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/path/pipeline_id")


async def test_put_makes_then_updates_and_is_idempotent(api: Api, db: Db) -> None:
    await api.make_client("acme")
    body = {name: value for name, value in FULL.items() if name != "slug"}
    made = await api.put("/clients/acme/pipelines/daily", json=body)
    assert made.status_code == 201
    again = await api.put("/clients/acme/pipelines/daily", json=body)
    assert (again.status_code, again.json()) == (200, made.json())
    least = await api.put("/clients/acme/pipelines/daily", json={"name": "Daily Load", "platform": "airflow"})
    assert least.status_code == 200
    shown = least.json()
    assert (shown["id"], shown["ping_uuid"]) == (made.json()["id"], made.json()["ping_uuid"])
    assert shown["created_at"] == made.json()["created_at"] < shown["updated_at"]
    assert (shown["pipeline_type"], shown["environment"], shown["tags"], shown["is_active"]) == (
        "other",
        "prod",
        [],
        True,
    )
    for empty in ("external_id", "description", "url", "owner", "schedule", "success_target"):
        assert shown[empty] is None
    (row,) = rows(db)
    assert row["next_due_at"] is None
    off = await api.put(
        "/clients/acme/pipelines/daily", json={"name": "Daily Load", "platform": "airflow", "is_active": False}
    )
    assert off.json()["is_active"] is False
    on = await api.put("/clients/acme/pipelines/daily", json={"name": "Daily Load", "platform": "airflow"})
    assert on.json()["is_active"] is True


async def test_put_needs_a_slug_and_a_whole_pipeline(api: Api) -> None:
    await api.make_client("acme")
    body = {"name": "x", "platform": "dbt"}
    wrong = await api.put("/clients/acme/pipelines/Not-A-Slug", json=body)
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/path/slug")
    assert (await api.put(f"/clients/acme/pipelines/{'s' * 101}", json=body)).status_code == 422
    partial = await api.put("/clients/acme/pipelines/x", json={"platform": "dbt"})
    assert (partial.status_code, partial.json()["errors"][0]["pointer"]) == (422, "/name")
    twice = await api.put("/clients/acme/pipelines/x", json=body | {"slug": "x"})
    assert twice.json()["errors"][0]["code"] == "unknown_field"


async def test_same_slug_put_at_once_is_made_once(api: Api, db: Db) -> None:
    await api.make_client("acme")
    body = {"name": "daily", "platform": "airflow"}
    for number in range(5):
        path = f"/clients/acme/pipelines/daily-{number}"
        bodies = [body | {"name": f"{number}", "owner": str(n)} for n in range(4)]
        answers = await asyncio.gather(*(api.put(path, json=b) for b in bodies))
        assert sorted(r.status_code for r in answers) == [200, 200, 200, 201]
        assert len({r.json()["id"] for r in answers}) == 1
    assert len(rows(db)) == 5


async def test_same_name_put_and_posted_at_once_clashes_without_harm(api: Api, db: Db) -> None:
    await api.make_client("acme")
    body = {"name": "daily", "platform": "airflow"}
    ways = [api.put(f"/clients/acme/pipelines/slug-{n}", json=body) for n in range(3)] + [post(api) for _ in range(3)]
    answers = await asyncio.gather(*ways)
    assert sorted(r.status_code for r in answers) == [201, 409, 409, 409, 409, 409]
    assert {r.json()["code"] for r in answers if r.status_code == 409} <= {"name_taken", "slug_taken"}
    assert len(rows(db)) == 1


async def test_ping_uuid_is_shown_to_ingest_and_admin_alone(keyed: Api, database: Database) -> None:
    admin = keyed.with_key(await make_key(database, "admin", "read"))
    made = await admin.make_pipeline()
    assert UUID(made["ping_uuid"]).version == 4
    for scopes, is_shown in ((("read",), False), (("read", "ingest"), True), (("read", "admin"), True)):
        key = keyed.with_key(await make_key(database, *scopes, name="+".join(scopes)))
        shown = [
            (await key.get(f"/pipelines/{made['id']}")).json(),
            *(await key.get("/pipelines")).json()["items"],
            *(await key.get("/clients/acme/pipelines")).json()["items"],
        ]
        assert {p["ping_uuid"] for p in shown} == {made["ping_uuid"] if is_shown else None}


async def test_namesakes_on_many_platforms_made_at_once_have_slugs_of_their_own(api: Api) -> None:
    await api.make_client()
    answers = await asyncio.gather(
        *(api.post("/clients/acme/pipelines", json={"name": "race", "platform": f"x{n}"}) for n in range(12))
    )
    assert [answer.status_code for answer in answers] == [201] * 12
    assert len({answer.json()["slug"] for answer in answers}) == 12


async def test_null_grace_is_the_same_as_none(api: Api) -> None:
    made = await api.make_pipeline(schedule={"every_seconds": 3600, "grace_seconds": None})
    assert made["schedule"] == {"every_seconds": 3600, "grace_seconds": 300}
