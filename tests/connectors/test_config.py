"""The configuration of sources: what is right is read, and what is wrong is told with its place and the mend."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from headway.connectors import config
from headway.connectors.config import Source
from headway.connectors.errors import SourceError
from headway.settings import SettingsError
from tests.connectors.example.source import ExampleSource

PLATFORMS: Mapping[str, type[Source]] = {"example": ExampleSource}
GOOD = 'platform = "example"\nclient = "acme"\nurl = "https://runs.example.test"\n'
SECRET = "hunter2-zqmarkerqz"


def parse(text: str, base: Path = Path("/etc/headway")) -> dict[str, Source]:
    return config.parse(text, PLATFORMS, file="headway.toml", base=base)


def one(more: str = "", good: str = GOOD) -> Source:
    (source,) = parse(f"[sources.shop]\n{good}{more}").values()
    return source


def told(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert SECRET not in str(caught.value)
    return str(caught.value).splitlines()


def test_smallest_source_has_the_defaults() -> None:
    source = one()
    assert (source.name, source.platform, source.client, source.url) == (
        "shop",
        "example",
        "acme",
        "https://runs.example.test",
    )
    assert (source.interval, source.since) == (timedelta(minutes=1), timedelta(days=30))
    assert (source.environment, source.include, source.exclude, source.tags) == ("prod", [], [], [])
    assert source.token() is None
    assert source.password() is None


def test_everything_can_be_set() -> None:
    source = one(
        'environment = "dev"\ninterval = "5m"\nsince = "2w"\ninclude = ["a*"]\nexclude = ["ab"]\ntags = ["x"]\n'
        'token_file = "secrets/token"\nusername = "u"\npassword_env = "P"\n'
    )
    assert (source.environment, source.interval, source.since) == ("dev", timedelta(minutes=5), timedelta(days=14))
    assert source.token_file == Path("/etc/headway/secrets/token")
    assert one('token_file = "/run/token"').token_file == Path("/run/token")


@pytest.mark.parametrize(
    "text",
    [
        'sources.shop = {platform = "example", client = "acme", url = "https://runs.example.test/"}',
        'sources.shop.platform = "example"\nsources.shop.client = "acme"\nsources.shop.url = "https://runs.example.test"',
        '[sources]\n"shop" = {platform = "example", client = "acme", url = "https://runs.example.test"}',
        f"[ sources . 'shop' ] # mine\n{GOOD}",
        f"[sources.shop]\n{GOOD}".replace("\n", "\r\n"),
        "[sources.shop]\nplatform = \"\"\"example\"\"\"\nclient = 'acme'\nurl = '''https://runs.example.test'''",
    ],
)
def test_all_ways_that_toml_has_to_write_it(text: str) -> None:
    assert parse(text) == {"shop": one()}


def test_empty_file_has_no_sources() -> None:
    assert parse("") == {}
    assert parse("[sources]\n") == {}


# One mistake, the line it is told with, and words of the mend.
MISTAKES = {
    "literal-token": (f'{GOOD}token = "{SECRET}"', 5, 'token_env = "VARIABLE"'),
    "literal-api-key": (f'api-key = "{SECRET}"\n{GOOD}', 2, "token_env"),
    "literal-password": (f'{GOOD}Password = "{SECRET}"', 5, "password_env"),
    "literal-secret": (f'{GOOD}secret = "{SECRET}"', 5, "token_env"),
    "literal-in-a-table": (f'{GOOD}token = {{value = "{SECRET}"}}', 5, "token_env"),
    "literal-dotted": (f'{GOOD}token.value = "{SECRET}"', 5, "token_env"),
    "literal-quoted": (f'{GOOD}"token" = "{SECRET}"', 5, "token_env"),
    "literal-under-an-unknown-name": (f'{GOOD}access_token = "{SECRET}"', 5, "access_token is no setting"),
    "literal-for-the-variable": (f'{GOOD}token_env = "{SECRET}"', 5, "must be the name of an environment variable"),
    "known-token-for-the-variable": (
        f'{GOOD}token_env = "ghp_{"a1B2" * 9}"',
        5,
        "must be the name of an environment variable",
    ),
    "typo": (f'{GOOD}intervall = "5m"', 5, "did you mean interval?"),
    "unlike-any-setting": (f"{GOOD}zzzzzz = 1", 5, "known are: name, platform, client, url"),
    "user-in-url": (
        GOOD.replace("https://", f"https://me:{SECRET}@"),
        4,
        "url must not hold a user name or password",
    ),
    "token-in-url": (GOOD.replace("https://", f"https://{SECRET}@"), 4, "url must not hold a user name or password"),
    "query-in-url": (GOOD.replace(".test", f".test/?token={SECRET}"), 4, "must not have a query"),
    "empty-query-in-url": (GOOD.replace(".test", ".test/?"), 4, "must not have a query"),
    "scheme-of-url": (GOOD.replace("https", "ftp"), 4, "url must be an http:// or https:// URL"),
    "port-of-url": (GOOD.replace(".test", ".test:99999"), 4, "url must have a port from 1 to 65535"),
    "bracket-in-url": (GOOD.replace("runs", "[runs"), 4, "url"),
    "url-is-a-number": (GOOD.replace('"https://runs.example.test"', "5"), 4, "url must be a valid string"),
    "unknown-platform": (GOOD.replace('"example"', '"exampel"'), 2, "exampel is no known platform; known are: example"),
    "platform-missing": (GOOD.replace('platform = "example"\n', ""), 1, "platform is missing; known are: example"),
    "platform-is-a-list": (GOOD.replace('"example"', "[]"), 2, "known are: example"),
    "client-missing": (GOOD.replace('client = "acme"\n', ""), 1, "client is required"),
    "client-no-slug": (GOOD.replace('"acme"', '"Acme Inc"'), 3, "client"),
    "duration-words": (f'{GOOD}interval = "5 minutes"', 5, "interval must be a number and one of s, m, h, d, w, y"),
    "duration-without-unit": (f"{GOOD}interval = 60", 5, "interval must be a number and one of s, m, h, d, w, y"),
    "duration-negative": (f"{GOOD}since = -5", 5, "since must be a number and one of s, m, h, d, w, y"),
    "duration-infinite": (f"{GOOD}since = inf", 5, "since must be a number and one of s, m, h, d, w, y"),
    "duration-of-a-century": (f'{GOOD}since = "100y"', 5, "since must be a number"),
    "interval-too-short": (f'{GOOD}interval = "1s"', 5, "interval must be 5s or more"),
    "environment": (f'{GOOD}environment = "production"', 5, "environment must be 'dev', 'staging' or 'prod'"),
    "include-is-a-text": (f'{GOOD}include = "a*"', 5, "include must be a valid list"),
    "include-of-numbers": (f'{GOOD}include = ["a",\n  5]', 5, "include.1 must be a valid string"),
    "both-ways": (f'{GOOD}token_env = "A"\ntoken_file = "b"', 6, "token_env or token_file, not both"),
    "after-a-long-text": (f'{GOOD}tags = ["""\n[sources.shop]\nurl = 1\nzz = 2\n"""]\nzz = 1', 10, "zz is no setting"),
    "after-a-long-literal": (f"{GOOD}tags = ['''\nzz = 2\n''']\nzz = 1", 8, "zz is no setting"),
    "after-an-odd-line-end": (f"# a\u2028b\x85c\n{GOOD}zz = 1", 6, "zz is no setting"),
    "commented-out": (f"# zz = 1\n{GOOD}zz = 1", 6, "zz is no setting"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_with_its_line_and_the_mend(mistake: str) -> None:
    text, line, mend = MISTAKES[mistake]
    (message,) = told(f"[sources.shop]\n{text}")
    assert message.startswith(f"headway.toml:{line}: [sources.shop] ")
    assert mend in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("text", "line", "mend"),
    [
        (f"[sources.shop]\n{GOOD}[sources.shop]\n{GOOD}", 5, "this is not TOML: Cannot declare"),
        ("[sources.shop]\nurl = \n", 2, "this is not TOML"),
        (f'[sources.shop]\ntoken = "{SECRET}\n', 2, "this is not TOML"),
        (f'[sources.shop]\n\nurl = """{SECRET}\n', 3, "this is not TOML"),
        ("[sources.shop]\nurl = 1\nurl = 2\n", 3, "this is not TOML: Cannot overwrite"),
        (f"a = {'[' * 5000}", 1, "nested too deep"),
        ("[source.shop]\n", 1, "source is not a table of this file; known is: sources"),
        ("x = 1\n\n[sources]\n", 1, "x is not a table of this file"),
        ("\nsources = 5\n", 2, "sources must be tables"),
        ("[sources]\nshop = 5\n", 2, "must be a table: [sources.shop]"),
        (f"[[sources.shop]]\n{GOOD}", 1, "must be a table: [sources.shop]"),
        (f"[sources.Shop]\n{GOOD}", 1, "the name Shop may have a-z, 0-9, - and _"),
        (f'[sources."a.b"]\n{GOOD}', 1, "the name a.b may have"),
        (f"[sources.api]\n{GOOD}", 1, "the name api is taken by a door of Headway"),
        (f'[sources.shop]\n{GOOD}[sources."shop.2"]\n{GOOD}', 5, "the name shop.2"),
        ('[sources]\nshop = {platform = "example", client = "acme", url = "x"}', 2, "url must be an http://"),
        ('sources.shop.platform = "example"\nsources.shop.client = "acme"\nsources.shop.url = "x"', 3, "url must be"),
        ('[sources."shop"]\nplatform = "example"\nclient = "acme"\n"url" = "x"', 4, "url must be"),
    ],
)
def test_mistake_in_the_file_is_told_with_its_line(text: str, line: int, mend: str) -> None:
    (message,) = told(text)
    assert message.startswith(f"headway.toml:{line}: ")
    assert mend in message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    messages = told(
        f'[sources.b]\n{GOOD}token = "{SECRET}"\n[sources.a]\n{GOOD}zz = 1\nsince = "x"\n[sources.c]\n{GOOD}'
    )
    assert [message.partition(": ")[0] for message in messages] == [f"headway.toml:{n}" for n in (5, 10, 11)]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = '\xe9'"])
def test_file_that_is_no_text_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "headway.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"headway\.toml is not a text in UTF-8"):
        config.load(file, PLATFORMS)


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nowhere\.toml: No such file"):
        config.load(tmp_path / "nowhere.toml", PLATFORMS)


def test_file_names_its_own_directory_for_relative_files(tmp_path: Path) -> None:
    file = tmp_path / "headway.toml"
    file.write_text(f'\ufeff[sources.shop]\n{GOOD}token_file = "token"\n', encoding="utf-8")
    (tmp_path / "token").write_text("abc\n", encoding="utf-8")
    (source,) = config.load(file, PLATFORMS).values()
    assert source.token() == "abc"
    (tmp_path / "token").write_text("rotated\n", encoding="utf-8")
    assert source.token() == "rotated"


def test_credentials_come_from_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", " abc\n")
    monkeypatch.setenv("SHOP_PASSWORD", "p:ss word")
    source = one('token_env = "SHOP_TOKEN"\nusername = "me"\npassword_env = "SHOP_PASSWORD"\n')
    assert (source.token(), source.password()) == ("abc", "p:ss word")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_variable_that_is_not_set_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("SHOP_TOKEN", value)
    with pytest.raises(SourceError, match=r"SHOP_TOKEN \(token_env\) is not set") as caught:
        one('token_env = "SHOP_TOKEN"').token()
    assert caught.value.code == "credential_missing"


def test_password_in_the_place_of_a_variable_is_not_told() -> None:
    with pytest.raises(SourceError, match="the environment variable that password_env names is not set") as caught:
        one('username = "me"\npassword_env = "hunter2"').password()
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "credential_missing"),
        (b"\n", "credential_missing"),
        (b"\xff", "credential_missing"),
        ("schlüssel-zq".encode(), "credential_malformed"),
        (b"zq\x00zq", "credential_malformed"),
        (b"zq\r\nX-Evil: 1", "credential_malformed"),
    ],
)
def test_file_without_a_usable_token_is_told_without_it(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "token").write_bytes(content)
    source = one(f'token_file = "{tmp_path / "token"}"')
    with pytest.raises(SourceError) as caught:
        source.token()
    assert caught.value.code == code
    assert "zq" not in caught.value.detail


def test_token_in_the_place_of_a_file_is_not_told() -> None:
    token = "ghp_" + "a1B2" * 9
    with pytest.raises(SourceError, match=r"cannot read .*No such file") as caught:
        one(f'token_file = "{token}"').token()
    assert token not in caught.value.detail


@pytest.mark.parametrize(
    ("include", "exclude", "names", "taken"),
    [
        ([], [], ["a"], True),
        (["a*"], [], ["ab"], True),
        (["a*"], [], ["ba"], False),
        (["a?"], [], ["a"], False),
        (["a"], [], ["A"], False),
        ([], ["a*"], ["ab"], False),
        (["a*"], ["ab"], ["ab"], False),
        (["a*"], ["ab"], ["ac"], True),
        (["flow/*"], [], ["other", "flow/x"], True),
        ([], ["flow/*"], ["other", "flow/x"], False),
        (["a[1]"], [], ["a[1]"], True),
        (["a[1]"], [], ["a1"], False),
        (["[!a]*"], [], ["b"], False),
        (["a"], [], [None, "", "a"], True),
        (["*"], [], [None], False),
        (["*"], [], ["a\nb"], True),
    ],
)
def test_patterns_choose_pipelines(
    include: list[str], exclude: list[str], names: list[str | None], *, taken: bool
) -> None:
    source = ExampleSource(
        name="shop", platform="example", client="acme", url="http://h", include=include, exclude=exclude
    )
    assert source.takes(*names) is taken
