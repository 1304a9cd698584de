"""Clients, through HTTP, with what is left in the table."""

import asyncio
import re
from typing import Any

import psycopg

from headway.core.db import Database
from tests.access.keys import make_key
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
FIELDS = {"id", "slug", "name", "is_active", "tags", "ping_key", "created_at", "updated_at"}


def rows(db: Db) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM clients ORDER BY created_at").fetchall()


async def test_client_is_made_and_read_by_id_and_slug(api: Api, db: Db) -> None:
    response = await api.post("/clients", json={"name": "Müller & Söhne", "tags": ["gold", "eu"]})
    assert response.status_code == 201
    made = response.json()
    assert made.keys() == FIELDS
    assert (made["slug"], made["name"], made["is_active"]) == ("muller-sohne", "Müller & Söhne", True)
    assert made["tags"] == ["gold", "eu"]
    assert made["created_at"] == made["updated_at"]
    assert made["created_at"].endswith("Z")
    (row,) = rows(db)
    assert (str(row["id"]), row["slug"], row["ping_key"]) == (made["id"], made["slug"], made["ping_key"])
    for way in (made["id"], made["id"].upper(), made["slug"]):
        assert (await api.get(f"/clients/{way}")).json() == made


SLUGS: list[tuple[str, str]] = [
    ("Acme", "acme"),
    ("  ACME -- Data!  ", "acme-data"),
    ("snake_case_1", "snake_case_1"),
    ("日本", "client"),
    ("x" * 150, "x" * 100),
    ("0b6e9d6a-b1f2-4a4e-8b9d-2f1c3a4b5c6d", "client-0b6e9d6a-b1f2-4a4e-8b9d-2f1c3a4b5c6d"),
]


async def test_slug_is_made_from_the_name(api: Api, db: Db) -> None:
    for name, slug in SLUGS:
        made = (await api.post("/clients", json={"name": name, "slug": None})).json()
        assert made["slug"] == slug
        assert (await api.get(f"/clients/{slug}")).json()["id"] == made["id"]


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "/name", "missing"),
    ({"name": None}, "/name", "invalid_type"),
    ({"name": ""}, "/name", "too_short"),
    ({"name": "n" * 201}, "/name", "too_long"),
    ({"name": 7}, "/name", "invalid_type"),
    ({"name": "a\0b"}, "/name", "nul_character"),
    ({"name": "ok", "slug": "Upper"}, "/slug", "invalid_format"),
    ({"name": "ok", "slug": "-dash"}, "/slug", "invalid_format"),
    ({"name": "ok", "slug": "umläut"}, "/slug", "invalid_format"),
    ({"name": "ok", "slug": "line\n"}, "/slug", "invalid_format"),
    ({"name": "ok", "slug": ""}, "/slug", "invalid_format"),
    ({"name": "ok", "slug": "s" * 101}, "/slug", "too_long"),
    ({"name": "ok", "slug": "0b6e9d6a-b1f2-4a4e-8b9d-2f1c3a4b5c6d"}, "/slug", "invalid_format"),
    ({"name": "ok", "tags": "gold"}, "/tags", "invalid_type"),
    ({"name": "ok", "tags": [""]}, "/tags/0", "too_short"),
    ({"name": "ok", "tags": ["t"] * 51}, "/tags", "too_long"),
    ({"name": "ok", "is_active": False}, "/is_active", "unknown_field"),
    ({"name": "ok", "ping_key": "mine"}, "/ping_key", "unknown_field"),
]


async def test_invalid_client_is_refused(api: Api, db: Db) -> None:
    for body, pointer, code in INVALID:
        response = await api.post("/clients", json=body)
        assert response.status_code == 422, body
        assert (pointer, code) in [(e["pointer"], e["code"]) for e in response.json()["errors"]]
    assert rows(db) == []


async def test_name_and_slug_are_unique(api: Api) -> None:
    await api.make_client("acme")
    other = await api.make_client("other")
    by_slug = await api.post("/clients", json={"name": "Another", "slug": "acme"})
    by_name = await api.post("/clients", json={"name": "Acme", "slug": "another"})
    assert [(r.status_code, r.json()["code"]) for r in (by_slug, by_name)] == [(409, "slug_taken"), (409, "name_taken")]
    renamed = await api.patch(f"/clients/{other['id']}", json={"slug": "acme"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "slug_taken")
    renamed = await api.patch(f"/clients/{other['id']}", json={"name": "Acme"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "name_taken")
    assert (await api.get("/clients/other")).json() == other


async def test_deactivated_client_is_out_of_standard_lists_until_it_is_brought_back(api: Api, db: Db) -> None:
    await api.make_client("acme")
    kept = await api.make_client("kept")
    assert (await api.delete("/clients/acme")).status_code == 204
    assert (await api.delete("/clients/acme")).status_code == 204
    assert [c["slug"] for c in (await api.get("/clients")).json()["items"]] == ["kept"]
    gone = (await api.get("/clients", params={"is_active": "false"})).json()["items"]
    assert [(c["slug"], c["is_active"]) for c in gone] == [("acme", False)]
    assert (await api.get("/clients/acme")).json() == gone[0]
    assert [r["is_active"] for r in rows(db)] == [False, True]
    back = await api.patch("/clients/acme", json={"is_active": True})
    assert (back.status_code, back.json()["is_active"]) == (200, True)
    assert [c["slug"] for c in (await api.get("/clients")).json()["items"]] == ["acme", kept["slug"]]


async def test_deactivated_clients_pipelines_are_out_of_the_list_of_all(api: Api) -> None:
    await api.make_pipeline("acme")
    await api.make_pipeline("kept")
    await api.delete("/clients/acme")
    assert len((await api.get("/pipelines")).json()["items"]) == 1
    assert len((await api.get("/clients/acme/pipelines")).json()["items"]) == 1


async def test_patch_changes_what_it_names_and_null_is_absent(api: Api) -> None:
    made = await api.make_client("acme", tags=["gold"])
    same = (await api.patch("/clients/acme", json={"name": None, "slug": None, "tags": None, "is_active": None})).json()
    assert same == made
    assert (await api.patch("/clients/acme", json={})).json() == made
    changed = (await api.patch("/clients/acme", json={"name": "Acme Inc", "tags": []})).json()
    assert (changed["name"], changed["slug"], changed["tags"]) == ("Acme Inc", "acme", [])
    assert changed["updated_at"] > made["updated_at"]
    assert changed["created_at"] == made["created_at"]
    moved = (await api.patch("/clients/acme", json={"slug": "acme-inc"})).json()
    assert moved["id"] == made["id"]
    assert (await api.get("/clients/acme")).status_code == 404
    for body in ({"id": made["id"]}, {"ping_key": "x"}, {"created_at": "2026-01-01T00:00:00Z"}):
        assert (await api.patch("/clients/acme-inc", json=body)).json()["errors"][0]["code"] == "unknown_field"


async def test_list_is_filtered_by_tag_and_text(api: Api) -> None:
    for name, tags in (("100% Data", ["gold"]), ("1000 Data", ["gold", "eu"]), ("a_b", []), ("aXb", []), ("ÄRZTE", [])):
        await api.post("/clients", json={"name": name, "tags": tags})

    async def names(**params: str) -> list[str]:
        return [c["name"] for c in (await api.get("/clients", params=params)).json()["items"]]

    assert await names(tag="gold") == ["100% Data", "1000 Data"]
    assert await names(tag="eu", q="data") == ["1000 Data"]
    assert await names(tag="g") == []
    assert await names(q="0%") == ["100% Data"]
    assert await names(q="_") == ["a_b"]
    assert await names(q="A_B") == ["a_b"]
    assert await names(q="ärz") == ["ÄRZTE"]
    assert await names(q="/") == []
    assert (await api.get("/clients", params={"q": ""})).status_code == 422
    assert (await api.get("/clients", params={"is_active": "maybe"})).status_code == 422
    assert (await api.get("/clients", params={"active": "true"})).json()["errors"][0]["code"] == "unknown_parameter"


async def test_list_is_in_code_point_order_and_pages_are_stable(api: Api) -> None:
    names = ["zebra", "Zebra", "apple", "Äpfel", "Apple", "1st", "öl"]
    for number, name in enumerate(names):
        await api.post("/clients", json={"name": name, "slug": f"c{number}"})
    wanted = ["1st", "Apple", "Zebra", "apple", "zebra", "Äpfel", "öl"]
    assert sorted(names) == wanted
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/clients", params=params)).json()
        seen += [c["name"] for c in page["items"]]
        # rows that come in before and after the place shift nothing
        await api.post("/clients", json={"name": f"0 {len(seen)}"})
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == wanted


async def test_cursor_of_another_question_is_refused(api: Api) -> None:
    for slug in ("a", "b"):
        await api.make_client(slug, tags=["gold"])
    cursor = (await api.get("/clients", params={"limit": 1})).json()["next_cursor"]
    other = await api.get("/clients", params={"limit": 1, "cursor": cursor, "tag": "gold"})
    assert (other.status_code, other.json()["code"]) == (422, "cursor_mismatch")
    wrong = await api.get("/clients", params={"cursor": "nonsense"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_cursor")
    assert len((await api.get("/clients", params={"limit": 1000, "cursor": cursor})).json()["items"]) == 1


async def test_unknown_client_is_404(api: Api) -> None:
    ways = [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/ping_key"), ("GET", "/pipelines")]
    for client in ("nobody", "0b6e9d6a-b1f2-4a4e-8b9d-2f1c3a4b5c6d", "No%20Slug", "%F0%9F%98%80"):
        for method, path in ways:
            body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
            response = await api.request(method, f"/clients/{client}{path}", **body)
            assert (response.status_code, response.json()["code"]) == (404, "client_not_found"), (client, path)


async def test_ping_key_is_rotated(api: Api, db: Db) -> None:
    made = await api.make_client("acme")
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", made["ping_key"])
    rotated = (await api.post("/clients/acme/ping_key")).json()
    assert rotated["ping_key"] != made["ping_key"]
    assert rotated["updated_at"] > made["updated_at"]
    assert [r["ping_key"] for r in rows(db)] == [rotated["ping_key"]]


async def test_ping_key_is_shown_to_ingest_and_admin_alone(keyed: Api, database: Database) -> None:
    admin = keyed.with_key(await make_key(database, "admin"))
    made = await admin.make_client("acme")
    assert made["ping_key"]
    for scopes, is_shown in ((("read",), False), (("read", "ingest"), True), (("read", "admin"), True)):
        key = keyed.with_key(await make_key(database, *scopes))
        (listed,) = (await key.get("/clients")).json()["items"]
        for shown in (listed, (await key.get("/clients/acme")).json()):
            assert shown["ping_key"] == (made["ping_key"] if is_shown else None)


async def test_same_client_made_at_once_is_made_once(api: Api, db: Db) -> None:
    answers = await asyncio.gather(*(api.post("/clients", json={"name": "Acme"}) for _ in range(4)))
    assert sorted(r.status_code for r in answers) == [201, 409, 409, 409]
    assert {r.json()["code"] for r in answers if r.status_code == 409} <= {"name_taken", "slug_taken"}
    assert len(rows(db)) == 1


async def test_slug_made_from_a_name_gives_way_to_one_that_is_taken(api: Api) -> None:
    slugs = [
        (await api.post("/clients", json={"name": name})).json()["slug"] for name in ("Acme", "Acme!", "日本", "中国")
    ]
    assert slugs == ["acme", "acme-2", "client", "client-2"]
    assert (await api.post("/clients", json={"name": "  "})).status_code == 422
