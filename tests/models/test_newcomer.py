"""The model that the docstring of otgen/models/base.py shows to newcomers, written into a file as it stands there."""

import importlib.util
import re
import textwrap

import pytest
import torch

from otgen import data
from otgen.models import base, load


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    example = re.search(r"^    from torch\.optim import Adam\n.*?(?=^\S)", base.__doc__, re.DOTALL | re.MULTILINE)[0]
    path = tmp_path_factory.mktemp("own") / "mygan.py"
    path.write_text(textwrap.dedent(example))
    spec = importlib.util.spec_from_file_location("mygan", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MyGAN


def test_it_trains_samples_and_goes_through_a_file(kind, tmp_path):
    x = data.digits()[0][:64].view(-1, 1, 8, 8)
    model = kind((1, 8, 8), d=4, width=2, lr=1e-3)
    before = model.sample(3, 0)
    model.fit(x, steps=4, batch_size=16, progress=False)
    assert set(model.history_) == {"critic", "generator"}
    made = model.sample(3, 0)
    assert made.shape == (3, 1, 8, 8)
    assert not torch.equal(made, before)
    model.save(tmp_path / "m.safetensors")
    torch.testing.assert_close(load(tmp_path / "m.safetensors").sample(3, 0), made, rtol=0, atol=0)


def test_it_resumes_exactly(kind, tmp_path):
    run = {"batch_size": 16, "progress": False}
    whole = kind((2,), 4, width=2).fit(data.swiss_roll(64), steps=6, **run)
    path = tmp_path / "c.safetensors"
    stop = [lambda model, step, values: step == 3]
    kind((2,), 4, width=2).fit(data.swiss_roll(64), steps=6, checkpoint=path, callbacks=stop, **run)
    rest = kind((2,), 4, width=2).fit(data.swiss_roll(64), steps=6, checkpoint=path, resume=True, **run)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"width": 0}, "MyGAN: width must be a whole number >= 1, got 0"),
        ({"d": 0}, "MyGAN: d must be a whole number >= 1, got 0"),
        ({"lr": -1.0}, "MyGAN: lr must be a positive number, got -1.0"),
        ({"seed": -1}, "MyGAN: seed must be a whole number >= 0"),
        ({"generator": torch.nn.Linear(3, 2)}, "MyGAN: generator must take .*64"),
    ],
)
def test_it_refuses_what_cannot_work_in_one_line(kind, wrong, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        kind((2,), **wrong)
    assert "\n" not in str(caught.value)


def test_what_it_cannot_do_it_says(kind):
    with pytest.raises(TypeError, match="^MyGAN cannot encode: it has no encoder$"):
        kind((2,), width=2).encode(torch.zeros(1, 2))
