import threading

import pytest
import torch

from otgen import ops
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
