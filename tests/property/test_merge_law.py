"""The merge law, held to its definition: in Python, in SQL, and both to each other.

``reference_*`` say it straight from ``docs/decisions/0001-runs-are-joins.md``, over the set of all that was ever reported, as plainly and slowly as
they can; they share nothing with ``runs/merge.py`` and ``runs/sql.py`` but the names of the fields. Few values are
drawn, so that ties and repetitions are the rule.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import count, pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import EVERYONE
from headway.core.db import Database
from headway.embedded.server import EmbeddedServer
from headway.runs import merge, sql, writer
from headway.runs.merge import RunRecord
from headway.runs.observation import RunObservation, Status, observe
from headway.runs.writer import Submission

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIMES = [datetime(1970, 1, 1, tzinfo=UTC), *(NOON + timedelta(microseconds=n) for n in (0, 1, 3_600_000_000))]
PIPELINE = UUID("0192f000-0000-7000-8000-000000000001")

Row = dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """What a source says, before anything is made of it."""

    run: int
    status: Status
    attempt: int
    source: str
    observed_at: datetime | None = None
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rows_processed: int | None = None
    error_message: str | None = None
    status_reason: str | None = None
    url: str | None = None
    payload: str | None = None


times = st.none() | st.sampled_from(TIMES)


def facts_of(runs: list[int], attempts: list[int], statuses: list[Status]) -> st.SearchStrategy[Fact]:
    return st.builds(
        Fact,
        run=st.sampled_from(runs),
        status=st.sampled_from(statuses),
        attempt=st.sampled_from(attempts),
        source=st.sampled_from(["api", "github:Ä", "github:z", "\U0001f680"]),
        observed_at=times,
        scheduled_for=times,
        started_at=times,
        finished_at=times,
        rows_processed=st.none() | st.sampled_from([0, 7, 2**63 - 1]),
        error_message=st.none() | st.sampled_from(["", "disk full", "row\t1\\N\n\\."]),
        status_reason=st.none() | st.sampled_from(["", "OOMKilled"]),
        url=st.none() | st.sampled_from(["https://a.example/1", "https://a.example/2"]),
        payload=st.none() | st.sampled_from(["{}", '{"tries": 2, "who": "\\\\ü"}']),
    )


facts = facts_of([1], [1, 2, 3], list(Status))
fields = st.sets(st.sampled_from(sorted(Fact.__dataclass_fields__)), max_size=4)


def mixed(fact: Fact, other: Fact, names: set[str]) -> Fact:
    """Return a fact that differs from another in a few words at most: those are the ones that are hard to order."""
    return replace(fact, **{name: getattr(other, name) for name in names})


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[Fact]]:
    """Some facts in any order, some of them repeatedly, cut into batches; of few runs and statuses, so that they meet."""
    statuses = draw(st.lists(st.sampled_from(Status), min_size=1, max_size=3))
    near = facts_of(draw(st.sampled_from([[1], [1, 2, 3]])), draw(st.sampled_from([[1], [1, 2, 3]])), statuses)
    said = draw(st.lists(st.builds(mixed, st.just(draw(near)), near, fields) | near, min_size=1, max_size=7))
    said = draw(st.permutations(said + draw(st.lists(st.sampled_from(said), max_size=3))))
    cuts = sorted(draw(st.sets(st.integers(0, len(said)), max_size=4)) | {0, len(said)})
    return [said[start:end] for start, end in pairwise(cuts)]


@lru_cache(maxsize=10_000)
def told(fact: Fact, prefix: str = "run") -> RunObservation:
    values = {name: getattr(fact, name) for name in Fact.__dataclass_fields__ if name not in ("run", "payload")}
    payload = None if fact.payload is None else json.loads(fact.payload)
    return observe(pipeline=PIPELINE, external_run_id=f"{prefix}-{fact.run}", payload=payload, **values)


# --- the definition

PHASES = {Status.QUEUED: 1, Status.RUNNING: 2}
SEVERITIES = [Status.SUCCESS, Status.SKIPPED, Status.CANCELED, Status.FAILED]


def ends(fact: Fact) -> bool:
    return fact.status not in PHASES


def source_time(fact: Fact) -> datetime | None:
    """The source's own time for the fact: the end of an end or the start of a running one where it names none."""
    if fact.observed_at is not None:
        return fact.observed_at
    if ends(fact):
        return fact.finished_at
    return fact.started_at if fact.status is Status.RUNNING else None


def end_time(fact: Fact) -> datetime | None:
    return fact.finished_at if ends(fact) else None


def head(fact: Fact) -> tuple[Any, ...]:
    """All of the order but the digest of the rest."""
    time = source_time(fact)
    severity = SEVERITIES.index(fact.status) if ends(fact) else 0
    return fact.attempt, PHASES.get(fact.status, 3), time is not None, time or NOON, severity


def order(fact: Fact) -> tuple[Any, ...]:
    return *head(fact), told(fact).rank[-16:]


def present(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def reference_run(said: set[Fact]) -> Row:
    """Return what a run is, by the set of all that was ever said of it."""
    winner = max(said, key=order)
    attempt = [fact for fact in said if fact.attempt == winner.attempt]
    row: Row = {
        "rank": told(winner).rank,
        "attempt": winner.attempt,
        "status": winner.status,
        "status_reason": winner.status_reason,
        "source": winner.source,
        "observed_at": source_time(winner),
        "scheduled_for": min(present(fact.scheduled_for for fact in attempt), default=None),
        "started_at": min(present(fact.started_at for fact in attempt), default=None),
        "finished_at": max(present(end_time(fact) for fact in attempt), default=None),
        "rows_processed": max(present(fact.rows_processed for fact in attempt), default=None),
    }
    for value, rank in (("error_message", "error_rank"), ("url", "url_rank"), ("payload", "payload_rank")):
        carrier = max((f for f in attempt if getattr(f, value) is not None), key=order, default=None)
        row[value] = None if carrier is None else getattr(carrier, value)
        row[rank] = None if carrier is None else told(carrier).rank
    row["payload"] = None if row["payload"] is None else json.loads(row["payload"])
    return row


def reference_events(said: set[Fact]) -> dict[tuple[int, Status], Row]:
    """Return the history of a run: each status that each attempt was seen in."""
    history = {}
    for key in {(fact.attempt, fact.status) for fact in said}:
        mine = [fact for fact in said if (fact.attempt, fact.status) == key]
        teller = max((fact for fact in mine if fact.error_message is not None), key=order, default=None)
        earliest = min(mine, key=lambda f: (source_time(f) is None, source_time(f) or NOON, f.source))
        history[key] = {
            "occurred_at": min(present(source_time(fact) for fact in mine), default=None),
            "last_occurred_at": max(present(source_time(fact) for fact in mine), default=None),
            "started_at": min(present(fact.started_at for fact in mine), default=None),
            "finished_at": max(present(end_time(fact) for fact in mine), default=None),
            "error_message": None if teller is None else teller.error_message,
            "error_rank": None if teller is None else told(teller).rank,
            "source": earliest.source,
        }
    return history


# --- the fold in Python


def folded(batch: Iterable[Fact]) -> dict[int, RunRecord]:
    records: dict[int, RunRecord] = {}
    for fact in batch:
        if fact.run in records:
            records[fact.run].add(told(fact))
        else:
            records[fact.run] = RunRecord(told(fact))
    return records


def shown(record: RunRecord) -> tuple[Row, dict[tuple[int, Status], Row]]:
    row = record.state._asdict()
    row["payload"] = None if row["payload"] is None else json.loads(row["payload"])
    return row, {key: event._asdict() for key, event in record.history.items()}


@settings(max_examples=200, deadline=None)
@given(deliveries())
def test_folding_in_any_order_and_split_gives_what_the_definition_says(batches: list[list[Fact]]) -> None:
    merged: dict[int, RunRecord] = {}
    for batch in batches:
        for run, record in folded(batch).items():
            merged[run] = merged[run].joined(record) if run in merged else record
    said = {fact for batch in batches for fact in batch}
    assert merged.keys() == {fact.run for fact in said}
    for run, record in merged.items():
        mine = {fact for fact in said if fact.run == run}
        assert shown(record) == (reference_run(mine), reference_events(mine))


one_run = st.lists(facts, min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(one_run, one_run, one_run)
def test_join_is_commutative_associative_and_idempotent(one: list[Fact], two: list[Fact], three: list[Fact]) -> None:
    a, b, c = (folded(said)[1] for said in (one, two, three))
    before = shown(a)
    assert shown(a.joined(b)) == shown(b.joined(a))
    assert shown(a.joined(b).joined(c)) == shown(a.joined(b.joined(c)))
    assert shown(a.joined(a)) == before
    assert shown(a.joined(b).joined(b)) == shown(a.joined(b))
    assert shown(a) == before  # joining leaves both as they are
    assert merge.join_states(a.state, b.state) == merge.join_states(b.state, a.state)


# --- the rank


def content(fact: Fact) -> Fact:
    """All that a fact says of a run, in one form."""
    payload = None if fact.payload is None else json.dumps(json.loads(fact.payload))
    return replace(fact, run=0, observed_at=source_time(fact), finished_at=end_time(fact), payload=payload)


@settings(max_examples=500, deadline=None)
@given(facts, facts, fields)
def test_rank_orders_as_what_it_encodes_and_tells_all_content_apart(a: Fact, other: Fact, names: set[str]) -> None:
    b = mixed(a, other, names)
    if head(a) != head(b):
        assert (told(a).rank < told(b).rank) == (head(a) < head(b))
    assert (told(a).rank == told(b).rank) == (content(a) == content(b))
    assert len(told(a).rank) == len(told(b).rank)


@settings(deadline=None)
@given(facts)
def test_rank_goes_by_the_instant_not_by_its_offset(fact: Fact) -> None:
    def moved(time: datetime | None) -> datetime | None:
        return None if time is None else time.astimezone(timezone(timedelta(hours=5, minutes=45)))

    elsewhere = replace(
        fact,
        observed_at=moved(fact.observed_at),
        scheduled_for=moved(fact.scheduled_for),
        started_at=moved(fact.started_at),
        finished_at=moved(fact.finished_at),
    )
    assert told(elsewhere) == told(fact)


def test_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        told(Fact(1, Status.QUEUED, 1, "api", scheduled_for=datetime(2026, 11, 1)))  # noqa: DTZ001 - the point


# --- the tables


class Tables:
    """Writes as the service does, on one connection, and looks at what came of it."""

    def __init__(self, app_url: str, superuser_url: str) -> None:
        self._runner = asyncio.Runner()
        self._database = Database(app_url, pool_size=1, on_connect=sql.STAGING)
        self._examples = count()
        self.look: psycopg.Connection[Row] = psycopg.connect(
            superuser_url, autocommit=True, row_factory=psycopg.rows.dict_row
        )
        client = uuid4()
        self.look.execute(
            "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at) VALUES (%s, 'a', 'a', 'k', %s, %s)",
            (client, NOON, NOON),
        )
        self.look.execute(
            "INSERT INTO pipelines (id, client_id, slug, name, platform, environment, ping_uuid, created_at, updated_at)"
            " VALUES (%s, %s, 'p', 'p', 'cron', 'prod', %s, %s, %s)",
            (PIPELINE, client, uuid4(), NOON, NOON),
        )

    def close(self) -> None:
        self._runner.run(self._database.dispose())
        self._runner.close()
        for table in ("run_events", "runs", "pipelines", "clients"):
            self.look.execute(sa.text(f"DELETE FROM {table}").text)
        self.look.close()

    def new_prefix(self) -> str:
        """Return a word of which all run identities of one example begin."""
        return f"example{next(self._examples)}"

    def write(self, batch: list[Fact], *, prefix: str, now: datetime) -> tuple[list[writer.Outcome], bool]:
        """Write a batch as submissions of up to two facts, in one transaction; tells whether it wrote any row."""
        return self._runner.run(self._write(batch, prefix, now))

    async def _write(self, batch: list[Fact], prefix: str, now: datetime) -> tuple[list[writer.Outcome], bool]:
        submissions = []
        for start in range(0, len(batch), 2):
            submission = Submission(EVERYONE)
            for index, fact in enumerate(batch[start : start + 2]):
                submission.add(told(fact, prefix), index)
            submissions.append(submission)
        async with self._database.transaction() as connection:
            before = await _tuples_written(connection)
            outcomes = await writer.write(connection, submissions, now=now)
            return outcomes, await _tuples_written(connection) != before

    def rows(self, table: str, prefix: str, columns: str = "*") -> list[Row]:
        return self.look.execute(
            f"SELECT {columns} FROM {table} WHERE pipeline_id = %s AND starts_with(external_run_id, %s) ORDER BY ctid",
            (PIPELINE, prefix + "-"),
        ).fetchall()

    def versions(self, prefix: str) -> list[list[Row]]:
        """Return where each row stands, who wrote it and who locked it."""
        return [self.rows(table, prefix, "ctid, xmin, xmax") for table in ("runs", "run_events")]


async def _tuples_written(connection: AsyncConnection) -> list[Any]:
    statement = "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables WHERE relname = 'runs' OR relname = 'run_events' ORDER BY relname"
    return [tuple(row) for row in await connection.execute(sa.text(statement))]


@pytest.fixture(scope="module")
def tables(server: EmbeddedServer, database_name: str, app_url: str) -> Iterator[Tables]:
    made = Tables(app_url, server.superuser_url(database_name))
    yield made
    made.close()


ENDED = Fact(1, Status.SUCCESS, 1, "api", observed_at=NOON)


def expected_runs(batches: list[list[Fact]], prefix: str) -> dict[str, Row]:
    """Return the rows that batches, an hour apart, leave behind."""
    rows: dict[str, Row] = {}
    said: set[Fact] = set()
    for number, batch in enumerate(batches):
        said |= set(batch)
        for run in {fact.run for fact in batch}:
            row = reference_run({fact for fact in said if fact.run == run})
            for rank in ("error_rank", "url_rank", "payload_rank"):
                row[rank] = None if row[rank] == row["rank"] else row[rank]
            known = rows.get(f"{prefix}-{run}", {})
            now = NOON + timedelta(hours=number)
            row["created_at"] = known.get("created_at", now)
            row["updated_at"] = known["updated_at"] if row.items() <= known.items() else now
            row["run_at"] = next(
                time
                for time in (
                    row["started_at"],
                    row["finished_at"],
                    row["observed_at"],
                    min(present([row["scheduled_for"], row["created_at"]])),
                )
                if time is not None
            )
            rows[f"{prefix}-{run}"] = row
    return rows


def expected_events(batches: list[list[Fact]], prefix: str) -> dict[tuple[str, int, Status], Row]:
    said = {fact for batch in batches for fact in batch}
    rows: dict[tuple[str, int, Status], Row] = {}
    for run in {fact.run for fact in said}:
        for (attempt, status), row in reference_events({fact for fact in said if fact.run == run}).items():
            first = next(
                number
                for number, batch in enumerate(batches)
                if any((fact.run, fact.attempt, fact.status) == (run, attempt, status) for fact in batch)
            )
            rows[f"{prefix}-{run}", attempt, status] = row | {"recorded_at": NOON + timedelta(hours=first)}
    return rows


@settings(max_examples=250, deadline=None)
@example(batches=[[ENDED], [replace(ENDED, observed_at=TIMES[0], rows_processed=0)]])  # nothing is less than zero rows
@given(batches=deliveries())
def test_tables_hold_what_the_definition_says_and_a_replay_writes_and_locks_nothing(
    tables: Tables, batches: list[list[Fact]]
) -> None:
    prefix = tables.new_prefix()
    for number, batch in enumerate(batches):
        outcomes, _ = tables.write(batch, prefix=prefix, now=NOON + timedelta(hours=number))
        assert sum(o.inserted + o.updated + o.unchanged for o in outcomes) == len(batch)

    stored = {row.pop("external_run_id"): row for row in tables.rows("runs", prefix)}
    assert len({row.pop("id") for row in stored.values()}) == len(stored)
    assert {row.pop("pipeline_id") for row in stored.values()} == {PIPELINE}
    assert stored == expected_runs(batches, prefix)
    history = {
        (r.pop("external_run_id"), r.pop("attempt"), r.pop("status")): r for r in tables.rows("run_events", prefix)
    }
    assert {row.pop("pipeline_id") for row in history.values()} == {PIPELINE}
    assert history == expected_events(batches, prefix)

    before = tables.versions(prefix)
    everything = [fact for batch in reversed(batches) for fact in batch]
    outcomes, wrote = tables.write(everything, prefix=prefix, now=NOON + timedelta(days=1))
    assert not wrote
    assert {(o.inserted, o.updated) for o in outcomes} == {(0, 0)}
    assert tables.versions(prefix) == before
