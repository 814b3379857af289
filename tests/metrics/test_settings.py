"""What metrics that draw at random have in common: a seed, and the groups of the jackknife."""

import pytest
from draws import normal, rand

from otgen.metrics import (
    Pixels,
    aggregate_posterior,
    compare,
    fid,
    memorisation,
    prdc,
    semi_discrete_wasserstein,
    sliced_wasserstein,
)

X, Y, Z = normal(40, 3), normal(60, 3, seed=1), normal(90, 3, seed=2)
JACKKNIFED = {
    "fid": lambda **settings: fid(X, Y, **settings),
    "prdc": lambda **settings: prdc(X, Y, **settings).density,
    "memorisation": lambda **settings: memorisation(X, Y, Z, **settings).ratio,
    "authentic": lambda **settings: memorisation(X, Y, Z, **settings).authentic,
}
DRAWN = JACKKNIFED | {
    "compare": lambda seed: compare(rand(60, 1, 4, 4), rand(40, 1, 4, 4, seed=1), Pixels((1, 4, 4)), seed=seed),
    "posterior": lambda seed: aggregate_posterior(X, 0.1 * X, seed=seed),
    "sliced": lambda seed: sliced_wasserstein(X, Y, seed=seed),
    "semi_discrete": lambda seed: semi_discrete_wasserstein(X[:, :2], n=1000, seed=seed),
}


@pytest.mark.parametrize("metric", DRAWN.values(), ids=DRAWN)
def test_the_seed_decides_the_numbers(metric):
    assert metric(seed=1) == metric(seed=1) != metric(seed=2)


@pytest.mark.parametrize("metric", JACKKNIFED.values(), ids=JACKKNIFED)
def test_the_groups_change_the_spread_alone(metric):
    few, many = metric(seed=0, groups=4), metric(seed=0)
    assert few.spread != many.spread
    assert few.value == many.value


def test_the_bias_of_nearest_neighbours_is_not_known():
    """It does not fall like 1/n, which the jackknife takes for granted."""
    assert prdc(X, Y).coverage.bias is None
    assert memorisation(X, Y, Z).ratio.bias is None
