"""A fit that is killed goes on from its checkpoint to the very result of one that was not."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from otgen import SemiDiscreteOT, data
from otgen.files import read_safetensors, write_safetensors
from otgen.ot import checkpoint
from otgen.ot.solvers.base import State

FIT = """
import sys
from otgen import SemiDiscreteOT, data
print("ready", flush=True)
SemiDiscreteOT(tol=0.002, progress=False, checkpoint=sys.argv[1]).fit(*data.problem("mixture-1000x12"))
"""


def comparable(ot):
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in ot.history_]
    return history, ot.samples_, ot.certificate_, ot.heights_.tolist()


def test_killed_at_any_moment_it_goes_on(tmp_path):
    path = tmp_path / "fit.safetensors"
    kills = 0
    for delay in (0.05, 0.2, 0.1, 0.4):
        process = subprocess.Popen([sys.executable, "-c", FIT, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if path.exists():
            assert read_safetensors(path)[1]["format"] == "otgen-checkpoint-1"  # whole, whenever it is looked at
    assert kills > 0
    problem = data.problem("mixture-1000x12")
    plain = SemiDiscreteOT(tol=0.002, progress=False).fit(*problem)
    resumed = SemiDiscreteOT(tol=0.002, progress=False, checkpoint=path).fit(*problem)
    assert comparable(resumed) == comparable(plain)
    again = SemiDiscreteOT(tol=0.002, progress=False, checkpoint=path).fit(*problem)
    assert comparable(again) == comparable(plain)


@pytest.mark.parametrize("d", [2, 5])
def test_seconds_are_counted_on(tmp_path, d, monkeypatch):
    y, path = data.mixture(60, d), tmp_path / "fit.safetensors"
    save = checkpoint.save

    def save_and_stop(path, state, history, used, identity):
        history[-1]["seconds"] += 1000  # as if it had taken so long
        save(path, state, history, used, identity)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    monkeypatch.setattr(checkpoint, "save", save)
    seconds = [row["seconds"] for row in SemiDiscreteOT(progress=False, checkpoint=path).fit(y).history_]
    assert 1000 <= seconds[0] < 2000 <= seconds[1] < seconds[2] < 3000


def test_of_another_fit_it_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "fit.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    before = path.read_bytes()
    others = [
        *((y, None, settings) for settings in ({"seed": 1}, {"tol": 0.02}, {"source": "normal"}, {"method": "newton"})),
        (y + 1e-3 * torch.randn(60, 4), None, {}),
        (y, torch.arange(1, 61), {}),
    ]
    for other, weights, settings in others:
        with pytest.raises(ValueError, match="belongs to a fit with other targets, weights or settings"):
            SemiDiscreteOT(progress=False, checkpoint=path, **settings).fit(other, weights)
    assert path.read_bytes() == before


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_damaged_one_is_refused(tmp_path, part):
    path = tmp_path / "fit.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="fit.safetensors: wanted a whole .safetensors file"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(y)


@pytest.mark.parametrize("d", [2, 4])
def test_one_with_a_damaged_record_is_refused(tmp_path, d):
    path = tmp_path / "fit.safetensors"
    write_safetensors(path, {"h": torch.zeros(60)}, {"format": checkpoint.FORMAT, "record": "{"})
    with pytest.raises(ValueError, match="fit.safetensors: damaged checkpoint"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(data.mixture(60, d))


def test_what_was_saved_comes_back(tmp_path):
    state = State(torch.randn(3).double(), 4, math.inf, 2, -0.5, math.inf, True, torch.randn(3).double())
    checkpoint.save(tmp_path / "c", state, [{"chi2": 0.5}], 7, "me")
    again, history, used = checkpoint.load(tmp_path / "c", State, "me", 3)
    assert (history, used) == ([{"chi2": 0.5}], 7)
    for name, value in vars(state).items():
        back = getattr(again, name)
        assert torch.equal(back, value) if isinstance(value, torch.Tensor) else back == value


H = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("h", "history", "used", "what"),
    [
        (H + math.nan, [], 0, "h"),
        (H.float(), [], 0, "h"),
        (torch.cat([H, H]), [], 0, "h"),
        (H, [], -1, "its record"),
        (H, [], 2.5, "its record"),
        (H, [{"chi2": "a"}], 0, "its record"),
        (H, [{"chi2": math.nan}], 0, "its record"),
    ],
    ids=["nan", "float32", "six heights", "negative", "fraction", "word", "nan in the history"],
)
def test_what_cannot_be_right_is_refused(tmp_path, h, history, used, what):
    checkpoint.save(tmp_path / "c", State(h), history, used, "me")
    with pytest.raises(ValueError, match=rf"c: damaged checkpoint \({what} cannot be right\)$"):
        checkpoint.load(tmp_path / "c", State, "me", 3)


def test_a_map_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "map.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False).fit(y).save(path)
    with pytest.raises(ValueError, match="expected a checkpoint of otgen"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(y)


def test_its_folder_is_looked_for_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint must be in a folder that exists"):
        SemiDiscreteOT(progress=False, checkpoint=tmp_path / "none" / "fit.safetensors").fit(torch.randn(5, 2))


def test_a_refit_replaces_that_of_the_fit_it_starts_from(tmp_path):
    path, y = tmp_path / "fit.safetensors", data.mixture(60, 4)
    ot = SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    plain = SemiDiscreteOT(progress=False).fit(y).refit(2 * y)
    assert ot.refit(2 * y).heights_.tolist() == plain.heights_.tolist()
    assert ot.refit(3 * y).converged_
    other = SemiDiscreteOT(progress=False).fit(y)
    other.checkpoint = path
    with pytest.raises(ValueError, match="belongs to a fit with other targets, weights or settings"):
        other.refit(4 * y)


@pytest.mark.parametrize(("path", "error"), [("", TypeError), (3, TypeError), (".", IsADirectoryError)])
def test_what_is_no_file_is_refused_first(path, error):
    with pytest.raises(error, match="^checkpoint must be"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(data.mixture(60, 4))


def test_of_another_sampler_it_is_refused(tmp_path):
    path, y = tmp_path / "fit.safetensors", data.mixture(60, 4)

    def cube(n, generator):
        return torch.rand(n, 4, generator=generator)

    def ball(n, generator):
        return torch.randn(n, 4, generator=generator)

    first = SemiDiscreteOT(cube, progress=False, checkpoint=path).fit(y)
    assert comparable(SemiDiscreteOT(cube, progress=False, checkpoint=path).fit(y)) == comparable(first)
    with pytest.raises(ValueError, match="belongs to a fit with other targets, weights or settings"):
        SemiDiscreteOT(ball, progress=False, checkpoint=path).fit(y)
