"""What a search for heights asks of diagrams: neighbours that are likely, and cells that must not be too small."""

import pytest
import torch
from draws import rand
from torch.testing import assert_close

from otgen import ops

SOURCES = ["uniform", "normal"]
KINDS = ["those of other heights", "them twice", "any", "all of one", "its own"]


def likely(kind, index, h, domain):
    m = index.m
    if kind in ("those of other heights", "them twice"):
        pairs = index.diagram(h + 0.1 / m * rand(m, seed=5), domain).pairs
        return pairs if kind != "them twice" else torch.cat([pairs, pairs.flip(1)])
    if kind == "any":
        pairs = (m * rand(4 * m, 2, seed=6)).long()
        return pairs[pairs[:, 0] < pairs[:, 1]].unique(dim=0)
    if kind == "all of one":
        return torch.stack([torch.zeros(m - 1, dtype=torch.int64), torch.arange(1, m)], 1)
    return torch.arange(m)[:, None].expand(m, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("targets", ["random", "grid", "twice"])
def test_the_diagram_is_the_same(targets, d, source, kind):
    m = 500
    y = rand(m, d)
    if targets == "grid":
        side = round(m ** (1 / d))
        y = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64) / side] * d).view(-1, d)
    if targets == "twice":
        y = torch.cat([y[: m // 2], y[: m // 2]])
    h = -0.5 * y.square().sum(1) + (0.3 / m * rand(len(y), seed=1) if targets == "random" else 0.0)
    index, domain = ops.Sites(y), ops.cube(source, d)
    want = index.diagram(h, domain)
    found = index.diagram(h, domain, near=likely(kind, index, h, domain))
    for name in ("measures", "first", "second"):
        assert_close(getattr(found, name), getattr(want, name), rtol=0, atol=1e-13)
    assert facets(found) == pytest.approx(facets(want), rel=0, abs=1e-11)


def facets(diagram):
    """Measures of facets by pair, but for those that rounding makes or not; no pair twice."""
    pairs = list(map(tuple, diagram.pairs.tolist()))
    assert len(set(pairs)) == len(pairs)
    return {pair: a for pair, a in zip(pairs, diagram.facets.tolist(), strict=True) if a > 1e-10}


def test_what_are_no_pairs_is_refused():
    index, domain, h = ops.Sites(rand(9, 2)), ops.cube("uniform", 2), torch.zeros(9, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^power_diagram: near must be int64 \(k, 2\), got torch.int64 \(3,\)$"):
        index.diagram(h, domain, near=torch.arange(3))
    with pytest.raises(ValueError, match=r"^power_diagram: near must be int64 \(k, 2\), got torch.int64 \(1, 3\)$"):
        index.diagram(h, domain, near=torch.arange(3)[None])
    with pytest.raises(TypeError, match=r"^power_diagram: near must be int64 \(k, 2\), got list$"):
        index.diagram(h, domain, near=[[0, 1]])
    with pytest.raises(TypeError, match=r"^power_diagram: near must be int64 \(k, 2\), got torch.float32 \(1, 2\)$"):
        index.diagram(h, domain, near=torch.zeros(1, 2))
    for wrong in (-1, 9):
        with pytest.raises(ValueError, match=r"^power_diagram: near must lie in \[0, 9\), got "):
            index.diagram(h, domain, near=torch.tensor([[0, wrong]]))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_cell_that_is_too_small_is_told(d):
    y = rand(3000, d)
    index, domain, h = ops.Sites(y), ops.cube("uniform", d), -0.5 * y.square().sum(1)
    measures = index.diagram(h, domain).measures
    assert_close(index.diagram(h, domain, least=measures).measures, measures, rtol=0, atol=0)
    for j in (0, 1234, 2999):
        least = measures.clone()
        least[j] *= 1 + 1e-12
        with pytest.raises(ops.SmallCell, match="^power_diagram: a cell has less than it must$"):
            index.diagram(h, domain, least=least)
    with pytest.raises(ValueError, match="^power_diagram: least"):
        index.diagram(h, domain, least=measures[1:])
    assert_close(index.diagram(h, domain).measures, measures, rtol=0, atol=0)  # nothing is left of it
