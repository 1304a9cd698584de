"""How programs of PostgreSQL are started: as the database's OS user, in an environment of our making.

They die with us (Linux: a signal at the parent's death), they get no Ctrl-C from the terminal, and nothing of our
environment (secrets, PGDATA and the like) reaches them. All of the package starts its programs here, from the
main thread.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from headway import supervisor
from headway.embedded.os_user import OsUser

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH")
SUMMARY_LINES = 20


def start_as(
    user: OsUser, argv: Sequence[str], *, directory: Path, output: int | IO[bytes], at_our_death: signal.Signals
) -> subprocess.Popen[bytes]:
    """Start a program in this working directory (getcwd must work for the user), both outputs to one place."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    with supervisor.fork_warning_ignored():
        return subprocess.Popen(  # noqa: S603 - PostgreSQL's programs with our arguments
            argv,
            cwd=directory,
            env=environment | {"LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if user.is_self else user.uid,
            group=None if user.is_self else user.gid,
            extra_groups=None if user.is_self else [],
            preexec_fn=supervisor.signal_at_parent_death(at_our_death),  # noqa: PLW1509 - prepared before the fork
        )


def run_as(user: OsUser, argv: Sequence[str], *, directory: Path = Path("/")) -> tuple[int, str]:
    """Run a program to its end; its exit code and what it printed."""
    with start_as(user, argv, directory=directory, output=subprocess.PIPE, at_our_death=signal.SIGKILL) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    return process.returncode, output.decode(errors="replace").strip()


def last_lines(text: str) -> str:
    """The end of a program's messages, for an error."""
    return "\n".join(text.strip().splitlines()[-SUMMARY_LINES:])
