"""Completes the OpenAPI document: the problem shape, the key, and the bodies that routes read by themselves.

The repository keeps a snapshot in ``specs/001-run-health/contracts/openapi.json``, made by ``python -m
headway.openapi``; ``tests/contract/test_openapi_snapshot.py`` holds it to the code. The paths of
``_OPEN`` are open to all.
"""

import json
import pkgutil
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from headway.access.gate import SCOPE_EXTENSION
from headway.core.problems import MEDIA_TYPE
from headway.runs.parsing import Batch, Observation

_METHODS = {"get", "put", "post", "patch", "delete", "head"}

_PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457)",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what to do about it"},
        "code": {"type": "string", "description": "stable; see docs/errors.md"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "RFC 6901 pointer into the body, or /query/… and the like",
                    },
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

_ANY_REQUEST = {
    "401": "No valid API key",
    "403": "The key lacks the scope, or keys are off and the request is not local",
    "422": "Invalid input",
    "503": "Overloaded, or the database cannot be reached; see Retry-After",
}
_WITH_PATH = {"404": "Not found"}
_WITH_BODY = {
    "400": "The body is no JSON",
    "408": "The body came too slowly",
    "413": "The body is too large",
    "415": "Unsupported Content-Type or Content-Encoding",
}
_WRITES = {"409": "Clashes with what is stored"}


_HEADERS = {
    "401": ("WWW-Authenticate", "string", "how to send a key"),
    "503": ("Retry-After", "integer", "seconds to wait before the next try"),
}
_OPEN = {"/healthz", "/readyz"}
_PARAMETERS = {
    "client": "id or slug of a client",
    "slug": "slug of a pipeline, unique in its client",
    "pipeline_id": "id of a pipeline",
    "pipeline": "id of a pipeline",
    "run_id": "id of a run",
    "rule_id": "id of an alert rule",
    "tag": "has this tag",
    "platform": "platform, such as airflow",
    "environment": "environment of the pipeline",
    "pipeline_type": "type of the pipeline",
    "external_id": "the platform's own identity of the pipeline",
    "external_run_id": "the source's identity of the run",
    "is_active": "false lists what was deactivated",
    "is_enabled": "true or false; both where not given",
    "rule_type": "kind of rule",
    "register": "make unknown pipelines from their natural references, at most 1,000",
    "atomic": "store all or nothing",
    "bucket": "width of the buckets",
    "group_by": "what the runs of a bucket are grouped by",
    "idempotency-key": "identity of the run where the body has no external_run_id",
}


def install(app: FastAPI) -> None:
    """Make the app serve the completed document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, bodies = models_json_schema(
        [(Batch, "validation"), (Observation, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas.update(bodies["$defs"])
    schemas["Problem"] = _PROBLEM
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "hw_…", "description": "an API key"}
    }
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _complete(path, method, operation)
    return made


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["summary"] = _summary(operation.get("description", operation["summary"]))
    for parameter in operation.get("parameters", ()):
        _describe(parameter)
    responses = operation["responses"]
    if path in _OPEN:
        responses.pop("422", None)
        if path == "/readyz":
            responses["503"] = _problem("The database cannot be reached, or its schema is not current", "503")
        return
    operation["security"] = [{"key": []}]
    scope = operation.setdefault(SCOPE_EXTENSION, "read" if method == "get" else "admin")
    operation["description"] = f"{operation.get('description', '')}\n\nNeeds a key with the scope `{scope}`.".lstrip()
    wanted = dict(_ANY_REQUEST)
    if "{" in path or any(p["name"] == "client" for p in operation.get("parameters", ())):
        wanted |= _WITH_PATH
    if "requestBody" in operation:
        wanted |= _WITH_BODY
    if method != "get":
        wanted |= _WRITES
    for status, description in wanted.items():
        responses[status] = _problem(description, status)
    for response in responses.values():
        if response.get("content") == {"application/json": {"schema": {}}}:
            del response["content"]  # what FastAPI thinks of a route that answers without a body
    operation["responses"] = dict(sorted(responses.items()))


def _summary(description: str) -> str:
    """Return the first clause of a description."""
    return re.split(r"[.;:](?:\s|$)|,\s|\n", description, maxsplit=1)[0]


def _describe(parameter: dict[str, Any]) -> None:
    """Say what a parameter is; one in a query or path is a text or absent, never null."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema |= kinds[0]
    elif kinds:
        schema["anyOf"] = kinds
    schema.pop("title", None)
    if "description" not in parameter and parameter["name"] in _PARAMETERS:
        parameter["description"] = _PARAMETERS[parameter["name"]]


def _problem(description: str, status: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _HEADERS:
        name, kind, meaning = _HEADERS[status]
        answer["headers"] = {name: {"schema": {"type": kind}, "description": meaning}}
    return answer


def main() -> None:
    """Print the document as the repository keeps it."""
    from headway.settings import load_settings

    create_app = pkgutil.resolve_name("headway.main:create_app")  # which imports this module
    app = create_app(load_settings({}, auth="none"), "postgresql://headway_app@localhost/headway")
    print(as_text(app.openapi()))  # noqa: T201


def as_text(document: dict[str, Any]) -> str:
    """Return a document as the repository keeps it: pretty, with sorted keys."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)


if __name__ == "__main__":
    main()
