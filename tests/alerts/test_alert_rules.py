"""Alert rules, through HTTP, with what is left in the table."""

import asyncio
from typing import Any
from uuid import uuid4

import psycopg

from headway.core.db import Database
from tests.access.keys import make_key
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
TO = {"channel": "email", "destination": "ops@acme.example"}
KINDS: dict[str, dict[str, Any]] = {
    "on_failure": {},
    "consecutive_failures": {"threshold": 3},
    "failures_in_window": {"threshold": 5, "window_minutes": 60},
    "failure_rate": {"threshold": 12.5, "window_minutes": 1440},
}


def rows(db: Db) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM alert_rules ORDER BY created_at").fetchall()


async def post(api: Api, **body: Any) -> Any:
    return await api.post("/alert_rules", json={"rule_type": "on_failure", **TO} | body)


async def make(api: Api, **body: Any) -> dict[str, Any]:
    response = await post(api, **body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_rule_of_each_kind_is_made_read_and_removed(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    empty = {"threshold": None, "window_minutes": None, "pipeline_id": None}
    for kind, parameters in KINDS.items():
        made = await make(api, client_id=client["id"], rule_type=kind, **parameters)
        wanted = empty | parameters | TO | {"client_id": client["id"], "rule_type": kind, "is_enabled": True}
        assert made == made | wanted
        assert made.keys() == wanted.keys() | {"id", "created_at", "updated_at"}
        assert len(rows(db)) == 1
        path = f"/alert_rules/{made['id']}"
        assert (await api.get(path)).json() == made
        assert (await api.delete(path)).status_code == 204
        assert rows(db) == []
        gone = [await api.get(path), await api.delete(path), await api.patch(path, json={})]
        assert {(r.status_code, r.json()["code"]) for r in gone} == {(404, "alert_rule_not_found")}


UNFIT: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"threshold": 1}, [("/threshold", "out_of_place")]),
    ({"window_minutes": 60}, [("/window_minutes", "out_of_place")]),
    ({"threshold": 1, "window_minutes": 60}, [("/threshold", "out_of_place"), ("/window_minutes", "out_of_place")]),
    ({"rule_type": "consecutive_failures"}, [("/threshold", "missing")]),
    (
        {"rule_type": "consecutive_failures", "threshold": 3, "window_minutes": 5},
        [("/window_minutes", "out_of_place")],
    ),
    ({"rule_type": "consecutive_failures", "threshold": 2.5}, [("/threshold", "invalid_type")]),
    ({"rule_type": "failures_in_window"}, [("/threshold", "missing"), ("/window_minutes", "missing")]),
    ({"rule_type": "failures_in_window", "threshold": 3}, [("/window_minutes", "missing")]),
    ({"rule_type": "failures_in_window", "window_minutes": 3}, [("/threshold", "missing")]),
    ({"rule_type": "failure_rate", "threshold": 101, "window_minutes": 5}, [("/threshold", "out_of_range")]),
    ({"rule_type": "failure_rate", "threshold": 0.5, "window_minutes": 5}, [("/threshold", "out_of_range")]),
    ({"rule_type": "failure_rate", "threshold": 50}, [("/window_minutes", "missing")]),
    ({"rule_type": "consecutive_failures", "threshold": 0}, [("/threshold", "out_of_range")]),
    ({"rule_type": "consecutive_failures", "threshold": -1}, [("/threshold", "out_of_range")]),
    ({"rule_type": "consecutive_failures", "threshold": "3"}, [("/threshold", "invalid_type")]),
    ({"rule_type": "consecutive_failures", "threshold": True}, [("/threshold", "invalid_type")]),
    ({"rule_type": "failure_rate", "threshold": 5, "window_minutes": 0}, [("/window_minutes", "out_of_range")]),
    (
        {"rule_type": "failure_rate", "threshold": 5, "window_minutes": 44_641},
        [("/window_minutes", "out_of_range")],
    ),
    ({"rule_type": "failure_rate", "threshold": 5, "window_minutes": 1.5}, [("/window_minutes", "invalid_type")]),
    ({"rule_type": "on_success"}, [("/rule_type", "unknown_value")]),
    ({"rule_type": None}, [("/rule_type", "unknown_value")]),
    ({"channel": "sms"}, [("/channel", "unknown_value")]),
    ({"destination": ""}, [("/destination", "too_short")]),
    ({"destination": "a" * 2001}, [("/destination", "too_long")]),
    ({"is_enabled": "yes"}, [("/is_enabled", "invalid_type")]),
    ({"name": "mine"}, [("/name", "unknown_field")]),
]


async def test_parameters_that_do_not_fit_are_refused(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    for body, issues in UNFIT:
        response = await post(api, client_id=client["id"], **body)
        assert response.status_code == 422, body
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == issues, body
    assert rows(db) == []


SECRET = "T0PSecretS3cretS3cretV4lue"


DESTINATIONS: list[tuple[str, str, str | None]] = [
    ("email", "ops@acme.example", None),
    ("email", "o'neil+alerts@mail.acme.co.uk", None),
    ("email", "root@localhost", None),
    ("email", "@on-call", None),
    ("email", "ops", "invalid_destination"),
    ("email", "ops@", "invalid_destination"),
    ("email", "ops@acme..example", "invalid_destination"),
    ("email", "ops@-acme.example", "invalid_destination"),
    ("email", "a@acme.example, b@acme.example", "invalid_destination"),
    ("email", "Ops <ops@acme.example>", "invalid_destination"),
    ("email", "ops@acme.example\nBcc: all@acme.example", "invalid_destination"),
    ("email", "mailto:ops@acme.example", "invalid_destination"),
    ("email", "https://acme.example/hook", "invalid_destination"),
    ("email", f"{'x' * 65}@acme.example", "invalid_destination"),
    ("webhook", "https://acme.example/alerts?team=data", None),
    ("webhook", "https://acme.example:8443", None),
    ("webhook", "https://acme.example/data-engineering-alerts-2026-production", None),
    ("webhook", "@hook", None),
    ("webhook", "http://acme.example/alerts", "invalid_destination"),
    ("webhook", "ftp://acme.example/alerts", "invalid_destination"),
    ("webhook", "acme.example/alerts", "invalid_destination"),
    ("webhook", "https://", "invalid_destination"),
    ("webhook", "https://acme.example:port/", "invalid_destination"),
    ("webhook", "https://acme.example/a b", "invalid_destination"),
    ("webhook", "https://acme.example\\@evil.example/", "invalid_destination"),
    ("webhook", "https://[::1", "invalid_destination"),
    ("webhook", "ops@acme.example", "invalid_destination"),
    ("webhook", "@", "invalid_destination"),
    ("webhook", "@two words", "invalid_destination"),
    ("webhook", f"https://me:{SECRET}@acme.example/", "secret_in_destination"),
    ("webhook", f"https://{SECRET}@acme.example/", "secret_in_destination"),
    ("webhook", f"https://acme.example/?token={SECRET}", "secret_in_destination"),
    ("webhook", f"https://acme.example/?api_key={SECRET}", "secret_in_destination"),
    ("webhook", "https://acme.example/?key=short", "secret_in_destination"),
    ("webhook", f"https://acme.example/#access_token={SECRET}", "secret_in_destination"),
    ("webhook", f"https://hooks.slack.com/services/T01/B02/{SECRET}", "secret_in_destination"),
    ("webhook", f"https://discord.com/api/webhooks/123456/{SECRET}", "secret_in_destination"),
    ("webhook", f"https://chat.acme.example/hooks/{SECRET}", "secret_in_destination"),
    ("webhook", f"https://acme.example/in/{SECRET}", "secret_in_destination"),
    ("webhook", "https://acme.example/ping/0b6e9d6a-b1f2-4a4e-8b9d-2f1c3a4b5c6d", "secret_in_destination"),
    ("slack", "@data-alerts", None),
    ("slack", f"https://hooks.slack.com/services/T01/B02/{SECRET}", "invalid_destination"),
    ("slack", "#data-alerts", "invalid_destination"),
    ("apprise", "@pager.duty_1", None),
    ("apprise", f"tgram://{SECRET}/123", "invalid_destination"),
    ("apprise", "ops@acme.example", "invalid_destination"),
]


async def test_destination_fits_its_channel_and_carries_no_secret(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    for channel, destination, code in DESTINATIONS:
        response = await post(api, client_id=client["id"], channel=channel, destination=destination)
        if code is None:
            assert response.status_code == 201, destination
            assert rows(db)[-1]["destination"] == response.json()["destination"] == destination
            continue
        assert response.status_code == 422, destination
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == [("/destination", code)], destination
        assert SECRET not in response.text
    assert len(rows(db)) == len([code for _, _, code in DESTINATIONS if code is None])


async def test_scope_is_a_client_or_a_pipeline_that_fit_each_other(api: Api, db: Db) -> None:
    pipeline = await api.make_pipeline("acme")
    other = await api.make_pipeline("other")
    acme, its = pipeline["client_id"], pipeline["id"]
    refused: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({}, [("/client_id", "missing")]),
        ({"client_id": None, "pipeline_id": None}, [("/client_id", "missing")]),
        ({"client_id": str(uuid4())}, [("/client_id", "unknown_client")]),
        ({"client_id": "acme"}, [("/client_id", "invalid_uuid")]),
        ({"pipeline_id": str(uuid4())}, [("/pipeline_id", "unknown_pipeline")]),
        ({"client_id": acme, "pipeline_id": other["id"]}, [("/pipeline_id", "unknown_pipeline")]),
        (
            {"client_id": str(uuid4()), "pipeline_id": its},
            [("/client_id", "unknown_client"), ("/pipeline_id", "unknown_pipeline")],
        ),
    ]
    for body, issues in refused:
        response = await post(api, **body)
        assert response.status_code == 422
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == issues, body
    assert rows(db) == []
    both = await make(api, client_id=acme, pipeline_id=its)
    assert (both["client_id"], both["pipeline_id"]) == (acme, its)
    alone = await make(api, pipeline_id=other["id"])
    assert (alone["client_id"], alone["pipeline_id"]) == (None, other["id"])


async def test_second_active_rule_of_the_same_kind_scope_and_destination_clashes(api: Api, db: Db) -> None:
    pipeline = await api.make_pipeline("acme")
    acme, its = pipeline["client_id"], pipeline["id"]
    of_client = await make(api, client_id=acme)
    await make(api, pipeline_id=its)
    for body in ({"client_id": acme}, {"pipeline_id": its}, {"client_id": acme, "pipeline_id": its}):
        again = await post(api, **body)
        assert (again.status_code, again.json()["code"]) == (409, "duplicate_rule"), body
    counted = await make(api, client_id=acme, rule_type="consecutive_failures", threshold=3)
    again = await post(api, client_id=acme, rule_type="consecutive_failures", threshold=4)
    assert again.status_code == 409
    await make(api, client_id=acme, destination="@ops")
    await make(api, client_id=acme, destination="@ops", channel="slack")
    await make(api, client_id=(await api.make_client("other"))["id"])
    # those that are switched off are no matter, until they are switched on
    off = await make(api, client_id=acme, is_enabled=False)
    await make(api, client_id=acme, is_enabled=False)
    enabled = await api.patch(f"/alert_rules/{off['id']}", json={"is_enabled": True})
    assert (enabled.status_code, enabled.json()["code"]) == (409, "duplicate_rule")
    assert (await api.get(f"/alert_rules/{off['id']}")).json() == off
    await api.patch(f"/alert_rules/{of_client['id']}", json={"is_enabled": False})
    assert (await api.patch(f"/alert_rules/{off['id']}", json={"is_enabled": True})).json()["is_enabled"] is True
    # nor does a change make a duplicate
    changed = await api.patch(f"/alert_rules/{counted['id']}", json={"rule_type": "on_failure", "threshold": None})
    assert (changed.status_code, changed.json()["code"]) == (409, "duplicate_rule")
    assert len(rows(db)) == 8


async def test_same_rule_made_at_once_is_made_once(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    answers = await asyncio.gather(*(post(api, client_id=client["id"]) for _ in range(4)))
    assert sorted(r.status_code for r in answers) == [201, 409, 409, 409]
    assert len(rows(db)) == 1


async def test_patch_is_judged_by_what_comes_out(api: Api, db: Db) -> None:
    client = await api.make_client("acme")
    rule = await make(api, client_id=client["id"], rule_type="failures_in_window", threshold=5, window_minutes=60)
    path = f"/alert_rules/{rule['id']}"
    refused = [
        ({"threshold": None}, [("/threshold", "missing")]),
        ({"window_minutes": None}, [("/window_minutes", "missing")]),
        ({"threshold": 2.5}, [("/threshold", "invalid_type")]),
        ({"threshold": 0}, [("/threshold", "out_of_range")]),
        ({"rule_type": "on_failure"}, [("/threshold", "out_of_place"), ("/window_minutes", "out_of_place")]),
        ({"rule_type": "on_failure", "threshold": None}, [("/window_minutes", "out_of_place")]),
        ({"rule_type": "failure_rate", "threshold": 150}, [("/threshold", "out_of_range")]),
        ({"channel": "webhook"}, [("/destination", "invalid_destination")]),
        ({"destination": "https://acme.example/"}, [("/destination", "invalid_destination")]),
        ({"client_id": client["id"]}, [("/client_id", "unknown_field")]),
        ({"pipeline_id": None}, [("/pipeline_id", "unknown_field")]),
    ]
    for body, issues in refused:
        response = await api.patch(path, json=body)
        assert response.status_code == 422, body
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == issues, body
    assert (await api.get(path)).json() == rule
    absent = dict.fromkeys(("rule_type", "channel", "destination", "is_enabled"))
    for body in ({}, absent):
        assert (await api.patch(path, json=body)).json() == rule
    changed: dict[str, Any] = {"rule_type": "on_failure", "threshold": None, "window_minutes": None}
    after = (await api.patch(path, json=changed)).json()
    assert after == rule | changed | {"updated_at": after["updated_at"]}
    assert after["updated_at"] > rule["updated_at"]
    changed = {"channel": "webhook", "destination": "https://acme.example/", "is_enabled": False}
    assert (await api.patch(path, json=changed)).json() == after | changed | {"updated_at": rows_time(db)}


def rows_time(db: Db) -> str:
    (row,) = rows(db)
    return str(row["updated_at"].isoformat()).replace("+00:00", "Z")


async def test_list_is_filtered_and_goes_by_creation(api: Api) -> None:
    one = await api.make_pipeline("acme")
    other = await api.make_pipeline("other")
    of_client = await make(api, client_id=one["client_id"])
    of_pipeline = await make(api, pipeline_id=one["id"], rule_type="consecutive_failures", threshold=2)
    of_both = await make(api, client_id=one["client_id"], pipeline_id=one["id"], is_enabled=False)
    of_other = await make(api, pipeline_id=other["id"])

    async def ids(**params: str) -> list[str]:
        return [r["id"] for r in (await api.get("/alert_rules", params=params)).json()["items"]]

    first, second, third, fourth = (r["id"] for r in (of_client, of_pipeline, of_both, of_other))
    assert await ids() == [first, second, third, fourth]
    assert await ids(client="acme") == await ids(client=one["client_id"]) == [first, second, third]
    assert await ids(client="other") == [fourth]
    assert await ids(pipeline=one["id"]) == [second, third]
    assert await ids(pipeline=one["id"], client="other") == []
    assert await ids(rule_type="consecutive_failures") == [second]
    assert await ids(is_enabled="false") == [third]
    assert await ids(is_enabled="true", client="acme", rule_type="on_failure") == [first]
    for params, code in (
        ({"client": "nobody"}, "client_not_found"),
        ({"pipeline": str(uuid4())}, "pipeline_not_found"),
    ):
        unknown = await api.get("/alert_rules", params=params)
        assert (unknown.status_code, unknown.json()["code"]) == (404, code)
    for params in ({"rule_type": "x"}, {"pipeline": "daily"}, {"is_enabled": "x"}, {"channel": "email"}):
        assert (await api.get("/alert_rules", params=params)).status_code == 422

    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        place = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/alert_rules", params=place)).json()
        seen += [r["id"] for r in page["items"]]
        cursor = page["next_cursor"]
        if cursor is not None:
            mismatch = await api.get("/alert_rules", params={"cursor": cursor, "client": "acme"})
            assert mismatch.json()["code"] == "cursor_mismatch"
    assert seen == [first, second, third, fourth]


async def test_bound_key_keeps_to_the_rules_of_its_client(keyed: Api, database: Database, db: Db) -> None:
    admin = keyed.with_key(await make_key(database, "admin", "read"))
    mine, foreign = await admin.make_pipeline("acme"), await admin.make_pipeline("other")
    bound = keyed.with_key(await make_key(database, "admin", "read", client="acme"))
    own = [await make(bound, client_id=mine["client_id"]), await make(bound, pipeline_id=mine["id"])]
    theirs = [await make(admin, client_id=foreign["client_id"]), await make(admin, pipeline_id=foreign["id"])]
    assert (await bound.get("/alert_rules")).json()["items"] == own
    assert (await bound.get("/alert_rules", params={"client": "acme"})).json()["items"] == own
    for params in ({"client": "other"}, {"pipeline": foreign["id"]}):
        assert (await bound.get("/alert_rules", params=params)).status_code == 404
    for rule in theirs:
        path = f"/alert_rules/{rule['id']}"
        answers = [await bound.get(path), await bound.patch(path, json={"is_enabled": False}), await bound.delete(path)]
        assert {(r.status_code, r.json()["code"]) for r in answers} == {(404, "alert_rule_not_found")}
    for body, pointer, code in (
        ({"client_id": foreign["client_id"]}, "/client_id", "unknown_client"),
        ({"pipeline_id": foreign["id"]}, "/pipeline_id", "unknown_pipeline"),
        ({"client_id": mine["client_id"], "pipeline_id": foreign["id"]}, "/pipeline_id", "unknown_pipeline"),
    ):
        refused = await post(bound, **body)
        assert refused.status_code == 422
        assert [(e["pointer"], e["code"]) for e in refused.json()["errors"]] == [(pointer, code)]
    assert len(rows(db)) == 4
