"""The connectors there are: one line each, by platform."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headway.connectors import config
from headway.connectors.airflow.api import AirflowApi
from headway.connectors.airflow.mapping import AirflowSource
from headway.connectors.config import Source
from headway.connectors.contract import Connector
from headway.connectors.dagster.api import DagsterApi, DagsterSource
from headway.connectors.github_actions.api import GithubActionsApi
from headway.connectors.github_actions.source import GithubActionsSource
from headway.connectors.gitlab_ci.api import GitlabCiApi, GitlabCiSource
from headway.connectors.prefect.api import PrefectApi, PrefectSource
from headway.connectors.rest.api import connect as connect_rest
from headway.connectors.rest.source import RestSource


class Kind(NamedTuple):
    """A kind of source: what its configuration looks like, and how it is read (``Http`` is the connector's to make)."""

    source: type[Source]
    connect: Callable[[Any, threading.Event], Connector]


CONNECTORS: Mapping[str, Kind] = {
    "airflow": Kind(AirflowSource, AirflowApi),
    "dagster": Kind(DagsterSource, DagsterApi),
    "github_actions": Kind(GithubActionsSource, GithubActionsApi),
    "gitlab_ci": Kind(GitlabCiSource, GitlabCiApi),
    "prefect": Kind(PrefectSource, PrefectApi),
    "rest": Kind(RestSource, connect_rest),
}


def load_sources(path: Path | None) -> dict[str, Source]:
    """Read the sources of a configuration file, by name; none without a file.

    Raises:
        SettingsError: with a line for each thing that is wrong.
    """
    return {} if path is None else config.load(path, {name: kind.source for name, kind in CONNECTORS.items()})
