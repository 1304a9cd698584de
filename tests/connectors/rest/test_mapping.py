"""What a vendor's run becomes, by configuration alone; and that no payload is too odd."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headway.connectors.contract import OddPayloadError, Report
from headway.connectors.rest import mapping
from headway.connectors.rest.expressions import Expression
from headway.connectors.rest.parts import Fields
from headway.connectors.rest.source import merged
from headway.core import validation
from headway.runs.observation import OPEN_ATTEMPT, Status
from tests.connectors.rest import documented
from tests.connectors.rest.subject import FLOW, make

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings" / "dbt_cloud" / "webhooks_docs_example.ndjson"
RUN = documented.FLOW[0]


def told(payload: Any, **more: Any) -> Report:
    source = make(FLOW, "https://flow.example", token_env="REST_TOKEN", **more)
    report = mapping.map_run(payload, source, now=NOW)
    assert report is not None
    return report


def test_run_says_what_its_fields_say() -> None:
    said = told(RUN).observation
    assert said.pipeline == ("acme", "flow", "orders", "flow:orders", "prod")
    assert (said.external_run_id, said.status, said.attempt) == ("7", Status.FAILED, 2)
    start = datetime(2026, 11, 22, 2, tzinfo=UTC)
    assert said.scheduled_for == start
    assert said.started_at == start + timedelta(seconds=2)
    assert said.finished_at == start + timedelta(seconds=12)
    assert said.observed_at == start + timedelta(seconds=12.5)
    assert (said.rows_processed, said.error_message, said.status_reason) == (12, "disk full", "BROKEN")
    assert said.url == "https://flow.example/ui/flow%3Aorders/7"
    assert json.loads(said.payload or "") == {"stats": {"rows": 12.0, "files": ["a", "b"]}}
    assert said.source == "acme-rest"


def test_message_of_a_run_that_goes_well_is_no_error() -> None:
    assert told({**RUN, "state": "ACTIVE"}).observation.error_message is None


def test_unknown_word_is_shown_and_kept() -> None:
    report = told({**RUN, "state": "HALTED"})
    assert (report.observation.status, report.is_unknown_word) == (Status.FAILED, True)
    assert report.observation.status_reason == "HALTED"
    assert told({**RUN, "state": "HALTED", "ended": None}).observation.status is Status.RUNNING


@pytest.mark.parametrize(
    ("status", "statuses"),
    [(20, {"20": "failed"}), (20.0, {"20": "failed"}), (True, {"true": "failed"}), ("bad", {"bad": "failed"})],
)
def test_words_may_be_numbers_and_booleans(status: Any, statuses: dict[str, str]) -> None:
    assert told({**RUN, "state": status}, statuses=statuses).observation.status is Status.FAILED


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("iso", "2026-11-22T02:00:02Z"),
        ("iso", "2026-11-22 02:00:02.000000+00:00"),
        ("iso", "2026-11-22 02:00:02 UTC"),
        ("iso", "2026-11-22T03:00:02.000000000+01:00"),
        ("iso_utc", "2026-11-22 02:00:02"),
        ("iso_utc", "2026-11-22T04:00:02+02:00"),
        ("epoch_ms", 1795312802000),
        ("epoch_ms", "1795312802000"),
        ("epoch_s", 1795312802.0),
    ],
)
def test_times_are_read_as_the_vendor_writes_them(written: str, value: Any) -> None:
    said = told({**RUN, "begun": value}, fields={"time_format": written}).observation
    assert said.started_at == datetime(2026, 11, 22, 2, 0, 2, tzinfo=UTC)


def test_time_without_offset_is_none_unless_it_is_said_to_be_utc() -> None:
    assert told({**RUN, "begun": "2026-11-22T02:00:02"}, fields={"time_format": "iso"}).observation.started_at is None


def test_attempts_count_from_one() -> None:
    first = {"fields": {"first_attempt": 0}}
    assert told({**RUN, "try": 0}).observation.attempt == 1
    assert told({**RUN, "try": 2}, **first).observation.attempt == 3
    assert told({**RUN, "try": None}).observation.attempt == 1
    assert told({**RUN, "try": None}, reuses_run_ids=True).observation.attempt == OPEN_ATTEMPT
    assert told({**RUN, "try": 2**70}).observation.attempt == 1


def test_pipeline_goes_by_its_id_or_by_its_name() -> None:
    assert told({**RUN, "flow": {"key": 5}}).observation.pipeline[2:4] == ("5", "5")  # type: ignore[index]
    assert told({**RUN, "flow": {"title": "orders"}}).observation.pipeline[2:4] == ("orders", "orders")  # type: ignore[index]
    named = {**RUN, "flow": {"key": "k"}, mapping.PIPELINE_NAME: "orders"}
    assert told(named).observation.pipeline[2:4] == ("orders", "k")  # type: ignore[index]


@pytest.mark.parametrize("payload", [{}, {**RUN, "id": None}, {**RUN, "id": "x" * 513}, {**RUN, "flow": 5}, {"id": []}])
def test_run_without_identity_is_odd(payload: Any) -> None:
    source = make(FLOW, "https://flow.example", token_env="REST_TOKEN")
    with pytest.raises(OddPayloadError):
        mapping.map_run(payload, source, now=NOW)


def test_secret_in_an_error_is_redacted() -> None:
    said = told({**RUN, "note": "password=hunter2-secret refused"}).observation
    assert "hunter2" not in (said.error_message or "")


def test_webhook_body_goes_the_same_way() -> None:
    """With the fields that fit it: dbt Cloud's examples, which say "Errored" where its API says 20."""
    if not RECORDINGS.exists():
        pytest.skip("the examples are not here")
    fields = Fields.model_validate(
        {
            "external_run_id": "data.runId",
            "pipeline_id": "data.jobId",
            "pipeline_name": "data.jobName",
            "status": "data.runStatus",
            "started_at": "data.runStartedAt",
            "finished_at": "data.runFinishedAt || data.runErroredAt",
            "observed_at": "timestamp",
        }
    )
    statuses = {"Running": "running", "Success": "success", "Errored": "failed"}
    more = {"preset": "dbt_cloud", "parameters": {"account_id": 1}, "statuses": statuses}
    source = make(more, "https://cloud.getdbt.com", token_env="REST_TOKEN")
    lines = RECORDINGS.read_text(encoding="utf-8").splitlines()
    reports = [mapping.map_run(json.loads(line), source, now=NOW, fields=fields) for line in lines]
    assert [report and report.observation.status for report in reports] == ["running", "success", "failed"]
    assert all(report and report.observation.finished_at for report in reports[1:])
    assert {report and report.observation.external_run_id for report in reports} == {"12345"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["2026-11-22T02:00:02Z", "DONE", "ACTIVE", 10**400, "\0", "\ud800", "http://[", 1795312802000]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(), max_size=8) | st.sampled_from(sorted(RUN)), inner, max_size=6)
    ),
    max_leaves=20,
)
SOURCES = [
    make(FLOW, "https://flow.example", token_env="REST_TOKEN"),
    make({"preset": "dbt_cloud", "parameters": {"account_id": 1}}, "https://h.example", token_env="REST_TOKEN"),
    make({"preset": "airbyte"}, "https://h.example", username="u", password_env="REST_SECRET"),
    make({"preset": "databricks"}, "https://h.example", token_env="REST_TOKEN"),
]
KEYS = st.sampled_from(
    sorted({*RUN, *(key for runs in documented.PRESETS.values() for run in runs for key in run), "repair_history"})
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    payload=st.dictionaries(KEYS, JSON, max_size=12) | JSON,
    base=st.sampled_from([{}, RUN, documented.DBT_CLOUD[0], documented.AIRBYTE[0], documented.DATABRICKS[0]]),
    source=st.sampled_from(SOURCES),
)
def test_any_json_is_odd_or_can_be_stored(payload: Any, base: Any, source: Any) -> None:
    whole = {**base, **payload} if isinstance(payload, dict) else payload
    try:
        report = mapping.map_run(whole, source, now=NOW)
    except OddPayloadError:
        return
    if report is not None:
        said = report.observation
        for text in (said.external_run_id, said.error_message, said.status_reason, said.url, said.payload):
            assert text is None or not validation.check_json(text)
        assert said.payload is None or not validation.check_json(json.loads(said.payload))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=JSON)
@pytest.mark.parametrize(
    "text",
    [
        "length(a)", "sum(a[*].b)", "a[?b > `1`].c | [0]", "to_number(a) || keys(b)", "sort_by(a, &b)", "join('-', a)",
        "max_by(@, &a)", "@", "a[::-1]", "&a",
    ],
)  # fmt: skip
def test_expression_finds_something_or_nothing(text: str, document: Any) -> None:
    Expression(text).find(document)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a[", "is no JMESPath"),
        ("nope(a)", "no function"),
        ("(" * 600, "is no JMESPath"),
        ("a" * 1001, "at most 1000"),
        ("|".join(["[@, @][]"] * 30), "too long"),
        ("|".join(["to_string([@])"] * 20), "too long"),
        ("", "must not be empty"),
        (5, "must be a text"),
    ],
)
def test_expression_that_is_none_is_refused_at_load(text: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(merged(FLOW, {"fields": {"status": text}}), "https://flow.example", token_env="REST_TOKEN")
    (error,) = caught.value.errors()
    assert error["loc"] == ("fields", "status")
    assert said in error["msg"]
