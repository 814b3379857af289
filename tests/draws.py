"""The metrics in plain torch, all pairs at once, and draws with known answers."""

import torch


def gaussian(n, mean, root, seed):
    """Draw (n, d) from N(mean, root root^T), float64."""
    noise = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + noise @ root.T


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape, seed=0, shift=0.0):
    return randn(*shape, seed=seed) + shift


def kid_by_definition(x, y):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    own = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(own - 2 * kernel(x, y).mean())


def prdc_by_definition(real, generated, k):
    def reach(x):
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, k]

    across = torch.cdist(real, generated, compute_mode="donot_use_mm_for_euclid_dist")
    r, g = reach(real), reach(generated)
    precision = (across <= r[:, None]).any(0).double().mean()
    recall = (across <= g).any(1).double().mean()
    density = (across <= r[:, None]).double().sum(0).mean() / k
    coverage = (across.amin(1) <= r).double().mean()
    return torch.stack([precision, recall, density, coverage])


def spread_is_honest(values, spreads, low=0.6, high=1.8):
    """Whether the spread that is reported is that of the values over repetitions, within a factor."""
    ratio = float(torch.tensor(spreads).mean() / torch.tensor(values).std())
    assert low <= ratio <= high, ratio
