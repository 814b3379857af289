import pytest
import torch
from draws import normal, prdc_by_definition, spread_is_honest
from torch.testing import assert_close

from otgen.metrics import prdc


def numbers(result):
    scores = (result.precision, result.recall, result.density, result.coverage)
    return torch.tensor([s.value for s in scores], dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 5])
def test_it_is_the_definition(seed, k):
    real, generated = normal(80, 4, seed=seed), normal(61, 4, seed=1000 + seed, shift=0.4)
    assert_close(numbers(prdc(real, generated, k=k)), prdc_by_definition(real, generated, k))


def test_ties_count_as_the_definition_says(seed):
    """Points of a lattice: neighbours at equal distances, and generated points on the surfaces of balls."""
    generator = torch.Generator().manual_seed(seed)
    real, generated = torch.randint(6, (90, 2), generator=generator).double().split([40, 50])
    generated[25:] += 20
    assert_close(numbers(prdc(real, generated, k=2)), prdc_by_definition(real, generated, 2))


def test_equal_distributions_score_what_theory_says():
    # E coverage = 1 - (n - 1)...(n - k) / ((2n - 1)...(2n - k)) (Naeem et al. 2020, lemma 2); E density = 1
    n, k = 400, 5
    result = prdc(normal(n, 64, seed=1), normal(n, 64, seed=2), k=k)
    missed = torch.tensor([(n - i) / (2 * n - i) for i in range(1, k + 1)]).prod()
    assert result.coverage.value == pytest.approx(1 - float(missed), abs=0.04)
    assert result.density.value == pytest.approx(1, abs=0.25)


def test_collapse_and_copies():
    real = normal(200, 3)
    copies = prdc(real, real.clone())
    assert numbers(copies)[[0, 1, 3]].tolist() == [1, 1, 1]
    assert copies.density.value == pytest.approx(6 / 5)  # each lies in its own ball and in k others on average
    one = prdc(real, real[:1] + 1e-6 * normal(200, 3, seed=1))
    assert one.precision.value == 1
    assert max(one.recall.value, one.coverage.value) < 0.1
    far = prdc(real, normal(200, 3, shift=50.0))
    assert numbers(far).tolist() == [0, 0, 0, 0]


def test_the_spread_is_honest():
    results = [prdc(normal(200, 4, seed=s), normal(200, 4, seed=1000 + s, shift=0.3)) for s in range(40)]
    for name in ("precision", "recall", "density", "coverage"):
        scores = [getattr(r, name) for r in results]
        spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.6, 2.0)


def test_the_reference_implementation_agrees():
    reference = pytest.importorskip("prdc")
    real, generated = normal(120, 6, seed=1), normal(90, 6, seed=2, shift=0.2)
    want = reference.compute_prdc(real.numpy(), generated.numpy(), nearest_k=5)
    want = [want[name] for name in ("precision", "recall", "density", "coverage")]
    assert_close(numbers(prdc(real, generated)), torch.tensor(want, dtype=torch.float64))


def test_scikit_learn_finds_the_same_balls():
    sklearn = pytest.importorskip("sklearn.neighbors")
    real, generated = normal(120, 6, seed=1), normal(90, 6, seed=2, shift=0.2)
    reach = sklearn.NearestNeighbors(n_neighbors=6).fit(real.numpy()).kneighbors(real.numpy())[0][:, 5]
    across = sklearn.NearestNeighbors(n_neighbors=1).fit(generated.numpy()).kneighbors(real.numpy())[0][:, 0]
    assert prdc(real, generated).coverage.value == pytest.approx(float((across <= reach).mean()))


def test_sets_must_be_large_enough():
    with pytest.raises(ValueError, match="prdc: generated must have shape .* n >= 12"):
        prdc(normal(50, 3), normal(11, 3))


def test_density_is_of_full_precision():
    real, generated = normal(80, 4, seed=1), normal(61, 4, seed=2)
    assert_close(numbers(prdc(real, generated)), prdc_by_definition(real, generated, 5), rtol=1e-14, atol=0)


def test_k_is_a_positive_integer():
    with pytest.raises(ValueError, match="prdc: k must be at least 1, got 0"):
        prdc(normal(80, 4), normal(80, 4), k=0)
    with pytest.raises(TypeError, match="prdc: k must be an int, got float"):
        prdc(normal(80, 4), normal(80, 4), k=5.0)
