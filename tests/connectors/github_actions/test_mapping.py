"""What a workflow run says: by a table, by recorded payloads, and whatever else JSON can be."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.connectors.contract import OddPayloadError, Report
from headway.connectors.github_actions import mapping
from headway.core import clock
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import Status
from tests.connectors.github_actions.subject import RECORDINGS, GithubActionsSubject, recordings

NOW = datetime.fromisoformat("2026-11-23T12:00:00Z")
SOURCE = GithubActionsSubject().source("https://github.example/api/v3", environment="staging")
RUN: dict[str, Any] = {
    "id": 9_000_000_001,
    "name": "nightly load #12",
    "path": ".github/workflows/nightly.yml",
    "workflow_id": 301,
    "run_number": 12,
    "run_attempt": 1,
    "event": "schedule",
    "display_title": "nightly load #12",
    "head_branch": "main",
    "head_sha": "8f2d1c",
    "html_url": "https://github.example/acme/data/actions/runs/9000000001",
    "status": "completed",
    "conclusion": "success",
    "created_at": "2026-11-23T02:00:00Z",
    "run_started_at": "2026-11-23T02:00:05Z",
    "updated_at": "2026-11-23T02:10:00Z",
    "repository": {"id": 4711, "full_name": "acme/data"},
    "actor": {"login": "cron"},
    "triggering_actor": {"login": "ada"},
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}Z")


def said(**changes: Any) -> Report:
    return mapping.report({**RUN, **changes}, source=SOURCE, now=NOW)


def test_run_becomes_an_observation_of_its_workflow() -> None:
    told = said(workflow={"name": "nightly load", "path": "x"}).observation
    assert told.pipeline == PipelineRef("acme", "github_actions", "acme/data: nightly load", "4711/301", "staging")
    assert (told.external_run_id, told.attempt, told.status) == ("9000000001", 1, Status.SUCCESS)
    assert (told.started_at, told.finished_at) == (at("23T02:00:05"), at("23T02:10:00"))
    assert told.observed_at == told.finished_at
    assert (told.url, told.status_reason, told.source) == (RUN["html_url"], "success", "github-of-acme")
    assert json.loads(told.payload or "") == {
        "event": "schedule",
        "display_title": "nightly load #12",
        "head_branch": "main",
        "head_sha": "8f2d1c",
        "path": ".github/workflows/nightly.yml",
        "run_number": 12,
        "created_at": "2026-11-23T02:00:00Z",
        "actor": "cron",
        "triggering_actor": "ada",
    }


@pytest.mark.parametrize(
    ("status", "conclusion", "expected", "is_unknown", "reason"),
    [
        *((word, None, status, False, word) for word, status in mapping.STATUSES.items()),
        *(("completed", word, status, False, word) for word, status in mapping.CONCLUSIONS.items()),
        ("in_progress", "success", Status.RUNNING, False, "in_progress"),  # only what is completed has a conclusion
        ("completed", None, Status.RUNNING, True, "completed"),  # a moment between two writes
        ("completed", "exploded", Status.FAILED, True, "exploded"),
        ("dreaming", None, Status.RUNNING, True, "dreaming"),
        (None, None, Status.RUNNING, True, None),
    ],
)
def test_status_follows_the_status_and_the_conclusion(
    status: str | None, conclusion: str | None, expected: Status, is_unknown: bool, reason: str | None
) -> None:
    report = said(status=status, conclusion=conclusion)
    told = report.observation
    assert (told.status, report.is_unknown_word, told.status_reason) == (expected, is_unknown, reason)


@pytest.mark.parametrize(
    ("changes", "started_at", "finished_at", "observed_at"),
    [
        # the attempt's own start; the run's creation stays that of the first attempt
        ({"run_attempt": 2, "run_started_at": "2026-11-23T02:08:00Z"}, "23T02:08:00", "23T02:10:00", "23T02:10:00"),
        ({"run_attempt": 2, "run_started_at": None}, None, "23T02:10:00", "23T02:10:00"),
        # answers of 2020 have neither
        ({"run_attempt": None, "run_started_at": None}, "23T02:00:00", "23T02:10:00", "23T02:10:00"),
        # an end is the last job's, if it is known
        (
            {"jobs": [{"completed_at": "2026-11-23T02:09:58Z"}, {"completed_at": "2026-11-23T02:04:00Z"}, {}]},
            "23T02:00:05",
            "23T02:09:58",
            "23T02:09:58",
        ),
        # but not of a job that an earlier attempt brought along
        ({"jobs": [{"completed_at": "2026-11-23T01:00:00Z"}]}, "23T02:00:05", "23T02:10:00", "23T02:10:00"),
        # nor is a touch after 35 days an end
        ({"run_started_at": "2026-10-01T00:00:00Z"}, "01", None, None),
        # what goes on is dated by its last update, and what waits has not started
        ({"status": "in_progress", "conclusion": None}, "23T02:00:05", None, "23T02:10:00"),
        ({"status": "queued", "conclusion": None}, None, None, "23T02:10:00"),
        ({"conclusion": "action_required"}, None, None, "23T02:10:00"),
        ({"updated_at": "soon"}, "23T02:00:05", None, None),
        ({"updated_at": "2026-11-25T00:00:00Z"}, "23T02:00:05", None, None),
    ],
)
def test_times_are_those_of_the_attempt(
    changes: dict[str, Any], started_at: str | None, finished_at: str | None, observed_at: str | None
) -> None:
    told = said(**changes).observation
    start = datetime.fromisoformat("2026-10-01T00:00:00Z") if started_at == "01" else started_at and at(started_at)
    assert told.started_at == start
    assert told.finished_at == (finished_at and at(finished_at))
    assert told.observed_at == (observed_at and at(observed_at))


def test_late_touch_of_a_finished_run_changes_nothing_where_its_jobs_are_known() -> None:
    jobs = [{"completed_at": "2026-11-23T02:09:58Z"}]
    assert said(jobs=jobs) == said(jobs=jobs, updated_at="2026-11-23T11:00:00Z")


@pytest.mark.parametrize(
    ("run", "doubtful"),
    [
        ({}, False),
        ({"updated_at": "2026-11-23T03:00:06Z"}, True),
        ({"updated_at": "2026-11-23T03:00:06Z", "status": "in_progress"}, False),
        ({"updated_at": "2026-11-23T03:00:06Z", "conclusion": "action_required"}, False),
        ({"updated_at": None}, True),
        ({"run_started_at": None, "run_attempt": 3}, True),
    ],
)
def test_jobs_are_wanted_where_the_last_update_may_not_be_the_end(run: dict[str, Any], doubtful: bool) -> None:
    assert mapping.is_end_doubtful({**RUN, **run}) is doubtful


def test_failed_run_names_its_failed_jobs_and_steps() -> None:
    steps = [{"name": "Set up", "conclusion": "success"}, {"name": "dbt build", "conclusion": "failure"}]
    jobs = [
        {"name": "load", "conclusion": "failure", "steps": steps},
        {"name": "lint", "conclusion": "success", "steps": steps},
        {"name": "report", "conclusion": "timed_out", "steps": []},
        {"conclusion": "failure", "steps": "none"},
    ]
    told = said(conclusion="failure", jobs=jobs).observation
    assert told.error_message == "load: failure in step dbt build; report: timed out; a job: failure"
    assert said(conclusion="success", jobs=jobs).observation.error_message is None
    assert said(conclusion="failure").observation.error_message is None
    many = said(conclusion="failure", jobs=[{"name": "m", "conclusion": "failure"}] * 23).observation
    assert (many.error_message or "").endswith("; and 3 more jobs")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"workflow": {"name": "load"}}, "acme/data: load"),
        ({}, "acme/data: nightly load #12"),
        ({"name": ""}, "acme/data: .github/workflows/nightly.yml"),
        ({"name": None, "workflow": {"name": "", "path": "dynamic/pages"}}, "acme/data: dynamic/pages"),
        ({"name": "", "path": None}, "acme/data: 301"),
        ({"repository": {"id": 4711}}, "nightly load #12"),
    ],
)
def test_pipeline_is_named_by_its_workflow_not_by_the_single_run(changes: dict[str, Any], name: str) -> None:
    pipeline = said(**changes).observation.pipeline
    assert isinstance(pipeline, PipelineRef)
    assert (pipeline.name, pipeline.external_id) == (name, "4711/301")


@pytest.mark.parametrize("lacking", [{"id": None}, {"workflow_id": []}, {"repository": None}, {"id": "x" * 513}])
def test_run_without_identity_is_odd(lacking: dict[str, Any]) -> None:
    with pytest.raises(OddPayloadError):
        said(**lacking)


def test_what_is_kept_of_a_run_says_the_same() -> None:
    jobs = [{"name": "a", "conclusion": "failure", "completed_at": "2026-11-23T02:09:58Z", "steps": [], "more": 1}]
    run = {**RUN, "conclusion": "failure", "head_commit": {"message": "m"}}
    kept = {**mapping.slim(run), "jobs": [mapping.slim_job(job) for job in jobs]}
    assert mapping.report(kept, source=SOURCE, now=NOW) == mapping.report({**run, "jobs": jobs}, source=SOURCE, now=NOW)
    assert "head_commit" not in kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["completed", "failure", "2026-11-23T02:00:00Z", "\0", "\ud800"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)  # fmt: skip
members = [*RUN, "jobs", "workflow"]


@given(st.dictionaries(st.sampled_from(members), json_values, max_size=6), st.booleans())
def test_hostile_json_is_read_or_odd(changes: dict[str, Any], is_whole: bool) -> None:
    payload = {**RUN, **changes} if is_whole else changes
    mapping.is_end_doubtful(payload)
    for read in (payload, mapping.slim(payload)):
        try:
            mapping.report(read, source=SOURCE, now=NOW)
        except OddPayloadError:
            continue


needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not at hand")


@needs_recordings
def test_recorded_runs_are_read_without_an_unknown_word() -> None:
    runs = recordings()
    assert len(runs) > 10
    for run in runs:
        report = mapping.report(run, source=SOURCE, now=clock.now())
        assert not report.is_unknown_word
        told = report.observation
        assert told.finished_at is None or told.started_at is None or told.finished_at >= told.started_at


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / name).read_text())


@needs_recordings
@pytest.mark.parametrize(
    ("file", "run", "expected", "minutes"),
    [
        ("webhooks_npm/workflow_run.0.completed.queued.None.json", "workflow_run", Status.QUEUED, None),
        ("webhooks_npm/workflow_run.4.requested.completed.action_required.json", "workflow_run", Status.QUEUED, None),
        ("api_replay_pygithub/run_in_progress.json", None, Status.RUNNING, None),
        ("api_replay_pygithub/run_failure.json", None, Status.FAILED, 93 / 60),
        ("api_replay_pygithub/rerun.json", None, Status.SUCCESS, 102 / 60),
    ],
)
def test_recorded_run_means(file: str, run: str | None, expected: Status, minutes: float | None) -> None:
    document = recorded(file)
    told = mapping.report(document[run] if run else document, source=SOURCE, now=clock.now()).observation
    assert told.status is expected
    took = told.finished_at - told.started_at if told.finished_at and told.started_at else None
    assert took == (None if minutes is None else timedelta(minutes=minutes))


@needs_recordings
def test_recorded_rerun_is_the_second_attempt_and_the_run_touched_after_13_months_has_no_end() -> None:
    again = mapping.report(recorded("api_replay_pygithub/rerun.json"), source=SOURCE, now=NOW).observation
    assert (again.attempt, again.started_at) == (2, datetime.fromisoformat("2026-05-29T15:42:05Z"))
    touched = recorded("api_replay_pygithub/list_runs_created_filter.json")["workflow_runs"][0]
    told = mapping.report(touched, source=SOURCE, now=NOW).observation
    assert (told.status, told.finished_at) == (Status.SUCCESS, None)
    assert mapping.is_end_doubtful(touched)


@needs_recordings
def test_recorded_jobs_tell_the_end() -> None:
    jobs = [mapping.slim_job(job) for job in recorded("api_replay_pygithub/jobs.json")["jobs"]]
    run = {**RUN, "run_started_at": "2023-01-10T08:24:20Z", "updated_at": "2024-01-10T08:24:20Z", "jobs": jobs}
    told = mapping.report(run, source=SOURCE, now=NOW).observation
    ends = [datetime.fromisoformat(job["completed_at"]) for job in jobs if job["completed_at"]]
    assert told.finished_at == max(ends)
