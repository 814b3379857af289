"""Problems whose cell measures are known, so that counts are drawn from a multinomial distribution."""

import math

import numpy as np
import torch
from torch.testing import assert_close

from otgen.ot.certificate import cautious_error, chi2_estimate


def wanted(kind, m):
    """Weights (m,), the smallest last."""
    nu = {"equal": np.ones(m), "zipf": 1 / np.arange(1, m + 1), "one": np.r_[0.999, np.full(m - 1, 0.001 / (m - 1))]}
    nu = nu.get(kind, np.ones(m) / m).copy()
    if kind.startswith("tiny"):
        nu[-1] = float(kind[4:])
    return nu / nu.sum()


def reached(nu, chi2, where, rng):
    """Measures (m,) with a given chi2: all cells too large or too small by one factor, or the last cell too large."""
    if chi2 == 0:
        return nu
    e = np.eye(len(nu))[-1] if where == "last" else (rng.permutation(len(nu)) % 2 * 2 - 1) * nu
    e = e - e.sum() * nu
    w = nu + e * math.sqrt(chi2 / np.sum(e * e / nu))
    assert w.min() >= 0
    assert_close(float(np.sum((w - nu) ** 2 / nu)), chi2, rtol=1e-6, atol=0)
    return w


def replicate(nu, w, n, times, rng):
    """chi2, its standard error, and the cautious one, (times, 3), of repeated counts."""
    target = torch.from_numpy(nu)
    rows = []
    for counts in rng.multinomial(n, w, size=times):
        c = torch.from_numpy(counts)
        chi2, se = chi2_estimate(c, target)
        rows.append((chi2, se, cautious_error(c, target, se)))
    return np.array(rows)


def share_below(limit, confidence_sd=3.5, times=1000):
    """A share that is `limit` in truth exceeds this in one of 4000 simulations."""
    return limit + confidence_sd * math.sqrt(limit * (1 - limit) / times)
