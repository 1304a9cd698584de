"""The configuration of sources: ``[sources.NAME]`` tables of the TOML file that ``HEADWAY_CONFIG`` names.

Credentials are given by reference alone (``token_env``, ``token_file``, …); a literal one is refused. Whatever is
wrong is told with the file, the line and the mend (``tests/connectors/test_config.py``). The fields that all platforms
share stand here; a platform's own in its folder.
"""

import difflib
import fnmatch
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from headway.connectors.errors import SourceError
from headway.core import redaction, validation
from headway.core.durations import parse_duration
from headway.core.validation import ClientSlug
from headway.settings import SettingsError

# Words that name doors in ``runs.source``.
RESERVED = frozenset({"api", "openlineage", "ping", "dbt", "exec", "sdk", "demo"})
LITERAL_SECRETS = {
    "token": "token",
    "api_key": "token",
    "apikey": "token",
    "key": "token",
    "secret": "secret",
    "password": "password",
    "pat": "token",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    return parse_duration(value if isinstance(value, str) else "")  # a bare number has no unit


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value) or redaction.redact_text(value) != value:
        msg = "must be the name of an environment variable; a credential itself must not stand here"
        raise ValueError(msg)
    return value


def _plain_url(value: str) -> str:
    if not validation.is_http_url(value):
        msg = "must be an http:// or https:// URL"
        raise ValueError(msg)
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        msg = "must have a port from 1 to 65535, or none"
        raise ValueError(msg)
    if parts.username or parts.password or "@" in parts.netloc:
        msg = "must not hold a user name or password; give them by reference (username, password_env)"
        raise ValueError(msg)
    if "?" in value or "#" in value:
        msg = "must not have a query or a fragment"
        raise ValueError(msg)
    return value.rstrip("/")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Variable = Annotated[str, AfterValidator(_variable)]
PlainUrl = Annotated[str, AfterValidator(_plain_url)]


class Source(BaseModel):
    """What every source is told. A platform adds its own fields in a subclass, which also narrows ``platform``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    platform: str
    client: ClientSlug = Field(description="slug of the client whose runs these are; made where it is not known")
    url: PlainUrl = Field(description="where the platform is, without a path of its API")
    environment: Literal["dev", "staging", "prod"] = Field("prod", description="environment of the pipelines")
    interval: Duration = Field(timedelta(minutes=1), description="how often changes are asked for")
    since: Duration = Field(timedelta(days=30), description="how far back the first sync goes")
    sweep: Duration = Field(
        timedelta(days=7), description="how far back all is read again once a day, for late changes"
    )
    include: list[str] = Field([], description="names of pipelines to take, with * and ?; none: all")
    exclude: list[str] = Field([], description="names of pipelines to leave out; wins over include")
    tags: list[str] = Field([], description="labels of the pipelines that this source registers")
    token_env: Variable | None = Field(None, description="environment variable that holds the token")
    token_file: Path | None = Field(None, description="file that holds the token; read anew when it is refused")
    username: str | None = Field(None, description="user name, where the platform takes one with a password")
    password_env: Variable | None = Field(None, description="environment variable that holds the password")
    password_file: Path | None = Field(None, description="file that holds the password")

    def takes(self, *names: str | None) -> bool:
        """Tell whether a pipeline that goes by any of these names is to be imported."""
        known = [name for name in names if name]
        if any(_matches(name, pattern) for pattern in self.exclude for name in known):
            return False
        return not self.include or any(_matches(name, pattern) for pattern in self.include for name in known)

    def token(self) -> str | None:
        """Return the token as it is now, None where none is configured.

        Raises:
            SourceError: it cannot be had.
        """
        return _secret("token", self.token_env, self.token_file)

    def password(self) -> str | None:
        """Return the password as it is now, None where none is configured.

        Raises:
            SourceError: it cannot be had.
        """
        return _secret("password", self.password_env, self.password_file)


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a pattern with * and ? fits a name; a bracket is a bracket, as names have them."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _secret(what: str, variable: str | None, file: Path | None) -> str | None:
    if variable is not None:
        value = os.environ.get(variable, "").strip()
        if not value:
            # A name in lower case may be a password that somebody put in the wrong place.
            shown = f"{variable} ({what}_env)" if variable.isupper() else f"that {what}_env names"
            raise SourceError("credential_missing", f"the environment variable {shown} is not set")
    elif file is not None:
        try:
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text"
            shown = redaction.redact_text(str(file))
            raise SourceError("credential_missing", f"cannot read {shown} ({what}_file): {reason}") from None
        if not value:
            raise SourceError("credential_missing", f"{redaction.redact_text(str(file))} ({what}_file) is empty")
    else:
        return None
    if not value.isprintable() or not value.isascii():
        raise SourceError("credential_malformed", f"the {what} has characters that no header can hold")
    return value


def load(path: Path, platforms: Mapping[str, type[Source]]) -> dict[str, Source]:
    """Read the sources of a configuration file, by name.

    Raises:
        SettingsError: with a line for each thing that is wrong: file, line number, and the mend.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a mark
    except OSError as error:
        msg = f"HEADWAY_CONFIG: cannot read {path}: {error.strerror}"
        raise SettingsError(msg) from None
    except ValueError:
        msg = f"HEADWAY_CONFIG: {path} is not a text in UTF-8"
        raise SettingsError(msg) from None
    return parse(text, platforms, file=str(path), base=path.parent)


def parse(text: str, platforms: Mapping[str, type[Source]], *, file: str, base: Path) -> dict[str, Source]:
    """Parse a configuration; ``base`` is what relative file names are relative to.

    Raises:
        SettingsError: as ``load``.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        said = re.sub(r"\s*\(at .*\)$", "", str(error))
        last = text.rstrip("\n").count("\n") + 1  # what is missing at the end of the file has no line of its own
        raise SettingsError(f"{file}:{line[1] if line else last}: this is not TOML: {said}") from None
    except RecursionError:
        raise SettingsError(f"{file}:1: this is nested too deep") from None
    reader = _Reader(_Lines(text), file, base, platforms)
    for key in document.keys() - {"sources"}:
        reader.wrong((key,), f"{_shown(key)} is not a table of this file; known is: sources")
    tables = document.get("sources", {})
    if not isinstance(tables, dict):
        reader.wrong(("sources",), "sources must be tables, one each: [sources.NAME]")
        tables = {}
    sources = {name: source for name, table in tables.items() if (source := reader.source(name, table)) is not None}
    if reader.problems:
        raise SettingsError("\n".join(message for _, message in sorted(reader.problems)))
    return sources


class _Reader:
    """Makes sources of tables, and notes what is wrong with them."""

    def __init__(self, lines: "_Lines", file: str, base: Path, platforms: Mapping[str, type[Source]]) -> None:
        self.problems: list[tuple[int, str]] = []
        self._lines, self._file, self._base, self._platforms = lines, file, base, platforms

    def wrong(self, path: tuple[str, ...], message: str) -> None:
        line = self._lines.of(path)
        self.problems.append((line, f"{self._file}:{line}: {message}"))

    def source(self, name: str, table: object) -> Source | None:
        path = ("sources", name)
        if not _NAME.fullmatch(name) or name in RESERVED:
            why = "is taken by a door of Headway" if name in RESERVED else "may have a-z, 0-9, - and _, up to 63"
            self.wrong(path, f"the name {_shown(name)} {why}")
            return None
        if not isinstance(table, dict):
            self.wrong(path, f"must be a table: [sources.{name}]")
            return None
        platform = table.get("platform")
        kind = self._platforms.get(platform) if isinstance(platform, str) else None
        if kind is None:
            what = "platform is missing" if platform is None else f"{_shown(platform)} is no known platform"
            self.wrong((*path, "platform"), f"[sources.{name}] {what}; known are: {', '.join(sorted(self._platforms))}")
            return None
        if self._refuses_literals(path, table, kind):
            return None
        try:
            source = kind.model_validate({**self._with_paths(table), "name": name})
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                self._field(path, kind, item)
            return None
        self._refuse_doubles(path, source)
        return source

    def _refuses_literals(self, path: tuple[str, ...], table: Mapping[str, Any], kind: type[Source]) -> bool:
        found = [key for key in table if key.lower().replace("-", "_") in LITERAL_SECRETS]
        for key in found:
            way = LITERAL_SECRETS[key.lower().replace("-", "_")]
            way = way if f"{way}_env" in kind.model_fields else "token"
            self.wrong(
                (*path, key),
                f"[sources.{path[1]}] {key} must not stand here: give it by reference, "
                f'{way}_env = "VARIABLE" or {way}_file = "/path" (and change it, if it was real)',
            )
        return bool(found)

    def _with_paths(self, table: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: self._base / value if key.endswith("_file") and isinstance(value, str) else value
            for key, value in table.items()
        }

    def _field(self, path: tuple[str, ...], kind: type[Source], item: Mapping[str, Any]) -> None:
        location = [str(part) for part in item["loc"]] or ["?"]
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(location[-1], kind.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(kind.model_fields)}"
            said = f"{_shown('.'.join(location))} is no setting of {path[1]}'s platform{hint}"
        elif item["type"] == "missing":
            said = f"{'.'.join(location)} is required"
        elif item["type"] == "value_error":
            where = f"{'.'.join(location)} " if item["loc"] else ""
            said = where + str(item["msg"]).removeprefix("Value error, ")
        else:
            (issue,) = validation.issues_of([item])
            said = f"{'.'.join(location)} {issue.detail}"
        self.wrong((*path, *location), f"[sources.{path[1]}] {said}")

    def _refuse_doubles(self, path: tuple[str, ...], source: Source) -> None:
        for one, other in (("token_env", "token_file"), ("password_env", "password_file")):
            if getattr(source, one) is not None and getattr(source, other) is not None:
                self.wrong((*path, other), f"[sources.{source.name}] give {one} or {other}, not both")
        if source.interval < timedelta(seconds=5):
            self.wrong((*path, "interval"), f"[sources.{source.name}] interval must be 5s or more")


class _Lines:
    """Where the keys of a TOML file stand, as far as a look at each line tells; a hint, not a parser."""

    _TABLE = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
    _KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
    _PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
    _LONG_TEXT = re.compile(r""""{3}(?:\\.|[^\\])*?"{3}""" r"|'{3}.*?'{3}", re.DOTALL)

    def __init__(self, text: str) -> None:
        self._places: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        text = self._LONG_TEXT.sub(lambda found: "\n" * found[0].count("\n"), text)
        for number, line in enumerate(text.split("\n"), 1):
            if (head := self._TABLE.match(line)) is not None:
                table = self._parts(head[1])
                self._note(table, number)
            elif (key := self._KEY.match(line)) is not None:
                self._note((*table, *self._parts(key[1])), number)

    def _parts(self, dotted: str) -> tuple[str, ...]:
        return tuple(part.strip("\"'") for part in self._PART.findall(dotted))

    def _note(self, path: tuple[str, ...], number: int) -> None:
        for end in range(1, len(path) + 1):
            self._places.setdefault(path[:end], number)

    def of(self, path: tuple[str, ...]) -> int:
        """Return the line of a path, or of the nearest thing around it."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, 1)


def _shown(name: object) -> str:
    return str(validation.printable(name)) if isinstance(name, str) else "this"
