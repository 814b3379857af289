import io
import threading

import pytest

from otgen.bars import Bar


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_ctrl_c_while_a_bar_is_drawn_does_not_stop_others(monkeypatch):
    with Bar(total=1, file=io.StringIO()) as bar, monkeypatch.context() as patch:
        patch.setattr(Bar, "display", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bar.refresh()
        patch.undo()
        other = threading.Thread(target=lambda: Bar(total=1, file=io.StringIO()).close(), daemon=True)
        other.start()
        other.join(timeout=10)
        assert not other.is_alive()
