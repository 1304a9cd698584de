"""What connectors remember from one sync to the next, where that spares requests: bounded, and never stored.

Rule not to break: losing it all costs requests and nothing else.
"""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def keep(memory: dict[K, V], key: K, value: V, size: int) -> V:
    """Remember a value, and return it; all others are forgotten where there are ``size`` of them."""
    if key not in memory and len(memory) >= size:
        memory.clear()
    memory[key] = value
    return value
