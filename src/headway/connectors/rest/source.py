"""The configuration of a rest source: a preset, overridden by what the user writes, checked as a whole.

Whatever is wrong is told when the configuration is loaded: a JMESPath that is none, a placeholder without a value, a
credential in the wrong place. Rule not to break: no credential stands in a configuration; headers and the token
request hold placeholders (``tests/connectors/rest/test_presets.py``, ``test_source.py``).
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from headway.connectors.config import Source
from headway.connectors.rest.expressions import placeholders
from headway.connectors.rest.parts import Auth, Fields, Get, Listing, Pipelines, Text, Texts
from headway.core import redaction
from headway.runs.observation import Status

CREDENTIALS = frozenset({"token", "username", "password"})
WINDOW = frozenset({"since", "until"})
RUN = frozenset({"run_id", "pipeline_id"})
# What may stand beside a placeholder in a header: a scheme such as "Token ", never the credential itself.
_SCHEME_CHARS = 24
_PARAMETER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


Listings = Annotated[tuple[Listing, ...], BeforeValidator(_one_or_more)]


class RestSource(Source):
    """Any vendor with a list of runs."""

    platform: Literal["rest"]
    preset: str | None = Field(None, description="a shipped configuration that the settings here override")
    vendor: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64, description="platform of the pipelines")
    product: str = Field("", description="what the vendor calls it, for people", max_length=100)
    parameters: dict[str, Texts] = Field({}, description="values for {name} in paths and queries")
    headers: dict[str, Text] = Field({}, description="headers of every request that are no credential")
    auth: Auth = Auth()
    runs_list: Listing = Field(alias="list")
    changed: Listings = Field((Listing(),), description="lists that are asked for changes, each over list")
    window: Listing = Field(Listing(), description="list that is asked for history, over list")
    get: Get | None = None
    pipelines: Pipelines | None = None
    fields: Fields
    statuses: dict[str, Status] = Field(min_length=1, description="the vendor's words, and ours")
    reuses_run_ids: bool = Field(False, description="a finished run may run again under its id, uncounted")

    @model_validator(mode="before")
    @classmethod
    def _over_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
            return given
        return merged(read_preset(given["preset"]), given)

    @model_validator(mode="after")
    def _fits(self) -> "RestSource":
        problem = next(_problems(self), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def changed_lists(self) -> Sequence[Listing]:
        """The lists to ask for changes, complete."""
        return [listing.over(self.runs_list) for listing in self.changed] or [self.runs_list]

    @property
    def window_list(self) -> Listing:
        """The list to ask for history, complete."""
        return self.window.over(self.runs_list)

    @property
    def parameter_sets(self) -> Sequence[dict[str, str]]:
        """Every value of the one parameter that has several, with the others beside it."""
        several = next((name for name, values in self.parameters.items() if len(values) > 1), None)
        once = {name: values[0] for name, values in self.parameters.items() if values}
        return [once] if several is None else [{**once, several: value} for value in self.parameters[several]]


def preset_names() -> Sequence[str]:
    """Return the names of the shipped configurations."""
    return sorted(file.name[:-5] for file in _presets().iterdir() if file.name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """Return a shipped configuration.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in preset_names():
        msg = f"preset is none that is shipped; there are: {', '.join(preset_names())}"
        raise ValueError(msg)
    return tomllib.loads((_presets() / f"{name}.toml").read_text(encoding="utf-8"))


def _presets() -> Any:
    return resources.files(__package__) / "presets"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with what ``over`` says; tables are joined, all else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _problems(source: RestSource) -> Iterator[str]:
    """Yield what does not fit together, with the setting's path."""
    yield from _problems_of_parameters(source)
    yield from _problems_of_auth(source)
    lists = [("list", source.runs_list)]
    lists += [(f"changed[{number}]", listing) for number, listing in enumerate(source.changed_lists)]
    lists += [("window", source.window_list), *([("pipelines", source.pipelines)] if source.pipelines else [])]
    for name, listing in lists:
        yield from _problems_of_list(source, name, listing)
    if source.pipelines is not None and source.pipelines.id is None:
        yield "pipelines.id is required: a JMESPath in an item of the list"
    if source.get is not None:
        yield from _problems_of_request(source, "get", source.get.path, source.get.query, RUN)
        if "run_id" not in placeholders(source.get.path).union(*map(placeholders, source.get.query.values())):
            yield "get.path must ask for {run_id}, or get.query"
    elif any(listing.detail for _, listing in lists):
        yield "get is required where a list has detail = true"
    if source.fields.pipeline_id is None and source.fields.pipeline_name is None:
        yield "fields.pipeline_id or fields.pipeline_name is required"
    yield from _unknown(source, "fields.url_template", source.fields.url_template, RUN | {"url"})


def _problems_of_parameters(source: RestSource) -> Iterator[str]:
    for name, values in source.parameters.items():
        if not _PARAMETER.fullmatch(name) or name in CREDENTIALS | WINDOW | RUN | {"url"}:
            yield f"parameters.{name[:50]} has a name that is taken, or has other characters than a-z, 0-9 and _"
        if redaction.is_secret_key(name) or any(map(redaction.has_secret, values)):
            yield f"parameters.{name[:50]} looks like a credential: give it by reference, and use it in auth.headers"
    if sum(len(values) > 1 for values in source.parameters.values()) > 1:
        yield "parameters: only one of them may have several values"
    for name, value in source.headers.items():
        if redaction.is_secret_key(name) or redaction.has_secret(f"{name}: {value}"):
            yield f"headers.{name[:50]} looks like a credential: give it by reference, and use it in auth.headers"


def _problems_of_auth(source: RestSource) -> Iterator[str]:
    auth = source.auth
    if auth.kind == "headers" and not auth.headers:
        yield 'auth.headers is required with kind = "headers"'
    if auth.kind == "client_credentials" and not auth.token_path:
        yield 'auth.token_path is required with kind = "client_credentials"'
    templates = {f"auth.headers.{name}": value for name, value in auth.headers.items()}
    templates |= {
        f"auth.request.{name}": value for name, value in auth.request.items() if redaction.is_secret_key(name)
    }
    for path, template in templates.items():
        asked = placeholders(template)
        beside = re.split(r"\{[a-z_0-9]+\}", template)
        if not asked or asked - CREDENTIALS or any(len(piece) > _SCHEME_CHARS for piece in beside):
            yield f"{path} must hold {{token}}, {{username}} or {{password}} and at most the name of a scheme beside it"
    if auth.kind != "standard":
        used = auth.headers.values() if auth.kind == "headers" else auth.request.values()
        yield from _missing_credentials(source, set[str]().union(*map(placeholders, used)))
    yield from _unknown(source, "auth.token_path", auth.token_path, frozenset())


def _missing_credentials(source: RestSource, asked: set[str]) -> Iterator[str]:
    if "token" in asked and source.token_env is None and source.token_file is None:
        yield "token_env or token_file is required: a header is made of it"
    if "username" in asked and source.username is None:
        yield "username is required (with client credentials: the client id)"
    if "password" in asked and source.password_env is None and source.password_file is None:
        yield "password_env or password_file is required (with client credentials: the client secret)"


def _problems_of_list(source: RestSource, name: str, listing: Listing) -> Iterator[str]:
    if not listing.path:
        yield f"{name}.path is required"
    if listing.items is None:
        yield f"{name}.items is required: a JMESPath of the list in an answer"
    if listing.paging.kind == "cursor" and listing.paging.next is None:
        yield f"{name}.paging.next is required: a JMESPath of the next cursor"
    yield from _problems_of_request(source, name, listing.path, listing.query, WINDOW)


def _problems_of_request(
    source: RestSource, name: str, path: str, query: Mapping[str, str], more: frozenset[str]
) -> Iterator[str]:
    yield from _unknown(source, f"{name}.path", path, more)
    for key, template in query.items():
        yield from _unknown(source, f"{name}.query.{key}", template, more)
        if redaction.has_secret(f"{key}={template}"):
            yield f"{name}.query.{key[:50]} looks like a credential: give it by reference, and use it in auth.headers"


def _unknown(source: RestSource, where: str, template: str, more: frozenset[str]) -> Iterator[str]:
    unknown = sorted(placeholders(template) - source.parameters.keys() - more)
    if unknown:
        listed = ", ".join(f"{{{name}}}" for name in unknown)
        yield f"{where} asks for {listed}: give {'it' if len(unknown) == 1 else 'them'} in parameters"
