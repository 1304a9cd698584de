"""The README's example works as printed."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service

pytestmark = pytest.mark.acceptance

README = Path(__file__).parents[2] / "README.md"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _steps() -> list[tuple[str, str]]:
    """Return each command of the example with the output that is printed below it."""
    text = README.read_text(encoding="utf-8")
    example = text.split("<!-- example: begin -->")[1].split("<!-- example: end -->")[0]
    blocks = re.findall(r"```console\n\$ (.*?)```", example, re.DOTALL)
    steps = []
    for block in blocks:
        match = re.match(r"(.*?)\n(\{.*)", block, re.DOTALL)
        assert match is not None, block
        steps.append((match[1], match[2]))
    return steps


def test_readme_example_works_as_printed(service: Service) -> None:
    steps = _steps()
    assert len(steps) == 3
    for command, printed in steps:
        done = subprocess.run(
            command.replace("http://127.0.0.1:8000", service.url),
            shell=True,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert ID.sub("ID", done.stdout.strip()) == ID.sub("ID", printed.strip())
