"""What is wrong with a configuration is told when it is loaded, with file, line and the setting's path."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from headway.connectors import config
from headway.connectors.config import Source
from headway.connectors.rest.parts import Auth, Fields, Get, Listing, Paging, Pipelines
from headway.connectors.rest.source import RestSource
from headway.settings import SettingsError

DOCS = (Path(__file__).parents[3] / "docs" / "connectors" / "rest.md").read_text(encoding="utf-8")

GOOD = """
[sources.flow]
platform = "rest"
vendor = "flow"
client = "acme"
url = "https://flow.example"
token_env = "FLOW_TOKEN"
[sources.flow.auth]
kind = "headers"
headers = { X-Flow-Key = "{token}" }
[sources.flow.parameters]
team = "data"
[sources.flow.list]
path = "/v1/{team}/runs"
items = "runs"
query = { from = "{since}", limit = 5 }
[sources.flow.get]
path = "/v1/runs/{run_id}"
[sources.flow.fields]
external_run_id = "id"
pipeline_id = "flow"
status = "state"
[sources.flow.statuses]
DONE = "success"
"""


def parse(text: str) -> RestSource:
    sources = config.parse(text, {"rest": RestSource}, file="headway.toml", base=Path("/etc"))
    source = sources["flow"]
    assert isinstance(source, RestSource)
    return source


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    return str(caught.value)


def test_configuration_of_ones_own() -> None:
    source = parse(GOOD)
    assert source.runs_list.query == {"from": "{since}", "limit": "5"}
    assert source.changed_lists == [source.runs_list]
    assert not source.window_list.asks_for("until")


def test_preset_needs_few_lines() -> None:
    source = parse(
        """
[sources.flow]
platform = "rest"
preset = "dbt_cloud"
client = "acme"
url = "https://cloud.getdbt.com"
token_env = "DBT_CLOUD_TOKEN"
[sources.flow.parameters]
account_id = "123"
"""
    )
    assert source.vendor == "dbt_cloud"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('status = "state"', 'status = "state["', 22, "fields.status is no JMESPath"),
        ('status = "state"', 'status = "nope(state)"', 22, "fields.status calls nope()"),
        ('status = "state"', 'state = "state"\nstatus = "state"', 22, "fields.state is no setting"),
        ('status = "state"\n', "", 19, "fields.status is required"),
        ('DONE = "success"', 'DONE = "fine"', 24, "statuses.DONE must be"),
        ("{team}", "{room}", 2, "list.path asks for {room}: give it in parameters"),
        ("{since}", "{sinse}", 2, "list.query.from asks for {sinse}"),
        ('path = "/v1/{team}/runs"', 'path = "v1"', 14, "list.path must begin with /"),
        ('path = "/v1/{team}/runs"', 'path = "/v1?a=b"', 14, "list.path must not have a query"),
        ('items = "runs"\n', "", 2, "list.items is required"),
        ("{run_id}", "latest", 2, "get.path must ask for {run_id}"),
        ("{token}", "literal-credential", 2, "auth.headers.X-Flow-Key must hold {token}"),
        ("{token}", "{token}" + "0123456789abcdef0123456789", 2, "auth.headers.X-Flow-Key must hold {token}"),
        ("{token}", "{account}", 2, "auth.headers.X-Flow-Key must hold {token}"),
        ('token_env = "FLOW_TOKEN"\n', "", 2, "token_env or token_file is required"),
        ('team = "data"', 'team = "data"\napi_key = "abcd"', 2, "parameters.api_key looks like a credential"),
        ('team = "data"', 'team = "data"\nrun_id = "abcd"', 2, "parameters.run_id has a name that is taken"),
        ('team = "data"', 'team = ["a", "b"]\nroom = ["c", "d"]', 2, "only one of them may have several values"),
        ("limit = 5", 'access_token = "hunter2"', 2, "list.query.access_token looks like a credential"),
        ('vendor = "flow"', 'vendor = "Flow"', 4, "vendor does not have the required form"),
        ('vendor = "flow"', 'preset = "nope"', 2, "preset is none that is shipped; there are: airbyte, databricks"),
        ('vendor = "flow"\n', "", 2, "vendor is required"),
        ("query = {", 'paging = { kind = "cursor" }\nquery = {', 2, "list.paging.next is required"),
        ("query = {", "detail = true\nquery = {", 0, ""),
    ],
)
def test_mistake_is_told_with_its_place(old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if not said:
        parse(text)
        return
    told = problem(text)
    assert told.startswith(f"headway.toml:{line}: [sources.flow] ")
    assert said in told
    assert "hunter2" not in told
    assert "literal-credential" not in told


def test_client_credentials_need_both_halves() -> None:
    text = GOOD.replace('kind = "headers"', 'kind = "client_credentials"\ntoken_path = "/token"')
    assert "username is required" in problem(text)
    text = text.replace('token_env = "FLOW_TOKEN"', 'username = "me"')
    assert "password_env or password_file is required" in problem(text)
    assert parse(text.replace('username = "me"', 'username = "me"\npassword_env = "X"')).username == "me"


@pytest.mark.parametrize("model", [RestSource, Auth, Listing, Paging, Get, Pipelines, Fields])
def test_every_setting_is_in_the_docs(model: type[BaseModel]) -> None:
    names = {field.alias or name for name, field in model.model_fields.items()} - Source.model_fields.keys()
    assert [name for name in sorted(names) if f"`{name}`" not in DOCS] == []


def test_every_example_of_the_docs_can_be_loaded() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
    assert len(examples) == 4
    for text in examples:
        sources = config.parse(text, {"rest": RestSource}, file="docs", base=Path("/etc"))
        assert len(sources) == 1
