"""Every knob of the service, with its unit, its default and the reason for it.

Read once at start from the environment (``HEADWAY_…``), each also from a file (``HEADWAY_…_FILE``) for container
secrets. A wrong value or a misspelt name stops the start with a hint. ``docs/settings.md`` lists them all; a test
(``tests/test_settings.py``) holds that page to this class.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "HEADWAY_"

_KEY = re.compile(r"hw_[A-Za-z0-9_-]{43,200}")
_POSTGRES_URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://\S+", re.IGNORECASE)
# Not ours: what the tests are told, and what Kubernetes tells every container about a service called headway.
_FOREIGN = re.compile(r"TEST_\w+|(?:\w+_)?SERVICE_(?:HOST|PORT\w*)|(?:\w+_)?PORT_\d+_(?:TCP|UDP)\w*")
_SERVICE_LINK = re.compile(r"(?:tcp|udp)://\S+")


class SettingsError(Exception):
    """The settings do not fit together; the message says which and how to mend it."""


def _in(unit: str) -> Any:
    """Return the extra of a field that says its unit, for the docs."""
    return {"unit": unit}


class Settings(BaseSettings):
    """The service's settings."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of the role headway_app; none means the embedded server of the data directory"
    )
    owner_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of the owner, for migrate, backup and restore"
    )
    reader_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of headway_reader, printed by db url for Grafana and Metabase"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    processes: int = Field(0, ge=0, le=64, description="API processes; 0 is one a processor")
    auth: Literal["keys", "none"] = Field(
        "keys",
        description="keys: every request needs an API key; none: only on a loopback address (headway up's default)",
    )
    data_dir: Path | None = Field(None, description="directory of the embedded database and its secrets")
    config: Path | None = Field(
        None,
        description="TOML file of the sources that are pulled from; read by worker, sync and sources at their start",
    )
    bootstrap_key: SecretStr | None = Field(
        None,
        description="a first unbound key with all scopes (hw_ and 43 characters), made at start where it is not known",
    )
    pg_bin: Path | None = Field(
        None, description="directory of the PostgreSQL binaries in place of the embedded wheel's"
    )
    pg_port: int = Field(
        0, ge=0, le=65535, description="port of the embedded PostgreSQL; 0 keeps a free one of its choice"
    )
    pg_os_user: str | None = Field(None, description="user that runs the embedded PostgreSQL when Headway runs as root")
    pool_size: int = Field(10, ge=2, le=200, description="database connections of each API process")
    max_bytes_in_flight: int = Field(
        256 * 1024 * 1024,
        ge=1024 * 1024,
        description="request bodies held at a time by one process; beyond it: 503",
        json_schema_extra=_in("bytes"),
    )
    body_timeout_seconds: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="how long a caller may pause while sending a body before it is answered 408",
        json_schema_extra=_in("seconds"),
    )
    statement_timeout_seconds: float = Field(
        30.0,
        ge=0.1,
        le=86_400,
        description="longest single statement of a request",
        json_schema_extra=_in("seconds"),
    )
    openlineage_keep_tasks: bool = Field(
        False, description="keep runs of tasks (events with a parent run) as runs of pipelines of their own"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere"
    )
    metrics_dir: Path | None = Field(
        None, description="directory in which API processes share their metrics; made at start where none is given"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what ``load_settings`` found and nothing behind its back."""
        return (init_settings,)

    @field_validator("bootstrap_key")
    @classmethod
    def _key_shape(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _KEY.fullmatch(value.get_secret_value()):
            msg = "must be hw_ followed by 43 random characters; make one with: headway keys generate"
            raise ValueError(msg)
        return value

    @field_validator("database_url", "owner_database_url", "reader_database_url")
    @classmethod
    def _url_shape(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _POSTGRES_URL.fullmatch(value.get_secret_value()):
            msg = "must be a URL such as postgresql://user:password@host:5432/database"
            raise ValueError(msg)
        return value


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings; overrides come from the command line and win where they are not None.

    Raises:
        SettingsError: a value does not fit, a file cannot be read, or a name is not known.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {name.lower(): value for name, value in _with_files(environ).items()}
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {_said(e['msg'])}" for e in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _with_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings by upper-case name, files read, after a check of the names; empty is the same as absent.

    A value of its own wins over a file, whatever the order: so a child process can be told another one.
    """
    known = {name.upper() for name in Settings.model_fields}
    plain: dict[str, str] = {}
    from_files: dict[str, str] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or _FOREIGN.fullmatch(name) or (name.endswith("PORT") and _SERVICE_LINK.fullmatch(value)):
            continue
        file_of = name.removesuffix("_FILE")
        if name in known:
            plain[name] = value
        elif file_of in known and file_of != name:
            from_files[file_of] = _read(variable, value) if value and not environ.get(PREFIX + file_of) else ""
        else:
            raise SettingsError(_unknown(variable, name, known))
    return {name: value for name, value in (from_files | {n: v for n, v in plain.items() if v}).items() if value}


def _unknown(variable: str, name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, {*known, *(f"{k}_FILE" for k in known)}, n=1)
    return f"{variable} is not a setting{f'; did you mean {PREFIX}{near[0]}?' if near else '; see docs/settings.md'}"


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"{variable}: cannot read {path}: {error.strerror}"
    except ValueError:
        msg = f"{variable}: {path} is not a text in UTF-8"
    raise SettingsError(msg)
