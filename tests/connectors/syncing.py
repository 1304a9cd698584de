"""A configured source on the example platform, and the engine to read it with, for the tests of the engine."""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from headway.connectors.config import Source
from headway.connectors.registry import Kind
from headway.connectors.syncing import Result, Syncer
from headway.core import clock
from headway.core.db import Database
from tests.connectors.example.api import ExampleConnector
from tests.connectors.example.source import ExampleSource
from tests.connectors.example.subject import CREDENTIAL, ExampleSubject, Platform

KINDS: Mapping[str, Kind] = {"example": Kind(ExampleSource, ExampleConnector.connect)}
SUBJECT = ExampleSubject()


def ago(**span: float) -> datetime:
    """Return a time before now, to the second."""
    return clock.now().replace(microsecond=0) - timedelta(**span)


def configured(platform: Platform, name: str = "example", **more: Any) -> ExampleSource:
    """Return a source on a platform."""
    os.environ["EXAMPLE_TOKEN"] = CREDENTIAL
    settings = {"client": "acme", "url": platform.url, "token_env": "EXAMPLE_TOKEN"} | more
    return ExampleSource(name=name, platform="example", **settings)


def syncer(database: Database, *sources: Source, **options: Any) -> Syncer:
    """Return the engine for some sources."""
    return Syncer(database, {source.name: source for source in sources}, kinds=KINDS, **options)


async def sync(database: Database, source: Source, **options: Any) -> Result:
    """Sync a source once, with an engine of its own."""
    engine = syncer(database, source)
    await engine.register()
    result = await engine.sync(source.name, **options)
    assert result is not None, "somebody else reads it"
    return result


def add_runs(platform: Platform, count: int, *, pipelines: int = 3, days: float = 20.0) -> list[str]:
    """Add finished runs, spread over some days up to an hour ago; returns their ids."""
    added = []
    with platform.lock:
        for number in range(count):
            end = ago(hours=1) - timedelta(days=days) * ((count - 1 - number) / max(count, 1))
            start = end - timedelta(minutes=2)
            added.append(
                platform.add(
                    pipeline=f"load-{number % pipelines}",
                    word="BROKEN" if number % 20 == 7 else "DONE",
                    created_at=start,
                    started_at=start,
                    finished_at=end,
                    updated_at=end,
                )
            )
    return added


def add_live(platform: Platform, pipeline: str = "load-0") -> str:
    """Add a run that started a while ago and goes on."""
    start = ago(hours=2)
    with platform.lock:
        return platform.add(
            pipeline=pipeline, word="ACTIVE", created_at=start, started_at=start, finished_at=None, updated_at=start
        )
