"""The learning process of a GAN: its integrals against closed forms, and what its rules say of numbers made up."""

import math

import pytest
import torch
from contexts import context_of
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn
from torch.testing import assert_close

from otgen import plots
from otgen.experiments import learning_process as learning
from otgen.experiments.experiment import Outcome
from otgen.models import GAN

pytest.importorskip("matplotlib")

NAME = "learning-process"
SCALE = learning.DEVIATION


def linear(slope, intercept):
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(slope)
        layer.bias.fill_(intercept)
    return layer


def scores(slope, intercept):
    return nn.Sequential(linear(slope, intercept), nn.Flatten(0))


@pytest.mark.parametrize("mean", [1.0, 1.7, 2.0])
def test_measures_of_normal_distributions(mean):
    """p_g is normal where G is linear, and of the data's variance D* is the sigmoid of a line."""

    def integrand(x):
        p, q = norm.pdf(x, learning.MEAN, SCALE), norm.pdf(x, mean, SCALE)
        return 0.5 * (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q)))

    js, _ = quad(integrand, -3, 6)
    slope = (learning.MEAN - mean) / SCALE**2
    intercept = (mean**2 - learning.MEAN**2) / (2 * SCALE**2)
    got = learning._measures(linear(SCALE, mean), scores(slope, intercept))
    assert got["js"] == pytest.approx(js, abs=2e-4)
    assert got["value"] == pytest.approx(2 * js - math.log(4), abs=1e-3)
    assert got["to_best"] < 0.003
    blind = learning._measures(linear(SCALE, mean), scores(0.0, 0.0))
    assert blind["value"] == pytest.approx(-math.log(4))
    assert blind["to_half"] == 0
    assert blind["to_best"] == pytest.approx(got["to_half"], abs=0.003)


def test_what_lies_beyond_is_in_the_outermost_bins():
    shares = learning._generated(linear(0.0, 100.0))
    assert shares[-1] == 1
    assert_close(learning._real().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_discriminator_is_trained_to_its_best_and_the_gan_is_left_alone():
    gan = GAN((1,), 1, generator=linear(SCALE, 1.5), critic=scores(0.0, 0.0))
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    best = learning._best(gan, 400, 0.1, 0)
    slope, intercept = (part.item() for part in best[0].parameters())
    assert slope == pytest.approx(0.5 / SCALE**2, abs=0.15)
    assert intercept == pytest.approx((1.5**2 - 2**2) / (2 * SCALE**2), abs=0.3)
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())


def test_from_end_to_end(tmp_path):
    context = context_of(NAME, tmp_path, n_critic=[1, 2], repeats=1, steps=100, looks=5, batch=4, width=1, best=2)
    outcomes = {part: work() for part, work in learning.parts(context).items()}
    assert list(outcomes) == ["1-0", "2-0"]
    for outcome in outcomes.values():
        assert [look["step"] for look in outcome.values["rows"]] == [20, 40, 60, 80, 100]
        assert [look["step"] for look in outcome.values["best"]] == [1, 5, 20, 100]
    again = learning.parts(context)["2-0"]()
    assert again.values == outcomes["2-0"].values != outcomes["1-0"].values
    findings = learning.conclude(context, outcomes)
    assert len(findings.claims) == 3
    for claim in findings.claims:
        assert claim.figure in findings.pictures
    for picture in findings.pictures.values():
        assert plots.render(picture.figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("best", "end", "confirmed"),
    [
        ({}, {}, [True, True, True]),
        ({"to_best": 0.06}, {}, [False, True, True]),
        ({"value": 0.2 - math.log(4) - 0.06}, {}, [True, False, True]),
        ({}, {"js": 0.06}, [True, True, False]),
        ({}, {"to_half": 0.06}, [True, True, False]),
    ],
    ids=["theory", "not D*", "another value", "JS is left", "D is sure"],
)
def test_each_claim_hangs_on_its_own_numbers(tmp_path, best, end, confirmed):
    context = context_of(NAME, tmp_path)
    outcomes = {}
    for k in (1, 5):
        for r in range(3):
            spoilt = k == 5 and r == 1
            look = {"step": 10, "js": 0.1, "value": 0.2 - math.log(4), "to_best": 0.01, "to_half": 0.3}
            last = {"step": 20, "js": 0.01 if k == 5 else 0.2, "value": 0.0, "to_best": 0.1, "to_half": 0.02}
            rows = [look, last | (end if spoilt else {})]
            values = {"n_critic": k, "repeat": r, "rows": rows, "best": [look | (best if spoilt else {})]}
            outcomes[f"{k}-{r}"] = Outcome(values, {"d": torch.full((1, 3, learning.BINS), 0.5)})
    claims = learning.conclude(context, outcomes).claims
    assert [claim.verdict == "confirmed" for claim in claims] == confirmed


def test_too_few_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="^steps must be at least 100 and as many as looks, got 99"):
        learning.parts(context_of(NAME, tmp_path, steps=99))
