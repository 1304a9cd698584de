"""Every error code that the service can answer with is in docs/errors.md, and nothing else is.

Codes are found in the source: in classes of errors, in ``code=``, as the code of an ``Issue`` and the like, and in the
tables that translate what Pydantic and the database say.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from headway.core import db_errors, problems, validation

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"[a-z]+(?:_[a-z]+)*")
# Calls that take a code, and where among their arguments it stands.
PLACES = {"Issue": 1, "PydanticCustomError": 0, "Refusal": 0, "_refusal": 0}


def _literals(node: ast.expr | None) -> Iterator[str]:
    """Yield the texts that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)


def _found_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            for statement in node.body:
                target = (
                    statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
                )
                if isinstance(target, ast.Name) and target.id == "code":
                    yield from _literals(getattr(statement, "value", None))
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _literals(keyword.value)
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = PLACES.get(name)
            if place is not None and len(node.args) > place:
                yield from _literals(node.args[place])


def used() -> set[str]:
    found = {code for code, _ in validation._CODES.values()} | {"invalid_type"}
    found |= {code for code, _ in db_errors.CLASHES.values()} | {code for code, _ in problems._FRAMEWORK.values()}
    found |= {problem[0] for text in ("\0", "\ud800") if (problem := validation._text_problem(text))}
    found |= {problem[0] for value in (float("nan"), 2**64) if (problem := validation._scalar_problem(value))}
    for module in (ROOT / "src" / "headway").rglob("*.py"):
        # what a platform's folder refuses is configuration, told by the command line: it has no code
        if "sdk" not in module.parts and module.parent.parent.name != "connectors":
            found |= {code for code in _found_in(ast.parse(module.read_text())) if CODE.fullmatch(code)}
    return found


def documented() -> list[str]:
    return re.findall(r"^\| `([a-z_]+)` \| .+ \|$", PAGE.read_text(), re.MULTILINE)


def test_page_lists_every_code_once_in_order() -> None:
    listed = documented()
    assert set(listed) == used()
    sections = PAGE.read_text().split("\n## ")[1:]
    for section in sections:
        codes = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
        assert codes == sorted(codes)
    assert len(listed) == len(set(listed))
