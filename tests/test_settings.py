"""Settings: from the environment and from files, with hints where they are wrong; and the page that lists them."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from headway.settings import PREFIX, Settings, SettingsError, load_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SECRET = "s3cret-passw0rd"
URL = f"postgresql://headway_app:{SECRET}@db.example:5432/headway"


def test_environment_is_read_and_the_command_line_wins() -> None:
    environ = {"HEADWAY_PORT": "9000", "HEADWAY_HOST": "0.0.0.0", "HEADWAY_OPENLINEAGE_KEEP_TASKS": "true"}  # noqa: S104
    settings = load_settings(environ, port=9001, host=None)
    assert (settings.port, settings.host, settings.openlineage_keep_tasks) == (9001, "0.0.0.0", True)  # noqa: S104
    assert settings.pool_size == 10


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_PORT", "9000")
    monkeypatch.setenv("HEADWAY_POOL_SIZE", "")
    assert load_settings({}).port == 8000
    assert load_settings().port == 9000


def test_empty_is_the_same_as_absent() -> None:
    assert load_settings(dict.fromkeys((f"{PREFIX}{name.upper()}" for name in Settings.model_fields), "")) == Settings()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_can_come_from_a_file(name: str, tmp_path: Path) -> None:
    examples: dict[Any, str] = {int: "64", float: "2.5", bool: "true", str: "someone", Path: "/etc/headway"}
    kind = Settings.model_fields[name].annotation
    value = {"bootstrap_key": "hw_" + "k" * 43, "max_bytes_in_flight": "2000000"}.get(name)
    if value is None and name.endswith("database_url"):
        value = URL
    if value is None:
        kinds = get_args(kind) or (kind,)
        value = str(kinds[-1]) if get_origin(kind) is Literal else examples[kinds[0]]
    (tmp_path / "setting").write_text(f"{value}\n", encoding="utf-8")
    from_file = load_settings({f"{PREFIX}{name.upper()}_FILE": str(tmp_path / "setting")})
    assert from_file == load_settings({PREFIX + name.upper(): value})
    assert from_file != Settings()


def test_own_value_wins_over_a_file_in_either_order(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("9000")
    both = {"HEADWAY_PORT": "9001", "HEADWAY_PORT_FILE": str(tmp_path / "port")}
    assert load_settings(both).port == load_settings(dict(reversed(both.items()))).port == 9001
    assert load_settings(both | {"HEADWAY_PORT": ""}).port == 9000
    assert load_settings({"HEADWAY_PORT_FILE": ""}).port == 8000


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for file, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (tmp_path / "binary", "UTF-8")):
        with pytest.raises(SettingsError, match=f"HEADWAY_DATABASE_URL_FILE.*{reason}"):
            load_settings({"HEADWAY_DATABASE_URL_FILE": str(file)})


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("HEADWAY_PROT", "did you mean HEADWAY_PORT?"),
        ("HEADWAY_DATABASE_URI", "did you mean HEADWAY_DATABASE_URL?"),
        ("HEADWAY_DATABASE_URL_FIEL", "did you mean HEADWAY_DATABASE_URL_FILE?"),
        ("HEADWAY_BOOTSTRAPKEY", "did you mean HEADWAY_BOOTSTRAP_KEY?"),
        ("HEADWAY_XYZZY", "see docs/settings.md"),
        ("HEADWAY_", "see docs/settings.md"),
    ],
)
def test_unknown_name_is_refused_with_a_hint(variable: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: SECRET})
    assert str(caught.value) == f"{variable} is not a setting; {hint}"


def test_what_kubernetes_and_the_tests_set_is_passed_over() -> None:
    foreign = {
        "HEADWAY_SERVICE_HOST": "10.0.0.1",
        "HEADWAY_SERVICE_PORT": "8000",
        "HEADWAY_SERVICE_PORT_HTTP": "8000",
        "HEADWAY_PORT": "tcp://10.0.0.1:8000",
        "HEADWAY_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "HEADWAY_PORT_8000_TCP_ADDR": "10.0.0.1",
        "HEADWAY_API_PORT": "tcp://10.0.0.2:8000",
        "HEADWAY_API_SERVICE_HOST": "10.0.0.2",
        "HEADWAY_TEST_PG_BIN": "/usr/lib/postgresql/15/bin",
        "PATH": "/bin",
    }
    assert load_settings(foreign) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADWAY_PORT", "http"),
        ("HEADWAY_PORT", "65536"),
        ("HEADWAY_PORT", "-1"),
        ("HEADWAY_PROCESSES", "65"),
        ("HEADWAY_POOL_SIZE", "1"),
        ("HEADWAY_AUTH", "off"),
        ("HEADWAY_LOG_LEVEL", "trace"),
        ("HEADWAY_BODY_TIMEOUT_SECONDS", "0"),
        ("HEADWAY_BODY_TIMEOUT_SECONDS", "inf"),
        ("HEADWAY_STATEMENT_TIMEOUT_SECONDS", "nan"),
        ("HEADWAY_STATEMENT_TIMEOUT_SECONDS", "0.01"),
        ("HEADWAY_MAX_BYTES_IN_FLIGHT", "1000"),
        ("HEADWAY_OPENLINEAGE_KEEP_TASKS", "perhaps"),
        ("HEADWAY_DATABASE_URL", f"mysql://u:{SECRET}@h/d"),
        ("HEADWAY_DATABASE_URL", SECRET),
        ("HEADWAY_OWNER_DATABASE_URL", f"host=h password={SECRET}"),
        ("HEADWAY_BOOTSTRAP_KEY", SECRET),
        ("HEADWAY_BOOTSTRAP_KEY", "hw_short"),
        ("HEADWAY_BOOTSTRAP_KEY", "hw_" + "!" * 43),
    ],
)
def test_wrong_value_is_named_and_not_repeated(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    assert str(caught.value).startswith(f"{variable}: ")
    assert len(value) < 3 or value not in str(caught.value).removeprefix(variable)
    assert caught.value.__cause__ is None


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"HEADWAY_PORT": "x", "HEADWAY_AUTH": "x"})
    assert len(str(caught.value).splitlines()) == 2


def test_secrets_are_in_no_repr() -> None:
    names = ("DATABASE_URL", "OWNER_DATABASE_URL", "READER_DATABASE_URL")
    key = "hw_" + "k" * 43
    settings = load_settings({f"{PREFIX}{name}": URL for name in names} | {"HEADWAY_BOOTSTRAP_KEY": key})
    shown = repr(settings) + str(settings) + repr(settings.model_dump()) + settings.model_dump_json()
    assert SECRET not in shown
    assert key not in shown
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == URL


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def line(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    unit = extra.get("unit", "") if isinstance(extra, dict) else ""
    default = "none" if field.default is None else str(field.default).lower()
    return f"| `{PREFIX}{name.upper()}` | `{default}` | {unit} | {field.description} |"


def test_page_lists_every_setting_with_default_unit_and_meaning() -> None:
    wanted = [line(name, field) for name, field in Settings.model_fields.items()]
    listed = [found for found in PAGE.read_text(encoding="utf-8").splitlines() if found.startswith("| `")]
    assert listed == wanted, "put this table into docs/settings.md:\n" + "\n".join(wanted)


def test_every_setting_says_what_it_is_for_and_its_unit_where_it_has_one() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        has_unit = isinstance(field.json_schema_extra, dict) and "unit" in field.json_schema_extra
        assert has_unit == any(word in name for word in ("seconds", "bytes")), name
