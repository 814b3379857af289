"""Mode collapse: arithmetic and structure, and the whole in very small."""

import pytest
import torch
from contexts import context_of
from scipy.stats import ttest_ind
from torch.testing import assert_close

from otgen import plots
from otgen.experiments import mode_collapse
from otgen.experiments.registry import EXPERIMENTS
from otgen.experiments.report import READING
from otgen.experiments.spread import above, judged, mean_and_spread, not_above, plus_minus

pytest.importorskip("matplotlib")

TINY = {"sets": ["ring"], "repeats": 1, "points": 64, "steps": 2, "batch": 16, "width": 1, "n": 50}


@pytest.mark.parametrize("models", [["GAN", "PacGAN2", "VAE"], ["WGAN", "AE-OT"]])
def test_from_end_to_end(models, tmp_path):
    context = context_of("mode-collapse", tmp_path, **TINY, models=models)
    experiment = EXPERIMENTS["mode_collapse"]
    outcomes = {part: work() for part, work in experiment.parts(context).items()}
    findings = experiment.conclude(context, outcomes)
    assert len(findings.claims) == (3 if "GAN" in models else 2)
    assert all(claim.figure in findings.pictures and claim.evidence for claim in findings.claims)
    assert all("Confirmed means" in claim.evidence for claim in findings.claims)
    (table,) = findings.tables
    assert "a reverse KL of 0.07 (ring)" in table.caption  # 7 / (2 * 50)
    assert [row[1] for row in table.rows] == ["data", *models]
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert plots.render(findings.pictures["modes-ring.png"].figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", mode_collapse.SETS)
def test_centres_and_deviations_are_those_of_the_data(name):
    draw, centres, std = mode_collapse.SETS[name]
    x = draw(200 * len(centres), 3).double()
    each = x.view(200, len(centres), 2)
    nearest = torch.cdist(each.mean(0), centres).min(1)
    assert len(nearest.indices.unique()) == len(centres)
    assert float(nearest.values.max()) < std
    assert_close(each.std(0).mean(), torch.tensor(std, dtype=torch.float64), rtol=0.02, atol=0.0)
    values = mode_collapse._scored(name, "data", 0, x).values
    assert values["found"] == len(centres)
    assert values["share"] == pytest.approx(mode_collapse.WHOLE, abs=0.01)
    assert values["reverse_kl"] < 1e-9  # modes take turns


def runs_of(**models):
    return {
        ("ring", model): [{"found": f, "share": s, "reverse_kl": k} for f, s, k in some]
        for model, some in models.items()
    }


def test_verdicts():
    runs = runs_of(
        **{
            "GAN": [(8, 0.90, 0.5), (7, 0.92, 0.6)],
            "PacGAN2": [(8, 0.9, 0.1), (8, 0.9, 0.11)],
            "AE-OT": [(8, 0.99, 0.01), (8, 0.98, 0.01)],
        }
    )
    assert [claim.verdict for claim in mode_collapse._claims(["ring"], runs)] == ["confirmed"] * 5
    runs["ring", "AE-OT"][0]["found"] = 7
    runs["ring", "GAN"] = [{"found": 8, "share": 0.995, "reverse_kl": 0.05}] * 2
    assert [claim.verdict for claim in mode_collapse._claims(["ring"], runs)] == ["not confirmed"] * 5
    runs["ring", "GAN"] = [{"found": 3, "share": share, "reverse_kl": 0.05} for share in (0.2, 0.9)]  # one has not
    runs["ring", "PacGAN2"] = [{"found": 3, "share": 0.2, "reverse_kl": 0.05}]
    untested = [claim.verdict == "not testable at this size" for claim in mode_collapse._claims(["ring"], runs)]
    assert untested == [True, True, True, False, True]


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="models must be of GAN, .*, AE-OT, got 'AE'"):
        mode_collapse.parts(context_of("mode-collapse", tmp_path, models=["AE"]))


def test_mean_and_spread():
    assert plus_minus([1.0, 2.0, 3.0]) == "2 ± 1"
    assert plus_minus([0.5], ".1%") == "50.0%"
    assert plus_minus([1000.0, 1040.0]) == "1020 ± 30"
    assert plus_minus([0.5, 0.52], ".1%") == "51.0% ± 1.4%"
    assert above([2.0, 2.1], [1.0, 1.1]) is True
    assert above([2.0, 0.0], [1.0, -1.1]) is False
    assert above([1.18, 1.28], [1.0, 1.1]) is True  # by two standard errors and a half
    assert above([1.18, 1.28], [1.0, 1.1], errors=3) is False
    assert above([2.0], [1.0, 1.0]) is not_above([2.0], [1.0, 1.0], 9) is None
    assert not_above([2.0, 0.0], [1.0, -1.1], 1) is False  # nothing is told
    assert not_above([2.0, 2.1], [1.0, 1.1], 1.15) is True  # 1 +- 0.07
    assert not_above([2.0, 2.1], [1.0, 1.1], 1.13) is False
    a, b = [1.0, 2.0, 4.0], [0.5, 0.1, 0.2, 0.4, 0.3]
    t = ttest_ind(a, b, equal_var=False).statistic
    assert (above(a, b, t - 1e-9), above(a, b, t + 1e-9)) == (True, False)
    assert plus_minus([1e-5]) == "1e-05"
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([1.0]) == (1.0, 0.0)


@pytest.mark.parametrize(("trainings", "share"), [(2, 0.09), (3, 0.06), (5, 0.04)])
def test_chance_is_above_as_often_as_the_report_says(trainings, share):
    runs = torch.randn(4000, 2, trainings, generator=torch.Generator().manual_seed(0)).tolist()
    assert sum(bool(above(a, b)) for a, b in runs) / 4000 == pytest.approx(share, abs=0.012)
    assert "9, 6 or 4 %" in READING


def test_nothing_is_judged_by_nothing():
    assert judged([True, True]) == "confirmed"
    assert judged([True, False]) == "not confirmed"
    assert judged([True, None]) == judged([]) == "not testable at this size"
