"""Structured logs: one event a line, JSON where nobody watches, in colour on a terminal.

Every value is redacted on its way out. Nothing logs payloads or keys in the first place
(``tests/core/test_logging.py``). A request's id and route template are bound once by ``core/middleware.py``.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from headway.core import redaction


def configure(level: str, style: str) -> None:
    """Set up logging for this process: ``style`` is auto, json or console."""
    on_terminal = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        *([] if on_terminal else [structlog.processors.format_exc_info]),
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


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of every text of a log event."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redaction.redact_text(value)
        elif isinstance(value, dict | list):
            event[key] = redaction.redact_value(value)
    return event
