"""Progress bars that Ctrl-C may end at any moment."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tqdm import tqdm

DELAY = 2.0
"""Seconds before a bar appears: what is over by then needs none."""


class Bar(tqdm):  # type: ignore[misc]  # tqdm comes without types
    """tqdm's bar, which would keep the lock of all bars for good where Ctrl-C comes while it is drawn.

    The next bar in another thread then waits for ever; in a notebook every second Ctrl-C comes there.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, delay=DELAY, **settings)

    def refresh(self, nolock: bool = False, lock_args: object = None) -> bool:
        """Draw the bar."""
        with nullcontext() if nolock else self.get_lock():
            drawn: bool = super().refresh(nolock=True)
            return drawn


def of_samples(what: str, n: int, progress: bool) -> Bar:
    """Count n samples in a bar."""
    return Bar(desc=what, total=n, unit=" samples", unit_scale=True, disable=not progress)


def by_share(bar: Bar) -> Callable[[float], None]:
    """For what reports the share that is done."""
    return lambda done: bar.update(int(done * bar.total) - bar.n)
