"""The OpenAPI document is a promise: its snapshot in the repository changes only on purpose, and it reads well."""

import json
import sys
from pathlib import Path

import pytest

from headway import openapi
from headway.main import create_app
from headway.settings import load_settings

SNAPSHOT = Path(__file__).parents[2] / "specs" / "001-run-health" / "contracts" / "openapi.json"
HOW = f"if the change is meant: python -m headway.openapi > {'/'.join(SNAPSHOT.parts[-4:])}"


@pytest.fixture
def document() -> dict[str, object]:
    return create_app(load_settings({}, auth="none"), "postgresql://localhost/headway").openapi()


def test_snapshot_is_what_the_service_serves(document: dict[str, object]) -> None:
    assert json.loads(SNAPSHOT.read_text()) == json.loads(openapi.as_text(document)), HOW


def test_snapshot_is_written_as_the_command_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    openapi.main()
    assert SNAPSHOT.read_text() == capsys.readouterr().out, HOW


def test_document_does_not_depend_on_the_settings(document: dict[str, object]) -> None:
    assert create_app(load_settings({}, auth="keys"), "postgresql://localhost/headway").openapi() == document


def test_every_operation_and_parameter_is_described(document: dict[str, object]) -> None:
    paths = json.loads(json.dumps(document["paths"]))
    for path, operations in paths.items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert 10 <= len(operation["summary"]) <= 110, f"{where}: {operation['summary']}"
            assert operation["tags"], where
            assert operation["operationId"], where
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), f"{where}: {parameter['name']}"
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(ids) == len(set(ids))
    assert sys.getsizeof(json.dumps(document)) < 500_000
