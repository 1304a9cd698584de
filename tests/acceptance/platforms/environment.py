"""Environments of their own for the real servers: each with the packages that ``requirements/platforms/`` locks.

They are made once, with hashes, beside the repository's own environment (``.platforms/NAME``), and made anew when the
lock changes. Nothing of Headway is in them.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[3]
INSTALL_SECONDS = 420


def bin_of(name: str) -> Path:
    """Return the directory of the programs of a platform's environment, made where it is missing or outdated."""
    lock = ROOT / "requirements" / "platforms" / f"{name}.txt"
    place = ROOT / ".platforms" / name
    stamp = place / "locked"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() + sys.version
    if not stamp.exists() or stamp.read_text() != digest:
        venv.create(place, clear=True, with_pip=True)
        install = [str(place / "bin" / "pip"), "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(lock)]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        stamp.write_text(digest)
    return place / "bin"
