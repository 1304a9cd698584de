"""What a pipeline says, polled or pushed: by a table, by recorded payloads, and whatever else JSON can be."""

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.contract import OddPayloadError, Report
from headway.connectors.gitlab_ci import mapping
from headway.core import clock
from headway.pipelines.reference import PipelineRef
from headway.runs import attempts, merge
from headway.runs.observation import OPEN_ATTEMPT, RunObservation, Status
from tests.connectors.gitlab_ci.subject import RECORDINGS, WORDS, GitlabCiSubject, recordings

NOW = datetime.fromisoformat("2026-11-23T12:00:00Z")
SOURCE = GitlabCiSubject().source("https://gitlab.example", environment="staging")
PIPELINE: dict[str, Any] = {
    "id": 70_001,
    "iid": 12,
    "project_id": 501,
    "name": "nightly",
    "status": "success",
    "source": "schedule",
    "ref": "main",
    "sha": "8f2d1c",
    "tag": False,
    "web_url": "https://gitlab.example/acme/orders/-/pipelines/70001",
    "created_at": "2026-11-23T02:00:00.100Z",
    "started_at": "2026-11-23T02:00:05.200Z",
    "finished_at": "2026-11-23T02:10:00.300Z",
    "updated_at": "2026-11-23T02:10:00.350Z",
    "duration": 580,
    "queued_duration": 5,
    "yaml_errors": None,
    "user": {"username": "ada"},
    "detailed_status": {"label": "passed with warnings"},
    "project": {"id": 501, "path_with_namespace": "acme/orders"},
}
HOOK: dict[str, Any] = {
    "object_kind": "pipeline",
    "object_attributes": {
        "id": 70_001,
        "iid": 12,
        "name": "nightly",
        "ref": "main",
        "tag": False,
        "sha": "8f2d1c",
        "source": "schedule",
        "status": "success",
        "detailed_status": "passed with warnings",
        "created_at": "2026-11-23 02:00:00 UTC",
        "finished_at": "2026-11-23 02:10:00 UTC",
        "duration": 580,
        "queued_duration": 5,
        "variables": [{"key": "WAREHOUSE_PASSWORD", "value": "hunter2hunter2"}],
        "url": "https://gitlab.example/acme/orders/-/pipelines/70001",
    },
    "user": {"username": "ada", "email": "ada@acme.example"},
    "project": {"id": 501, "path_with_namespace": "acme/orders"},
    "builds": [
        {"name": "load", "stage": "run", "status": "success", "created_at": "2026-11-23 02:00:00 UTC",
         "started_at": "2026-11-23 02:00:06 UTC", "finished_at": "2026-11-23 02:09:58 UTC"},
    ],
}  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}Z")


def report(**changes: Any) -> Report | None:
    return mapping.report({**PIPELINE, **changes}, source=SOURCE, now=NOW)


def said(**changes: Any) -> RunObservation:
    made = report(**changes)
    assert made is not None
    return made.observation


def pushed(builds: Any = None, **changes: Any) -> RunObservation:
    attributes = {**HOOK["object_attributes"], **changes}
    hook = {**HOOK, "object_attributes": attributes, "builds": HOOK["builds"] if builds is None else builds}
    made = mapping.report(hook, source=SOURCE, now=NOW)
    assert made is not None
    return made.observation


def test_pipeline_becomes_an_observation_of_its_project() -> None:
    told = said()
    assert told.pipeline == PipelineRef("acme", "gitlab_ci", "acme/orders", "501", "staging")
    assert (told.external_run_id, told.attempt, told.status) == ("70001", OPEN_ATTEMPT, Status.SUCCESS)
    assert (told.started_at, told.finished_at) == (at("23T02:00:05.2"), at("23T02:10:00.3"))
    assert told.observed_at == told.finished_at
    assert (told.url, told.status_reason, told.source) == (PIPELINE["web_url"], "success", "gitlab-of-acme")
    assert json.loads(told.payload or "") == {
        "source": "schedule",
        "name": "nightly",
        "ref": "main",
        "sha": "8f2d1c",
        "iid": 12,
        "detailed_status": "passed with warnings",
        "created_at": "2026-11-23T02:00:00.100Z",
        "duration_seconds": 580,
        "queued_seconds": 5,
        "user": "ada",
    }


def test_hook_names_the_same_pipeline_and_run_and_tells_the_same() -> None:
    polled, hooked = said(), pushed()
    for member in ("pipeline", "external_run_id", "attempt", "status", "status_reason", "url", "source"):
        assert getattr(hooked, member) == getattr(polled, member)
    assert (hooked.started_at, hooked.finished_at) == (at("23T02:00:05"), at("23T02:10:00"))
    assert {**json.loads(polled.payload or ""), "created_at": "2026-11-23 02:00:00 UTC"} == json.loads(
        hooked.payload or ""
    )
    assert "hunter2" not in repr(hooked)
    assert "ada@" not in repr(hooked)


@pytest.mark.parametrize(("word", "status"), [*WORDS.items(), ("dreaming", Status.RUNNING), (None, Status.RUNNING)])
def test_status_follows_the_word(word: str | None, status: Status) -> None:
    made = report(status=word, finished_at=None)
    assert made is not None
    assert (made.observation.status, made.observation.status_reason) == (status, word)
    assert made.is_unknown_word is (word not in WORDS)


def test_unknown_word_of_an_ended_pipeline_is_a_failure() -> None:
    made = report(status="exploded")
    assert made is not None
    assert (made.observation.status, made.is_unknown_word) == (Status.FAILED, True)


@pytest.mark.parametrize(
    ("changes", "started_at", "finished_at", "observed_at"),
    [
        ({"status": "running", "finished_at": None}, "23T02:00:05.2", None, "23T02:10:00.35"),
        ({"status": "pending", "started_at": None, "finished_at": None}, None, None, "23T02:10:00.35"),
        # a retry: the first start and the last end are still there, and neither is of this try
        ({"status": "running"}, None, None, "23T02:10:00.35"),
        # skipped ones and some canceled ones have no end
        ({"status": "skipped", "started_at": None, "finished_at": None}, None, None, "23T02:10:00.35"),
        ({"finished_at": "2026-11-25T00:00:00Z"}, "23T02:00:05.2", None, "23T02:10:00.35"),
        ({"started_at": 5, "finished_at": "soon", "updated_at": None}, None, None, None),
    ],
)
def test_times_are_those_that_are_told(
    changes: dict[str, Any], started_at: str | None, finished_at: str | None, observed_at: str | None
) -> None:
    told = said(**changes)
    assert (told.started_at, told.finished_at, told.observed_at) == tuple(
        text and at(text) for text in (started_at, finished_at, observed_at)
    )


def test_live_hook_is_dated_by_its_last_job() -> None:
    builds = [*HOOK["builds"], {"created_at": "2026-11-23 02:00:00 UTC", "started_at": "2026-11-23 02:30:00 UTC"}]
    told = pushed(builds, status="running")
    assert (told.started_at, told.observed_at) == (None, at("23T02:30:00"))  # it was retried: an end is there
    first = pushed([], status="pending", finished_at=None, queued_duration=None)
    assert (first.started_at, first.observed_at) == (None, at("23T02:00:00"))
    assert pushed(queued_duration=10**18).started_at is None


def test_retry_is_the_next_attempt_when_it_is_seen_alive() -> None:
    first = attempts.numbered(said(status="failed"), 1)
    stored = merge.state_of(first)
    again = said(status="running", updated_at="2026-11-23T03:00:00Z")
    assert attempts.attempt_of(stored, again) == 2
    assert attempts.attempt_of(stored, said(status="failed")) == 1
    assert attempts.attempt_of(None, again) == 1


def test_failed_pipeline_names_its_failed_jobs() -> None:
    jobs = [
        {"name": "load", "stage": "run", "status": "failed", "failure_reason": "script_failure"},
        {
            "name": "lint",
            "stage": "test",
            "status": "failed",
            "allow_failure": True,
            "failure_reason": "script_failure",
        },
        {"name": "send", "status": "failed", "failure_reason": "unknown_failure"},
        {"name": "done", "status": "success", "failure_reason": "unknown_failure"},
        {"status": "failed", "failure_reason": "runner_system_failure"},
    ]
    message = "load (stage run): script failure; send; a job: runner system failure"
    assert said(status="failed", jobs=jobs).error_message == message
    assert pushed(jobs, status="failed").error_message == message
    assert said(status="success", jobs=jobs).error_message is None
    many = said(status="failed", jobs=[{"name": "m", "status": "failed"}] * 23).error_message
    assert (many or "").endswith("; and 3 more jobs")
    assert said(status="failed", yaml_errors="jobs:load config is empty").error_message == "jobs:load config is empty"


def test_child_pipeline_is_a_part_of_its_parent() -> None:
    assert report(source="parent_pipeline") is None
    attributes = {**HOOK["object_attributes"], "source": "parent_pipeline"}
    assert mapping.report({**HOOK, "object_attributes": attributes}, source=SOURCE, now=NOW) is None


def test_project_without_a_path_goes_by_its_id() -> None:
    pipeline = said(project=None).pipeline
    assert isinstance(pipeline, PipelineRef)
    assert (pipeline.name, pipeline.external_id) == ("501", "501")


@pytest.mark.parametrize("lacking", [{"id": None}, {"project": None, "project_id": []}, {"id": "x" * 513}])
def test_pipeline_without_identity_is_odd(lacking: dict[str, Any]) -> None:
    with pytest.raises(OddPayloadError):
        report(**lacking)


def test_what_is_kept_of_a_pipeline_says_the_same() -> None:
    jobs = [{"name": "a", "status": "failed", "failure_reason": "script_failure", "user": {"name": "Ada"}}]
    pipeline = {**PIPELINE, "status": "failed", "before_sha": "0"}
    kept = {
        **mapping.slim(pipeline),
        "project": PIPELINE["project"],
        "jobs": [mapping.slim_job(job) for job in jobs],
    }
    assert mapping.report(kept, source=SOURCE, now=NOW) == mapping.report(
        {**pipeline, "jobs": jobs}, source=SOURCE, now=NOW
    )
    assert "before_sha" not in kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["failed", "2026-11-23 02:00:00 UTC", "\0", "\ud800"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*PIPELINE, "jobs"]), json_values, max_size=6), st.booleans())
def test_hostile_json_is_read_or_odd(changes: dict[str, Any], is_whole: bool) -> None:
    payload = {**PIPELINE, **changes} if is_whole else changes
    for read in (payload, mapping.slim(payload)):
        try:
            mapping.report(read, source=SOURCE, now=NOW)
        except OddPayloadError:
            continue


@given(
    st.dictionaries(st.sampled_from([*HOOK]), json_values, max_size=3),
    st.dictionaries(st.sampled_from([*HOOK["object_attributes"]]), json_values, max_size=5),
)
def test_hostile_hook_is_read_or_odd(changes: dict[str, Any], attributes: dict[str, Any]) -> None:
    hook = {**HOOK, "object_attributes": {**HOOK["object_attributes"], **attributes}, **changes}
    try:
        mapping.report(hook, source=SOURCE, now=NOW)
    except OddPayloadError:
        return


needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not at hand")


@needs_recordings
def test_recorded_pipelines_are_read_without_an_unknown_word() -> None:
    payloads = recordings()
    assert len(payloads) == 4
    for payload in payloads:
        made = mapping.report(payload, source=SOURCE, now=clock.now())
        assert made is not None
        assert not made.is_unknown_word


@needs_recordings
def test_recorded_hook_and_answer_mean() -> None:
    hook = json.loads((RECORDINGS / "webhook_testdata_go_gitlab" / "pipeline.json").read_text())
    made = mapping.report(hook, source=SOURCE, now=NOW)
    assert made is not None
    told = made.observation
    assert (told.external_run_id, told.status, told.error_message) == ("31", Status.SUCCESS, None)
    assert told.started_at == datetime.fromisoformat("2016-08-12T15:23:40Z")
    assert told.finished_at == datetime.fromisoformat("2016-08-12T15:26:29Z")
    single = json.loads((RECORDINGS / "api_docs_example" / "single_pipeline.json").read_text())
    made = mapping.report(single, source=SOURCE, now=NOW)
    assert made is not None
    assert made.observation.finished_at == datetime.fromisoformat("2022-09-21T01:05:50.175Z")
