"""The tables below a rest source: how to log in, which requests to make, and where in an answer what stands.

Only shapes and defaults; ``source.py`` holds what must fit together. Each setting is described in
``docs/connectors/rest.md``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from headway.connectors.config import Duration
from headway.connectors.rest.expressions import Expression, Find, OptionalFind, placeholders


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _texts(value: object) -> object:
    return tuple(_text(item) for item in value) if isinstance(value, list | tuple) else (_text(value),)


def _path(value: object) -> object:
    if isinstance(value, str) and value and not value.startswith("/"):
        raise PydanticCustomError("invalid_path", "must begin with /, as it stands behind url")
    if isinstance(value, str) and ("?" in value or "#" in value):
        raise PydanticCustomError("invalid_path", "must not have a query; use the table query")
    return value


# Numbers and booleans are written as TOML has them.
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
PathTemplate = Annotated[str, BeforeValidator(_path), Field(max_length=2000)]
Query = dict[str, Text]


class Part(BaseModel):
    """What the tables have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Auth(Part):
    """How to say who we are. The credentials themselves are those of the source: token, username, password."""

    kind: Literal["standard", "headers", "client_credentials"] = "standard"
    headers: dict[str, str] = Field({}, description="templates with {token}, {username}, {password}")
    token_path: PathTemplate = Field("", description="where client credentials are traded for a short-lived token")
    request: Query = Field(
        {"grant_type": "client_credentials", "client_id": "{username}", "client_secret": "{password}"},
        description="JSON body of that request",
    )
    token_at: Find = Field(Expression("access_token"), description="JMESPath of the token in its answer")
    renews_on: frozenset[int] = Field(frozenset({401}), description="statuses that say that it has expired")


class Paging(Part):
    """How the next page of a list is asked for."""

    kind: Literal["none", "offset", "page", "cursor", "link"] = "none"
    parameter: str = Field("", description="parameter of the offset, the page or the cursor; named as kind where empty")
    size_parameter: str = Field("limit", description="parameter of the page size; empty: not sent")
    page_size: int = Field(100, ge=1, le=10_000)
    first_page: Literal[0, 1] = 1
    next: OptionalFind = Field(None, description="JMESPath of the next cursor, or of the next page's URL")
    max_pages: int = Field(10_000, ge=1, le=100_000)


class Listing(Part):
    """A list of runs (or of pipelines) at the vendor."""

    path: PathTemplate = ""
    query: Query = Field({}, description="templates; a parameter whose value comes out empty is left out")
    items: OptionalFind = Field(None, description="JMESPath of the list in an answer")
    total: OptionalFind = Field(None, description="JMESPath of how many items the whole list has")
    time_format: Literal["iso", "epoch_ms", "epoch_s"] = Field("iso", description="how {since} and {until} are written")
    newest_first_by: OptionalFind = Field(None, description="JMESPath of the time that the list is ordered by")
    longest_window: Duration | None = Field(None, description="longest time between {since} and {until}")
    detail: bool = Field(False, description="ask for each run by its id: the list leaves something out")
    paging: Paging = Paging()

    def asks_for(self, name: str) -> bool:
        """Tell whether a placeholder stands in its query or path."""
        return any(name in placeholders(template) for template in (self.path, *self.query.values()))

    def over(self, base: "Listing") -> "Listing":
        """Return ``base`` with what is set here; queries are joined."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        if "query" in own:
            own["query"] = {**base.query, **self.query}
        if "paging" in own:
            paging = {name: getattr(self.paging, name) for name in self.paging.model_fields_set}
            own["paging"] = base.paging.model_copy(update=paging)
        return base.model_copy(update=own)


class Pipelines(Listing):
    """The list of the vendor's pipelines: for names that runs do not carry, and for the check of a new source."""

    id: OptionalFind = None
    name: OptionalFind = None
    names_runs: bool = Field(False, description="runs have no name of their pipeline, so take it from here")


class Get(Part):
    """How one run is read again."""

    path: PathTemplate
    query: Query = {}
    item: Find = Expression("@")
    gone: str = Field("", description="words in a refusal (400) that mean 404")


class Fields(Part):
    """Where in a run what stands."""

    external_run_id: Find
    status: Find
    status_reason: OptionalFind = None
    pipeline_id: OptionalFind = None
    pipeline_name: OptionalFind = None
    attempt: OptionalFind = None
    first_attempt: Literal[0, 1] = Field(1, description="how the vendor counts the first attempt")
    started_at: OptionalFind = None
    finished_at: OptionalFind = None
    observed_at: OptionalFind = None
    scheduled_for: OptionalFind = None
    rows_processed: OptionalFind = None
    error_message: OptionalFind = None
    url: OptionalFind = None
    url_template: str = Field("", description="template with {run_id}, {pipeline_id}, {url} and the parameters")
    payload: dict[str, OptionalFind] = {}
    time_format: Literal["iso", "iso_utc", "epoch_ms", "epoch_s"] = Field("iso", description="how times are written")
