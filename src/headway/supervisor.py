"""Keeps the processes of `headway up` running until a signal, and ends them in order.

A child that dies is restarted with a growing delay; one that never comes up ends everything with an error, and so
does the death of something watched (PostgreSQL). `headway up` calls it; the embedded PostgreSQL borrows
`signal_at_parent_death`. The rule not to break: nothing outlives the supervisor, not even after a kill -9 of it;
`tests/test_supervisor.py` guards it. Standard library only.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

LOOK_EVERY_SECONDS = 0.05
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """A process to keep running; the environment is the whole one, not an addition."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(repr=False)
    pass_fds: tuple[int, ...] = ()
    stop_timeout_seconds: float = 10.0


@dataclass(frozen=True)
class Backoff:
    """How patiently a child that dies is restarted."""

    first_seconds: float = 0.5
    most_seconds: float = 30.0
    forgiven_after_seconds: float = 60.0
    quick_seconds: float = 2.0
    quick_deaths: int = 5


def signal_at_parent_death(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send the child this signal when we die; None where only Linux could.

    The kernel watches the thread that forks, so fork from the main thread. All is looked up before the fork; what
    runs after it is two system calls.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    parent, value = os.getpid(), int(number)

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, value, 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the line above
            os._exit(1)

    return arm


@contextlib.contextmanager
def fork_warning_ignored() -> Iterator[None]:
    """Python 3.12 and later warn of any `preexec_fn` while threads run; ours takes no locks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def exit_with_parent(*, every_seconds: float = 1.0, grace_seconds: float = 30.0) -> None:
    """Have this process stop when its parent is gone, for systems without a signal at the parent's death.

    A daemon thread looks at the parent's id; once it changes the process gets a SIGTERM, so that it stops as
    usual, and is ended after the grace.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="exit_with_parent", daemon=True).start()


def _to_stderr(message: str) -> None:
    with contextlib.suppress(OSError):  # a closed terminal must not keep the children from being stopped
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


class _GivenUpError(Exception):
    """Why the supervisor cannot go on; the text is for the user."""


class _Keeper:
    """One child over all its lives."""

    def __init__(self, child: Child, backoff: Backoff) -> None:
        self.child = child
        self._backoff = backoff
        self._process: subprocess.Popen[bytes] | None = None
        self._delay = backoff.first_seconds
        self._quick_deaths = 0
        self._started = 0.0
        self._start_due = 0.0
        self._stop_due = 0.0

    def look(self, now: float) -> str | None:
        """Start the child when that is due and notice its death; what happened, if anything did."""
        if self._process is None:
            if now >= self._start_due:
                self._start(now)
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._end_group()
        return self._died(code, now)

    def _start(self, now: float) -> None:
        try:
            with fork_warning_ignored():
                self._process = subprocess.Popen(  # noqa: S603 - the command is the supervisor's own
                    self.child.argv,
                    env=self.child.env,
                    stdin=subprocess.DEVNULL,
                    pass_fds=self.child.pass_fds,
                    start_new_session=True,  # the terminal's Ctrl-C is for the supervisor alone
                    preexec_fn=signal_at_parent_death(signal.SIGTERM),  # noqa: PLW1509 - prepared before the fork
                )
        except OSError as error:
            raise _GivenUpError(f"{self.child.name} cannot be started: {error}") from error
        self._started = now

    def _died(self, code: int, now: float) -> str:
        self._process = None
        lived = now - self._started
        self._quick_deaths = self._quick_deaths + 1 if lived < self._backoff.quick_seconds else 0
        how = _how_it_ended(code)
        if self._quick_deaths >= self._backoff.quick_deaths:
            raise _GivenUpError(
                f"{self.child.name} {how} within {self._backoff.quick_seconds:g} s of its start, "
                f"{self._quick_deaths} times in a row: giving up. Its own messages above say why."
            )
        if lived >= self._backoff.forgiven_after_seconds:
            self._delay = self._backoff.first_seconds
        delay, self._delay = self._delay, min(self._delay * 2, self._backoff.most_seconds)
        self._start_due = now + delay
        return f"{self.child.name} {how}; starting it again in {delay:g} s"

    @property
    def kind(self) -> str:
        """What its name begins with: api-1 and api-2 are of one kind."""
        return self.child.name.partition("-")[0]

    def terminate(self) -> None:
        """Ask the child to end; its timeout counts from now."""
        if self._process is not None:
            self._process.terminate()
        self._stop_due = time.monotonic() + self.child.stop_timeout_seconds

    def stop(self, *, is_hurried: Callable[[], bool]) -> str | None:
        """Wait for the child's end, with SIGKILL after its timeout or in a hurry; a message if it came to that."""
        process, message = self._process, None
        if process is None:
            return None
        while process.poll() is None:
            if is_hurried() or time.monotonic() >= self._stop_due:
                message = f"{self.child.name} had to be killed"
                process.kill()
                process.wait()
                break
            time.sleep(LOOK_EVERY_SECONDS)
        self._end_group()
        self._process = None
        return message

    def _end_group(self) -> None:
        """What the child started must not outlive it: it would hold its port, or work without a supervisor."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Supervisor:
    """Runs children until SIGINT or SIGTERM; see the module's docstring.

    `watch` names things that must live, each with a function that gives None while it does and its exit code
    after: `{"PostgreSQL": server.process.poll}`.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        watch: Mapping[str, Callable[[], int | None]] | None = None,
        backoff: Backoff | None = None,
        say: Callable[[str], None] = _to_stderr,
    ) -> None:
        """`say` gets a sentence for the user whenever something happened."""
        self._keepers = [_Keeper(child, backoff or Backoff()) for child in children]
        self._watch = dict(watch or {})
        self._say = say
        self._signals = 0

    def run(self) -> int:
        """Run until a signal (0), or until going on makes no sense (1); from the main thread."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._run()
        finally:
            self._stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run(self) -> int:
        try:
            while not self._signals:
                self._look()
                time.sleep(LOOK_EVERY_SECONDS)
        except _GivenUpError as error:
            self._say(str(error))
            return 1
        return 0

    def _look(self) -> None:
        for name, poll in self._watch.items():
            code = poll()
            if code is not None:
                raise _GivenUpError(f"{name} {_how_it_ended(code)}: stopping everything")
        for keeper in self._keepers:
            message = keeper.look(time.monotonic())
            if message:
                self._say(message)

    def _stop(self) -> None:
        signals_before = self._signals

        def is_hurried() -> bool:
            return self._signals > signals_before

        for _, kind in itertools.groupby(reversed(self._keepers), key=lambda keeper: keeper.kind):
            alike = list(kind)
            for keeper in alike:  # children of one kind end side by side, not one after the other
                keeper.terminate()
            for keeper in alike:
                message = keeper.stop(is_hurried=is_hurried)
                if message:
                    self._say(message)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
