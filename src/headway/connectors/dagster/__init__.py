"""Dagster, open source and Dagster+: its runs, read over GraphQL."""

from headway.connectors.dagster.api import DagsterApi, DagsterSource

__all__ = ["DagsterApi", "DagsterSource"]
