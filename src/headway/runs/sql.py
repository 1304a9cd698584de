"""The merge law in SQL, and the two statements that write runs.

The law is stated once, as expressions over an ``{old}`` row and a ``{new}`` one, and put into both places that need
it: the filter that leaves unchanged rows alone and the ``DO UPDATE``. It is the law of ``runs/merge.py``, held to it by
``tests/property/test_merge_law.py``. A batch is copied into the staging tables (one pair a connection, emptied at
commit) and goes to the tables in these statements, whatever its size; rows are locked in key order, runs before events.
``DO UPDATE`` uses ``excluded`` values alone, so that the tables can be distributed by ``pipeline_id``.
"""

STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_runs (
    is_single bool, pipeline_id uuid, external_run_id text COLLATE "C", id uuid, rank bytea, attempt int, status text,
    status_reason text, source text, observed_at timestamptz, scheduled_for timestamptz, started_at timestamptz,
    finished_at timestamptz, rows_processed bigint, error_message text, error_rank bytea, url text, url_rank bytea,
    payload jsonb, payload_rank bytea
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_events (
    pipeline_id uuid, external_run_id text COLLATE "C", attempt int, status text, occurred_at timestamptz,
    last_occurred_at timestamptz, started_at timestamptz, finished_at timestamptz, error_message text,
    error_rank bytea, source text
) ON COMMIT DELETE ROWS;
"""

_WINNERS = ("status", "status_reason", "source", "observed_at")
_LEAST = ("scheduled_for", "started_at")
_GREATEST = ("finished_at", "rows_processed")
_CARRIED = ("error_message", "url", "payload")
_RANKS = {"error_message": "error_rank", "url": "url_rank", "payload": "payload_rank"}

STATE_COLUMNS = (
    "rank",
    "attempt",
    *_WINNERS,
    *_LEAST,
    *_GREATEST,
    *(column for value in _CARRIED for column in (value, _RANKS[value])),
)
RUN_COLUMNS = ("pipeline_id", "external_run_id", "id", *STATE_COLUMNS)
STAGED_RUN_COLUMNS = ("is_single", *RUN_COLUMNS)
EVENT_COLUMNS = (
    "pipeline_id",
    "external_run_id",
    "attempt",
    "status",
    "occurred_at",
    "last_occurred_at",
    "started_at",
    "finished_at",
    "error_message",
    "error_rank",
    "source",
)


def _carrier(row: str, value: str) -> str:
    """Return the rank of the observation that a row's value comes from; empty, the lowest, where it has none."""
    return f"CASE WHEN {row}.{value} IS NULL THEN ''::bytea ELSE coalesce({row}.{_RANKS[value]}, {row}.rank) END"


def _changes_state(old: str, new: str) -> str:
    """Return the condition that joining ``new`` changes ``old``. Once false for a pair, it stays false."""
    within = [
        f"{new}.rank > {old}.rank",
        *(f"{new}.{c} < coalesce({old}.{c}, 'infinity')" for c in _LEAST),
        f"{new}.finished_at > coalesce({old}.finished_at, '-infinity')",
        f"{new}.rows_processed > coalesce({old}.rows_processed, -1)",
        *(f"{_carrier(new, c)} > {_carrier(old, c)}" for c in _CARRIED),
    ]
    return f"({new}.attempt > {old}.attempt OR ({new}.attempt = {old}.attempt AND ({' OR '.join(within)})))"


def _joined_state(old: str, new: str) -> str:
    """Return the assignments that join ``new`` to ``old``, where it changes it."""
    later = f"{new}.attempt > {old}.attempt"
    assignments = [
        f"rank = greatest({old}.rank, {new}.rank)",
        f"attempt = {new}.attempt",  # the condition lets no lower one pass
        *(f"{c} = CASE WHEN {new}.rank > {old}.rank THEN {new}.{c} ELSE {old}.{c} END" for c in _WINNERS),
        *(f"{c} = CASE WHEN {later} THEN {new}.{c} ELSE least({old}.{c}, {new}.{c}) END" for c in _LEAST),
        *(f"{c} = CASE WHEN {later} THEN {new}.{c} ELSE greatest({old}.{c}, {new}.{c}) END" for c in _GREATEST),
    ]
    for value in _CARRIED:
        old_carrier, new_carrier = _carrier(old, value), _carrier(new, value)
        assignments += [
            f"{value} = CASE WHEN {later} OR {new_carrier} > {old_carrier} THEN {new}.{value} ELSE {old}.{value} END",
            (
                f"{_RANKS[value]} = CASE WHEN {later} THEN {new}.{_RANKS[value]}"
                f" ELSE nullif(nullif(greatest({old_carrier}, {new_carrier}), ''), greatest({old}.rank, {new}.rank)) END"
            ),
        ]
    return ",\n    ".join([*assignments, f"updated_at = greatest({old}.updated_at, {new}.updated_at)"])


def _event_error(row: str) -> str:
    return f"coalesce({row}.error_rank, ''::bytea)"


def _earlier(old: str, new: str) -> str:
    """Return the condition that ``new`` is the earlier account, by time (none last), then by source."""
    return (
        f"((coalesce({new}.occurred_at, 'infinity'), {new}.source COLLATE \"C\")"
        f" < (coalesce({old}.occurred_at, 'infinity'), {old}.source COLLATE \"C\"))"
    )


def _changes_event(old: str, new: str) -> str:
    """Return the condition that joining ``new`` changes ``old``. Once false for a pair, it stays false."""
    return (
        "("
        + " OR ".join(
            [
                _earlier(old, new),
                f"{new}.last_occurred_at > coalesce({old}.last_occurred_at, '-infinity')",
                f"{new}.started_at < coalesce({old}.started_at, 'infinity')",
                f"{new}.finished_at > coalesce({old}.finished_at, '-infinity')",
                f"{_event_error(new)} > {_event_error(old)}",
            ]
        )
        + ")"
    )


def _joined_event(old: str, new: str) -> str:
    """Return the assignments that join ``new`` to ``old``."""
    has_error = f"{_event_error(new)} > {_event_error(old)}"
    return ",\n    ".join(
        [
            f"occurred_at = least({old}.occurred_at, {new}.occurred_at)",
            f"last_occurred_at = greatest({old}.last_occurred_at, {new}.last_occurred_at)",
            f"started_at = least({old}.started_at, {new}.started_at)",
            f"finished_at = greatest({old}.finished_at, {new}.finished_at)",
            f"error_message = CASE WHEN {has_error} THEN {new}.error_message ELSE {old}.error_message END",
            f"error_rank = CASE WHEN {has_error} THEN {new}.error_rank ELSE {old}.error_rank END",
            f"source = CASE WHEN {_earlier(old, new)} THEN {new}.source ELSE {old}.source END",
        ]
    )


def _columns(names: tuple[str, ...], row: str = "") -> str:
    return ", ".join(f"{row}{name}" for name in names)


# Grain: a row a run that was inserted or changed. Order: of the key. Index: pk_runs.
# The lateral look-up (OFFSET 0 keeps it one index probe a row, whatever the planner thinks of the staging table)
# leaves unchanged rows neither written nor locked; the condition of DO UPDATE repeats it for who came between.
# A row is new where it has the id that it was staged with (xmax, which is said to tell, is not to be had of a
# partitioned table).
JOIN_RUNS = f"""
INSERT INTO runs AS r ({_columns(RUN_COLUMNS)}, created_at, updated_at)
SELECT {_columns(RUN_COLUMNS, "s.")}, %(now)s, %(now)s
FROM staged_runs s
LEFT JOIN LATERAL (
    SELECT {_columns(STATE_COLUMNS, "k.")} FROM runs k
    WHERE k.pipeline_id = s.pipeline_id AND k.external_run_id = s.external_run_id OFFSET 0
) o ON true
WHERE o.attempt IS NULL OR {_changes_state("o", "s")}
ORDER BY s.pipeline_id, s.external_run_id
ON CONFLICT (pipeline_id, external_run_id) DO UPDATE SET
    {_joined_state("r", "excluded")}
WHERE {_changes_state("r", "excluded")}
RETURNING r.id::text, r.pipeline_id::text, r.external_run_id
"""

# The event that a run of a single report tells is told by its own row; those of the others are staged.
_EVENTS = f"""
    SELECT {_columns(EVENT_COLUMNS)} FROM staged_events
    UNION ALL
    SELECT pipeline_id, external_run_id, attempt, status, observed_at, observed_at, started_at, finished_at,
           error_message, CASE WHEN error_message IS NOT NULL THEN rank END, source
    FROM staged_runs WHERE is_single"""

# Order: of the key. Index: pk_run_events.
JOIN_EVENTS = f"""
INSERT INTO run_events AS e ({_columns(EVENT_COLUMNS)}, recorded_at)
SELECT {_columns(EVENT_COLUMNS, "s.")}, %(now)s
FROM ({_EVENTS}) s
LEFT JOIN LATERAL (
    SELECT {_columns(EVENT_COLUMNS, "k.")} FROM run_events k
    WHERE k.pipeline_id = s.pipeline_id AND k.external_run_id = s.external_run_id
      AND k.attempt = s.attempt AND k.status = s.status OFFSET 0
) o ON true
WHERE o.attempt IS NULL OR {_changes_event("o", "s")}
ORDER BY s.pipeline_id, s.external_run_id, s.attempt, s.status
ON CONFLICT (pipeline_id, external_run_id, attempt, status) DO UPDATE SET
    {_joined_event("e", "excluded")}
WHERE {_changes_event("e", "excluded")}
"""
# Grain: a row an attempt and status that was inserted or changed.
JOIN_EVENTS_TOLD = f"{JOIN_EVENTS}RETURNING e.pipeline_id::text, e.external_run_id"


STANDING_COLUMNS = (
    "pipeline_id",
    "external_run_id",
    "rank",
    "attempt",
    "status",
    "observed_at",
    "started_at",
    "finished_at",
)


def _standing(lock: str) -> str:
    return f"""
SELECT r.* FROM unnest(%(pipeline_ids)s::uuid[], %(external_run_ids)s::text[]) AS k (pipeline_id, external_run_id)
CROSS JOIN LATERAL (
    SELECT {_columns(STANDING_COLUMNS, "r.")} FROM runs r
    WHERE r.pipeline_id = k.pipeline_id AND r.external_run_id = k.external_run_id OFFSET 0{lock}
) r
"""


# Grain: a row a run of these keys, as far as attempts are numbered by it. Order: of the arrays. Index: pk_runs.
FIND_STANDING = _standing("")
# The same, and the rows locked in that order.
LOCK_STANDING = _standing(" FOR NO KEY UPDATE")
