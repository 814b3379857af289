import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from torch.testing import assert_close

from otgen.models import AE
from otgen.train import Checkpoint, read_checkpoint, train, write_checkpoint

SHAPE = (1, 8, 8)


def history(*values):
    return {"loss": np.array(values)}


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_interrupt_while_writing_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, where):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, Checkpoint({}, 1, history(1.0), {"w": torch.ones(3)}))
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(path, Checkpoint({}, 2, history(1.0, 0.5), {"w": torch.zeros(3)}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_checkpoint_round_trip(tmp_path):
    tied = torch.arange(6.0)
    state = {"a": tied, "b": tied, "c": tied.view(2, 3).T, "n": torch.tensor(3), "g": torch.Generator().get_state()}
    checkpoint = Checkpoint({"data": [4, 2], "seed": 0}, 2, history(0.1, 1e-300), state)
    write_checkpoint(tmp_path / "a", checkpoint)
    back = read_checkpoint(str(tmp_path / "a"))
    assert (back.settings, back.step) == (checkpoint.settings, 2)
    assert {name: values.tolist() for name, values in back.history.items()} == {"loss": [0.1, 1e-300]}
    assert back.state.keys() == state.keys()
    for name in state:
        assert_close(back.state[name], state[name], rtol=0, atol=0)
    with (tmp_path / "a").open("r+b") as file:  # what was read is no view of the file
        whole = file.read()
        file.seek(0)
        file.write(b"\0" * len(whole))
    assert_close(back.state["a"], tied, rtol=0, atol=0)
    assert set(load(whole)) == {f"state.{name}" for name in state} | {"history.loss"}


def test_a_history_keeps_its_order(tmp_path):
    """The first of a model's values is the one to look at first; a file of tensors sorts them by name."""
    values = {name: np.zeros(1) for name in ("loss", "reconstruction", "kl")}
    write_checkpoint(tmp_path / "a", Checkpoint({}, 1, values, {}))
    assert list(read_checkpoint(tmp_path / "a").history) == list(values)


def test_checkpoint_makes_the_same_model_without_pickle(tmp_path, monkeypatch):
    model, other, x = AE(SHAPE, 2, width=4, seed=0), AE(SHAPE, 2, width=4, seed=9), torch.rand(20, *SHAPE)
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
        lambda path: save_file(
            {"a": torch.ones(2)}, path, metadata={"otgen": '{"format": 2, "step": 1, "settings": {}}'}
        ),
        lambda path: save_file({}, path, metadata={"otgen": '{"format": 1, "step": -1, "settings": {}}'}),
        lambda path: save_file({}, path, metadata={"otgen": '{"format": 1, "step": 1}'}),
        lambda path: save_file(
            {"history.loss": torch.ones(2)}, path, metadata={"otgen": '{"format": 1, "step": 3, "settings": {}}'}
        ),
    ],
)
def test_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, Checkpoint({}, 1, history(1.0), {"w": torch.ones(3)}))
    damage(path)
    with pytest.raises(ValueError, match=r"read_checkpoint: .*run.safetensors is not a whole otgen checkpoint: ") as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        read_checkpoint(tmp_path / "nothing.safetensors")


def test_a_state_of_other_things_than_tensors_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"^a model's state must be tensors alone, got dict for net._extra_state$"):
        write_checkpoint(tmp_path / "a", Checkpoint({}, 0, {}, {"w": torch.ones(1), "net._extra_state": {}}))
    assert os.listdir(tmp_path) == []


def test_a_stranger_of_the_name_of_what_comes_before_is_left_alone(tmp_path):
    stranger = tmp_path / "run.prepare"
    model = AE((2,), d=2, width=2)
    x = torch.zeros(20, 2)
    model.fit(x, steps=2, batch_size=10, progress=False, checkpoint=tmp_path / "run")
    stranger.write_text("mine")
    model.fit(x, steps=4, batch_size=10, progress=False, checkpoint=tmp_path / "run", resume=True)
    assert stranger.read_text() == "mine"
