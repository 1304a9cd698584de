"""The natural name of a pipeline, for reports that do not know our ids."""

from typing import NamedTuple
from uuid import UUID


class PipelineRef(NamedTuple):
    """A pipeline by its natural name: looked up by external_id where given, else by name and environment."""

    client: str
    platform: str
    name: str
    external_id: str | None = None
    environment: str | None = None


Reference = UUID | PipelineRef
