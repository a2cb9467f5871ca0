"""For the clients' scripts: waiting that ends."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60


def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Raises TimeoutError when it does not come to."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it has not come to be after {SECONDS} seconds")
        time.sleep(0.02)
