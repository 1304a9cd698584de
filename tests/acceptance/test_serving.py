"""Several API processes: they share the callers, and their counts are added up."""

import http.client
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import Service

pytestmark = pytest.mark.acceptance


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def _established(port: int) -> set[str]:
    """Return the inodes of the connections that are served on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")
def test_two_callers_are_served_by_two_processes(make_service: Callable[..., Service]) -> None:
    service = make_service(environment={"HEADWAY_PROCESSES": "2"}).start()
    shared = Counter[int]()
    for _ in range(15):
        callers = []
        for _ in range(2):
            caller = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
            caller.request("GET", "/healthz", headers={"Connection": "keep-alive"})
            assert caller.getresponse().read()
            callers.append(caller)
        open_now = _established(service.port)
        shared[sum(1 for pid in service.family() if _sockets(pid) & open_now)] += 1
        for caller in callers:
            caller.close()
    assert shared[2] >= 12, shared


def test_counts_of_all_processes_are_added_up(make_service: Callable[..., Service]) -> None:
    service = make_service(environment={"HEADWAY_PROCESSES": "2"}).start()
    for _ in range(30):
        assert requests.get(f"{service.url}/api/v1/clients", timeout=10).status_code == 200
    lines = requests.get(f"{service.url}/metrics", timeout=10).text.splitlines()
    (counted,) = [line for line in lines if "http_requests_total" in line and 'route="/api/v1/clients"' in line]
    assert float(counted.split()[-1]) == 30


def test_serve_and_worker_run_on_a_database_of_their_own(service: Service) -> None:
    """What ``headway up`` runs for one machine can be run apart, on URLs."""
    url = service.command("db", "url").stdout.strip()
    env = {**os.environ, "HEADWAY_DATABASE_URL": url, "HEADWAY_AUTH": "none"}
    argv = [sys.executable, "-m", "headway"]
    with (
        subprocess.Popen([*argv, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True, env=env) as serving,
        subprocess.Popen([*argv, "worker"], stderr=subprocess.PIPE, text=True, env=env) as working,
    ):
        assert serving.stdout is not None
        assert working.stderr is not None
        base = serving.stdout.readline().split()[-1]
        assert requests.get(f"{base}/readyz", timeout=30).json()["status"] == "ready"
        assert "worker_started" in working.stderr.readline()
        for process in (serving, working):
            process.terminate()
        assert serving.wait(30) == 0
        assert working.wait(30) == 0
