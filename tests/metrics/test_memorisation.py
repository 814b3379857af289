import pytest
import torch
from draws import normal, spread_is_honest

from otgen.metrics import memorisation


def test_fresh_samples_are_as_near_to_either_set(seed):
    result = memorisation(normal(500, 6, seed=seed), normal(700, 6, seed=1000 + seed), normal(400, 6, seed=2000 + seed))
    assert result.ratio.value == pytest.approx(1, abs=0.1)
    assert result.nearer.value == pytest.approx(0.5, abs=0.12)
    assert result.authentic.value == pytest.approx(result.authentic_held_out.value, abs=0.13)
    assert result.ratio.n == 400


def test_by_hand():
    """Medians, and ties that count one half; samples stand so far apart that each has the neighbours meant for it."""
    x = 100 * torch.arange(10, dtype=torch.float64)[:, None]
    to_train, to_held_out = torch.tensor([1] * 9 + [40]), torch.tensor([1] * 4 + [2] * 5 + [8])
    result = memorisation(x, x + to_train[:, None], x + to_held_out[:, None])
    assert (result.ratio.value, result.nearer.value) == (0.5, pytest.approx((5 + 0.5 * 4) / 10))


def test_the_median_of_an_even_number_is_the_middle_of_the_middle_two():
    x = 100 * torch.arange(10, dtype=torch.float64)[:, None]
    to_train, to_held_out = torch.tensor([1] * 5 + [3] * 5), torch.tensor([4] * 10)
    assert memorisation(x, x + to_train[:, None], x + to_held_out[:, None]).ratio.value == 0.5


def test_copies_are_found():
    train, held_out = normal(400, 6, seed=1), normal(400, 6, seed=2)
    result = memorisation(train[:200].clone(), train, held_out)
    assert (result.ratio.value, result.nearer.value, result.authentic.value) == (0, 1, 0)
    near = memorisation(train + 0.1 * normal(400, 6, seed=3), train, held_out)
    assert near.ratio.value < 0.3
    assert near.nearer.value > 0.95
    assert near.authentic.value < 0.05


def test_copies_of_what_stands_twice_in_the_training_data_are_not_authentic():
    """They are as far from their nearest training sample as that one is from its twin: not further."""
    x, other = normal(40, 3), normal(80, 3, seed=1)
    train = torch.cat([x, x])
    assert memorisation(x, train, other).authentic.value == 0
    assert memorisation(other, train, train).authentic_held_out.value == 0


def test_a_larger_training_set_is_no_memorisation():
    result = memorisation(normal(500, 4, seed=1), normal(5000, 4, seed=2), normal(300, 4, seed=3))
    assert result.ratio.value == pytest.approx(1, abs=0.12)


def test_half_copies_are_seen_by_their_share():
    train, held_out = normal(400, 6, seed=1), normal(400, 6, seed=2)
    mixed = train.clone()
    mixed[::2] = normal(200, 6, seed=3)
    assert memorisation(mixed, train, held_out).nearer.value == pytest.approx(0.75, abs=0.08)


def test_columns_must_agree():
    with pytest.raises(ValueError, match=r"memorisation: held_out must have shape \(n, 6\), got \(50, 5\)"):
        memorisation(normal(50, 6), normal(50, 6), normal(50, 5))


@pytest.mark.parametrize(("d", "share"), [(2, 0.385), (256, 0.846)])
def test_what_authentic_is_for_data_itself_depends_on_the_dimension(d, share):
    result = memorisation(normal(500, d, seed=1), normal(500, d, seed=2), normal(500, d, seed=3))
    assert result.authentic_held_out.value == pytest.approx(share, abs=0.06)
    assert result.authentic.value == pytest.approx(result.authentic_held_out.value, abs=0.08)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (2000, 200), (5000, 100)])
def test_the_spreads_are_honest(n, m):
    drawn = [(normal(n, 4, seed=s), normal(m, 4, seed=1000 + s), normal(m, 4, seed=2000 + s)) for s in range(40)]
    results = [memorisation(*sets, seed=s) for s, sets in enumerate(drawn)]
    for name in ("ratio", "nearer", "authentic", "authentic_held_out"):
        scores = [getattr(result, name) for result in results]
        spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.8, 2.0)


def test_copies_are_not_authentic_however_little_was_held_out():
    train, held_out = normal(3000, 8, seed=1), normal(300, 8, seed=2)
    result = memorisation(train[:500].clone(), train, held_out)
    assert result.authentic.value == 0
    assert result.authentic_held_out.value > 0.4
    assert result.nearer.value == pytest.approx(0.5 + 0.5 * 300 / 3000, abs=0.08)


def test_distances_that_are_all_zero_are_alike():
    x = torch.zeros(40, 3, dtype=torch.float64)
    result = memorisation(x, x, x)
    assert (result.ratio.value, result.ratio.spread) == (1, 0)
