import math

import numpy as np
import pytest
import torch
from draws import normal, spread_is_honest

from otgen import metrics
from otgen.metrics.score import Score, average, features, jackknife


def test_the_mean_has_the_error_that_theory_gives_it(seed):
    x = normal(4000, seed=seed)
    score = jackknife(lambda v: v.mean(), x, groups=40)[0]
    assert score.value == pytest.approx(float(x.mean()))
    assert score.spread == pytest.approx(1 / math.sqrt(4000), rel=0.45)  # four deviations of a chi with 39 degrees
    assert score.bias == pytest.approx(0, abs=1e-12)


def test_the_bias_of_the_variance_is_found():
    x = normal(200)
    score = jackknife(lambda v: v.var(correction=0), x, groups=200)[0]
    assert score.value - score.bias == pytest.approx(float(x.var()), rel=1e-12)  # the jackknife is exact here


def test_two_sets_lose_their_groups_together():
    x, y = normal(90, seed=1), normal(60, seed=2)
    score = jackknife(lambda a, b: torch.stack([a.mean() - b.mean(), a.sum()]), x, y)
    assert [s.n for s in score] == [60, 60]
    assert score[0].value == pytest.approx(float(x.mean() - y.mean()))


def test_sorted_data_does_not_widen_the_spread():
    x = normal(1000).sort().values
    assert jackknife(lambda v: v.mean(), x)[0].spread == pytest.approx(1 / math.sqrt(1000), rel=0.9)


def test_data_that_the_same_seed_has_shuffled_are_not_dealt_out_in_their_old_order(seed):
    """Of data that take turns, every group would be of one kind, and the spread ten times too wide."""
    x = torch.arange(1000.0) % 10
    x = x[torch.randperm(1000, generator=torch.Generator().manual_seed(seed))]
    assert 0.02 < jackknife(lambda v: v.mean(), x, seed=seed)[0].spread < 0.25  # 0.09 in truth


def test_average():
    score = average(torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64))
    assert score == Score(3.0, pytest.approx(math.sqrt(14 / 3 / 4)), 4, 0.0)
    assert str(Score(0.12345, 0.012, 7)) == "0.1235 ± 0.012 (n = 7)"


def test_spread_of_an_average_is_honest():
    scores = [average(normal(50, seed=s)) for s in range(200)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.85, 1.15)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "fid: x must be a torch.Tensor, got list"),
        (torch.zeros(3), ValueError, r"fid: x must have shape \(n, d\), got \(3,\)"),
        (torch.zeros(1, 3), ValueError, "fid: x must have shape .* n >= 2"),
        (torch.zeros(3, 0), ValueError, "fid: x must have shape .* d >= 1"),
        (torch.tensor([[0.0], [-3.0]]), ValueError, "fid: x must be at most 2 .*, got 3"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, "fid: x must be float32 or float64"),
        (torch.tensor([[math.nan], [0.0]]), ValueError, "fid: x must be finite"),
    ],
)
def test_features_are_checked(x, error, message):
    with pytest.raises(error, match=message):
        features("fid", "x", x, most=2)


def test_columns_must_agree_and_groups_be_filled():
    with pytest.raises(ValueError, match=r"must have shape \(n, 3\), got \(4, 2\)"):
        features("fid", "y", torch.zeros(4, 2), like=torch.zeros(9, 3))
    with pytest.raises(ValueError, match="must have at least 10 samples"):
        jackknife(lambda v: v.mean(), normal(9))
    with pytest.raises(ValueError, match="jackknife: groups must be at least 2"):
        jackknife(lambda v: v.mean(), normal(9), groups=1)


KINDS = {
    "array": lambda x: x.numpy(),
    "float64": lambda x: x.double().numpy(),
    "big-endian": lambda x: x.numpy().astype(">f4"),
    "backwards": lambda x: x.flip(0).numpy()[::-1],
    "read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "half array": lambda x: x.half().numpy(),
}


def quarters(*shape, seed=0):
    """Numbers that every kind has exactly."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float() / 4


X, Y, Z = (quarters(30, 3, seed=i) for i in range(3))

CALLS = {
    metrics.fid: (X, Y), metrics.kid: (X, Y), metrics.prdc: (X, Y), metrics.sliced_wasserstein: (X, Y),
    metrics.wasserstein_1d: (X[:, 0], Y[:, 0]), metrics.memorisation: (X, Y, Z), metrics.aggregate_posterior: (X, Y),
    metrics.sharpness: (quarters(8, 1, 4, 4),),
}  # fmt: skip


@pytest.mark.parametrize("metric", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_and_half_precision_are_taken(kind, metric):
    assert repr(metric(*map(KINDS[kind], CALLS[metric]))) == repr(metric(*CALLS[metric]))


@pytest.mark.parametrize("x", [np.zeros((30, 3), int), np.zeros((30, 3), complex), np.zeros((30, 3), object)])
def test_other_arrays_are_refused(x):
    with pytest.raises(TypeError, match="fid: x must be (float32 or float64, got int64|a torch.Tensor, got ndarray)"):
        metrics.fid(x, torch.zeros(30, 3))
