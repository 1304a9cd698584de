"""What the facets of OpenLineage say: a parent, an error, rows, the address of a log.

``ingest/openlineage.py`` asks; ``core/reading.py`` does the defensive reading. Rule not to break: facets are optional
and free, so nothing here raises (``tests/ingest/test_openlineage_mapping.py`` feeds it arbitrary JSON).
"""

from collections.abc import Mapping
from typing import Any

from headway.core import validation
from headway.core.reading import count_at, object_at, objects_at, text_at, url_at


def parent_of(run_facets: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parent facet, which older integrations (Dagster, Great Expectations) call ``parentRun``."""
    return object_at(run_facets, "parent") or object_at(run_facets, "parentRun")


def rows_written(event: Mapping[str, Any]) -> int | None:
    """Return the sum of the rows that the outputs count, None where none does."""
    statistics = (
        count_at(output, "outputFacets", "outputStatistics", "rowCount") for output in objects_at(event, "outputs")
    )
    counts = [count for count in statistics if count is not None]
    total = sum(counts)
    return total if counts and total <= validation.INT64_MAX else None


def error_message(run_facets: Mapping[str, Any], *, with_trace: bool) -> str | None:
    """Return the error, on request with the stack trace below it."""
    message = text_at(run_facets, "errorMessage", "message")
    trace = text_at(run_facets, "errorMessage", "stackTrace") if with_trace else None
    return "\n".join(text for text in (message, trace) if text) or None


def log_url(run_facets: Mapping[str, Any]) -> str | None:
    """Return the http(s) address of the log of an Airflow task, the one page that a known facet names."""
    return url_at(run_facets, "airflow", "taskInstance", "log_url")
