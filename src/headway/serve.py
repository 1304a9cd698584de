"""Runs the API: one process, or several that share a listening socket and their metrics.

The parent binds the socket and hands it to its children, so a restarted one loses no connection. ``headway up`` and
``headway serve`` start children by ``api_child``; each runs ``run_process``. Whatever is under way when a stop comes
is finished and answered first.
"""

import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from headway.acceptor import FairServer
from headway.core import collector, logging
from headway.settings import Settings, SettingsError
from headway.supervisor import Child, exit_with_parent

STOP_SECONDS = 30
# Who serves or works needs neither.
_NOT_FOR_CHILDREN = ("HEADWAY_OWNER_DATABASE_URL", "HEADWAY_READER_DATABASE_URL")


def check_exposure(settings: Settings) -> None:
    """Refuse to serve without keys beyond this machine.

    Raises:
        SettingsError: with what to do.
    """
    if settings.auth == "none" and not _is_loopback(settings.host):
        msg = (
            f"HEADWAY_AUTH=none is for a loopback address, and HEADWAY_HOST is {settings.host}: set HEADWAY_AUTH=keys "
            "(and make a key with headway keys create), or listen on 127.0.0.1"
        )
        raise SettingsError(msg)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def processes(settings: Settings) -> int:
    """Return how many API processes to run."""
    return settings.processes or os.cpu_count() or 1


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket that children can inherit.

    Raises:
        SettingsError: the address is taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        msg = f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        raise SettingsError(msg) from None
    listening.listen(4096)
    return listening


@contextmanager
def metrics_dir(settings: Settings) -> Iterator[Path]:
    """Yield the directory in which the API processes share their metrics: the setting's, else one for this run."""
    with tempfile.TemporaryDirectory(prefix="headway-metrics-", ignore_cleanup_errors=True) as made:
        yield settings.metrics_dir or Path(made)


def base_url(settings: Settings, listening: socket.socket) -> str:
    """Return where the API is served."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


def children(settings: Settings, listening: socket.socket, database_url: str, metrics_dir: Path) -> list[Child]:
    """Return the API processes to run on a socket; their counts begin anew."""
    metrics_dir.mkdir(parents=True, exist_ok=True)
    for kind in ("counter", "gauge", "histogram", "summary"):  # of an earlier start; nobody else's files
        for left in metrics_dir.glob(f"{kind}_*.db"):
            left.unlink()
    env = child_environment(settings, database_url) | {
        "HEADWAY_METRICS_DIR": str(metrics_dir),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir),
    }
    argv = [sys.executable, "-m", "headway", "serve-process", "--fd", str(listening.fileno())]
    return [
        Child(f"api-{number}", argv, env, (listening.fileno(),), STOP_SECONDS + 5)
        for number in range(1, processes(settings) + 1)
    ]


def child_environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Return the environment of our own child processes: what they read their settings from."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_CHILDREN)},
        "HEADWAY_DATABASE_URL": database_url,
        "HEADWAY_AUTH": settings.auth,
        "HEADWAY_HOST": settings.host,
        "HEADWAY_PORT": str(settings.port),
    }


def run_process(settings: Settings, database_url: str, descriptor: int) -> None:
    """Run one API process on an inherited socket until it is told to stop."""
    from headway.main import create_app

    exit_with_parent()
    _forget_dead(settings.metrics_dir)
    logging.configure(settings.log_level, settings.log_format)
    app = create_app(settings, database_url)
    collector.settle()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with socket.socket(fileno=descriptor) as listening:
        FairServer(config, listening).run()


def _forget_dead(metrics_dir: Path | None) -> None:
    """Remove the gauges of processes that are gone: what they held, they hold no more."""
    for file in metrics_dir.glob("gauge_live*_*.db") if metrics_dir is not None else ():
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            file.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
