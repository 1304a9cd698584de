"""The tests' client of the API: in this process, and strict about what comes back."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx2
import jsonschema
from fastapi import FastAPI

PROBLEM = "application/problem+json"


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    """Return what checks answers against one schema of the document."""
    return jsonschema.Draft202012Validator({**json.loads(schema), "components": _documents[0]["components"]})


_documents: list[dict[str, Any]] = []


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once: it is the same for every service."""
    if not _documents:
        _documents.append(app.openapi())
    return _documents[0]


class Api:
    """Calls the service and checks each answer against its OpenAPI document."""

    def __init__(self, app: FastAPI, client: httpx2.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self.app = app
        self._client = client
        self._headers = headers or {}
        self._document = _document(app)

    def with_key(self, key: str) -> "Api":
        """Return a client that sends this key."""
        return Api(self.app, self._client, {"Authorization": f"Bearer {key}"})

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request; paths begin after /api/v1 unless they are whole. ``raw``: as it is, and not checked."""
        raw = options.pop("raw", False)
        whole = (
            path
            if raw
            or path.startswith(("/api/", "/in/", "/ping/", "/healthz", "/readyz", "/metrics", "/openapi", "/docs"))
            else "/api/v1" + path
        )
        headers = self._headers | options.pop("headers", {})
        response = await self._client.request(method, whole, headers=headers, **options)
        if not raw:
            self._check(method, whole, response)
        return response

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        """GET."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx2.Response:
        """POST."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx2.Response:
        """PUT."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> httpx2.Response:
        """PATCH."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx2.Response:
        """DELETE."""
        return await self.request("DELETE", path, **options)

    async def make_client(self, slug: str = "acme", **more: Any) -> dict[str, Any]:
        """Make a client."""
        response = await self.post("/clients", json={"name": slug.title(), "slug": slug, **more})
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def make_pipeline(self, client: str = "acme", name: str = "daily", **more: Any) -> dict[str, Any]:
        """Make a pipeline, and its client where there is none."""
        if (await self.get(f"/clients/{client}")).status_code == 404:
            await self.make_client(client)
        body = {"name": name, "platform": "airflow", **more}
        response = await self.post(f"/clients/{client}/pipelines", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def report(self, *observations: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        """Send a batch."""
        response = await self.post("/runs/batch", json={"runs": list(observations)}, params=parameters)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    def _check(self, method: str, path: str, response: httpx2.Response) -> None:
        """Hold an answer to the document: its status is named, its body fits."""
        assert response.status_code != 500, f"{method} {path}: 500 {response.text}"
        template = self._template(method, path)
        if template is None:
            return
        operation = self._document["paths"][template][method.lower()]
        answers = operation["responses"]
        if response.status_code == 405:
            return
        assert str(response.status_code) in answers, (
            f"{method} {template} answered {response.status_code}: {response.text}"
        )
        content = answers[str(response.status_code)].get("content", {})
        media = response.headers.get("content-type", "").partition(";")[0]
        if response.status_code >= 400:
            assert media == PROBLEM, f"{method} {template} answered {response.status_code} as {media}"
        if media in ("application/json", PROBLEM) and media in content:
            schema = content[media].get("schema", {})
            _validator(json.dumps(schema)).validate(json.loads(response.content))

    def _template(self, method: str, path: str) -> str | None:
        """Return the path of the document that a request's path fits."""
        bare = path.partition("?")[0]
        parts = bare.split("/")
        best: str | None = None
        for template in self._document["paths"]:
            pieces = template.split("/")
            fits = len(pieces) == len(parts) and all(
                t == p or t.startswith("{") for t, p in zip(pieces, parts, strict=True)
            )
            if fits and method.lower() in self._document["paths"][template]:
                if "{" not in template:
                    return str(template)
                best = best if best is not None and best.count("{") <= template.count("{") else template
        return best


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[Api]:
    """Run a service in this process."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield Api(app, client)
