"""Completes the OpenAPI document: the problem shape, the key, and the bodies that routes read by themselves.

The repository keeps a snapshot in ``specs/001-run-health/contracts/openapi.json``; a test holds it to the code.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

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
    responses = operation["responses"]
    if path in ("/healthz", "/readyz"):
        responses.pop("422", None)
        return
    operation["security"] = [{"key": []}]
    wanted = dict(_ANY_REQUEST)
    if "{" in path or any(p["name"] == "client" for p in operation.get("parameters", ())):
        wanted |= _WITH_PATH
    if "requestBody" in operation:
        wanted |= _WITH_BODY
    if method != "get":
        wanted |= _WRITES
    for status, description in wanted.items():
        schema = {"$ref": "#/components/schemas/Problem"}
        responses[status] = {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
    operation["responses"] = dict(sorted(responses.items()))
