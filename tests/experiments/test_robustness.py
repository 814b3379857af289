"""WGAN's robustness: the generators, the verdicts, and the whole in very small."""

from functools import partial

import pytest
import torch
from contexts import context_of
from torch import nn

from otgen import plots
from otgen.experiments import lineup, robustness
from otgen.experiments.registry import EXPERIMENTS
from otgen.metrics import train_lenet

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28)])
def test_the_three_generators(shape):
    made = {name: make(5, shape, 2) for name, make in robustness.GENERATORS.items()}
    for network in made.values():
        images = network(torch.randn(3, 5)).detach()
        assert images.shape == (3, *shape)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
    normalised = {name: any(isinstance(p, nn.BatchNorm2d) for p in net.modules()) for name, net in made.items()}
    assert normalised == {"DCGAN": True, "no batch norm": False, "MLP": False}
    convolved = {name: any(isinstance(p, nn.ConvTranspose2d) for p in net.modules()) for name, net in made.items()}
    assert convolved == {"DCGAN": True, "no batch norm": True, "MLP": False}


def judged(fid, uneven, untaught=(), wide=1.01):
    keys = [(generator, loss) for generator in robustness.GENERATORS for loss in robustness.LOSSES]
    spread = {key: [value, 1.01 * value] for key, value in zip(keys, fid, strict=True)}
    classes = {key: [value, wide * value] for key, value in zip(keys, uneven, strict=True)}
    left = {name: 0.3 if name in untaught else 0.1 for name in robustness.GENERATORS}
    return [claim.verdict for claim in robustness._claims(spread, classes, left)]


def test_verdicts():
    even, collapsed, both = [0.1] * 6, [0.1] * 4 + [0.9, 0.1], [0.1] * 4 + [0.9, 0.5]
    assert judged([10, 10, 30, 11, 40, 12], collapsed) == ["confirmed"] * 4
    assert judged([10, 10, 11, 30, 12, 40], even) == ["not confirmed"] * 3 + ["confirmed"]
    assert judged([10, 10, 30, 11, 11, 40], collapsed) == ["not confirmed"] + ["confirmed"] * 3
    assert judged([10, 10, 30, 11, 40, 12], both) == ["confirmed"] * 3 + ["not confirmed"]
    assert judged([10, 10, 30, 11, 40, 12], even, wide=4)[3] == "not confirmed"  # they cannot tell whether one is lost
    for name, able in {"DCGAN": [], "no batch norm": [2, 3], "MLP": [1]}.items():  # what can still be judged
        found = judged([10, 10, 30, 11, 40, 12], collapsed, untaught=[name])
        assert found == ["confirmed" if k in able else "not testable at this size" for k in range(4)]


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="data must be one of digits, mnist, got 'lsun'"):
        robustness.parts(context_of("robustness", tmp_path, data="lsun"))


@pytest.mark.slow
def test_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lineup, "train_lenet", partial(train_lenet, epochs=1))
    context = context_of("robustness", tmp_path, repeats=1, steps=2, width=1, d=3)
    experiment = EXPERIMENTS["robustness"]
    outcomes = {part: work() for part, work in experiment.parts(context).items()}
    starts = {(o.values["generator"], o.values["loss"]): o.values["untrained"] for o in outcomes.values()}
    assert len(starts) == 6
    for generator in robustness.GENERATORS:  # both losses start from the same weights
        assert starts[generator, "JS"] == pytest.approx(starts[generator, "W"])
    findings = experiment.conclude(context, outcomes)
    assert {claim.verdict for claim in findings.claims} == {"not testable at this size"}
    assert all(claim.figure in findings.pictures and claim.evidence for claim in findings.claims)
    (table,) = findings.tables
    assert len(table.rows) == 6
    assert {len(row) for row in table.rows} == {len(table.header)}
    for picture in findings.pictures.values():
        assert plots.render(picture.figure).startswith(b"\x89PNG")
