"""What a fit may be told, and how it is refused."""

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from draws import randn
from fits import assert_same_fit, fit

from otgen import ops
from otgen.ot import ConvergenceWarning, SemiDiscreteOT

BAD_SETTINGS = [
    ({"source": "gaussian"}, ValueError, "source must be one of uniform, normal or a callable, got 'gaussian'"),
    ({"source": 3}, TypeError, "source must be one of uniform, normal or a callable, got int"),
    ({"method": "sgd"}, ValueError, "method must be one of auto, exact, newton, log_ratio, adam, got 'sgd'"),
    ({"method": None}, ValueError, "method must be one of .*, got None"),
    ({"method": ["auto"]}, ValueError, r"method must be one of .*, got \['auto'\]"),
    *(
        ({"tol": tol}, ValueError, "tol must be a positive number, got ")
        for tol in (0, -1, math.nan, math.inf, "a", True)
    ),
    ({"tol": None}, ValueError, "tol must be a positive number, got None"),
    *(
        ({"max_samples": budget}, ValueError, "max_samples must be None or an int in \\[1, 2\\^63\\), got ")
        for budget in (0, -5, 1.5, True, "3")
    ),
    *(
        ({"seed": seed}, ValueError, r"seed must be an int in \[0, 2\^63\), got ")
        for seed in (-1, 2**63, 1.0, True, None, "a")
    ),
    *(
        ({"device": device}, ValueError, "device must be cpu.*, got ")
        for device in ("banana", None, 3, "meta", *([] if ops.has_cuda() else ["cuda"]))
    ),
    ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a file or None, got 3"),
    ({"checkpoint": "/nowhere/at/all.safetensors"}, FileNotFoundError, "checkpoint must be in a folder that exists"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_bad_settings_are_refused_before_any_work(options, error, message, monkeypatch):
    ot = fit(randn(5, 2))
    monkeypatch.setattr("otgen.ot.estimator.solve", None)
    for name, value in options.items():
        setattr(ot, name, value)
    for call in (SemiDiscreteOT(**options).fit, ot.fit, ot.refit):
        with pytest.raises(error, match=f"^[^\n]*{message}[^\n]*$"):
            call(randn(5, 2))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_processor_has_several_names(device):
    assert fit(randn(5, 2), device=device).converged_


def test_numbers_of_numpy_are_numbers():
    y = randn(30, 4)
    options = {"seed": np.int64(3), "tol": np.float32(0.25), "max_samples": np.int32(10**6)}
    assert_same_fit(fit(y, **options), fit(y, seed=3, tol=0.25, max_samples=10**6))
    assert torch.equal(fit(y).sample(np.int64(5), seed=np.uint8(2)), fit(y).sample(5, seed=2))


def test_tolerances_below_all_rounding_are_refused():
    with pytest.raises(ValueError, match=r"^tol must be in \[1e-100, 1e\+100\], got 5e-324$"):
        fit(randn(5, 2), tol=5e-324)


def test_tolerances_of_any_real_kind():
    y = torch.cat([randn(30, 2), torch.zeros(30, 2, dtype=torch.float64)], dim=1)
    assert_same_fit(fit(y, tol=Fraction(1, 4)), fit(y, tol=0.25))
    with pytest.warns(ConvergenceWarning, match=r"chi2 <= 1e-09 was not certified after .*at most \d.* with 95 %"):
        fit(y, tol=Fraction(1, 10**9), max_samples=1000)
    for tol in (10**400, 1e300):
        with pytest.raises(ValueError, match=r"^tol must be in \[1e-100, 1e\+100\], got 1"):
            fit(y, tol=tol)


def test_an_array_of_thresholds_is_refused_in_words():
    with pytest.raises(ValueError, match="angle_threshold must be"):
        fit(randn(5, 3)).sample(3, np.array([0.5, 0.6]))


def test_pipelines_of_scikit_learn_know_it():
    pipeline, validation = pytest.importorskip("sklearn.pipeline"), pytest.importorskip("sklearn.utils.validation")
    decomposition, exceptions = pytest.importorskip("sklearn.decomposition"), pytest.importorskip("sklearn.exceptions")
    whole = pipeline.make_pipeline(decomposition.PCA(2), SemiDiscreteOT(progress=False))
    with pytest.raises(exceptions.NotFittedError):
        validation.check_is_fitted(whole[-1])
    assert "SemiDiscreteOT" in whole._repr_html_()
    whole.fit(randn(50, 5).numpy())
    validation.check_is_fitted(whole[-1])
    validation.check_is_fitted(whole)
    assert whole[-1].converged_


def test_settings_are_given_and_changed_as_scikit_learn_does():
    base = pytest.importorskip("sklearn.base")
    ot = SemiDiscreteOT("normal", tol=0.05, seed=3, progress=False)
    assert list(ot.get_params()) == list(inspect.signature(SemiDiscreteOT).parameters)
    ot.fit(randn(20, 12))
    copy = base.clone(ot)
    assert copy.get_params() == ot.get_params()
    assert not hasattr(copy, "heights_")
    assert copy.set_params(tol=0.1, method="newton") is copy
    assert (copy.tol, copy.method, copy.seed, ot.tol) == (0.1, "newton", 3, 0.05)
    with pytest.raises(ValueError, match="settings must be of source, method, .*, got 'tols'"):
        copy.set_params(seed=4, tols=1)
    assert copy.seed == 3
