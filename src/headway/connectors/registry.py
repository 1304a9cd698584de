"""The connectors there are: one line each, by platform."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headway.connectors.config import Source
from headway.connectors.contract import Connector


class Kind(NamedTuple):
    """A kind of source: what its configuration looks like, and how it is read (``Http`` is the connector's to make)."""

    source: type[Source]
    connect: Callable[[Any, threading.Event], Connector]


CONNECTORS: Mapping[str, Kind] = {}
