"""Logs: one JSON object a line, secrets out of everything, the request's id in each line of it."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr

from headway.core import logging as logs

SECRET = "hw_" + "s" * 43
PASSWORD = "correct-horse-battery"
log = structlog.get_logger()

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Lines:
    """Log as JSON; the result returns what was written since it was last called."""
    logs.configure("info", "json")
    written = io.StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)

    def read() -> list[dict[str, Any]]:
        text = written.getvalue()
        written.seek(0)
        written.truncate()
        return [json.loads(line, parse_constant=_no_constant) for line in text.splitlines()]

    return read


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _raise(error: Exception) -> None:
    raise error


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


def test_event_is_one_line_of_json_with_time_and_level(lines: Lines) -> None:
    log.warning("tick_done", worked=True, rows=3, text="two\nlines")
    (event,) = lines()
    assert datetime.fromisoformat(event.pop("time")).tzinfo is not None
    assert event == {"event": "tick_done", "level": "warning", "worked": True, "rows": 3, "text": "two\nlines"}


def test_least_level_is_kept(lines: Lines) -> None:
    log.debug("quiet")
    logging.getLogger("library").debug("quiet")
    logging.getLogger("uvicorn.access").info("GET /ping/secret")
    assert lines() == []


@pytest.mark.parametrize(
    "facts",
    [
        {"text": f"key {SECRET} refused"},
        {"url": f"postgresql://app:{PASSWORD}@db/headway"},
        {"password": PASSWORD},
        {"api_key": PASSWORD},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"config": {"sources": [{"token": PASSWORD}]}},
        {"items": (SECRET, {"deep": [SECRET]})},
        {"names": {SECRET}},
        {"error": ValueError(f"bad key {SECRET}")},
        {"raw": SECRET.encode()},
        {"secret": SecretStr(PASSWORD)},
        {"note": SecretStr(PASSWORD)},
        {SECRET: 1},
        {"nested": {SECRET: 1}},
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(lines: Lines, facts: dict[str, Any]) -> None:
    log.info("something", **facts)
    (event,) = lines()
    text = json.dumps(event)
    assert SECRET not in text
    assert PASSWORD not in text
    assert event["event"] == "something"


def test_event_text_and_foreign_loggers_are_redacted(lines: Lines) -> None:
    text = f"key {SECRET}"
    log.info(text)
    logging.getLogger("library").warning("connecting with %s", f"password={PASSWORD}")
    events = lines()
    assert len(events) == 2
    assert SECRET not in str(events)
    assert PASSWORD not in str(events)


@pytest.mark.parametrize("style", ["json", "console"])
def test_text_of_exceptions_is_redacted(capsys: pytest.CaptureFixture[str], style: str) -> None:
    logs.configure("info", style)
    local_variable = PASSWORD  # frames' variables are not printed
    try:
        try:
            _raise(KeyError(f"token={SECRET}"))
        except KeyError as error:
            raise RuntimeError(f"postgresql://app:{local_variable}@db/headway") from error
    except RuntimeError:
        log.exception("crashed")
        logging.getLogger("library").exception("crashed too")
    said = capsys.readouterr().err
    assert said.count("RuntimeError") >= 2
    assert said.count("KeyError") >= 2
    assert SECRET not in said
    assert PASSWORD not in said


def test_anything_can_be_logged(lines: Lines) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    log.info(
        "odd",
        when=datetime(2026, 1, 1, tzinfo=UTC),
        which=UUID(int=1),
        none=None,
        nan=float("nan"),
        infinite=float("inf"),
        surrogate="\ud800",
        numbered={1: "one", (2, 3): "two"},
        broken=Unprintable(),
        cyclic=cyclic,
        huge=10**30,
    )
    (event,) = lines()
    assert event["when"] == "2026-01-01T00:00:00+00:00"
    assert event["which"] == str(UUID(int=1))
    assert (event["none"], event["nan"], event["infinite"]) == (None, "nan", "inf")
    assert event["numbered"] == {"1": "one", "(2, 3)": "two"}
    assert event["broken"] == "<Unprintable>"


def test_bound_request_id_is_in_every_line(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        log.info("one")
        logging.getLogger("library").info("two")
    log.info("three")
    assert [event.get("request_id") for event in lines()] == ["abc", "abc", None]
