"""What connectors remember from one sync to the next, where that spares requests: bounded, and never stored.

A connection lives for one sync; the process that makes it stands behind its stop event, and so what is remembered goes
with that event. Rule not to break: losing it all costs requests and nothing else
(``tests/connectors/github_actions/test_api.py``, ``tests/connectors/gitlab_ci/test_api.py``).
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
V = TypeVar("V")

_MEMORIES: WeakKeyDictionary[threading.Event, dict[tuple[str, Callable[[], Any]], Any]] = WeakKeyDictionary()


def of(stop: threading.Event, source: str, make: Callable[[], V]) -> V:
    """Return what was made for a source by this maker as long as the process lives; made where it is not there."""
    kept = _MEMORIES.setdefault(stop, {})
    if (source, make) not in kept:
        kept[source, make] = make()
    memory: V = kept[source, make]
    return memory


def keep(memory: dict[K, V], key: K, value: V, size: int) -> V:
    """Remember a value, and return it; all others are forgotten where there are ``size`` of them."""
    if key not in memory and len(memory) >= size:
        memory.clear()
    memory[key] = value
    return value
