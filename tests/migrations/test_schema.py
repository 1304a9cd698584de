"""The schema: models and migrations say the same, it goes up, down and up again, and its vocabularies hold."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.migration import MigrationContext

import headway
from headway.core.db import Base, driver_url
from headway.embedded.server import EmbeddedServer
from headway.migrations import runner
from headway.migrations.runner import METADATA, MigrationError

Connection = psycopg.Connection[dict[str, Any]]
CloneDatabase = Callable[[], str]

_DATA = """
INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at)
    VALUES ('00000000-0000-0000-0000-000000000001', 'acme', 'Acme', 'k', now(), now());
INSERT INTO pipelines (id, client_id, slug, name, platform, ping_uuid, created_at, updated_at)
    SELECT '00000000-0000-0000-0000-000000000002', id, 'daily', 'Daily', 'cron', gen_random_uuid(), now(), now() FROM clients;
INSERT INTO runs (pipeline_id, external_run_id, id, created_at, updated_at, attempt, status, source, rank)
    SELECT id, 'one', gen_random_uuid(), now(), now(), 1, 'success', 'api', '\\x00' FROM pipelines;
INSERT INTO run_events (pipeline_id, external_run_id, attempt, status, recorded_at, source)
    SELECT pipeline_id, external_run_id, attempt, status, now(), source FROM runs;
INSERT INTO alert_rules (id, client_id, rule_type, channel, destination, created_at, updated_at)
    SELECT gen_random_uuid(), id, 'on_failure', 'email', 'a@b', now(), now() FROM clients;
INSERT INTO api_keys (id, name, prefix, key_hash, scopes, created_at)
    VALUES (gen_random_uuid(), 'k', 'hw_', sha256('k'), '{read}', now());
"""
FILLED = {"clients", "pipelines", "runs", "run_events", "alert_rules", "api_keys"}

_CATALOG = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull, o.collname,
               a.attgenerated, pg_get_expr(d.adbin, d.adrelid) AS value, col_description(c.oid, a.attnum) AS comment
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation o ON o.oid = a.attcollation
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
          AND NOT a.attisdropped AND c.relname <> 'alembic_version'""",
    "tables": """
        SELECT relname, relpersistence, reloptions, obj_description(oid, 'pg_class') AS comment FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'""",
    "constraints": """
        SELECT conrelid::regclass::text AS relname, conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
          AND conrelid::regclass::text <> 'alembic_version'""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'""",
}


def connect(server: EmbeddedServer, database: str) -> Connection:
    return psycopg.connect(server.superuser_url(database), autocommit=True, row_factory=psycopg.rows.dict_row)


def catalog(server: EmbeddedServer, database: str) -> dict[str, set[str]]:
    with connect(server, database) as connection:
        return {kind: {str(row) for row in connection.execute(query)} for kind, query in _CATALOG.items()}


@pytest.fixture
def empty(server: EmbeddedServer, template: str) -> Iterator[str]:
    """Return the name of an empty database, on a server that has the roles."""
    with connect(server, "postgres") as connection:
        connection.execute("CREATE DATABASE empty")
    yield "empty"
    with connect(server, "postgres") as connection:
        connection.execute("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer, clone_database: CloneDatabase) -> str:
    """Return the name of a database that holds a row of everything."""
    name = clone_database()
    with connect(server, name) as connection:
        connection.execute(_DATA)
    return name


def test_down_takes_all_away_and_up_brings_it_back(server: EmbeddedServer, clone_database: CloneDatabase) -> None:
    name = clone_database()
    before = catalog(server, name)
    assert all(before.values())
    with connect(server, name) as connection:
        connection.execute(_DATA)
        runner.downgrade(server.superuser_url(name), "base")
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'S')"
            " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'reporting'"
        )
        assert [row["relname"] for row in left] == ["alembic_version"]
        assert runner.upgrade(server.superuser_url(name)) == (None, runner.head())
        assert catalog(server, name) == before
        connection.execute(_DATA)
    assert runner.upgrade(server.superuser_url(name)) == (runner.head(), runner.head())
    with connect(server, name) as connection:
        assert connection.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 1}


def test_migrations_make_what_the_models_say(server: EmbeddedServer, template: str, empty: str) -> None:
    engine = sa.create_engine(driver_url(server.superuser_url(empty)))
    METADATA.create_all(engine)
    engine.dispose()
    by_models, by_migrations = catalog(server, empty), catalog(server, template)
    # what Headway works with without a model of its own is made by a migration alone
    modelled = {table.name for table in METADATA.sorted_tables}
    for kind, found in by_models.items():
        migrated = {row for row in by_migrations[kind] if any(f"'{table}'" in row for table in modelled)}
        assert migrated == found, kind


def test_alembic_finds_no_difference(server: EmbeddedServer, template: str, clone_database: CloneDatabase) -> None:
    engine = sa.create_engine(driver_url(server.superuser_url(clone_database())))
    options = {"include_object": runner.is_ours, "compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert autogenerate.compare_metadata(context, METADATA) == []
    engine.dispose()


def test_every_table_and_column_has_a_comment(server: EmbeddedServer, template: str, filled: str) -> None:
    with connect(server, filled) as connection:
        for kind in ("columns", "tables"):
            rows = connection.execute(_CATALOG[kind]).fetchall()
            assert [row for row in rows if not row["comment"]] == []


def test_every_vocabulary_refuses_a_wrong_word(server: EmbeddedServer, filled: str) -> None:
    query = """
        SELECT conrelid::regclass::text AS relname, attname, format_type(atttypid, atttypmod) AS type
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
        WHERE contype = 'c' AND connamespace = 'public'::regnamespace AND array_length(conkey, 1) = 1
          AND atttypid IN ('text'::regtype, 'text[]'::regtype)
          AND pg_get_constraintdef(pg_constraint.oid) LIKE '%ARRAY[%'"""
    with connect(server, filled) as connection:
        found = connection.execute(query).fetchall()
        tried = set()
        for row in found:
            if row["relname"] not in FILLED:
                continue
            word = "'{nonsense}'" if row["type"] == "text[]" else "'nonsense'"
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(f"UPDATE {row['relname']} SET {row['attname']} = {word}")
            tried.add((row["relname"], row["attname"]))
    assert tried >= {
        *(("runs", "status"), ("run_events", "status"), ("pipelines", "environment"), ("pipelines", "pipeline_type")),
        *(("alert_rules", "rule_type"), ("alert_rules", "channel"), ("api_keys", "scopes")),
    }


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("clients", "slug = 'Not a slug'"),
        ("clients", "name = ''"),
        ("pipelines", "slug = ''"),
        ("pipelines", "platform = 'Airflow'"),
        ("pipelines", "external_id = ''"),
        ("pipelines", "success_target = 100.5"),
        ("pipelines", "schedule = '{}'"),
        ("pipelines", """schedule = '{"cron": "* * * * *", "every_seconds": 60}'"""),
        ("runs", "attempt = 0"),
        ("runs", "rows_processed = -1"),
        ("runs", "external_run_id = ''"),
        ("runs", "status = 'running', finished_at = now()"),
        ("alert_rules", "client_id = NULL"),
        ("alert_rules", "threshold = 1"),
        ("alert_rules", "window_minutes = 1"),
        ("alert_rules", "rule_type = 'consecutive_failures'"),
        ("alert_rules", "rule_type = 'failure_rate', threshold = 101, window_minutes = 1"),
        ("alert_rules", "rule_type = 'failure_rate', threshold = 1, window_minutes = 0"),
        ("api_keys", "scopes = '{}'"),
        ("api_keys", "key_hash = 'the key itself'"),
        ("api_keys", "name = ''"),
    ],
)
def test_rows_that_mean_nothing_are_refused(server: EmbeddedServer, filled: str, table: str, change: str) -> None:
    with connect(server, filled) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE {table} SET {change}")


def test_every_index_has_a_comment_that_names_its_query() -> None:
    package = Path(headway.__file__).parent
    lines = [line for file in package.glob("*/models.py") for line in file.read_text(encoding="utf-8").splitlines()]
    indexes = [index for table in Base.metadata.tables.values() for index in table.indexes]
    assert len(indexes) > 6
    for index in indexes:
        at = next(number for number, line in enumerate(lines) if f'"{index.name}"' in line)
        assert any(re.match(r"\s*# \w", line) for line in lines[max(0, at - 3) : at + 1]), index.name


def test_lock_and_statement_timeouts_are_in_force(server: EmbeddedServer, empty: str) -> None:
    with runner._transaction(server.superuser_url(empty)) as connection:
        shown = [connection.execute(sa.text(f"SHOW {name}_timeout")).scalar_one() for name in ("lock", "statement")]
    assert shown == ["5s", "30min"]


def test_table_in_use_stops_the_migration_and_nothing_is_done(
    server: EmbeddedServer, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOCK_TIMEOUT", "100ms")
    before = catalog(server, filled)
    with psycopg.connect(server.superuser_url(filled)) as reading:
        reading.execute("SELECT 1 FROM clients")
        with pytest.raises(MigrationError, match="in use"):
            runner.downgrade(server.superuser_url(filled), "base")
    assert catalog(server, filled) == before


def test_migrations_at_once_wait_for_each_other(server: EmbeddedServer, empty: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: runner.upgrade(server.superuser_url(empty)), range(4)))
    assert sorted(done, key=str) == sorted([(None, runner.head()), *[(runner.head(), runner.head())] * 3], key=str)


def test_failed_migration_leaves_nothing_behind(
    server: EmbeddedServer, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_TABLE_GRANTS", ("SELECT 1 FROM nothing",))
    with pytest.raises(sa.exc.ProgrammingError):
        runner.upgrade(server.superuser_url(empty))
    assert catalog(server, empty)["tables"] == set()
    monkeypatch.undo()
    assert runner.upgrade(server.superuser_url(empty)) == (None, runner.head())


def test_database_of_a_newer_version_is_left_alone(server: EmbeddedServer, clone_database: CloneDatabase) -> None:
    name = clone_database()
    with connect(server, name) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = catalog(server, name)
    with pytest.raises(MigrationError, match=r"revision 9999.*newer version"):
        runner.upgrade(server.superuser_url(name))
    assert catalog(server, name) == before
    with pytest.raises(MigrationError):
        runner.downgrade(server.superuser_url(name), "7777")
