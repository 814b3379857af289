"""Power diagrams of random sites, and what must hold of each."""

import torch
from torch.testing import assert_close

from otgen import ops

SOURCES = ["uniform", "normal"]
MEAN = {"uniform": 0.5, "normal": 0.0}
SECOND = {"uniform": 1 / 3, "normal": 1.0}


def sites(m, d, seed=0, source="uniform"):
    """Targets about where the source is, and heights of Voronoi cells that are moved a little."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(m, d, generator=generator, dtype=torch.float64)
    y = y if source == "uniform" else 4 * y - 2
    return y, -0.5 * y.square().sum(1) + 0.3 / m * torch.rand(m, generator=generator, dtype=torch.float64)


def diagram(y, h, domain="uniform"):
    return ops.Sites(y).diagram(h, ops.cube(domain, y.shape[1]) if isinstance(domain, str) else domain)


def voronoi(y, domain="uniform"):
    return diagram(y, -0.5 * y.square().sum(1), domain)


def cells(y, h, domain="uniform"):
    domain = ops.cube(domain, y.shape[1]) if isinstance(domain, str) else domain
    return ops.Sites(y).cells(h, domain, torch.arange(len(y)))


def assert_all_there(found, source, atol=1e-12):
    """Cells fill the source: its mass, mean and second moment are the sums over them."""
    d = found.first.shape[1]
    assert bool((found.measures >= 0).all())
    assert_close(float(found.measures.sum()), 1.0, rtol=0, atol=atol)
    assert_close(found.first.sum(0), torch.full((d,), MEAN[source], dtype=torch.float64), rtol=0, atol=atol)
    assert_close(float(found.second.sum()), d * SECOND[source], rtol=0, atol=10 * atol)
