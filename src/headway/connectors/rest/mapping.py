"""A vendor's description of a run and a source's configuration, to what we say of the run. Pure.

Called by ``api.py``; a webhook's body goes the same way, with the ``Fields`` that fit it. Rule not to break: whatever
the payload, it is a report, none, or an ``OddPayloadError`` (``tests/connectors/rest/test_mapping.py`` feeds it
arbitrary JSON).
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from headway.connectors import contract
from headway.connectors.contract import Payload, Report
from headway.connectors.rest.expressions import Expression, fill
from headway.connectors.rest.parts import Fields
from headway.connectors.rest.source import RestSource
from headway.core import reading, validation
from headway.runs.observation import OPEN_ATTEMPT, Status, observe

#: Members that ``api.py`` adds to a run: what its list was asked with, and the name of its pipeline from elsewhere.
PARAMETERS, PIPELINE_NAME = "headway_parameters", "headway_pipeline_name"
ATTEMPT_MAX = 2**31 - 1
TEXT_CHARS = 512
LIST_ITEMS = 50
DEPTH = 4

_NAIVE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?", re.ASCII)
_UNHAPPY = frozenset({Status.FAILED, Status.CANCELED, Status.SKIPPED})


def map_run(payload: Payload, source: RestSource, *, now: datetime, fields: Fields | None = None) -> Report | None:
    """Return what a run says; None for one that is planned for later, or whose pipeline the source leaves out.

    Raises:
        OddPayloadError: it lacks what identifies it.
    """
    at = source.fields if fields is None else fields
    run_id = contract.identity({"external_run_id": at.external_run_id.find(payload)}, "external_run_id")
    pipeline_id, name = pipeline_of(payload, at)
    if not source.takes(name, pipeline_id):
        return None
    latest = contract.latest_fact(now)
    started_at = _time(at.started_at, payload, at, latest)
    finished_at = _time(at.finished_at, payload, at, latest)
    scheduled_for = _time(at.scheduled_for, payload, at, contract.latest_plan(now))
    word = _word(at.status.find(payload))
    status, is_unknown = contract.status_of(word, source.statuses, has_ended=finished_at is not None)
    if status is Status.QUEUED and started_at is None and scheduled_for is not None and scheduled_for > now:
        return None
    observation = observe(
        pipeline=contract.pipeline_ref(
            client=source.client,
            platform=source.vendor,
            name=name,
            external_id=pipeline_id,
            environment=source.environment,
        ),
        external_run_id=run_id,
        status=status,
        source=source.name,
        attempt=_attempt(at, payload, reuses_ids=source.reuses_run_ids),
        observed_at=_time(at.observed_at, payload, at, latest),
        scheduled_for=scheduled_for,
        started_at=started_at,
        finished_at=finished_at,  # counts on ends alone
        rows_processed=_whole(_find(at.rows_processed, payload)),
        # What a vendor says of a run that goes well is no error, and would stay as the error of one that then fails.
        error_message=_text(_find(at.error_message, payload)) if status in _UNHAPPY else None,
        status_reason=word if is_unknown else _text(_find(at.status_reason, payload)) or word,
        url=_url(at, payload, source, run_id, pipeline_id),
        payload=_payload(at, payload),
    )
    return Report(observation, is_unknown)


def pipeline_of(payload: Payload, at: Fields) -> tuple[str, str]:
    """Return the id and the name of a run's pipeline; where there is but one of them, it is both.

    Raises:
        OddPayloadError: there is neither.
    """
    name = reading.id_at({"": _find(at.pipeline_name, payload)}, "") or reading.text_at(payload, PIPELINE_NAME)
    found = _find(at.pipeline_id, payload)
    given = reading.id_at({"": found}, "")
    pipeline_id = contract.identity({"pipeline_id": name if given is None else given}, "pipeline_id")
    return pipeline_id, name or pipeline_id


def run_id_of(payload: Payload, at: Fields) -> str | None:
    """Return the id of a run, None where it has none."""
    return reading.id_at({"": at.external_run_id.find(payload)}, "")


def time_of(found: object, written: str, latest: datetime) -> datetime | None:
    """Return a time that is written as the vendor does, None for what is none."""
    held = {"": found}
    if written == "epoch_ms":
        return reading.epoch_at(held, "", latest=latest, per_second=1000)
    if written == "epoch_s":
        return reading.epoch_at(held, "", latest=latest)
    if written == "iso_utc" and isinstance(found, str) and _NAIVE.fullmatch(found):
        held = {"": found + "Z"}
    return reading.loose_time_at(held, "", latest=latest)


def _time(expression: Expression | None, payload: Payload, at: Fields, latest: datetime) -> datetime | None:
    return time_of(_find(expression, payload), at.time_format, latest)


def _find(expression: Expression | None, payload: Payload) -> Any:
    return None if expression is None else expression.find(payload)


def _text(found: object) -> str | None:
    return reading.id_at({"": found}, "")


def _word(found: object) -> str | None:
    """Return a status as the configuration writes it: numbers and booleans as text."""
    if isinstance(found, bool):
        return "true" if found else "false"
    whole = _whole(found)
    word = _text(found) if whole is None else str(whole)
    return None if word is None else word[:TEXT_CHARS]


def _whole(found: object) -> int | None:
    """Return a number from 0 to 2^63-1; JMESPath sums, and some vendors, write whole numbers as floats."""
    if isinstance(found, float) and math.isfinite(found) and found.is_integer():
        found = int(found)
    return reading.count_at({"": found}, "")


def _attempt(at: Fields, payload: Payload, *, reuses_ids: bool) -> int:
    counted = _whole(_find(at.attempt, payload))
    if counted is None:
        return OPEN_ATTEMPT if reuses_ids else 1
    return min(max(counted + 1 - at.first_attempt, 1), ATTEMPT_MAX)


def _url(at: Fields, payload: Payload, source: RestSource, run_id: str, pipeline_id: str) -> str | None:
    found = _find(at.url, payload)
    if found is None and at.url_template:
        values = {**source.parameter_sets[0], **_parameters(payload), "run_id": run_id, "pipeline_id": pipeline_id}
        quoted = {name: quote(value, safe="") for name, value in values.items()}
        found = fill(at.url_template, {**quoted, "url": source.url})
    return reading.url_at({"": found}, "")


def _parameters(payload: Payload) -> dict[str, str]:
    return {name: value for name, value in reading.object_at(payload, PARAMETERS).items() if isinstance(value, str)}


def _payload(at: Fields, payload: Payload) -> dict[str, Any] | None:
    found = {name: _plain(_find(expression, payload), DEPTH) for name, expression in at.payload.items()}
    return {name: value for name, value in found.items() if value is not None and value != ""} or None


def _plain(value: object, depth: int) -> Any:
    """Return a value that jsonb takes, cut to what a reader looks at; None for what is none."""
    if isinstance(value, str):
        return reading.mended(value)[:TEXT_CHARS]
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return None if validation.check_json(value) else value
    if depth and isinstance(value, list):
        return [_plain(item, depth - 1) for item in value[:LIST_ITEMS]]
    if depth and isinstance(value, Mapping):
        members = list(value.items())[:LIST_ITEMS]
        return {reading.mended(str(key))[:TEXT_CHARS]: _plain(item, depth - 1) for key, item in members}
    return None
