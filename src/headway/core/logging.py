"""Structured logs: one event a line, JSON where nobody watches, in colour on a terminal.

Every value is redacted on its way out, exceptions' texts among them, and is plain JSON by then. Nothing logs payloads
or keys in the first place (``tests/core/test_logging.py``). A request's id is bound once by ``core/middleware.py``.
"""

import logging
import math
import sys
from collections.abc import Mapping, MutableMapping
from datetime import date
from typing import Any

import structlog

from headway.core import redaction

_DEPTH_MAX = 8


def configure(level: str, style: str) -> None:
    """Set up logging for this process: ``style`` is auto, json or console."""
    on_terminal = style == "console" or (style == "auto" and sys.stderr.isatty())
    # the exception is a text by then: its own formatters would print the variables of every frame
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = plain if on_terminal else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Requests are logged by our own middleware, with route templates in place of paths.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
        logger.setLevel(logging.WARNING)
    # It logs each query that is sent to a platform, and what stands in it is nobody's business.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of every value of a log event, and make it one that JSON knows."""
    # those with an underscore are structlog's own, and gone before the event is rendered
    kept = {key: value for key, value in event.items() if key.startswith("_")}
    facts = {key: _plain(value, 0) for key, value in event.items() if not key.startswith("_")}
    redacted = redaction.redact_value(facts)
    assert isinstance(redacted, dict)  # noqa: S101 - it was one
    return kept | redacted


def _plain(value: object, depth: int) -> redaction.JsonValue:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth < _DEPTH_MAX:
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEPTH_MAX:
        return [_plain(item, depth + 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    """Return what JSON does not know as a text."""
    try:
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {value}"
        return value.isoformat() if isinstance(value, date) else str(value)
    except Exception:  # noqa: BLE001 - a log line never breaks what it tells of
        return f"<{type(value).__name__}>"
