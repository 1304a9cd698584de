"""The command line: help, exit codes, and what it says when it cannot."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.embedded.server import EmbeddedServer
from headway.migrations import runner
from tests.conftest import PASSWORDS


def headway(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment}
    return subprocess.run(
        [sys.executable, "-m", "headway", *argv], capture_output=True, text=True, timeout=60, check=False, env=env
    )


@pytest.fixture
def environment(server: EmbeddedServer, database_name: str, db: Any) -> dict[str, str]:
    return {
        "HEADWAY_DATABASE_URL": server.url(runner.APP, PASSWORDS[runner.APP], database_name),
        "HEADWAY_OWNER_DATABASE_URL": server.url(runner.OWNER, PASSWORDS[runner.OWNER], database_name),
    }


def test_help_names_every_command() -> None:
    said = headway("--help")
    assert said.returncode == 0
    for command in ("up", "serve", "worker", "sync", "sources", "migrate", "keys", "db", "backup", "restore"):
        assert command in said.stdout
    assert "serve-process" not in said.stdout


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("up", "--port", "x"),
        ("keys", "create", "a", "--scope", "everything"),
        ("keys", "create", "a", "--scope", "read", "--expires", "soon"),
        ("db", "url", "--role", "root"),
        ("sync", "--since", "yesterday"),
        ("sync",),
        ("sources", "check"),
    ],
)
def test_wrong_usage_exits_with_2(argv: tuple[str, ...]) -> None:
    said = headway(*argv)
    assert said.returncode == 2
    assert said.stderr
    assert "Traceback" not in said.stderr


def test_misspelt_setting_is_wrong_usage_with_a_hint() -> None:
    said = headway("keys", "list", HEADWAY_DATABSE_URL="postgresql://localhost/x")
    assert said.returncode == 2
    assert "did you mean HEADWAY_DATABASE_URL?" in said.stderr


def test_no_database_says_what_to_do(tmp_path: Path) -> None:
    said = headway("keys", "list", "--data", str(tmp_path))
    assert said.returncode == 1
    assert "headway up" in said.stderr
    assert "HEADWAY_DATABASE_URL" in said.stderr


def test_dead_database_is_one_line_without_the_password() -> None:
    said = headway("keys", "list", HEADWAY_DATABASE_URL="postgresql://headway_app:s3cr3t-word@127.0.0.1:1/headway")
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert "s3cr3t-word" not in said.stderr


def test_no_keys_beyond_this_machine_is_refused() -> None:
    said = headway("serve", "--host", "0.0.0.0", HEADWAY_AUTH="none", HEADWAY_DATABASE_URL="postgresql://127.0.0.1:1/x")  # noqa: S104
    assert said.returncode == 2
    assert "HEADWAY_AUTH=keys" in said.stderr


def test_keys_are_made_listed_and_revoked(environment: dict[str, str]) -> None:
    made = headway("keys", "create", "etl", "--scope", "ingest,read", "--expires", "90d", **environment)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    assert key.startswith("hw_")
    listed = headway("keys", "list", **environment)
    assert "etl" in listed.stdout
    assert key not in listed.stdout
    twice = headway("keys", "create", "etl", "--scope", "read", **environment)
    assert twice.returncode == 1
    assert headway("keys", "revoke", "etl", **environment).returncode == 0
    again = headway("keys", "revoke", "etl", **environment)
    assert again.returncode == 1
    assert "keys list" in again.stderr
    assert headway("keys", "create", "etl", "--scope", "read", **environment).returncode == 0


def test_key_for_an_unknown_client_is_refused(environment: dict[str, str]) -> None:
    said = headway("keys", "create", "etl", "--scope", "read", "--client", "nobody", **environment)
    assert said.returncode == 1
    assert "client" in said.stderr


def test_migrate_on_a_current_schema_changes_nothing(environment: dict[str, str]) -> None:
    said = headway("migrate", **environment)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == f"schema is at {runner.head()}"


def test_db_url_prints_the_role_asked_for(environment: dict[str, str]) -> None:
    assert headway("db", "url", **environment).stdout.strip() == environment["HEADWAY_DATABASE_URL"]
    owner = headway("db", "url", "--role", "owner", **environment).stdout.strip()
    assert owner == environment["HEADWAY_OWNER_DATABASE_URL"]
    reader = headway("db", "url", "--role", "reader", **environment)
    assert reader.returncode == 1
    assert "HEADWAY_READER_DATABASE_URL" in reader.stderr
