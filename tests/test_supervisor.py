"""The supervisor with real processes: restarts, giving up, the order of the end, and that nothing outlives it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headway.supervisor import Backoff, Child, Supervisor

IMPATIENT = Backoff(first_seconds=0.01, most_seconds=0.02)

SUPERVISE = """
import os, sys
from headway.supervisor import Backoff, Child, Supervisor
timeout, *scripts = sys.argv[1:]
children = [
    Child(f"child {number}", [sys.executable, "-c", script], dict(os.environ), stop_timeout_seconds=float(timeout))
    for number, script in enumerate(scripts)
]
sys.exit(Supervisor(children, backoff=Backoff(first_seconds=0.01)).run())
"""

STAY = "import os, time; open('{file}', 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STAY}"
# Says its name when it is asked to end.
POLITE = """
import os, signal, sys, time
def end(number, frame):
    open('{file}', 'a').write(f'{name} {{signal.Signals(number).name}}\\n')
    sys.exit(0)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
open('{file}', 'a').write('{name} up\\n')
time.sleep(600)
"""
THIRD_LIFE_STAYS = """
import os, sys, time
file = '{file}'
lives = len(open(file).readlines()) if os.path.exists(file) else 0
open(file, 'a').write(f'{{os.getpid()}}\\n')
time.sleep(600) if lives == 2 else sys.exit(7)
"""
FIFTH_LIVES_LONG = """
import time
with open('{file}', 'a+') as lives:
    lives.write('x')
    if lives.tell() == 5:
        time.sleep(1.5)
"""


@contextlib.contextmanager
def supervised(*scripts: str, timeout: float = 10.0) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(timeout), *scripts],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout
    return bool(state.strip()) and not state.startswith(b"Z")


def child(script: str, name: str = "api") -> Child:
    return Child(name, [sys.executable, "-c", script], dict(os.environ))


def test_child_that_dies_is_started_again(tmp_path: Path) -> None:
    file = tmp_path / "lives"
    with supervised(THIRD_LIFE_STAYS.format(file=file)) as supervisor:
        wait_until(lambda: len(lines(file)) == 3)
        supervisor.send_signal(signal.SIGTERM)
        _, said = supervisor.communicate(timeout=20)

    assert supervisor.returncode == 0
    assert "child 0 ended with exit code 7; starting it again in 0.01 s" in said
    assert "again in 0.02 s" in said


def test_child_that_never_comes_up_ends_everything_with_an_error(tmp_path: Path) -> None:
    file, said = tmp_path / "lives", list[str]()
    stays, fails = child(STAY.format(file=tmp_path / "other")), child(f"open('{file}', 'a').write('x\\n'); exit(3)")

    code = Supervisor([stays, fails], backoff=IMPATIENT, say=said.append).run()

    assert code == 1
    assert len(lines(file)) == 5
    assert "api ended with exit code 3 within 2 s of its start, 5 times in a row: giving up." in said[-1]
    assert not is_alive(int(lines(tmp_path / "other")[0]))


def test_delay_doubles_to_its_limit_and_is_forgiven_after_a_long_life(tmp_path: Path) -> None:
    said: list[str] = []
    backoff = Backoff(first_seconds=0.01, most_seconds=0.04, forgiven_after_seconds=1.5, quick_seconds=0)
    fifth_lives_long = FIFTH_LIVES_LONG.format(file=tmp_path / "lives")
    watch = {"PostgreSQL": lambda: 1 if len(said) == 6 else None}

    Supervisor([child(fifth_lives_long)], watch=watch, backoff=backoff, say=said.append).run()

    delays = [message.rsplit(" in ", 1)[1] for message in said[:6]]
    assert delays == ["0.01 s", "0.02 s", "0.04 s", "0.04 s", "0.01 s", "0.02 s"]


def test_ctrl_c_ends_the_children_in_reverse_order_and_by_the_supervisor_alone(tmp_path: Path) -> None:
    file = tmp_path / "said"
    scripts = [POLITE.format(file=file, name=name) for name in ("api", "worker")]
    with supervised(*scripts) as supervisor:
        wait_until(lambda: len(lines(file)) == 2)
        os.killpg(supervisor.pid, signal.SIGINT)  # what a terminal does
        assert supervisor.wait(20) == 0

    assert lines(file)[2:] == ["worker SIGTERM", "api SIGTERM"]


def test_child_that_ignores_the_signal_is_killed_after_its_timeout(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with supervised(STUBBORN.format(file=file), timeout=0.2) as supervisor:
        wait_until(lambda: bool(lines(file)))
        supervisor.send_signal(signal.SIGTERM)
        _, said = supervisor.communicate(timeout=20)

    assert supervisor.returncode == 0
    assert "child 0 had to be killed" in said
    assert not is_alive(int(lines(file)[0]))


def test_second_ctrl_c_hurries(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with supervised(STUBBORN.format(file=file), timeout=600) as supervisor:
        wait_until(lambda: bool(lines(file)))
        supervisor.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert supervisor.poll() is None
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(10) == 0

    assert not is_alive(int(lines(file)[0]))


def test_death_of_what_is_watched_stops_everything_with_an_error(tmp_path: Path) -> None:
    file, said = tmp_path / "pid", list[str]()
    with subprocess.Popen(["sleep", "600"]) as postgresql:

        def end_it() -> None:
            wait_until(lambda: bool(lines(file)))
            postgresql.kill()

        killer = threading.Thread(target=end_it)
        killer.start()
        code = Supervisor([child(STAY.format(file=file))], watch={"PostgreSQL": postgresql.poll}, say=said.append).run()
        killer.join()

    assert code == 1
    assert said == ["PostgreSQL was ended by SIGKILL: stopping everything"]
    assert not is_alive(int(lines(file)[0]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_kill_9_of_the_supervisor_ends_the_children(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with supervised(STAY.format(file=file), STAY.format(file=file)) as supervisor:
        wait_until(lambda: len(lines(file)) == 2)
        supervisor.kill()

    wait_until(lambda: not any(is_alive(int(pid)) for pid in lines(file)))


def test_what_a_dead_child_had_started_goes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    grandchild = STAY.format(file=file)
    script = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {grandchild!r}])\ntime.sleep(600)"
    with supervised(script) as supervisor:
        wait_until(lambda: len(lines(file)) == 1)
        first = int(lines(file)[0])
        os.kill(os.getpgid(first), signal.SIGKILL)

        wait_until(lambda: not is_alive(first))
        wait_until(lambda: len(lines(file)) == 2)
        supervisor.terminate()
        supervisor.wait(20)


def test_program_that_is_not_there_is_an_error() -> None:
    said: list[str] = []

    code = Supervisor([Child("api", ["/no/such/program"], {})], say=said.append).run()

    assert code == 1
    assert "api cannot be started: " in said[0]


def test_descriptors_reach_the_child(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    script = f"import os; os.write({writer}, b'here'); os.close({writer}); import time; time.sleep(600)"
    said: list[str] = []
    passes = Child("api", [sys.executable, "-c", script], {}, pass_fds=(writer,))
    received: list[bytes] = []

    def end() -> int | None:
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            received.append(os.read(reader, 10))
        return 0 if received else None

    Supervisor([passes], watch={"reader": end}, say=said.append).run()
    os.close(reader)
    os.close(writer)

    assert received == [b"here"]


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    Supervisor([], watch={"nothing": lambda: 0}, say=lambda _: None).run()

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_process_that_watches_its_parent_ends_after_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    watching = f"from headway.supervisor import exit_with_parent\nexit_with_parent(every_seconds=0.05)\n{STAY.format(file=file)}"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {watching!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_until(lambda: bool(lines(file)))
        pid = int(lines(file)[0])
        assert is_alive(pid)
        process.kill()

    wait_until(lambda: not is_alive(pid))
