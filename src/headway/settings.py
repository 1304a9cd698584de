"""Every knob of the service, with its unit, its default and the reason for it.

Read once at start from the environment (``HEADWAY_…``), each also from a file (``HEADWAY_…_FILE``) for container
secrets. A wrong value or a misspelt name stops the start with a hint. ``docs/settings.md`` lists them all; a test
holds that page to this class.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HEADWAY_"


class SettingsError(Exception):
    """The settings do not fit together; the message says which and how to mend it."""


class Settings(BaseSettings):
    """The service's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of the role headway_app; none means the embedded server of the data directory"
    )
    owner_database_url: SecretStr | None = Field(None, description="PostgreSQL URL of the owner, for migrate alone")
    reader_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of headway_reader, printed by db url for Grafana and Metabase"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    processes: int = Field(0, ge=0, le=64, description="API processes; 0 is one for every two processors")
    auth: Literal["keys", "none"] = Field(
        "keys",
        description="keys: every request needs an API key; none: only on a loopback address (headway up's default)",
    )
    data_dir: Path | None = Field(None, description="directory of the embedded database and its secrets")
    config: Path | None = Field(None, description="TOML file with sources and notification destinations")
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
        description="bytes of request bodies held at a time by one process; beyond it: 503",
    )
    body_timeout_seconds: float = Field(
        30.0, gt=0, description="how long a caller may pause while sending a body before it is answered 408"
    )
    statement_timeout_seconds: float = Field(30.0, gt=0, description="longest single statement of a request")
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

    @field_validator("bootstrap_key")
    @classmethod
    def _key_shape(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (not value.get_secret_value().startswith("hw_") or len(value.get_secret_value()) < 46):
            msg = "must be hw_ followed by 43 random characters; make one with: headway keys generate"
            raise ValueError(msg)
        return value


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings; overrides come from the command line and win where they are not None.

    Raises:
        SettingsError: a value does not fit, a file cannot be read, or a name is not known.
    """
    environ = os.environ if environ is None else environ
    values = {name.lower(): value for name, value in _with_files(environ).items()}
    values.update({name: value for name, value in overrides.items() if value is not None})  # type: ignore[misc]
    try:
        return Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None


def _with_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings by upper-case name, files read, after a check of the names."""
    known = {name.upper() for name in Settings.model_fields}
    found: dict[str, str] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX)
        if name.endswith("_FILE") and name.removesuffix("_FILE") in known:
            name, value = name.removesuffix("_FILE"), _read(variable, value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else "; see docs/settings.md"
            msg = f"{variable} is not a setting{hint}"
            raise SettingsError(msg)
        if value != "":
            found[name] = value
    return found


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"{variable}: cannot read {path}: {error.strerror}"
        raise SettingsError(msg) from None
