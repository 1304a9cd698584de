"""From the bytes of an item to an observation or a refusal: never an exception, whatever the bytes."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.runs.observation import RunObservation, Status
from headway.runs.parsing import BrokenItem, Observation, RefusedItem, parse_item
from headway.runs.splitting import OUTSIZED

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "pipeline": {"client": "acme", "name": "daily", "platform": "airflow"},
    "external_run_id": "x",
    "status": "success",
}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["2026-01-01T00:00:00Z", "http://h", "http://[", "\0", "\ud800", 2**63, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(sorted(Observation.model_fields)), VALUES, max_size=4)


def parse(raw: bytes) -> RunObservation | RefusedItem | BrokenItem:
    return parse_item(raw, source="api", now=NOW)


@given(FIELDS)
@settings(max_examples=400, deadline=None)
def test_any_values_in_known_fields_are_taken_or_refused(fields: dict[str, Any]) -> None:
    parsed = parse(json.dumps(GOOD | fields).encode())
    if isinstance(parsed, RunObservation):
        stored = "".join(str(part) for part in parsed[:-1])
        assert "\0" not in stored
        stored.encode()
        json.loads(parsed.payload or "{}")
    else:
        assert isinstance(parsed, RefusedItem)
        assert all(issue.pointer.startswith("/") and issue.code and issue.detail for issue in parsed.issues)


@given(st.binary(max_size=50) | st.text(max_size=50).map(lambda t: json.dumps(GOOD)[:-1].encode() + t.encode()))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_broken_or_refused(raw: bytes) -> None:
    assert isinstance(parse(raw), RefusedItem | BrokenItem | RunObservation)


def test_outsized_texts_and_payloads_are_cut_and_not_refused() -> None:
    big = "x" * (OUTSIZED + 1)
    parsed = parse(json.dumps(GOOD | {"error_message": big, "status_reason": big, "payload": {"a": big}}).encode())
    assert isinstance(parsed, RunObservation)
    assert parsed.status is Status.SUCCESS
    assert len(parsed.error_message or "") == 8192
    assert json.loads(parsed.payload or "")["headway_truncated"] is True
    for name, code in (("external_run_id", "too_long"), ("url", "too_long"), ("attempt", "invalid_type")):
        refused = parse(json.dumps(GOOD | {name: big}).encode())
        assert isinstance(refused, RefusedItem)
        assert [(issue.pointer, issue.code) for issue in refused.issues] == [(f"/{name}", code)]
