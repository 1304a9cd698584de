"""The pages keep their promises: links lead somewhere, names are real, and nothing is left out.

What a page says is not checked here, only what a machine can: that a reader who follows it does not end in the void.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer.main

from headway.cli import app
from headway.settings import PREFIX, Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
# The pages in which a reader looks for a command or a setting.
READ = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_NAMED_FILE = re.compile(r"`((?:src|tests|docs|bench|specs|deploy|requirements)/[\w./-]+)`")
_FORBIDDEN = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.:-])/(?:work|root|home|Users)/\S"),
    "the host of a package registry": re.compile(
        r"\b(?:pypi\.(?:org|io)|pythonhosted\.org|npmjs\.(?:org|com)|crates\.io|rubygems\.org|anaconda\.org)\b"
    ),
}


def _pages() -> list[Path]:
    return sorted(
        page
        for page in ROOT.rglob("*.md")
        if not any(part.startswith(".") or part == "node_modules" for part in page.relative_to(ROOT).parts)
    )


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _decisions() -> list[Path]:
    return sorted(DECISIONS.glob("[0-9]*.md"))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as its readers' site makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        kept = "".join(c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN")
        anchor = base = kept.replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def _links(page: Path) -> Iterator[str]:
    text = _CODE.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    for inline, reference in _LINK.findall(text):
        yield inline or reference


def _broken(page: Path, link: str) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:", link, re.IGNORECASE):
        return False
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in _anchors(target)


@pytest.mark.parametrize("page", _pages(), ids=_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert [link for link in _links(page) if _broken(page, link)] == []


@pytest.mark.parametrize("page", _pages(), ids=_name)
def test_named_files_are_there(page: Path) -> None:
    named = _NAMED_FILE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", _pages(), ids=_name)
def test_nothing_is_in_a_page_that_does_not_belong_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = {what: match[0] for what, pattern in _FORBIDDEN.items() if (match := pattern.search(text))}
    assert found == {}


def _commands(command: Any, path: str) -> Iterator[str]:
    """Yield the commands that can be called; a group by itself is none."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path
        return
    for name, child in children.items():
        if not child.hidden:
            yield from _commands(child, f"{path} {name}")


def test_every_command_is_named_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in READ)
    commands = list(_commands(typer.main.get_command(app), "headway"))
    assert len(commands) > 5
    assert [command for command in commands if not re.search(rf"\b{command}\b", text)] == []


def test_every_setting_is_named_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in READ)
    names = [PREFIX + field.upper() for field in Settings.model_fields]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def _is_known(name: str) -> bool:
    """Tell whether the service takes an environment variable, by asking it."""
    try:
        load_settings({name: ""})
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize("page", _pages(), ids=_name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8"))
    assert [name for name in named if not _is_known(name)] == []


@pytest.mark.parametrize("page", _decisions(), ids=_name)
def test_every_decision_ends_with_what_enforces_it(page: Path) -> None:
    last = page.read_text(encoding="utf-8").rstrip().split("\n\n")[-1]
    assert re.match(r"Enforced by: \S", last)


@pytest.mark.parametrize("page", _decisions(), ids=_name)
def test_every_decision_has_a_sentence_to_quote_and_the_same_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.match(rf"# {page.name[:4]} .+\n\n> .+\.\n", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    names = [page.name for page in _decisions()]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"]({name})" not in index] == []


def test_every_dependency_of_the_service_has_its_reason_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted}  # type: ignore[index]
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$",
        (DECISIONS / "0013-dependencies.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert names - {name for row in rows for name in row[0].split(", ")} == set()
