"""What is shown while it runs, and the page that is written at the end. No path and no name of the machine is in it."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import headway

HEAD = """# Benchmarks

Written by `python -m bench` (`make bench`). It starts the service as `headway up` does, with its embedded PostgreSQL and
the settings as shipped (every acknowledged run is on disk), on a temporary data directory, and measures it from other
processes of the same machine over 127.0.0.1. Absolute figures are this machine's; the ratios travel better.

To repeat it: `make bench`, or `python -m bench --runs 1e7`, `--only ingest`, and `--quick` for a look in 90 seconds.
"""


class Report:
    """Collects tables; prints each as soon as it is there."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._started = time.monotonic()

    def progress(self, message: str) -> None:
        """Say what was done."""
        print(f"[{time.monotonic() - self._started:5.0f} s] {message}", flush=True)

    def table(self, title: str, text: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a section with a table, numbers to the right."""
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        rule = [f"{'-' * (width - 1)}:" if n else "-" * width for n, width in enumerate(widths)]
        lines = [
            "| "
            + " | ".join(
                cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
            for row in (header, rule, *rows)
        ]
        part = "\n".join([f"## {title}", "", text, "", *lines, ""])
        print(f"\n{part}", flush=True)
        self._parts.append(part)

    def machine(self, postgres: str, api_processes: int) -> None:
        """Add what it was measured on."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        rows = [
            ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
            ("processors", f"{os.cpu_count()} ({platform.machine()})"),
            ("memory", f"{memory:.0f} GiB"),
            ("kernel", f"{platform.system()} {platform.release()}"),
            ("load before the start", f"{os.getloadavg()[0]:.1f}"),
            ("Headway", headway.__version__),
            ("API processes", str(api_processes)),
            ("Python", platform.python_version()),
            ("PostgreSQL", postgres),
        ]
        self.table("Machine", "Client, service and PostgreSQL share it.", ("", "value"), rows)

    def write(self, file: Path) -> None:
        """Write the page."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([HEAD, *self._parts]), encoding="utf-8")
        self.progress(f"wrote {file}")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
