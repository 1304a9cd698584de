"""What the sources look like to Prometheus, read when it is asked for."""

from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.connectors import queries
from headway.connectors.schemas import is_overdue

_LABELS = ["source", "platform", "client"]


async def sources(connection: AsyncConnection, *, client_slug: str | None, now: datetime) -> list[Metric]:
    """Return the metrics of all configured sources, of one client where given."""
    synced = GaugeMetricFamily(
        "headway_source_last_sync_timestamp_seconds", "End of the latest sync that read all changes", labels=_LABELS
    )
    lag = GaugeMetricFamily(
        "headway_source_lag_seconds", "Age of the latest change that may not have been read yet", labels=_LABELS
    )
    overdue = GaugeMetricFamily("headway_source_overdue", "1 where no sync came within three intervals", labels=_LABELS)
    failures = GaugeMetricFamily("headway_source_failures", "Failed syncs in a row", labels=_LABELS)
    runs = CounterMetricFamily("headway_source_runs", "Runs by what became of them", labels=[*_LABELS, "result"])
    for row in await queries.list_sources(connection, client_slug=client_slug):
        if not row.is_active:
            continue
        labels = [row.name, row.platform, row.client_slug]
        if row.last_synced_at is not None:
            synced.add_metric(labels, row.last_synced_at.timestamp())
        if row.watermark is not None:
            lag.add_metric(labels, max(0.0, (now - row.watermark).total_seconds()))
        overdue.add_metric(labels, float(is_overdue(row, now=now)))
        failures.add_metric(labels, row.failures)
        for column in queries.COUNTED:
            runs.add_metric([*labels, column.removeprefix("runs_")], getattr(row, column))
    return [synced, lag, overdue, failures, runs]
