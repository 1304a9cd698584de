"""``python -m bench``: starts a service of its own, measures it, stops it, and writes ``docs/benchmarks.md``."""

import argparse
import signal
import sys
from pathlib import Path

import psycopg

from bench import ingest, reads, single, sync
from bench.report import Report
from bench.service import Service

PARTS = ("memory", "ingest", "single", "sync", "reads")
PAGE = Path("docs/benchmarks.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Headway on this machine.")
    parser.add_argument("--runs", type=float, default=None, help="runs in the fleet that is read (default 1e6)")
    parser.add_argument("--quick", action="store_true", help="a look at everything in 90 seconds, at 1e5 runs")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--out", type=Path, help=f"page to write; without it only a whole run writes one, {PAGE}")
    arguments = parser.parse_args()
    runs = int(arguments.runs or (1e5 if arguments.quick else 1e6))
    if not 1_000 <= runs <= 100_000_000:
        parser.error("--runs must be between 1e3 and 1e8")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started us in the background
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = (arguments.only,) if arguments.only else PARTS
    try:
        report = _measure(parts, runs, quick=arguments.quick)
    except KeyboardInterrupt:
        sys.exit("stopped")
    page = arguments.out or (None if arguments.only or arguments.quick else PAGE)
    if page is not None:
        report.write(page)


def _measure(parts: tuple[str, ...], runs: int, *, quick: bool) -> Report:
    report = Report()
    with Service() as service:
        report.progress("the service is up")
        with psycopg.connect(service.database_url) as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        report.machine(str(version).split()[0], len(service.api_pids()))
        if "memory" in parts:
            ingest.measure_memory(service, report)
        if "ingest" in parts:
            ingest.measure(service, report, batches=4 if quick else 16, repetitions=3)
        if "single" in parts:
            single.measure(service, report, seconds=3 if quick else 8, repetitions=1 if quick else 3)
        if "sync" in parts:
            sync.measure(service, report, sizes=(20_000,) if quick else (20_000, 100_000))
        if "reads" in parts:
            reads.measure(service, report, runs)
    return report


if __name__ == "__main__":
    main()
