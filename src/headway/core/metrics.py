"""What the service counts of itself, for Prometheus, added up over all API processes.

The processes share a directory of memory-mapped files (``PROMETHEUS_MULTIPROC_DIR``, set before this is imported; see
``serve.py``). Labels are route templates and fixed words, never paths, so that their number is bounded.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

_LAG_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400, 604_800)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one process."""

    def __init__(self, registry: CollectorRegistry | None = None, *, shared_dir: str | None = None) -> None:
        registry = CollectorRegistry() if registry is None else registry
        self._registry = registry
        self._shared_dir = shared_dir
        self.requests = Counter(
            "headway_http_requests", "Requests by route and status", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "headway_http_request_seconds", "Time to answer", ["method", "route"], buckets=_SECONDS, registry=registry
        )
        self.observations = Counter(
            "headway_observations",
            "Observations by source and what became of them",
            ["source", "result"],
            registry=registry,
        )
        self.unknown_words = Counter(
            "headway_unknown_status_words",
            "Status words of a source that Headway does not know",
            ["source"],
            registry=registry,
        )
        self.lag = Histogram(
            "headway_ingest_lag_seconds",
            "From the source's own time for its latest report to its commit here, once a request",
            ["source"],
            buckets=_LAG_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "headway_ingest_queue",
            "Single reports waiting for a transaction",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.bytes_in_flight = Gauge(
            "headway_body_bytes_in_flight",
            "Bytes of request bodies held",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def count_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)

    def count_observations(self, source: str, results: Mapping[str, int], *, lag_seconds: float | None = None) -> None:
        """Count what became of the observations of one request, and how old its latest fact was at its commit."""
        if lag_seconds is not None:
            self.lag.labels(source).observe(max(0.0, lag_seconds))
        for result, number in results.items():
            if number:
                self.observations.labels(source, result).inc(number)

    def exposition(self) -> bytes:
        """Return all counters of all processes in Prometheus' text format."""
        if self._shared_dir is None:
            return generate_latest(self._registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, path=self._shared_dir)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def exposition_of(families: Iterable[Metric]) -> bytes:
    """Return metrics that were read from somewhere else in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return generate_latest(registry)
