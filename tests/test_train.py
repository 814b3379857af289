import os
import pickle
import signal
import time

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn
from torch.testing import assert_close

import otgen.train
from otgen.models import AE, Model
from otgen.train import Checkpoint, read_checkpoint, train, write_checkpoint

SHAPE = (1, 8, 8)


class Line(Model):
    """Fits a constant to noisy data: two optimisers, own noise and a counter, as a GAN has them."""

    def __init__(self, stop_at=None, seed=0):
        super().__init__((2,))
        self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        self.adam, self.rms = torch.optim.Adam([self.a], lr=0.1), torch.optim.RMSprop([self.b], lr=0.1, momentum=0.9)
        self.noise = torch.Generator().manual_seed(seed)
        self.register_buffer("count", torch.tensor(0))
        self.seen, self.stop_at = [], stop_at

    def step(self, batch):
        self.seen.append(batch)
        self.count += 1
        error = batch + 0.1 * torch.randn(batch.shape, generator=self.noise) - self.a * self.b.exp()
        loss = error.square().mean()
        self.zero_grad()
        loss.backward()
        self.adam.step()
        if self.count == self.stop_at:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C between the two halves of a step
        self.rms.step()
        return {"loss": loss.item(), "count": self.count.item()}


def points(n=20):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(5)) + 3


def images(n=20):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def assert_same_run(model, history, other, other_history):
    assert history == other_history
    a, b = model.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert_close(a[name], b[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


# --- the loop --------------------------------------------------------------------------------------------------------


def test_training_reduces_the_loss():
    x = images(32).round()
    history = train(AE(SHAPE, 8, width=8, lr=3e-3), x, epochs=60, batch_size=8, progress=False)
    assert len(history["loss"]) == 60 * 4
    assert 0 < sum(history["loss"][-4:]) < 0.25 * sum(history["loss"][:4])


def test_an_epoch_shows_each_row_once_in_full_batches():
    model, data = Line(), points(11)
    train(model, data, epochs=3, batch_size=3, progress=False)
    assert [len(batch) for batch in model.seen] == [3] * 9
    epochs = [torch.cat(model.seen[start : start + 3]) for start in (0, 3, 6)]
    for rows in epochs:
        wanted = data[[(data == row).all(dim=1).nonzero().item() for row in rows]]
        assert_close(rows, wanted, rtol=0, atol=0)
        assert len(rows.unique(dim=0)) == 9
    assert not torch.equal(epochs[0], epochs[1])


def test_seed_decides_the_order_and_spares_the_global_state():
    models, state = [Line(), Line(), Line()], torch.get_rng_state()
    for model, seed in zip(models, (3, 3, 4), strict=True):
        train(model, points(), steps=7, batch_size=4, seed=seed, progress=False)
    same, again, other = (torch.cat(model.seen) for model in models)
    assert_close(same, again, rtol=0, atol=0)
    assert not torch.equal(same, other)
    assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


def test_steps_and_epochs_agree():
    a, b = Line(), Line()
    assert_same_run(
        a, train(a, points(), epochs=3, batch_size=6, progress=False),
        b, train(b, points(), steps=9, batch_size=6, progress=False),
    )  # fmt: skip
    assert train(Line(), points(), steps=4, batch_size=6, progress=False)["count"] == [1, 2, 3, 4]


def test_progress_bar_on_stderr_for_long_runs_only(capfd, monkeypatch):
    train(Line(), points(), steps=3, batch_size=4)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(otgen.train, "BAR_DELAY", 0.0)
    train(Line(), points(), steps=3, batch_size=4)
    out, err = capfd.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss=" in err
    train(Line(), points(), steps=3, batch_size=4, progress=False)
    assert capfd.readouterr() == ("", "")


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Line, lambda: AE(SHAPE, 3, width=4)])
@pytest.mark.parametrize("stop", [1, 5, 6, 10])
def test_resumed_run_is_bit_identical(tmp_path, build, stop):
    """Five steps make an epoch; stopped inside the first, at its end, in the second, at the end of all."""
    whole, first, second = build(), build(), build()
    data = points() if isinstance(whole, Line) else images()
    run = {"batch_size": 4, "seed": 2, "progress": False}
    wanted = train(whole, data, steps=10, **run)
    path = tmp_path / "run.safetensors"
    train(first, data, steps=stop, checkpoint=path, **run)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.fill_(7.0)  # all of it must come from the file
    assert_same_run(second, train(second, data, steps=10, checkpoint=path, resume=True, **run), whole, wanted)
    assert read_checkpoint(path).step == 10


def test_resume_without_a_file_starts_at_the_beginning(tmp_path):
    a, b, run = Line(), Line(), {"steps": 3, "batch_size": 4, "progress": False}
    history = train(a, points(), checkpoint=tmp_path / "a", resume=True, **run)
    assert_same_run(a, history, b, train(b, points(), **run))


def test_interrupt_leaves_the_last_checkpoint_whole(tmp_path):
    path, whole = tmp_path / "run.safetensors", Line()
    run = {"batch_size": 4, "progress": False}
    wanted = train(whole, points(), steps=9, **run)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=7), points(), steps=9, checkpoint=path, checkpoint_seconds=0.0, **run)
    assert read_checkpoint(path).step == 6
    assert os.listdir(tmp_path) == ["run.safetensors"]
    model = Line()
    assert_same_run(model, train(model, points(), steps=9, checkpoint=path, resume=True, **run), whole, wanted)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_interrupt_while_writing_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, where):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, Checkpoint({}, 1, {"loss": [1.0]}, {"w": torch.ones(3)}))
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(path, Checkpoint({}, 2, {"loss": [1.0, 0.5]}, {"w": torch.zeros(3)}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(otgen.train, "write_checkpoint", lambda path, checkpoint: written.append(checkpoint.step))
    monkeypatch.setattr(time, "monotonic", iter(range(100)).__next__)  # each look at the clock takes a second
    run = {"steps": 9, "batch_size": 4, "checkpoint": tmp_path / "a", "progress": False}
    train(Line(), points(), checkpoint_seconds=2.0, **run)
    # a write looks at the clock as well, so the next is three looks after it
    assert written == [2, 4, 6, 8, 9]
    written.clear()
    train(Line(), points(), checkpoint_seconds=1000.0, **run)
    assert written == [9]


def test_checkpoint_round_trip(tmp_path):
    tied = torch.arange(6.0)
    state = {"a": tied, "b": tied, "c": tied.view(2, 3).T, "n": torch.tensor(3), "g": torch.Generator().get_state()}
    checkpoint = Checkpoint({"data": [4, 2], "seed": 0}, 2, {"loss": [0.1, 1e-300]}, state)
    write_checkpoint(tmp_path / "a", checkpoint)
    back = read_checkpoint(str(tmp_path / "a"))
    assert (back.settings, back.step, back.history) == (checkpoint.settings, 2, checkpoint.history)
    assert back.state.keys() == state.keys()
    for name in state:
        assert_close(back.state[name], state[name], rtol=0, atol=0)
    with (tmp_path / "a").open("r+b") as file:  # what was read is no view of the file
        whole = file.read()
        file.seek(0)
        file.write(b"\0" * len(whole))
    assert_close(back.state["a"], tied, rtol=0, atol=0)
    assert set(load(whole)) == {f"state.{name}" for name in state} | {"history.loss"}


def test_checkpoint_makes_the_same_model_without_pickle(tmp_path, monkeypatch):
    model, other, x = AE(SHAPE, 2, width=4, seed=0), AE(SHAPE, 2, width=4, seed=9), images()
    train(model, x, steps=2, batch_size=4, checkpoint=tmp_path / "ae", progress=False)
    for module, name in [(pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, name, None)
    other.load_state_dict(read_checkpoint(tmp_path / "ae").state)
    assert_close(other.encode(x), model.encode(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04K\x01." * 40),
        lambda path: save_file({"a": torch.ones(2)}, path),
        lambda path: save_file({"a": torch.ones(2)}, path, metadata={"otgen": "{"}),
        lambda path: save_file({"a": torch.ones(2)}, path, metadata={"otgen": '{"format": 2}'}),
        lambda path: save_file({}, path, metadata={"otgen": '{"format": 1, "step": 0, "settings": {}}'}),
        lambda path: save_file({}, path, metadata={"otgen": '{"format": 1, "step": 1}'}),
        lambda path: save_file(
            {"history.loss": torch.ones(2)}, path, metadata={"otgen": '{"format": 1, "step": 3, "settings": {}}'}
        ),
    ],
)
def test_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, Checkpoint({}, 1, {"loss": [1.0]}, {"w": torch.ones(3)}))
    damage(path)
    with pytest.raises(ValueError, match=r"read_checkpoint: .*run.safetensors is not a whole otgen checkpoint: ") as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        read_checkpoint(tmp_path / "nothing.safetensors")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"seed": 1}, "was made with seed=0, got seed=1"),
        ({"batch_size": 5}, "was made with batch_size=4, got batch_size=5"),
        ({"data": points(24)}, r"was made with data=\[20, 2\], got data=\[24, 2\]"),
        ({"model": AE((2,), 2, width=4)}, "was made with model=Line, got model=AE"),
        ({"steps": 3}, "has 4 steps behind it, more than the 3 asked for"),
        ({"resume": False}, "is there already; go on from it with resume=True, or remove it"),
    ],
)
def test_resume_with_other_settings(tmp_path, change, wanted):
    path = tmp_path / "run.safetensors"
    arguments = {"model": Line(), "data": points(), "batch_size": 4, "steps": 4, "checkpoint": path, "progress": False}
    train(**arguments)
    before = path.read_bytes()
    with pytest.raises((ValueError, FileExistsError), match=rf"train: .*run.safetensors {wanted}"):
        train(**(arguments | {"model": Line(), "resume": True} | change))
    assert path.read_bytes() == before


def test_resume_with_another_architecture(tmp_path):
    arguments = {"data": images(), "batch_size": 4, "steps": 2, "checkpoint": tmp_path / "ae", "progress": False}
    train(AE(SHAPE, 2, width=4), **arguments)
    with pytest.raises(ValueError, match=r"train: .*ae does not fit the model: .*encoder") as error:
        train(AE(SHAPE, 3, width=4), resume=True, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "kind", "wanted"),
    [
        ({"data": points().numpy()}, TypeError, r"data must be a torch tensor \(n, ...\), got ndarray"),
        ({"data": torch.ones(4)}, ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(4,\)"),
        ({"data": torch.ones(0, 2)}, ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(0, 2\)"),
        ({"batch_size": 21}, ValueError, "batch_size must be from 1 to the 20 rows of data, got 21"),
        ({"batch_size": 0}, ValueError, "batch_size must be from 1 to the 20 rows of data, got 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"epochs": 1}, ValueError, "either epochs or steps must be given, got epochs=1, steps=2"),
        ({"steps": None}, ValueError, "either epochs or steps must be given, got epochs=None, steps=None"),
        ({"steps": 0}, ValueError, "epochs or steps must be at least 1, got epochs=None, steps=0"),
        ({"resume": True}, ValueError, "resume needs the path of a checkpoint, got None"),
        ({"checkpoint": "no/such/folder/a"}, FileNotFoundError, "the checkpoint's folder must exist, got no/such/"),
    ],
)
def test_bad_arguments(arguments, kind, wanted):
    model = Line()
    with pytest.raises(kind, match=f"^train: {wanted}"):
        train(model, **({"data": points(), "steps": 2, "batch_size": 4, "progress": False} | arguments))
    assert model.seen == []


def test_values_that_are_not_sound(tmp_path):
    class Odd(Line):
        def step(self, batch):
            super().step(batch)
            return self.values[int(self.count) - 1]

    model, path = Odd(), tmp_path / "a"
    model.values = [{"loss": 1.0}, {"loss": float("nan")}]
    with pytest.raises(FloatingPointError, match="train: loss must stay finite, got nan at step 2; try a smaller lr"):
        train(model, points(), steps=2, batch_size=4, checkpoint=path, checkpoint_seconds=0.0, progress=False)
    assert read_checkpoint(path).step == 1
    model = Odd()
    model.values = [{"loss": 1.0}, {"other": 1.0}]
    with pytest.raises(ValueError, match=r"train: step must return \['loss'\] each time, got \['other'\] at step 2"):
        train(model, points(), steps=2, batch_size=4, progress=False)
