"""Which platforms are tried: all, unless ``HEADWAY_TEST_PLATFORM`` names one, as ``.ci/run`` does in turn."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    chosen = os.environ.get("HEADWAY_TEST_PLATFORM", "all")
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and chosen not in {"all", item.path.stem.removeprefix("test_")}:
            item.add_marker(pytest.mark.skip(reason=f"only {chosen} is tried this time"))
