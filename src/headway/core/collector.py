"""Python's collector of cycles, set for a process that serves.

With the standard thresholds it goes through all that lives again and again while a batch makes ten thousands of
objects, and holds the event loop for up to 200 ms each time; nothing of a batch is a cycle.
"""

import gc


def settle() -> None:
    """Leave alone what is there now, and look at what comes seldom and little at a time. Call once all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 1_000)
