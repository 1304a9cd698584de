"""What a source of this platform is told, beyond what all are told."""

from typing import Literal

from headway.connectors.config import Source


class ExampleSource(Source):
    """A server of the example platform."""

    platform: Literal["example"]
