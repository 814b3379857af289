import math

import pytest
import torch
from draws import normal, spread_is_honest
from torch.testing import assert_close

from otgen import data
from otgen.metrics import grid, modes, reverse_kl, ring, stacked_modes


def draw(centres, n, std, seed=0, only=None):
    which = torch.randint(only or len(centres), (n,), generator=torch.Generator().manual_seed(seed))
    return centres[which] + std * normal(n, 2, seed=seed + 1)


@pytest.mark.parametrize(("centres", "std"), [(ring(), 0.01), (grid(), 0.05)], ids=["ring", "grid"])
def test_true_mixtures_are_found_whole(centres, std, seed):
    result = modes(draw(centres, 2500, std, seed), centres, std)
    assert (result.found, result.modes) == (len(centres), len(centres))
    expected = 1 - math.exp(-4.5)
    assert abs(result.high_quality.value - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 2500)
    assert 0 < result.reverse_kl.value < 4 * result.reverse_kl.bias
    assert int(result.counts.sum()) == 2500


def test_the_sets_of_otgen_have_the_modes_that_the_docstrings_say():
    for x, centres, std in (
        (data.eight_gaussians(2500), ring(8, 2**0.5), 0.02 / 2**0.5),
        (data.twenty_five_gaussians(2500), grid(5, 0.5**0.5), 0.05 / 8**0.5),
    ):
        result = modes(x, centres, std)
        assert result.found == len(centres)
        assert result.high_quality.value > 0.98


def test_the_centres_are_pacgans():
    assert sorted(map(tuple, grid().tolist())) == sorted((a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2))
    assert_close(ring(4), torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64), atol=1e-15, rtol=0)
    assert_close(ring(8, 3.0).norm(dim=1), torch.full((8,), 3.0, dtype=torch.float64))


def test_collapse_onto_two_modes():
    result = modes(draw(ring(), 1000, 0.01, only=2), ring(), 0.01)
    assert result.found == 2
    assert result.reverse_kl.value == pytest.approx(math.log(4), abs=0.01)


def test_a_mixture_may_have_one_mode():
    result = modes(0.1 * normal(50, 2), torch.zeros(1, 2, dtype=torch.float64), 0.1)
    assert (result.found, result.modes, result.reverse_kl.value) == (1, 1, 0.0)


def test_bridges_are_not_of_high_quality():
    centres = ring()
    bridge = (centres + centres.roll(1, 0)) / 2
    result = modes(torch.cat([bridge, centres]), centres, 0.01)
    assert result.high_quality.value == 0.5
    assert result.found == 8
    assert modes(torch.cat([bridge, centres]), centres, 0.01, least=2).found == 0


def test_reverse_kl_by_hand():
    score = reverse_kl(torch.tensor([3, 1, 0, 0]))
    assert score.value == pytest.approx(math.log(4) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert (score.n, score.bias) == (4, pytest.approx((4 - 1) / (2 * 4)))


@pytest.mark.parametrize("counts", [[4, 4], [50] * 25])
def test_the_spread_of_even_counts_is_that_of_chi_squared(counts):
    """2 n KL is chi-squared with k - 1 degrees of freedom (Wilks), whose variance is 2 (k - 1)."""
    n, k = sum(counts), len(counts)
    assert reverse_kl(torch.tensor(counts)).spread == pytest.approx(math.sqrt(2 * (k - 1)) / (2 * n), rel=1e-9)


@pytest.mark.parametrize("weights", [[1.0] * 25, [5.0] * 5 + [1.0] * 20], ids=["even", "uneven"])
def test_bias_and_spread_of_the_reverse_kl_are_honest(weights):
    p = torch.tensor(weights, dtype=torch.float64)
    p /= p.sum()
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(p, 400 * 500, replacement=True, generator=generator).view(400, 500)
    scores = [reverse_kl(torch.bincount(row, minlength=25)) for row in draws]
    truth = math.log(25) + float((p * p.log()).sum())
    values = torch.tensor([s.value for s in scores])
    assert float(values.mean()) - truth == pytest.approx(24 / 1000, rel=0.15)
    spread_is_honest(values.tolist(), [s.spread for s in scores], 0.85, 1.2)


def test_stacked_digits():
    # an image says its digit by its brightness
    def classify(images):
        return (images.mean((1, 2, 3)) * 10).round().long()

    digits = torch.randint(10, (26000, 3), generator=torch.Generator().manual_seed(0))
    images = (digits / 10).view(-1, 3, 1, 1).expand(-1, 3, 2, 2)
    result = stacked_modes(images, classify)
    assert (result.found, result.modes, result.high_quality) == (1000, 1000, None)
    assert result.reverse_kl.value == pytest.approx(999 / 52000, rel=0.25)
    one = stacked_modes(images[:1].expand(50, -1, -1, -1), classify)
    assert one.found == 1
    assert int(one.counts.argmax()) == int("".join(map(str, digits[0].tolist())))
    assert one.reverse_kl.value == pytest.approx(math.log(1000))


def test_what_counts_as_near_and_as_found():
    centres = grid(2, 1.0)
    x = centres.repeat(5, 1) + torch.tensor([0.2, 0.0], dtype=centres.dtype)
    assert (modes(x, centres, 0.1).found, modes(x, centres, 0.1, within=1.9).found) == (4, 0)
    assert [modes(x, centres, 0.1, least=least).found for least in (5, 6)] == [4, 0]
    digits = torch.tensor([[0, 1, 2]] * 3 + [[2, 2, 1]] * 2)
    images = digits.float()[..., None, None]
    result = stacked_modes(images, lambda x: x[:, 0, 0, 0].long(), classes=3, least=3)
    assert (result.found, result.modes, int(result.counts[2 * 9 + 2 * 3 + 1])) == (1, 27, 2)


def test_bad_input():
    for n, channels in ((5, 1), (1, 3)):
        with pytest.raises(ValueError, match="stacked_modes: images must have shape"):
            stacked_modes(torch.zeros(n, channels, 2, 2), lambda x: torch.zeros(len(x), dtype=torch.int64))
    for wrong in (10, -1):
        with pytest.raises(ValueError, match=f"classes from 0 to 9, got {wrong} to {wrong}"):
            stacked_modes(torch.zeros(5, 3, 2, 2), lambda x, wrong=wrong: torch.full((len(x),), wrong))
    with pytest.raises(ValueError, match="modes: std must be positive"):
        modes(torch.zeros(5, 2), ring().float(), 0.0)


def test_counts_of_nothing_are_refused():
    for counts in (torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.tensor([3, -1])):
        with pytest.raises(ValueError, match="reverse_kl: counts .* must hold one sample at least, got "):
            reverse_kl(counts)
    with pytest.raises(TypeError, match="reverse_kl: counts must be a torch.Tensor, got list"):
        reverse_kl([1, 2])


def test_stacked_digits_are_tensors_and_classes_whole_numbers():
    with pytest.raises(TypeError, match="stacked_modes: images must be a tensor of floating point, got ndarray"):
        stacked_modes(torch.zeros(9, 3, 8, 8).numpy(), lambda x: x)
    with pytest.raises(TypeError, match="stacked_modes: classify must return whole numbers, got torch.float32"):
        stacked_modes(torch.zeros(9, 3, 8, 8), lambda x: torch.zeros(len(x)))
