"""The page on sources tells every setting that all share, and every way in which a source can fail."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from headway.connectors.config import Source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "connectors" / "README.md").read_text(encoding="utf-8")


def codes() -> Iterator[str]:
    """Yield the first argument of each ``SourceError(…)`` in the connectors."""
    for module in (ROOT / "src" / "headway" / "connectors").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SourceError":
                # one that is handed on was told where it was made
                yield from (str(c.value) for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant))


def test_every_way_to_fail_is_told_with_what_to_do() -> None:
    table = PAGE.split("(`last_error_code`)")[1]
    told = set(
        re.findall(r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line[:1]))
    )
    used = set(codes())
    assert len(used) > 10
    assert used - told == set()
    assert told - used == set()


def test_every_common_setting_is_told_with_its_default() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name in Source.model_fields.keys() - {"name"}:
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name
    for name in ("interval", "since", "sweep"):
        length = Source.model_fields[name].default
        told = next(row.split("|")[2] for row in rows if f"`{name}`" in row.split("|")[1])
        assert f"{length.days}d" in told or f"{int(length.total_seconds()) // 60}m" in told, name
