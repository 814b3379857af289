import numpy as np
import pytest

from otgen import SemiDiscreteOT, cli, data

COMMANDS = ("demo", "fit", "train", "sample", "models", "info")


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, lines on stdout and lines on stderr, without progress bars."""

    def start(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), [line for line in err.splitlines() if "samples/s" not in line and line.strip()]

    return start


@pytest.fixture
def refused(run):
    """Run a command that must be refused in one line; return the line."""

    def start(*words):
        code, out, err = run(*words)
        assert (code, out) == (2, [])
        assert len(err) == 1
        assert err[0].startswith("otgen: error: ")
        return err[0].removeprefix("otgen: error: ")

    return start


@pytest.fixture
def no_work(monkeypatch):
    """A command that has begun to work has failed."""
    monkeypatch.setattr(SemiDiscreteOT, "_solve", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(SemiDiscreteOT, "sample", lambda *_, **__: pytest.fail("work was begun"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with codes and a map of them, not to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    y = data.mixture(60, 3).numpy()
    np.save(folder / "codes.npy", y)
    ot = SemiDiscreteOT(tol=0.05, seed=4, progress=False).fit(y)
    ot.save(folder / "map.safetensors")
    return folder


@pytest.fixture
def codes(stored):
    return stored / "codes.npy"


@pytest.fixture
def fitted(stored):
    return stored / "map.safetensors"
