"""The embedded server over its whole life, on the real programs: start, restart, every kind of death, every refusal."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from headway.embedded.binaries import find_binaries
from headway.embedded.data_dir import LOG_BYTES_MAX, DataDir
from headway.embedded.os_user import OsUser, choose_os_user
from headway.embedded.server import EmbeddedServer, EmbeddedServerError, RunningServer, read_running

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")

STARTER = """
import sys
from pathlib import Path
from headway.embedded.server import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), settings={"shared_buffers": "16MB"})
print("starting", flush=True)
server.start()
print(server.process.pid, flush=True)
sys.stdin.read()
"""

# Leaves root only after all is imported: the interpreter itself may lie where the plain user cannot go.
PLAIN_STARTER = """
import os, sys
from pathlib import Path
from headway.embedded.server import EmbeddedServer
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[4]))
with EmbeddedServer(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]), settings={"shared_buffers": "16MB"}) as server:
    print(server.superuser_url(), flush=True)
    sys.stdin.read()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about the change from root to another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the system can reach; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="headway-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(place: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(place / "data", settings=FAST)
    yield server
    server.stop()


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def change(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout
    return bool(state.strip()) and not state.startswith(b"Z")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def started_elsewhere(data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_restart_keeps_port_password_and_data(server: EmbeddedServer) -> None:
    server.start()
    port, url = server.port, server.superuser_url()
    change(url, "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (42)")
    server.stop()

    server.start()

    assert (server.port, server.superuser_url()) == (port, url)
    assert ask(url, "SELECT n FROM kept") == 42


def test_first_start_gives_a_utf8_database_with_checksums_that_only_a_password_opens(
    server: EmbeddedServer, place: Path
) -> None:
    server.start()
    url = server.superuser_url()

    assert ask(url, "SHOW data_checksums") == "on"
    assert ask(url, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(url, "SELECT datlocale FROM pg_database WHERE datname = current_database()") == "C.UTF-8"
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert mode(place / "data" / "secrets" / "superuser") == 0o600
    assert not mode(place / "data" / "secrets") & 0o007
    for host in ("127.0.0.1", str(server.socket_dir)):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(host=host, port=server.port, user="postgres", dbname="postgres", passfile=os.devnull)


def test_url_quotes_what_would_break_it(server: EmbeddedServer) -> None:
    assert server.url("a@b", "p/w:?", "d b").startswith("postgresql://a%40b:p%2Fw%3A%3F@127.0.0.1:")
    assert server.url("a", "b", "d b").endswith("/d%20b")


def test_given_settings_go_over_ours(server: EmbeddedServer) -> None:
    server.start()

    assert ask(server.superuser_url(), "SHOW shared_buffers") == "16MB"
    assert ask(server.superuser_url(), "SHOW fsync") == "off"


def test_no_statement_and_no_detail_of_an_error_reaches_the_log(server: EmbeddedServer, place: Path) -> None:
    server.start()
    change(server.superuser_url(), "CREATE TABLE secrets (value text PRIMARY KEY)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        change(server.superuser_url(), *["INSERT INTO secrets VALUES ('hw_very_secret')"] * 2)

    log = (place / "data" / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "hw_very_secret" not in log


def test_second_supervisor_of_the_same_data_is_refused_and_told_the_process(
    server: EmbeddedServer, place: Path
) -> None:
    server.start()

    with pytest.raises(EmbeddedServerError, match=f"in use by process {os.getpid()} .*--data"):
        EmbeddedServer(place / "data", settings=FAST).start()

    assert ask(server.superuser_url(), "SELECT 1") == 1


def test_other_commands_find_the_server_only_while_it_runs(server: EmbeddedServer, place: Path) -> None:
    assert read_running(place / "data") is None
    server.start()

    found = read_running(place / "data")

    assert isinstance(found, RunningServer)
    assert (found.pid, found.port, found.superuser_url()) == (server.process.pid, server.port, server.superuser_url())
    assert found.password not in repr(found)
    server.stop()
    assert read_running(place / "data") is None


def test_server_that_was_killed_is_not_found_and_recovers_at_the_next_start(place: Path) -> None:
    durable = FAST | {"synchronous_commit": "on"}
    with EmbeddedServer(place / "data", settings=durable) as server:
        change(server.superuser_url(), "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (42)")
        server.process.kill()
        server.process.wait()
        assert read_running(place / "data") is None

    with EmbeddedServer(place / "data", settings=durable) as server:
        assert ask(server.superuser_url(), "SELECT n FROM kept") == 42


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_kill_9_of_the_parent_ends_postgresql_in_order_and_loses_nothing(place: Path) -> None:
    with started_elsewhere(place / "data") as parent:
        assert line_of(parent) == "starting"
        postmaster = int(line_of(parent))
        found = read_running(place / "data")
        assert found is not None
        change(found.superuser_url(), "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (42)")
        parent.kill()

    wait_until(lambda: not is_alive(postmaster))
    assert "database system is shut down" in (place / "data" / "postgres.log").read_text()
    with EmbeddedServer(place / "data", settings=FAST) as server:
        assert server.port == found.port
        assert ask(found.superuser_url(), "SELECT n FROM kept") == 42


def test_start_right_after_a_kill_9_of_the_parent_waits_for_the_old_server(place: Path) -> None:
    with started_elsewhere(place / "data") as parent:
        assert line_of(parent) == "starting"
        postmaster = int(line_of(parent))
        parent.kill()

    with EmbeddedServer(place / "data", settings=FAST) as server:
        assert not is_alive(postmaster)
        assert ask(server.superuser_url(), "SELECT 1") == 1


def test_leftover_server_that_does_not_stop_by_itself_is_asked_to(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.embedded.postmaster.LEFTOVER_UNDISTURBED_SECONDS", 0.0)
    # Its supervisor lives but has lost the lock, which stands for a system where nobody tells it of a death.
    old = EmbeddedServer(place / "data", settings=FAST)
    old.start()
    process = old.process
    assert old._lock is not None
    os.close(old._lock)
    old._lock = None

    reaper = threading.Thread(target=process.wait)
    reaper.start()
    with EmbeddedServer(place / "data", settings=FAST) as server:
        reaper.join()
        assert process.returncode == 0
        assert ask(server.superuser_url(), "SELECT 1") == 1


def test_interrupted_initdb_is_made_anew(place: Path) -> None:
    data = place / "data"
    with started_elsewhere(data) as parent:
        wait_until(lambda: any(data.glob("postgres-*.partial-*/base")))
        parent.kill()
    assert any(data.glob("postgres-*.partial-*"))
    assert not DataDir(data).majors()
    time.sleep(0.3)

    with EmbeddedServer(data, settings=FAST) as server:
        assert ask(server.superuser_url(), "SELECT 1") == 1

    assert not list(data.glob("postgres-*.partial-*"))


def test_data_of_another_major_is_refused_with_the_way_to_upgrade(place: Path) -> None:
    other = place / "data" / "postgres-14"
    other.mkdir(parents=True)
    shutil.chown(other, "postgres" if os.geteuid() == 0 else os.geteuid())

    with pytest.raises(EmbeddedServerError, match=r"holds data of PostgreSQL 14.*HEADWAY_PG_BIN.*pg_dump.*--data"):
        EmbeddedServer(place / "data", settings=FAST).start()

    assert DataDir(place / "data").majors() == [14]


def test_lost_password_is_refused(server: EmbeddedServer, place: Path) -> None:
    server.start()
    server.stop()
    (place / "data" / "secrets" / "superuser").unlink()

    with pytest.raises(EmbeddedServerError, match="password is missing"):
        server.start()


def test_server_that_cannot_start_says_the_end_of_its_log(place: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        EmbeddedServer(place / "data", settings=FAST | {"no_such_setting": "1"}).start()

    with EmbeddedServer(place / "data", settings=FAST) as server:
        assert ask(server.superuser_url(), "SELECT 1") == 1


def test_port_that_is_taken_is_refused_if_asked_for_and_replaced_if_not(server: EmbeddedServer, place: Path) -> None:
    server.start()
    port = server.port
    server.stop()

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(EmbeddedServerError, match=f"Port {port} of 127.0.0.1 is taken"):
            EmbeddedServer(place / "data", port=port, settings=FAST).start()
        server.start()
        assert server.port != port
        assert ask(server.superuser_url(), "SELECT 1") == 1


def test_path_too_long_for_a_socket_leaves_tcp(place: Path) -> None:
    data = place / ("long" * 25) / "data"

    with EmbeddedServer(data, settings=FAST) as server:
        assert server.socket_dir is None
        assert ask(server.superuser_url(), "SHOW unix_socket_directories") == ""


def test_start_from_another_thread_is_refused(server: EmbeddedServer) -> None:
    raised: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except EmbeddedServerError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(raised[0])


def test_log_that_has_grown_large_is_put_aside(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    for start in range(6):
        with data.open_log() as log:
            log.write(f"start {start}\n".encode())
            log.truncate(LOG_BYTES_MAX + 1)

    names = sorted(path.name for path in tmp_path.iterdir())

    assert names == ["postgres.log", "postgres.log.1", "postgres.log.2", "postgres.log.3"]
    assert data.log.read_bytes().startswith(b"start 5")
    assert (tmp_path / "postgres.log.3").read_bytes().startswith(b"start 2")


@pytest.mark.skipif(not DEBIAN_BIN.is_dir(), reason="there is no PostgreSQL 15 of the system")
def test_programs_of_another_postgresql_can_be_given(place: Path) -> None:
    with EmbeddedServer(place / "data", bin_dir=DEBIAN_BIN, settings=FAST) as server:
        assert str(ask(server.superuser_url(), "SHOW server_version")).startswith("15.")
        assert ask(server.superuser_url(), "SELECT datcollate FROM pg_database LIMIT 1") == "C.UTF-8"

    with pytest.raises(EmbeddedServerError, match="holds data of PostgreSQL 15"):
        EmbeddedServer(place / "data", settings=FAST).start()


@needs_root
@pytest.mark.parametrize("below", ["data", "."])
def test_directory_out_of_reach_is_refused_with_the_mend_before_anything_is_made(place: Path, below: str) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(EmbeddedServerError, match=rf"cannot reach .*{closed} is closed.*--data /var/lib/headway"):
        EmbeddedServer(closed / below, settings=FAST).start()

    assert list(closed.iterdir()) == []
    assert mode(closed) == 0o700


@needs_root
def test_permissions_of_directories_that_were_there_stay_as_they_were(place: Path) -> None:
    passable = place / "passable"
    passable.mkdir()
    passable.chmod(0o711)
    data = passable / "new" / "data"

    with EmbeddedServer(data, settings=FAST):
        assert (mode(place), mode(passable), mode(data)) == (0o755, 0o711, 0o755)
        assert data.stat().st_uid == 0
        assert {path.stat().st_uid for path in data.glob("postgres-*")} != {0}


@needs_root
def test_data_stays_with_the_os_user_that_owns_it(place: Path) -> None:
    with EmbeddedServer(place / "data", os_user="nobody", settings=FAST):
        pass

    with EmbeddedServer(place / "data", settings=FAST) as server:
        assert ask(server.superuser_url(), "SELECT 1") == 1
    with pytest.raises(EmbeddedServerError, match="belongs to OS user 'nobody', not to 'daemon'"):
        EmbeddedServer(place / "data", os_user="daemon", settings=FAST).start()


@needs_root
@pytest.mark.parametrize(("name", "message"), [("root", "refuses to run as root"), ("nosuchuser", "no OS user")])
def test_os_user_that_will_not_do_is_refused(name: str, message: str) -> None:
    with pytest.raises(EmbeddedServerError, match=message):
        choose_os_user(name)


@needs_root
def test_plain_user_runs_it_as_itself(place: Path) -> None:
    entry = pwd.getpwnam("nobody")
    nobody = OsUser(entry.pw_name, entry.pw_uid, entry.pw_gid, is_self=False)
    bin_dir = find_binaries(None, user=nobody, copy_to=place / "binaries").bin_dir
    home = place / "home"
    home.mkdir()
    os.chown(home, entry.pw_uid, entry.pw_gid)
    arguments = [home / "data", bin_dir, entry.pw_gid, entry.pw_uid]

    with subprocess.Popen(
        [sys.executable, "-c", PLAIN_STARTER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        url = line_of(parent)
        assert ask(url, "SELECT 1") == 1
        assert {path.stat().st_uid for path in (home / "data").rglob("*")} == {entry.pw_uid}
        assert mode(home / "data") == 0o700
        parent.communicate()

    assert parent.returncode == 0


def test_postmaster_is_out_of_the_terminals_reach(server: EmbeddedServer) -> None:
    server.start()

    assert os.getsid(server.process.pid) != os.getsid(0)


def test_death_of_the_server_can_be_noticed(server: EmbeddedServer) -> None:
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = server.process
    server.start()
    assert server.process.poll() is None

    server.process.send_signal(signal.SIGQUIT)

    wait_until(lambda: server.process.poll() is not None)
