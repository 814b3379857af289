import numpy as np
import pytest
import torch
from oracles import (
    assert_same_bits,
    many_sobol_points,
    normal_from_word,
    owen_hash,
    philox,
    random_words,
    reverse_bits,
    scramble,
    scramble_seeds,
    sobol_index_of_word,
    sobol_words,
    uniform_from_word,
)
from problems import STREAMS
from scipy import stats
from scipy.linalg import hadamard
from torch.testing import assert_close

from otgen import ops

FIRSTS = [0, 7, 2**30 - 50, 2**32 - 50, 2**40 + 3, 2**62 - 100]
WORST = 5e-7  # relative error of a normal sample: a few units in the last place of float32
EXTREME = 5.5  # standard errors: passed by chance 1e-7 of the time


def within(value, expected, error):
    """Check that each number lies within EXTREME standard errors of what is expected."""
    worst = ((torch.as_tensor(value) - expected) / error).abs().max()
    assert float(worst) < EXTREME


# --- bits ------------------------------------------------------------------------------------------------------------


def test_oracle_knows_the_published_answers():
    known = [  # kat_vectors of Random123: counter, key, answer
        ([0, 0, 0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    for counter, key, answer in known:
        assert " ".join(f"{w:08x}" for w in philox(counter, key)) == answer


def test_the_first_sample_is_the_published_answer(isa):
    words = torch.tensor([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], dtype=torch.float64)
    want = (words / 512).floor() / 2**23 + 2.0**-24
    assert_same_bits(ops.sample("uniform", 1, 4, seed=0)[0], want.float())


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("d", [1, 3, 4, 5, 9])
def test_random_samples_are_philox(isa, first, d):
    for seed in (0, 1, 2**32 + 5, 2**63 - 1):
        words = random_words(100, d, seed, first)
        assert_same_bits(ops.sample("uniform", 100, d, seed=seed, first=first), uniform_from_word(words))
        normal = ops.sample("normal", 100, d, seed=seed, first=first).double()
        assert_close(normal, normal_from_word(words), rtol=WORST, atol=0)


@pytest.mark.parametrize("first", [0, 7, 123_456_789, 2**30 - 100, 2**30, 5 * 2**30 + 17, 2**40 + 3, 2**62])
@pytest.mark.parametrize("d", [1, 2, 8])
def test_sobol_samples_are_scrambled_sobol(isa, first, d):
    for seed in (0, 2**63 - 1):
        words = sobol_words(100, d, seed, first)
        assert_same_bits(ops.sample("uniform", 100, d, seed=seed, first=first, sobol=True), uniform_from_word(words))
        normal = ops.sample("normal", 100, d, seed=seed, first=first, sobol=True).double()
        assert_close(normal, normal_from_word(words), rtol=WORST, atol=0)


def test_sobol_samples_in_many_dimensions(isa):
    words = scramble(many_sobol_points(9, 1111), 3)
    assert_same_bits(ops.sample("uniform", 512, 1111, seed=3, sobol=True), uniform_from_word(words))


def test_sobol_scrambles_anew_after_2_to_the_30():
    across = ops.sample("uniform", 100, 5, first=2**30 - 50, sobol=True)
    assert_same_bits(across[:50], uniform_from_word(sobol_words(50, 5, 0, 2**30 - 50)))
    assert_same_bits(across[50:], uniform_from_word(sobol_words(50, 5, 0, 2**30)))
    assert bool((across[50:] != ops.sample("uniform", 50, 5, sobol=True)).any(dim=0).all())


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize(("source", "d"), [("uniform", 1), ("normal", 3), ("normal", 40)])
@pytest.mark.parametrize("sobol", [False, True])
@pytest.mark.parametrize("images", [2, 4, 8, 16])
def test_images_follow_the_samples_that_they_are_of(isa, source, d, sobol, first, images):
    first = min(images * first, 2**62 - 2000)  # so that the numbers of the others cross what these are near
    start = first // (32 * images) * (32 * images)
    others = ops.sample(source, 96, d, seed=5, first=start // images, sobol=sobol).reshape(3, 32, d)
    rows = torch.from_numpy(hadamard(images // 2))[:, torch.arange(d) // 2 % (images // 2)].float()
    signs = torch.stack([rows, -rows], dim=1).reshape(1, images, 1, d)
    middle = 0.5 if source == "uniform" else 0.0
    want = (middle + signs * (others - middle)[:, None]).reshape(96 * images, d)
    got = ops.sample(source, 64 * images - 3, d, seed=5, first=first, sobol=sobol, images=images)
    assert_same_bits(got, want[first - start :][: len(got)])


@pytest.mark.parametrize(("source", "kind"), STREAMS)
def test_instruction_sets_change_nothing(each_isa, source, kind):
    samples = [ops.sample(source, 20_011, 9, seed=4, first=2**31 + 3, **kind) for _ in each_isa()]
    for x in samples[1:]:
        assert_same_bits(x, samples[0])


@pytest.mark.parametrize(("source", "kind"), STREAMS)
def test_threads_change_nothing(each_thread_count, source, kind):
    samples = [ops.sample(source, 5003, 6, seed=4, first=3, **kind) for _ in each_thread_count()]
    for x in samples[1:]:
        assert_same_bits(x, samples[0])


@pytest.mark.parametrize(("source", "kind"), STREAMS)
def test_a_sample_depends_on_its_number_alone(isa, source, kind):
    whole = ops.sample(source, 200, 6, seed=8, **kind)
    for first, n in [(0, 1), (1, 1), (31, 2), (32, 32), (33, 100), (199, 1), (200, 0)]:
        assert_same_bits(ops.sample(source, n, 6, seed=8, first=first, **kind), whole[first : first + n])
    assert_same_bits(ops.sample(source, 200, 3, seed=8, **kind), whole[:, :3])  # nor on what else it holds


def test_sobol_at_its_largest_dimension(isa):
    x = ops.sample("uniform", 64, 21201, sobol=True)
    assert_same_bits((x * 64).long().sort(dim=0).values, torch.arange(64)[:, None].expand(-1, 21201))


# --- the normal quantile ---------------------------------------------------------------------------------------------


def edge_words():
    """Words in all binades from the last in the tail to the middle, at the ends of each, and of both signs."""
    low = np.concatenate(
        [2**e + np.array([0, 1, 2**e - 1]) + np.arange(-1, 2)[:, None] for e in range(2, 31)], axis=None
    )
    branch = round(2**32 * stats.norm.sf(2.70)) + 1000 * np.arange(-100, 100)  # near where two polynomials meet
    w = np.unique(np.concatenate([np.arange(16), low, branch, 2**31 - 1 - np.arange(16)]).clip(0, 2**31 - 1))
    return np.concatenate([w, w + 2**31]).astype(np.uint32)


def test_normal_is_right_from_the_middle_to_the_last_of_the_tail(isa):
    seed = 11
    index = sobol_index_of_word(edge_words(), seed)
    words = reverse_bits(owen_hash(index, scramble_seeds(1, seed)[0]))
    assert (words.min(), words.max()) <= (3, 2**32 - 4)
    z = torch.cat([ops.sample("normal", 1, 1, seed=seed, first=int(i), sobol=True)[0] for i in index])
    assert_close(z.double(), normal_from_word(words), rtol=WORST, atol=0)
    assert float(z.abs().max()) > 6.05


def test_normal_rises_with_the_uniform_number_and_is_symmetric(isa):
    # The same words through both sources: sorted by word, normal samples must not fall.
    x, u = (ops.sample(source, 2**18, 1, seed=2, sobol=True)[:, 0] for source in ("normal", "uniform"))
    upper = x > 0
    assert int(upper.sum()) == 2**17
    for half, rank in ((upper, -u[upper]), (~upper, u[~upper])):
        assert int((torch.diff(x[half][rank.argsort()]) < 0).sum()) == 0
    assert_close(float(x.double().mean()), 0.0, rtol=0, atol=2e-6)
    assert_close(float(x.double().var()), 1.0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("k", [10, 17])
def test_normal_sobol_points_hit_every_quantile_interval(isa, k):
    x = ops.sample("normal", 2**k, 3, seed=5, first=3 * 2**k, sobol=True).double().sort(dim=0).values
    ends = torch.from_numpy(stats.norm.ppf(np.arange(2**k + 1) / 2**k))[:, None]
    slack = WORST * ends[1:-1].abs() + 1e-12
    assert bool((x[:-1] <= ends[1:-1] + slack).all())
    assert bool((x[1:] >= ends[1:-1] - slack).all())


# --- random streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_distribution(source, seed):
    n, d = 40_000, 6
    law = stats.uniform if source == "uniform" else stats.norm
    x = ops.sample(source, n, d, seed=seed).double()
    mean, variance, excess = (float(v) for v in law.stats(moments="mvk"))
    within(x.mean(0), mean, (variance / n) ** 0.5)
    within(x.var(0), variance, variance * ((excess + 2) / n) ** 0.5)
    for column in x.T.numpy():
        assert stats.kstest(column, law.cdf).pvalue > 1e-6
    if source == "uniform":
        assert float(x.min()) > 0
        assert float(x.max()) < 1


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_nothing_is_correlated(source, seed):
    n, d = 40_000, 6

    def correlation(a, b):
        a, b = ((v - v.mean(0)) / v.std(0) for v in (a, b))
        return a.T @ b / len(a)

    x = ops.sample(source, n, d, seed=seed).double()
    within(correlation(x, x) - torch.eye(d), 0, n**-0.5)  # coordinates
    for lag in (1, 2, 31, 32):  # neighbours, in a tile and across
        within(correlation(x[lag:], x[:-lag]), 0, n**-0.5)
    for other in (seed + 1, seed + 2**32, seed ^ 1 << 40):  # seeds
        within(correlation(x, ops.sample(source, n, d, seed=other).double()), 0, n**-0.5)
    within(correlation(x, ops.sample(source, n, d, seed=seed, first=2**32).double()), 0, n**-0.5)
    squares = (x - x.mean(0)) ** 2
    within(correlation(squares, squares) - torch.eye(d), 0, n**-0.5)


def test_pairs_of_coordinates_fill_the_square(seed):
    n, cells = 40_000, 16
    x = (ops.sample("uniform", n, 4, seed=seed) * cells).long()
    for a, b in [(0, 1), (1, 2), (2, 3), (3, 0)]:
        counts = (x[:, a] * cells + x[:, b]).bincount(minlength=cells**2)
        assert 1e-6 < stats.chisquare(counts.numpy()).pvalue < 1 - 1e-6
    serial = (x[:-1, 0] * cells + x[1:, 0]).bincount(minlength=cells**2)
    assert 1e-6 < stats.chisquare(serial.numpy()).pvalue < 1 - 1e-6


def test_first_samples_of_all_seeds_are_independent():
    n = 4000
    x = torch.cat([ops.sample("normal", 1, 4, seed=s) for s in range(n)]).double()
    for column in x.T.numpy():
        assert stats.kstest(column, stats.norm.cdf).pvalue > 1e-6
    within(torch.corrcoef(x.T) - torch.eye(4), 0, n**-0.5)
    within((x[1:] * x[:-1]).mean(0), 0, n**-0.5)


# --- scrambled Sobol streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 2, 5, 6, 10, 13])
@pytest.mark.parametrize("block", [0, 3])
def test_sobol_has_one_point_in_every_dyadic_interval(k, block, seed):
    x = ops.sample("uniform", 2**k, 50, seed=seed, first=block * 2**k, sobol=True)
    assert_same_bits((x.double() * 2**k).long().sort(dim=0).values, torch.arange(2**k)[:, None].expand(-1, 50))


@pytest.mark.parametrize("k", [4, 9, 12])
def test_sobol_has_one_point_in_every_elementary_rectangle(k, seed):
    x = ops.sample("uniform", 2**k, 2, seed=seed, first=5 * 2**k, sobol=True).double()
    for a in range(k + 1):
        cell = (x[:, 0] * 2**a).long() * 2 ** (k - a) + (x[:, 1] * 2 ** (k - a)).long()
        assert_same_bits(cell.sort().values, torch.arange(2**k))


def test_sobol_scrambles_are_uniform_and_as_owen_says():
    n = 4000
    x = torch.stack([ops.sample("uniform", 4, 3, seed=s, sobol=True) for s in range(n)]).double() - 0.5
    for point in range(4):
        for k in range(3):
            assert stats.kstest(x[:, point, k].numpy() + 0.5, stats.uniform.cdf).pvalue > 1e-6
    # Points 0 and 1 lie in different halves of [0, 1], and are independent within them: their covariance is -1/16.
    products = x[:, 0] * x[:, 1]
    within(products.mean(0), -1 / 16, products.std(0) / n**0.5)
    # Dimensions, and neighbouring seeds, are scrambled independently.
    within(torch.corrcoef(x[:, 0].T) - torch.eye(3), 0, n**-0.5)
    within(12 * (x[1:, 0] * x[:-1, 0]).mean(0), 0, n**-0.5)


def integrals(d, k, sobol, seeds):
    """Estimates of the integral, zero, of a product of smooth functions over the unit cube from 2^k points each."""
    weights = 1 / torch.arange(1, d + 1)
    x = (ops.sample("uniform", 2**k, d, seed=s, sobol=sobol).double() for s in seeds)
    return (
        torch.stack([(1 + weights * (v.exp() - (torch.tensor(1.0).double().exp() - 1))).prod(1).mean() for v in x]) - 1
    )


@pytest.mark.parametrize(("d", "factor"), [(2, 200), (3, 60), (4, 30), (8, 10)])
def test_sobol_integrates_far_better_than_chance(d, factor):
    seeds, k = range(40), 13
    random, sobol = (integrals(d, k, s, seeds) for s in (False, True))
    within(random.mean(), 0, random.std() / len(seeds) ** 0.5)
    within(sobol.mean(), 0, sobol.std() / len(seeds) ** 0.5)
    assert float(sobol.square().mean().sqrt()) * factor < float(random.square().mean().sqrt())


def test_sobol_error_falls_faster_than_one_over_n():
    coarse, fine = (integrals(2, k, True, range(40)).square().mean().sqrt() for k in (7, 13))
    assert float(coarse / fine) > 2.0 ** (1.2 * 6)  # Owen: n^-3/2 but for logarithms
