"""Who may do what: walks every operation of the OpenAPI document, so that a new route cannot forget the gate.

The rules are those of the contract, written here once more from its words and not from the code: every GET needs
`read`, the doors and the posting of runs `ingest`, all other writing `admin`.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi import FastAPI

from headway.access.gate import Route
from headway.core.db import Database
from headway.main import create_app
from headway.settings import load_settings
from tests.access.keys import make_key
from tests.api import Api, running

Db = psycopg.Connection[dict[str, Any]]

OPEN = {"/healthz", "/readyz"}
# Their path or signature is the credential: no API key.
OWN_CREDENTIAL = re.compile(r"(?:/in/\{\w+\})?(?:/api/v1)?/(?:ping|webhooks)/.*")
INGEST = re.compile(r"POST (?:/in/\{\w+\})?/api/v1/(?:runs/batch|pipelines/\{\w+\}/runs|lineage)")

BROKEN = {"content": b"{broken", "headers": {"Content-Type": "application/json"}}

Operation = tuple[str, str]


def operations(app: FastAPI) -> Iterator[Operation]:
    """Yield (method, path template) of each operation that asks for a key."""
    for template, methods in app.openapi()["paths"].items():
        for method in methods:
            if template not in OPEN and not OWN_CREDENTIAL.fullmatch(template):
                yield method.upper(), template


def wanted_scope(method: str, template: str) -> str:
    if method in ("GET", "HEAD"):
        return "read"
    return "ingest" if INGEST.fullmatch(f"{method} {template}") else "admin"


def filled(template: str, **values: str) -> str:
    """Return a path with its parameters in; those not given are ids that nothing has."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1]) or str(uuid4()), template)


def routes_of(router: Any) -> Iterator[Any]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from routes_of(inner)


@pytest.fixture
async def walked(keyed: Api) -> list[Operation]:
    found = list(operations(keyed.app))
    assert len(found) > 25
    return found


async def test_every_route_is_behind_the_gate_or_named_here(keyed: Api) -> None:
    for route in routes_of(keyed.app):
        is_open = route.path in OPEN or re.fullmatch(r"/openapi\.json|/docs(?:/.*)?", route.path)
        if not is_open and not OWN_CREDENTIAL.fullmatch(route.path):
            assert isinstance(route, Route), f"{route.path} is not behind the gate: make it with access.gate.router"


async def test_what_is_open_needs_no_key(keyed: Api) -> None:
    for path in (*OPEN, "/openapi.json", "/docs"):
        assert (await keyed.get(path)).status_code == 200


async def test_without_a_key_everything_is_401_whatever_else_is_wrong(keyed: Api, walked: list[Operation]) -> None:
    for method, template in walked:
        path = filled(template)
        tries: list[tuple[str, dict[str, Any]]] = [(path, {}), (f"{path}?nonsense=1&limit=x", {})]
        if method != "GET":
            tries.append((path, BROKEN))
            tries.append((path, {"content": b"x", "headers": {"Content-Encoding": "nonsense"}}))
            tries.append((path, {"content": b"x", "headers": {"Content-Length": str(10**12)}}))
        for where, options in tries:
            response = await keyed.request(method, where, **options)
            assert response.status_code == 401, f"{method} {where}"
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["code"] == "key_missing"


async def test_paths_that_are_none_are_401_too(keyed: Api) -> None:
    for method, path in (("GET", "/nothing"), ("PUT", "/clients"), ("POST", "/in/acme/nothing")):
        assert (await keyed.request(method, path)).status_code == 401, path


NO_KEYS: list[tuple[str, str]] = [
    ("", "key_malformed"),
    ("Bearer", "key_malformed"),
    ("Bearer ", "key_malformed"),
    ("Bearer nonsense", "key_malformed"),
    ("Basic aGVhZHdheTpwdw==", "key_malformed"),
    ("hw_" + "x" * 43, "key_malformed"),
    ("Bearer hw_" + "x" * 43, "key_unknown"),
    ("bearer  hw_" + "x" * 43, "key_unknown"),
    ("Bearer hw_" + "x" * 5000, "key_malformed"),
    ("Bearer hw_" + "ä" * 43, "key_malformed"),
]


async def test_what_is_no_key_is_401_and_not_repeated(keyed: Api) -> None:
    for header, code in NO_KEYS:
        response = await keyed.get("/clients", headers={"Authorization": header.encode()})
        assert (response.status_code, response.json()["code"]) == (401, code), header
        assert "xxx" not in response.text
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_key_without_the_scope_is_403_and_with_it_is_let_in(
    keyed: Api, database: Database, walked: list[Operation]
) -> None:
    every = {"read", "ingest", "admin"}
    only = {scope: keyed.with_key(await make_key(database, scope)) for scope in every}
    lacking = {scope: keyed.with_key(await make_key(database, *(every - {scope}))) for scope in every}
    for method, template in walked:
        scope = wanted_scope(method, template)
        path = filled(template)
        for where, options in ((path, {}), (f"{path}?nonsense=1", BROKEN if method != "GET" else {})):
            refused = await lacking[scope].request(method, where, **options)
            assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing"), f"{method} {where}"
            assert scope in refused.json()["detail"]
        let_in = await only[scope].request(method, path, **(BROKEN if method != "GET" else {}))
        assert let_in.status_code not in (401, 403), f"{method} {template} with {scope}: {let_in.text}"


# ---- keys that are bound to a client ------------------------------------------------------------------------------


class Fleet:
    """Two clients with all that a client can have; a key is bound to the first, and knows nothing of the second."""

    def __init__(self, admin: Api, bound: Api) -> None:
        self.admin, self.bound = admin, bound
        self.mine: dict[str, str] = {}
        self.theirs: dict[str, str] = {}

    async def furnish(self, db: Db) -> None:
        for things, slug in ((self.mine, "acme"), (self.theirs, "foreignco")):
            schedule = {"every_seconds": 60, "grace_seconds": 0}
            body = {"schedule": schedule, "external_id": f"id of {slug}"}
            pipeline = await self.admin.make_pipeline(slug, f"loads of {slug}", **body)
            runs = f"/pipelines/{pipeline['id']}/runs"
            for number, status in enumerate(("success", "failed", "success", "failed")):
                report = {"status": status, "attempt": number + 1, "external_run_id": f"run of {slug}"}
                run = await self.admin.post(runs, json=report)
                assert run.status_code < 300
            rule = {"rule_type": "on_failure", "channel": "email", "destination": f"ops@{slug}.example"}
            made = await self.admin.post("/alert_rules", json=rule | {"client_id": pipeline["client_id"]})
            things.update(
                client=slug,
                client_id=pipeline["client_id"],
                pipeline_id=pipeline["id"],
                slug=pipeline["slug"],
                run_id=run.json()["id"],
                rule_id=made.json()["id"],
                name=f"source-of-{slug}",
            )
            db.execute(
                """INSERT INTO sources (name, platform, client_slug, url, environment, interval_seconds, next_try_at,
                                        created_at, updated_at)
                   VALUES (%s, 'airflow', %s, 'https://airflow.example', 'prod', 60, now(), now(), now())""",
                (things["name"], slug),
            )

    def betrayed(self, text: str) -> Iterable[str]:
        """Return what of the other client shows in an answer."""
        return [mark for name, mark in self.theirs.items() if mark in text and name != "slug"]


@pytest.fixture
async def fleet(keyed: Api, database: Database, db: Db) -> Fleet:
    every = ("read", "ingest", "admin")
    made = Fleet(keyed.with_key(await make_key(database, *every)), keyed)
    await made.furnish(db)
    made.bound = keyed.with_key(await make_key(database, *every, client="acme"))
    return made


# What a route takes that is in order; a new one with a body has to be named here, or the walk finds 422 in place of 404.
BODIES: dict[str, Any] = {
    "PATCH /api/v1/clients/{client}": {"name": "Taken"},
    "POST /api/v1/clients/{client}/pipelines": {"name": "new", "platform": "dbt"},
    "PUT /api/v1/clients/{client}/pipelines/{slug}": {"name": "new", "platform": "dbt"},
    "PATCH /api/v1/pipelines/{pipeline_id}": {"name": "Taken"},
    "POST /api/v1/pipelines/{pipeline_id}/runs": {"status": "success"},
    "PATCH /api/v1/alert_rules/{rule_id}": {"is_enabled": False},
    "POST /in/{client}/api/v1/lineage": {
        "eventType": "COMPLETE",
        "eventTime": "2026-11-01T06:00:00Z",
        "producer": "https://example.com/producer",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "0190aaaa-0000-7000-8000-000000000000"},
        "job": {"namespace": "ns", "name": "taken"},
    },
}


def snapshot(db: Db) -> list[Any]:
    tables = ("clients", "pipelines", "runs", "run_events", "alert_rules", "sources")
    return [db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


async def test_another_clients_things_are_unknown_to_a_bound_key(fleet: Fleet, walked: list[Operation], db: Db) -> None:
    before = snapshot(db)
    tried = 0
    for method, template in walked:
        names = re.findall(r"\{(\w+)\}", template)
        if not names:
            continue
        body = BODIES.get(f"{method} {template}")
        options = {} if body is None else {"json": body}
        for way in ("client", "client_id"):
            if way == "client_id" and ("client" not in names or template.startswith("/in/")):
                continue
            path = filled(template, **(fleet.theirs | {"client": fleet.theirs[way]}))
            theirs = await fleet.bound.request(method, path, **options)
            assert theirs.status_code == 404, f"{method} {path}: {theirs.status_code} {theirs.text}"
            unknown = await fleet.bound.request(method, filled(template, client="nobody", slug="nothing"), **options)
            assert theirs.json() == unknown.json(), f"{method} {template} tells that it exists"
            tried += 1
    assert tried > 15
    assert snapshot(db) == before


async def test_another_clients_things_are_unknown_in_filters_too(fleet: Fleet) -> None:
    paths = fleet.bound.app.openapi()["paths"]
    tried = 0
    for template, methods in paths.items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            theirs = {"client": "client", "pipeline": "pipeline_id"}.get(parameter["name"])
            if parameter["in"] != "query" or theirs is None:
                continue
            params = {parameter["name"]: fleet.theirs[theirs]}
            assert (await fleet.bound.get(template, params=params)).status_code == 404, template
            own = await fleet.bound.get(template, params={parameter["name"]: fleet.mine[theirs]})
            assert own.status_code == 200, own.text
            tried += 1
    assert tried >= 9


async def test_lists_health_and_metrics_show_a_bound_key_its_own_client_alone(
    fleet: Fleet, walked: list[Operation]
) -> None:
    for method, template in walked:
        if method != "GET":
            continue
        path = filled(template, **fleet.mine)
        queries = [f"?group_by={group}" for group in ("client", "pipeline")] if "timeseries" in path else [""]
        for query in queries:
            answer = await fleet.bound.get(path + query)
            assert answer.status_code == 200, f"{path}: {answer.text}"
            assert fleet.betrayed(answer.text) == [], path
            if "{" in template or template == "/metrics":
                continue
            whole = await fleet.admin.get(path + query)
            if any(mark in whole.text for mark in fleet.mine.values()):
                assert fleet.betrayed(whole.text), f"{path}: the test's fleet shows nothing of the other client"


async def test_batch_items_of_another_client_are_refused_like_unknown_ones(fleet: Fleet, db: Db) -> None:
    before = snapshot(db)

    def item(number: int, **pipeline: Any) -> dict[str, Any]:
        return {"external_run_id": f"new-{number}", "status": "success", **pipeline}

    natural = {"name": "loads of foreignco", "platform": "airflow"}
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"pipeline_id": fleet.theirs["pipeline_id"]}, {"pipeline_id": str(uuid4())}),
        ({"pipeline": natural | {"client": "foreignco"}}, {"pipeline": natural | {"client": "nobody"}}),
        (
            {"pipeline": natural | {"client": "foreignco", "external_id": "id of foreignco"}},
            {"pipeline": natural | {"client": "nobody", "external_id": "id of foreignco"}},
        ),
        (
            {"pipeline": natural | {"client": "foreignco", "name": "new"}},
            {"pipeline": natural | {"client": "nobody", "name": "new"}},
        ),
    ]
    items = [item(n, **reference) for n, reference in enumerate(r for pair in pairs for r in pair)]
    for register in (False, True):
        result = await fleet.bound.report(*items, register=register)
        assert result["rejected"] == len(items)
        told = [(e["pointer"].split("/")[3:], e["code"], e["detail"]) for e in result["errors"]]
        assert told[::2] == told[1::2], "an item tells whether another client's pipeline exists"
    assert snapshot(db) == before
    own = {"pipeline": {"client": "acme", "name": "brand new", "platform": "dbt"}}
    assert (await fleet.bound.report(item(9, **own), register=True))["inserted"] == 1


async def test_doors_report_for_the_client_of_a_bound_key(fleet: Fleet, db: Db) -> None:
    event = BODIES["POST /in/{client}/api/v1/lineage"]
    for path in ("/api/v1/lineage", "/in/acme/api/v1/lineage"):
        assert (await fleet.bound.post(path, json=event)).status_code == 200
    for client in ("foreignco", "nobody", "default"):
        refused = await fleet.bound.post(f"/in/{client}/api/v1/lineage", json=event)
        assert (refused.status_code, refused.json()["code"]) == (404, "client_not_found")
    found = db.execute("SELECT client_id FROM pipelines WHERE name = 'taken'").fetchall()
    assert [str(r["client_id"]) for r in found] == [fleet.mine["client_id"]]


async def test_only_an_unbound_admin_makes_clients(fleet: Fleet, keyed: Api, database: Database, db: Db) -> None:
    assert (await fleet.admin.post("/clients", json={"name": "New"})).status_code == 201
    for body in ({"name": "Mine"}, {"name": "Default", "slug": "default"}, {"nonsense": 1}, {}):
        refused = await fleet.bound.post("/clients", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "key_bound"), body
    ingest = keyed.with_key(await make_key(database, "ingest"))
    item = {"external_run_id": "1", "status": "success"}
    for number, client in enumerate(("acme", "unheard-of", "default")):
        made = item | {"pipeline": {"client": client, "name": f"made by {number}", "platform": "cron"}}
        assert (await ingest.report(made, register=True))["inserted"] == (0 if client == "unheard-of" else 1), client
        bound = await fleet.bound.report(made | {"external_run_id": "2"}, register=True)
        assert bound["inserted"] == (1 if client == "acme" else 0), client
    event = BODIES["POST /in/{client}/api/v1/lineage"]
    assert (await ingest.post("/in/unheard-of/api/v1/lineage", json=event)).status_code == 404
    assert (await fleet.admin.post("/in/unheard-of/api/v1/lineage", json=event)).status_code == 200
    slugs = {r["slug"] for r in db.execute("SELECT slug FROM clients")}
    assert slugs == {"acme", "foreignco", "new", "default", "unheard-of"}


# ---- without keys -------------------------------------------------------------------------------------------------


@pytest.fixture
async def unkeyed(app_url: str, db: Db) -> AsyncIterator[Api]:
    async with running(create_app(load_settings({}, auth="none"), app_url)) as client:
        yield client


async def test_without_keys_this_machine_is_served(unkeyed: Api) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LOCALHOST"):
        assert (await unkeyed.get("/clients", headers={"Host": host})).status_code == 200, host


FOREIGN_HOSTS: list[str] = [
    *("headway.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "10.0.0.1", "[::]"),
    *("localhost:80:80", "localhost@evil.example", "evil.example#localhost", "localhost ,evil.example", "::1", ""),
]


async def test_without_keys_another_host_is_403_on_every_route(unkeyed: Api) -> None:
    for method, template in operations(unkeyed.app):
        for host in FOREIGN_HOSTS:
            response = await unkeyed.request(method, filled(template), headers={"Host": host})
            assert (response.status_code, response.json()["code"]) == (403, "host_not_local"), f"{template} {host}"
            assert "HEADWAY_AUTH=keys" in response.json()["detail"]


PROXY_HEADERS: list[str] = [
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"),
    *("X-Forwarded-Prefix", "X-Forwarded-Server", "x-forwarded-anything"),
]


async def test_without_keys_a_request_through_a_proxy_is_403(unkeyed: Api) -> None:
    ways = [("GET", "/clients"), ("POST", "/clients"), ("GET", "/metrics"), ("POST", "/api/v1/lineage")]
    for header in PROXY_HEADERS:
        for method, path in ways:
            response = await unkeyed.request(method, path, headers={header: "for=192.0.2.1"})
            assert response.status_code == 403, header
            assert response.json()["code"] == "proxied"
            assert "proxy" in response.json()["detail"]


async def test_with_keys_a_proxy_and_any_host_are_fine(keyed: Api, database: Database) -> None:
    key = keyed.with_key(await make_key(database, "read"))
    headers = {"Host": "headway.example", "X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    assert (await key.get("/clients", headers=headers)).status_code == 200
