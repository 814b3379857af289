"""Match or not match: in very small, and what its rules say of numbers made up."""

from functools import partial

import pytest
import torch
from contexts import context_of
from torch.testing import assert_close

from otgen import plots
from otgen.experiments import lineup, match_or_not
from otgen.experiments.experiment import Outcome
from otgen.metrics import train_lenet
from otgen.models import AE, VAE, WAEMMD

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

NAME, WEIGHTS = "match-or-not", [0.1, 1, 10]


@pytest.mark.slow
def test_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lineup, "train_lenet", partial(train_lenet, epochs=1))
    context = context_of(NAME, tmp_path, weights=WEIGHTS, repeats=1, d=3, width=2, steps=2)
    outcomes = {part: work() for part, work in match_or_not.parts(context).items()}
    assert list(outcomes) == ["ae-ot-0"] + [f"{name}-{w}-0" for name in ("vae", "wae-mmd") for w in ("0.1", "1", "10")]
    findings = match_or_not.conclude(context, outcomes)
    assert {claim.verdict for claim in findings.claims} == {"not testable at this size"}
    assert {len(row) for row in findings.tables[0].rows} == {len(findings.tables[0].header)}
    assert len(findings.tables[0].rows) == 7
    for picture in findings.pictures.values():
        assert plots.render(picture.figure).startswith(b"\x89PNG")


GOOD = {
    ("ae-ot", 0.0): {"error": 1.0, "fid": 1.0, "distance": 5.0},
    ("vae", 0.1): {"error": 1.0, "fid": 9.0, "distance": 5.0},
    ("vae", 1.0): {"error": 1.0, "fid": 3.0, "distance": 2.0},
    ("vae", 10.0): {"error": 4.0, "fid": 9.0, "distance": 1.0},
    ("wae-mmd", 0.1): {"error": 1.0, "fid": 9.0, "distance": 5.0},
    ("wae-mmd", 1.0): {"error": 2.0, "fid": 1.0, "distance": 2.0},
    ("wae-mmd", 10.0): {"error": 4.0, "fid": 9.0, "distance": 1.0},
}
"""A dilemma as the lecture has it."""


def verdicts(tmp_path, changes, repeats=3):
    context = context_of(NAME, tmp_path, weights=WEIGHTS, repeats=repeats)
    outcomes = {}
    for (model, weight), values in GOOD.items():
        values = values | changes.get((model, weight), {})
        for r in range(repeats):
            noisy = {key: value + 0.01 * (r - 1) for key, value in values.items()}
            rest = {"model": model, "weight": weight, "repeat": r, "n": 9, "metric": "FID[x]", "floor": 0.1}
            outcomes[f"{model}-{weight:g}-{r}"] = Outcome(noisy | rest, {"images": torch.zeros(9, 1, 8, 8)})
    claims = match_or_not.conclude(context, outcomes).claims
    return [claim.verdict == "confirmed" for claim in claims], claims


@pytest.mark.parametrize(
    ("changes", "confirmed"),
    [
        ({}, [True, True, True]),
        ({("vae", 0.1): {"fid": 3.0}}, [False, True, True]),
        ({("wae-mmd", 0.1): {"distance": 2.0}}, [False, True, True]),
        ({("vae", 10.0): {"error": 1.0}}, [True, False, True]),
        ({("vae", 1.0): {"fid": 1.0}}, [True, True, False]),
        ({("wae-mmd", 1.0): {"error": 0.9}}, [True, True, False]),
    ],
    ids=["dilemma", "weak makes good samples", "weak matches", "strong codes well", "a middle", "a better middle"],
)
def test_each_claim_hangs_on_its_own_numbers(tmp_path, changes, confirmed):
    assert verdicts(tmp_path, changes)[0] == confirmed


def test_the_evidence_names_what_is_as_good(tmp_path):
    _, claims = verdicts(tmp_path, {("vae", 1.0): {"fid": 1.0}})
    assert "As good in both: vae with weight 1 of 6." in claims[2].evidence
    assert "The least FID of the others is 1 ± 0.01 (vae, weight 1, error 1 ± 0.01)" in claims[2].evidence


def test_weights_are_in_units_of_the_models_own(tmp_path, monkeypatch):
    assert match_or_not._penalty("vae", 1, 64) == {"beta": VAE((1, 8, 8)).beta}
    assert match_or_not._penalty("wae-mmd", 1, 64) == {"penalty_weight": WAEMMD((1, 8, 8)).penalty_weight}
    monkeypatch.setattr(WAEMMD, "fit", lambda self, *_, **__: self)
    model = lineup.train(context_of(NAME, tmp_path), "wae-mmd", torch.zeros(4, 1, 8, 8), 0, penalty_weight=3.0)
    assert model.penalty_weight == 3


def test_codes_are_those_that_a_model_draws():
    x = torch.rand(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))[:1].expand(4000, 1, 8, 8)
    vae = VAE((1, 8, 8), 2, width=2, seed=0)
    mean, log_var = vae.posterior(x[:1])
    codes = match_or_not._codes(vae, x, 0)
    assert_close(codes.mean(0), mean[0], atol=0.1, rtol=0)
    assert_close(codes.std(0), (0.5 * log_var[0]).exp(), atol=0.1, rtol=0.05)
    ae = AE((1, 8, 8), 2, width=2, seed=0)
    assert_close(match_or_not._codes(ae, x[:3], 0), ae.encode(x[:3]))


@pytest.mark.parametrize("weights", [[0, 1, 10], [1, 10], [0.1, 1], [10, 1, 0.1]])
def test_weights_lie_on_both_sides_of_the_papers(tmp_path, weights):
    with pytest.raises(ValueError, match="^weights must be positive, from weak to strong, with 1 between them, got"):
        match_or_not.parts(context_of(NAME, tmp_path, weights=weights))


def test_halves_share_no_image():
    seen, unseen = lineup.halves(torch.arange(11), 0)
    assert len(seen) == len(unseen) == 5
    assert len({*seen.tolist(), *unseen.tolist()}) == 10
    assert lineup.halves(torch.arange(11), 1)[0].tolist() != seen.tolist()
