"""An Airflow 3.3 that answers instantly: pages of its runs, rendered before the first request (its own process).

``python -m bench.airflow RUNS PIPELINES`` prints its port, then serves until it is ended.
"""

import bisect
import json
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

YEARS = timedelta(days=729)


class Runs:
    """Finished runs of two years, in the order of their ends, each as the JSON that the API gives."""

    def __init__(self, runs: int, pipelines: int) -> None:
        now = datetime.now(UTC) - timedelta(hours=1)
        self.ends: list[str] = []
        self.rows: list[bytes] = []
        for number in range(runs):
            end = now - YEARS * ((runs - 1 - number) / runs)
            self.ends.append(_time(end))
            self.rows.append(json.dumps(_run(number, f"load_{number % pipelines:05d}", end)).encode())

    def page(self, query: dict[str, str], live: bool) -> bytes:
        """Return the answer to a list of runs; none is live."""
        low = high = 0
        if not live:
            low = bisect.bisect_left(self.ends, query.get("end_date_gte") or query.get("updated_at_gte") or "")
            high = bisect.bisect_right(self.ends, query.get("end_date_lte", "9"))
        start = int(query["cursor"]) if query.get("cursor") else low
        end = min(start + int(query["limit"]), high)
        following = f'"{end}"' if end < high else "null"
        head = f'{{"total_entries": {max(high - low, 0)}, "next_cursor": {following}, "dag_runs": ['
        return head.encode() + b",".join(self.rows[start:end]) + b"]}"


def _run(number: int, dag_id: str, end: datetime) -> dict[str, object]:
    start = end - timedelta(minutes=3, seconds=number % 60)
    return {
        "dag_run_id": f"scheduled__{start.isoformat()}_{number}",
        "dag_id": dag_id,
        "logical_date": _time(start),
        "queued_at": _time(start - timedelta(seconds=5)),
        "start_date": _time(start),
        "end_date": _time(end),
        "duration": (end - start).total_seconds(),
        "data_interval_start": _time(start),
        "data_interval_end": _time(start),
        "run_after": _time(start),
        "last_scheduling_decision": _time(end),
        "run_type": "scheduled",
        "state": "failed" if number % 20 == 0 else "success",
        "triggered_by": "timetable",
        "triggering_user_name": None,
        "conf": {},
        "note": None,
        "dag_versions": [],
        "bundle_version": None,
        "dag_display_name": dag_id,
    }


def _time(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def main() -> None:
    runs = Runs(int(sys.argv[1]), int(sys.argv[2]))
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            nonlocal asked
            parts = urlsplit(self.path)
            queries = parse_qs(parts.query)
            if parts.path == "/asked":
                body = str(asked).encode()
            elif parts.path.endswith("/version"):
                body = b'{"version": "3.3.2"}'
            elif parts.path.endswith("/dags/~/dagRuns"):
                body = runs.page({k: v[-1] for k, v in queries.items()}, live="state" in queries)
            else:
                body = b'{"task_instances": [], "total_entries": 0}'
            asked += parts.path != "/asked"
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
