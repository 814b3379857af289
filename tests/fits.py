"""Fits, and what makes two of them the same."""

import oracles
from torch.testing import assert_close

from otgen.ot import SemiDiscreteOT


def fit(y, weights=None, source="uniform", **options):
    return SemiDiscreteOT(source, progress=False, **options).fit(y, weights)


def without_time(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_fit(a, b):
    """Check that two fits are the same to the last bit, but for the seconds they took."""
    for name in ("heights_", "targets_", "weights_", "cell_measures_", "centroids_"):
        oracles.assert_same_bits(getattr(a, name), getattr(b, name))
    assert a.certificate_ == b.certificate_
    assert (a.converged_, a.samples_) == (b.converged_, b.samples_)
    assert without_time(a.history_) == without_time(b.history_)


def same_heights(a, b, rtol):
    """Check heights up to a constant, in units of their spread."""
    a, b = a - a.mean(), b - b.mean()
    assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


def assert_same_state(a, b):
    """Check that two models' `state_dict`s are the same to the last number."""
    assert a.keys() == b.keys()
    for name in [name for name in a if not name.endswith("ot.record")]:  # it says how long the solver took
        assert_close(a[name], b[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")
