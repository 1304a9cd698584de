"""The connectors there are: one line each, by platform."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headway.connectors import config
from headway.connectors.config import Source
from headway.connectors.contract import Connector
from headway.connectors.prefect.api import PrefectApi, PrefectSource


class Kind(NamedTuple):
    """A kind of source: what its configuration looks like, and how it is read (``Http`` is the connector's to make)."""

    source: type[Source]
    connect: Callable[[Any, threading.Event], Connector]


CONNECTORS: Mapping[str, Kind] = {
    "prefect": Kind(PrefectSource, PrefectApi),
}


def load_sources(path: Path | None) -> dict[str, Source]:
    """Read the sources of a configuration file, by name; none without a file.

    Raises:
        SettingsError: with a line for each thing that is wrong.
    """
    return {} if path is None else config.load(path, {name: kind.source for name, kind in CONNECTORS.items()})
