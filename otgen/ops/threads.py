"""How many threads the kernels have."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_kernels = threading.local()
_turn = threading.Lock()
"""Held while what torch has is not what a thread that begins should have."""


def _free() -> None:
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child has none of the threads that may have held it
    os.register_at_fork(after_in_child=_free)


def threads() -> int:
    """As many as torch uses, or used before `torch_on_one_thread`."""
    return getattr(_kernels, "threads", None) or torch.get_num_threads()


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Keep torch to one thread in a block, while kernels have as many as torch had.

    When a torch function is done its other threads wait for the next one by spinning, for some milliseconds: on the
    cores that a kernel wants, if one follows.
    """
    with _turn:
        before = torch.get_num_threads()
    outer = getattr(_kernels, "threads", None)
    _kernels.threads = outer or before
    try:
        if before > 1:
            with _turn:
                torch.set_num_threads(1)
                _let_others_begin_with(before)
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
        _kernels.threads = outer


def _let_others_begin_with(n: int) -> None:
    """What a thread sets holds for itself, and for all that use torch for the first time: they would keep it for good.

    So another thread sets it last.
    """
    setter = threading.Thread(target=torch.set_num_threads, args=(n,))
    with suppress(RuntimeError):  # the system starts no more threads
        setter.start()
        setter.join()


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """The same for the BLAS of numpy and scipy, whose threads spin for longer; for the whole process at a time.

    Its sums are then the same for any number of threads.
    """
    with _Blas.lock:
        if _Blas.blocks == 0:
            _Blas.before = _controller().limit(limits=1, user_api="blas")
        _Blas.blocks += 1
    try:
        yield
    finally:
        with _Blas.lock:
            _Blas.blocks -= 1
            if _Blas.blocks == 0:
                _Blas.before.restore_original_limits()


class _Blas:
    """How many blocks keep it to one thread, and what was before the first of them."""

    lock = threading.Lock()
    blocks = 0
    before: Any = None


@cache
def _controller() -> Any:
    """Of the libraries that are there when it is first asked for; looking for them takes milliseconds."""
    return ThreadpoolController()
