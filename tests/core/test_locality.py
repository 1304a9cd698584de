"""Without keys nothing but this machine is served, on any path."""

import pytest

from tests.api import Api

PATHS = ("/api/v1/runs", "/api/v1/nothing", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/nothing")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "headway.example.com"}, "host_not_local"),
        ({"Host": "127.0.0.1.example.com"}, "host_not_local"),
        ({"X-Forwarded-Prefix": "/hub"}, "proxied"),
        ({"Forwarded": "for=10.0.0.1"}, "proxied"),
        ({"Origin": "https://example.com"}, "origin_not_local"),
        ({"Origin": "null"}, "origin_not_local"),
    ],
)
async def test_what_comes_from_elsewhere_is_403_on_every_path(api: Api, headers: dict[str, str], code: str) -> None:
    for path in PATHS:
        response = await api.get(path, headers=headers, raw=True)
        assert (response.status_code, response.json()["code"]) == (403, code), path


@pytest.mark.parametrize(
    "headers",
    [{"Host": "127.0.0.1:8000"}, {"Host": "[::1]:8000"}, {"Host": "LOCALHOST", "Origin": "http://localhost:3000"}],
)
async def test_this_machine_is_served(api: Api, headers: dict[str, str]) -> None:
    assert (await api.get("/healthz", headers=headers)).status_code == 200
