"""The contract of errors, asserted across all routes of the OpenAPI document.

Whatever is wrong with a request, the answer is ``application/problem+json`` with exactly these members: ``type`` (a URI),
``title``, ``status`` (that of the answer), ``detail``, ``code`` (snake_case, listed in ``docs/errors.md``), and where
single places are at fault ``errors``, a list of ``{"pointer", "code", "detail"}``. It carries ``X-Request-Id``, and no
value that it refuses. A new route takes part without being named here.
"""

import json
import re
from typing import Any
from uuid import UUID

import pytest

from headway.main import create_app
from headway.settings import load_settings
from tests.api import Api
from tests.contract.asgi import Answer, call
from tests.contract.test_error_codes import documented

MARKER = "zqmarkerqz"
NOWHERE = str(UUID(int=0))
JSON = (b"content-type", b"application/json")

Operation = tuple[str, str, dict[str, Any]]


def operations() -> list[Operation]:
    document = create_app(load_settings({}, auth="none"), "postgresql://localhost/headway").openapi()
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


# Those that are open to all answer in their protocol's own way.
GUARDED = [o for o in operations() if o[2].get("security") and o[1] not in ("/healthz", "/readyz")]


def _ids(operation: Operation) -> str:
    return f"{operation[0]} {operation[1]}"


def _assert_problem(answer: Answer, *statuses: int) -> dict[str, Any]:
    problem = answer.problem()
    assert answer.status in statuses, problem
    assert problem.keys() - {"errors"} == {"type", "title", "status", "detail", "code"}
    assert problem["type"] == f"urn:headway:problem:{problem['code']}"
    assert all(isinstance(problem[name], str) and problem[name] for name in ("title", "detail", "code"))
    known = set(documented())
    assert problem["code"] in known
    for error in problem.get("errors", ()):
        assert error.keys() == {"pointer", "code", "detail"}
        assert re.fullmatch(r"(/[^\0]*)?", error["pointer"])
        assert error["code"] in known
        assert error["detail"]
    assert MARKER.encode() not in answer.body
    assert answer.headers[b"x-request-id"]
    return problem


def _path(path: str) -> str:
    """Return a path of things that do not exist."""
    return re.sub(r"\{(\w+)\}", lambda m: NOWHERE if m[1].endswith("_id") or m[1].endswith("uuid") else "nowhere", path)


async def _call(api: Api, operation: Operation, **options: Any) -> Answer:
    method, path, _ = operation
    return await call(api.app, method, _path(path), **options)


@pytest.mark.parametrize("operation", GUARDED, ids=_ids)
async def test_unknown_query_parameter(api: Api, operation: Operation) -> None:
    problem = _assert_problem(await _call(api, operation, query=f"nope={MARKER}".encode()), 422)
    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/query/nope", "unknown_parameter")]


@pytest.mark.parametrize("operation", [o for o in GUARDED if "{" in o[1]], ids=_ids)
async def test_things_that_do_not_exist(api: Api, operation: Operation) -> None:
    body = _smallest(api, operation)
    options = {} if body is None else {"headers": [JSON], "chunks": [json.dumps(body).encode()]}
    answer = await _call(api, operation, **options)
    if operation[1].endswith("/lineage"):  # which makes its client on first use
        _assert_problem(answer, 422) if answer.status != 200 else None
        return
    _assert_problem(answer, 404)


@pytest.mark.parametrize("operation", [o for o in GUARDED if "requestBody" in o[2]], ids=_ids)
async def test_broken_bodies(api: Api, operation: Operation) -> None:
    packed = (b"content-encoding", b"br")
    _assert_problem(await _call(api, operation, headers=[JSON], chunks=[b'{"' + MARKER.encode()]), 400)
    _assert_problem(await _call(api, operation, headers=[JSON], chunks=[]), 400)
    _assert_problem(await _call(api, operation, headers=[JSON, packed], chunks=[b"{}"]), 415)
    _assert_problem(await _call(api, operation, headers=[JSON], chunks=[b"[" * 100]), 400)
    problem = _assert_problem(await _call(api, operation, headers=[JSON], chunks=[f'"{MARKER}"'.encode()]), 422)
    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("", "invalid_type")]


@pytest.mark.parametrize("operation", GUARDED, ids=_ids)
async def test_no_key_and_a_wrong_one(keyed: Api, operation: Operation) -> None:
    assert _assert_problem(await _call(keyed, operation), 401)["code"] == "key_missing"
    wrong = (b"authorization", b"Bearer hw_" + b"x" * 43)
    answer = await _call(keyed, operation, headers=[wrong], query=b"nope=1")
    assert _assert_problem(answer, 401)["code"] == "key_unknown"
    assert answer.headers[b"www-authenticate"].startswith(b"Bearer")


@pytest.mark.parametrize("operation", GUARDED, ids=_ids)
async def test_a_method_that_is_not_there(api: Api, operation: Operation) -> None:
    assert _assert_problem(await call(api.app, "PROPFIND", _path(operation[1])), 405)["code"] == "method_not_allowed"


def _smallest(api: Api, operation: Operation) -> Any:
    """Return a body that is in order, made of what the document requires."""
    content = operation[2].get("requestBody", {}).get("content", {})
    if not content:
        return None
    return _example(api.app.openapi(), content["application/json"]["schema"])


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        required = schema.get("required", ())
        return {name: _example(document, schema["properties"][name]) for name in required}
    return {"array": [], "integer": 1, "number": 1, "boolean": True}.get(schema.get("type", ""), "text")
