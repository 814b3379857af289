"""How many threads the kernels have."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_kernels = threading.local()


def threads() -> int:
    """As many as torch uses, or used before `torch_on_one_thread`."""
    return getattr(_kernels, "threads", None) or torch.get_num_threads()


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Keep torch to one thread in a block, while kernels have as many as torch had.

    When a torch function is done its other threads wait for the next one by spinning, for some milliseconds: on the
    cores that a kernel wants, if one follows.
    """
    before = torch.get_num_threads()
    outer = getattr(_kernels, "threads", None)
    _kernels.threads = outer or before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _kernels.threads = outer
