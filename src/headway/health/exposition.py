"""What the fleet looks like to Prometheus: each pipeline's last status and times, read when it is asked for."""

from uuid import UUID

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.health import queries
from headway.health.fleet import FleetFilter

_LABELS = ["client", "pipeline_id", "pipeline", "platform", "environment"]


async def pipelines(connection: AsyncConnection, *, client_id: UUID | None) -> list[Metric]:
    """Return the metrics of all pipelines that have run, of one client where given."""
    status = GaugeMetricFamily(
        "headway_pipeline_last_status", "Status of the latest run; 1 at its word", labels=[*_LABELS, "status"]
    )
    run_at = GaugeMetricFamily("headway_pipeline_last_run_timestamp_seconds", "Time of the latest run", labels=_LABELS)
    success_at = GaugeMetricFamily(
        "headway_pipeline_last_success_timestamp_seconds", "End of the latest success", labels=_LABELS
    )
    for row in await queries.list_states(connection, narrowed=FleetFilter(client_id=client_id)):
        labels = [row.client_slug, str(row.pipeline_id), row.pipeline_name, row.platform, row.environment]
        status.add_metric([*labels, row.status], 1)
        run_at.add_metric(labels, row.run_at.timestamp())
        if row.last_success_at is not None:
            success_at.add_metric(labels, row.last_success_at.timestamp())
    return [status, run_at, success_at]
