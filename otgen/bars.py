"""Progress bars that Ctrl-C may end at any moment."""

from contextlib import nullcontext

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[misc]  # tqdm comes without types
    """tqdm's bar, which would keep the lock of all bars for good where Ctrl-C comes while it is drawn.

    The next bar in another thread then waits for ever; in a notebook every second Ctrl-C comes there.
    """

    def refresh(self, nolock: bool = False, lock_args: object = None) -> bool:
        """Draw the bar."""
        with nullcontext() if nolock else self.get_lock():
            drawn: bool = super().refresh(nolock=True)
            return drawn
