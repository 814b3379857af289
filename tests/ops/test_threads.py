import os
import signal
import threading
from contextlib import ExitStack

import numpy  # noqa: F401  brings a BLAS
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from otgen import ops
from otgen.ops import threads as threads_of_ops
from otgen.ops.threads import threads


def test_kernels_keep_the_threads_that_torch_gives_up():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ops.torch_on_one_thread():
            assert (torch.get_num_threads(), threads()) == (1, 3)
            with ops.torch_on_one_thread():
                assert (torch.get_num_threads(), threads()) == (1, 3)
            assert threads() == 3
            seen = []
            other = threading.Thread(target=lambda: seen.append(threads() == torch.get_num_threads()))
            other.start()
            other.join()
            assert seen == [True]
        assert (torch.get_num_threads(), threads()) == (3, 3)
        with pytest.raises(KeyError), ops.torch_on_one_thread():
            raise KeyError
        assert (torch.get_num_threads(), threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_threads_that_begin_meanwhile_keep_what_torch_had():
    def seen_by_another():
        def look():
            seen.append(torch.get_num_threads())
            with ops.torch_on_one_thread():
                seen.append(threads())
            seen.append(torch.get_num_threads())

        seen = []
        other = threading.Thread(target=look)
        other.start()
        other.join()
        return seen

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ops.torch_on_one_thread():
            assert seen_by_another() == [3, 3, 3]
            with ops.torch_on_one_thread():
                assert seen_by_another() == [3, 3, 3]
        assert seen_by_another() == [3, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_threads_that_begin_together_keep_what_torch_had():
    seen, together = [], threading.Barrier(40)

    def look():
        together.wait()
        with ops.torch_on_one_thread():
            pass
        seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        others = [threading.Thread(target=look) for _ in range(40)]
        for other in others:
            other.start()
        for other in others:
            other.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [3] * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_does_not_wait_for_a_thread_that_it_has_not():
    with threads_of_ops._turn:
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends a child that waits
            with ops.torch_on_one_thread():
                os._exit(0)
        status = os.waitpid(child, 0)[1]
    assert status == 0


def test_blas_keeps_to_one_thread_until_the_last_block_ends():
    def blas():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"), ExitStack() as second:
        with ExitStack() as first:
            first.enter_context(ops.blas_on_one_thread())
            assert blas() == {1}
            second.enter_context(ops.blas_on_one_thread())
        assert blas() == {1}  # the first has ended before the second, as in two threads
        second.close()
        assert blas() == {2}
        with pytest.raises(KeyError), ops.blas_on_one_thread():
            raise KeyError
        assert blas() == {2}
