"""The files that models are saved to: what they hold, and what is refused."""

import gc
import json
import re

import numpy as np
import pytest
import torch
from fits import assert_same_state
from safetensors.torch import save_file
from small_models import Mean, data, fit, small
from torch import nn
from torch.testing import assert_close

from otgen.files import read_safetensors
from otgen.models import AE, AEOT, AEOTGAN, MODELS, VAE, Autoencoder, load


def test_a_file_holds_the_recipe_and_tensors(tmp_path):
    inner = Mean((2,), rate=0.25)
    model = Mean((1, 8, 8), d=2, other=inner, seed=6)
    model.save(tmp_path / "m")
    tensors, metadata = read_safetensors(tmp_path / "m")
    recipe = json.loads(metadata["recipe"])
    assert recipe["model"] == "Mean"
    assert recipe["arguments"]["shape"] == [1, 8, 8]
    assert recipe["arguments"]["rate"] == 0.5  # not given, but another version may have another default
    assert recipe["arguments"]["other"]["arguments"]["rate"] == 0.25
    assert "device" not in recipe["arguments"]
    assert {"state.mean", "state.rng", "state.other.mean", "state.other.rng"} == set(tensors)
    again = load(tmp_path / "m")
    assert (again.seed, again.other.rate, again.shape) == (6, 0.25, (1, 8, 8))


@pytest.mark.parametrize("kind", [VAE, AEOT, MODELS["glann"], MODELS["gan"]])
def test_a_file_keeps_the_precision(kind, tmp_path):
    model = fit(small(kind, (2,)).double(), data((2,)))
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert_close(again.sample(5, 7), model.sample(5, 7), rtol=0, atol=0)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float64}
    fit(model, data((2,)))
    fit(again, data((2,)))
    assert_same_state(again.state_dict(), model.state_dict())


def test_networks_inside_an_inner_model_come_with_it(tmp_path):
    def inner():
        return AEOT((2,), 2, encoder=nn.Linear(2, 2), decoder=nn.Linear(2, 2), tol=5.0)

    model = AEOTGAN((2,), aeot=inner(), width=2)
    model.save(tmp_path / "m")
    wanted = r"AEOT was made with encoder=a Linear of your own: load\(path, aeot=...\) wants the AEOT with one$"
    with pytest.raises(ValueError, match=wanted):
        load(tmp_path / "m")
    again = load(tmp_path / "m", aeot=inner())
    assert_close(again.reconstruct(data((2,))), model.reconstruct(data((2,))), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ("{", "not a whole model of otgen"),
        ("[]", "not a whole model of otgen: it names no class"),
        ('{"model": "os.system", "arguments": {}}', "the model must be one of .*AE, .* got 'os.system'"),
        ('{"model": "AE", "arguments": {"shape": [2], "lr": -1}}', "AE: lr must be a positive number, got -1"),
        ('{"model": "AE", "arguments": {"shape": [2], "shoes": 1}}', ".*unexpected keyword argument"),
        ('{"model": "AE", "arguments": {"shape": [2], "width": 2}}', "its weights do not fit the model"),
        ('{"model": "AE", "arguments": 3}', "not a whole model of otgen"),
        ('{"model": "AE"}', "not a whole model of otgen"),
        ("[" * 100_000, "not a whole model of otgen"),
    ],
)
def test_a_forged_file_is_refused_in_one_line(tmp_path, recipe, wanted):
    path = tmp_path / "forged"
    save_file({"state.x": torch.ones(2)}, path, metadata={"format": "otgen-model-1", "recipe": recipe})
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {wanted}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a", metadata={"format": "otgen-transport-1"})
    with pytest.raises(ValueError, match=r"wanted a model saved by otgen \(otgen-model-1\), got otgen-transport-1"):
        load(tmp_path / "a")
    AE((2,), width=2).fit(torch.rand(8, 2), steps=1, batch_size=8, progress=False, checkpoint=tmp_path / "e")
    with pytest.raises(ValueError, match=r"wanted a model .*, got a checkpoint, from which resume goes on"):
        load(tmp_path / "e")
    (tmp_path / "b").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match=r"wanted a whole .safetensors file"):
        load(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "c")
    AE((2,), width=2).save(tmp_path / "d")
    with pytest.raises(ValueError, match="device must be one that torch finds here"):
        load(tmp_path / "d", device="abacus")


def test_a_class_of_the_same_name_does_not_take_the_place_of_ours(tmp_path):
    AE((2,), d=2, width=2).save(tmp_path / "model")
    other = type("AE", (Autoencoder,), {"step": lambda self, batch: {}})
    with pytest.raises(ValueError, match=r"must be of one class, got otgen.models.ae.AE and .*AE: rename yours"):
        load(tmp_path / "model")
    del other
    gc.collect()
    load(tmp_path / "model")


@pytest.mark.parametrize("bases", [(AE, AE), (AE, VAE), (VAE, AE)])
def test_a_class_that_is_defined_anew_takes_the_place_of_the_one_before(tmp_path, bases):
    kinds = [type("OfACell", (base,), {}) for base in bases]  # a notebook's cell that was run twice
    kinds[1]((2,), d=2, width=2).save(tmp_path / "model")
    assert type(load(tmp_path / "model")) is kinds[1]


def test_arguments_may_be_numbers_of_numpy(tmp_path):
    model = AE((2,), d=np.int64(4), lr=np.float32(1e-3))
    assert model.d == 4
    gan = MODELS["gan"](tuple(np.array([1, 8, 8])), 3, width=2, betas=[np.float32(0.5), 0.75])
    assert gan.critic_optimiser.param_groups[0]["betas"] == (0.5, 0.75)
    assert MODELS["gan"]((2,), 3, width=2, betas=(0, 0.75)).critic_optimiser.param_groups[0]["betas"] == (0, 0.75)
    gan.save(tmp_path / "gan")
    again = load(tmp_path / "gan")
    assert (again.shape, again.critic_optimiser.param_groups[0]["betas"]) == ((1, 8, 8), (0.5, 0.75))
    AEOT((2,), width=2, angle_threshold=torch.tensor(0.5)).save(tmp_path / "aeot")
    assert load(tmp_path / "aeot").prior.angle_threshold == 0.5
    aeotgan = MODELS["ae-ot-gan"]((np.int64(2),), 1, width=2, content=np.float32(0.5), feature=np.int64(1))
    assert (aeotgan.content, aeotgan.feature) == (0.5, 1)
    for truth in ({"shape": (True,)}, {"betas": (False, 0.5)}):
        with pytest.raises(ValueError, match="^GAN: (shape|betas) must be "):
            MODELS["gan"](**({"shape": (2,), "width": 2} | truth))
