"""Streams of seeds, and the turn that torch's own generators are taken in."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from otgen.seeds import torch_seeded


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_does_not_wait_for_a_thread_that_it_has_not():
    inside, leave = Event(), Event()

    def hold():
        with torch_seeded(0):
            inside.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        inside.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends a child that waits
            with torch_seeded(1):
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        leave.set()
    assert status == 0
