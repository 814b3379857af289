import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch.testing import assert_close

from otgen import ops
from otgen.ot.problem import make_problem
from otgen.ot.sources import BuiltIn

UNIFORM = BuiltIn("uniform")


def problem(y, weights=None, source=UNIFORM):
    return make_problem(source, y, weights)


def points(m, d, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(m, d, generator=generator, dtype=torch.float64) + shift


def some_weights(m, seed=0):
    return torch.rand(m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- normalisation ---------------------------------------------------------------------------------------------------


@given(
    m=st.integers(2, 30),
    d=st.integers(1, 5),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-250, 1e-6, 1.0, 1e6, 1e120]),
    shift=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_targets_are_centred_and_scaled_and_can_be_had_back(m, d, seed, scale, shift):
    given_targets, nu = points(m, d, seed, scale, shift * scale), some_weights(m, seed)
    p = problem(given_targets, nu)
    assert_close(p.nu, nu / nu.sum())
    assert_close(p.nu @ p.y, torch.zeros(d, dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(float(p.nu @ p.y.square().sum(1)) / d, 1.0, rtol=1e-10, atol=0)
    assert_close((p.scale * p.y + p.centre)[p.index], given_targets, rtol=1e-12, atol=1e-12 * scale)
    assert torch.equal(p.given, given_targets)


@pytest.mark.parametrize("y", [[[-2.0], [0.0], [2.0]], [[0.0, 1.0], [0.0, -1.0], [3.0, 0.0], [-3.0, 0.0]]])
def test_targets_in_their_own_middle_are_scaled_as_well(y):
    """Some coordinates are exactly zero once the mean is taken away."""
    assert_close(float(problem(y).y.square().mean()), 1.0)


@pytest.mark.parametrize("off", [1e-12, 1e-6, 1e-3, 0.3])
def test_how_far_off_their_line_targets_are(off):
    """In the plane the distance from a line is a cross product."""
    y = points(100, 2) * torch.tensor([1.0, off])
    away = y - y.mean(0)
    far = away[away.norm(dim=1).argmax()]
    wanted = (away[:, 0] * far[1] - away[:, 1] * far[0]).abs().max() / far.square().sum()
    line = problem(y).line
    assert line.off == pytest.approx(float(wanted), rel=1e-3, abs=0)
    assert float(line.direction.norm()) == pytest.approx(1)


def test_the_covariance_is_that_of_the_weighted_targets():
    y, nu = points(9, 3), some_weights(9)
    p = problem(y, nu)
    wanted = np.cov(y.T.numpy(), aweights=nu.numpy(), ddof=0) / p.scale**2
    assert_close(p.covariance, torch.from_numpy(wanted), check_dtype=False)


def test_equal_weights_are_the_default():
    assert torch.equal(problem(points(7, 2)).weights, torch.full((7,), 1 / 7, dtype=torch.float64))


def test_weights_may_have_any_unit():
    y, nu = points(5, 2), torch.tensor([1, 2, 3, 4, 0])
    for unit in (1, 7, 4e307, 1e-300):  # the sum of the largest is infinite
        assert_close(problem(y, nu.double() * unit).weights, nu / 10.0, check_dtype=False)


@pytest.mark.parametrize("y", [torch.full((4, 3), 2.0), torch.tensor([[5.0, 1.0]])], ids=["all equal", "one"])
def test_a_single_point_is_left_unscaled(y):
    p = problem(y)
    assert (p.m, p.d, p.scale) == (1, y.shape[1], 1.0)
    assert_close(p.centre, y[0].double())
    assert torch.equal(p.y, torch.zeros(1, y.shape[1], dtype=torch.float64))
    assert torch.equal(p.nu, torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("small", [1e-31, 1e-200, 5e-324])
def test_weights_that_no_sample_could_find_are_zero(small):
    p = problem(points(20, 3), torch.tensor([1.0] * 18 + [small] * 2, dtype=torch.float64))
    assert p.m == 18
    assert p.weights[18:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("small", [1e-12, 1e-20, 1e-29])
def test_a_weight_of_all_but_one_keeps_the_rest_in_range(small):
    p = problem(points(20, 3), torch.tensor([1.0] + [small] * 19, dtype=torch.float64))
    assert bool(torch.isfinite(p.y.float()).all())
    assert p.y.abs().max() < 1e12


# --- duplicates and zero weights -------------------------------------------------------------------------------------


def test_duplicates_are_merged_in_the_order_they_came_in():
    a, b, c = torch.tensor([[3.0, 0.0], [1.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    p = problem(torch.stack([c, a, c, b, a]), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]))
    assert p.index.tolist() == [0, 1, 0, 2, -1]  # the last copy of a has no weight, so it is left out like any such
    assert_close(p.nu, torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64))
    assert_close(p.scale * p.y + p.centre, torch.stack([c, a, b]))


def test_nearly_equal_targets_are_not_merged():
    y = torch.ones(2, 3, dtype=torch.float64)
    y[1, 2] = math.nextafter(1, 2)
    assert problem(y).m == 2


def test_shares_of_duplicates_follow_their_weights():
    y = points(3, 2)
    p = problem(y[[0, 1, 0, 2, 1]], torch.tensor([1.0, 2.0, 3.0, 0.0, 2.0]))
    shares = p.spread(torch.tensor([0.6, 0.4], dtype=torch.float64))
    assert_close(shares, torch.tensor([0.15, 0.2, 0.45, 0.0, 0.2], dtype=torch.float64))


def test_heights_go_out_and_come_back():
    p = problem(points(6, 3, scale=100.0)[[0, 1, 2, 3, 4, 5, 0, 3]], torch.tensor([1.0, 0, 1, 1, 1, 1, 1, 1]))
    h = torch.randn(p.m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = p.heights_out(h)
    assert_close(out[p.index >= 0].mean().item(), 0.0, rtol=0, atol=1e-12)
    assert_close(out[[0, 3]], out[[6, 7]])
    assert_close(p.heights_in(out), h - h.mean())
    assert_close(p.heights_in(out + 17), h - h.mean())


def test_of_several_heights_for_one_target_the_largest_counts():
    p = problem(points(3, 2)[[0, 1, 2, 1]])
    h = p.heights_in(torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64))
    assert_close((h - h[0]) * p.scale, torch.tensor([0.0, 5.0, 2.0], dtype=torch.float64))


def test_cells_in_the_units_given_are_those_of_the_problem():
    p = problem(points(40, 3, scale=50.0, shift=1000.0))
    x = UNIFORM.sample(2000, 3, seed=0).double()
    h = -0.1 * p.y.square().sum(1)
    assert torch.equal(ops.assign(x, p.given, p.heights_out(h))[0], ops.assign(x, p.y, h)[0])


@settings(max_examples=25)
@given(
    m=st.integers(2, 40),
    zeros=st.integers(1, 10),
    d=st.integers(1, 6),
    seed=st.integers(0, 1000),
    name=st.sampled_from(["uniform", "normal"]),
    far=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e3]),
)
def test_targets_without_weight_win_nowhere(m, zeros, d, seed, name, far):
    """Not even where they lie on or beside a target that has weight, nor under heights that favour no one."""
    source = BuiltIn(name)
    y = points(m, d, seed)
    y = torch.cat([y[:1].expand(zeros, d) + far * points(zeros, d, seed + 1), y])  # a tie goes to the smallest index
    nu = torch.cat([torch.zeros(zeros), torch.rand(m, generator=torch.Generator().manual_seed(seed))])
    assume(float(nu.max()) > 0)
    p = problem(y, nu, source)
    h = torch.randn(p.m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out = p.heights_out(h)
    x = source.sample(2000, d, seed=seed).double()
    corners = torch.randint(0, 2, (200, d), generator=torch.Generator().manual_seed(seed)).double()
    x = torch.cat([x, corners]) if name == "uniform" else x
    assert bool(torch.isfinite(out).all())
    assert bool((ops.assign(x, y, out)[0] >= zeros).all())
    assert_close(p.heights_in(out), h - h.mean(), rtol=1e-9, atol=1e-9)


def test_targets_without_weight_change_nothing_else():
    y = points(12, 3)
    nu = some_weights(12)
    nu[[2, 7]] = 0
    kept = nu > 0
    p, q = problem(y, nu), problem(y[kept], nu[kept])
    for name in ("y", "nu", "centre"):
        assert_close(getattr(p, name), getattr(q, name), rtol=1e-14, atol=1e-14)
    h = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = p.heights_out(h)[kept]
    assert_close(out - out.mean(), q.heights_out(h), rtol=1e-12, atol=1e-12)


# --- what is accepted and what is refused ----------------------------------------------------------------------------

GRID = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    "y",
    [
        GRID,
        GRID.tolist(),
        GRID.astype(np.int32),
        GRID.astype(np.uint8),
        GRID.astype(np.float16),
        GRID.astype(np.longdouble),
        GRID.astype(">f8"),
        np.asfortranarray(GRID),
        np.repeat(GRID, 3, axis=1)[:, ::3],
        torch.tensor(GRID),
        torch.tensor(GRID).half(),
        torch.tensor(GRID).bfloat16(),
        torch.tensor(GRID).int(),
        torch.tensor(GRID.T.copy()).T,
        torch.tensor(np.repeat(GRID, 2, axis=0))[::2],
        torch.tensor(GRID, requires_grad=True),
        [torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]), torch.tensor([4.0, 5.0]), torch.tensor([6.0, 7.0])],
    ],
    ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', '')}",
)
def test_any_real_array_will_do(y):
    p = problem(y)
    assert p.given.dtype == torch.float64
    assert p.given.is_contiguous()
    assert not p.given.requires_grad
    assert torch.equal(p.given, torch.tensor(GRID))


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_given_arrays_are_copied_not_kept(kind):
    y, nu = kind(GRID), kind([0.25] * 4)
    p = problem(y, nu)
    y[:] = 0
    nu[:] = 0
    assert torch.equal(p.given, torch.tensor(GRID))
    assert_close(p.weights, torch.full((4,), 0.25, dtype=torch.float64))


def test_one_row_of_numbers_is_one_dimension():
    assert torch.equal(problem([3.0, 1.0, 2.0]).given, torch.tensor([[3.0], [1.0], [2.0]], dtype=torch.float64))


BAD_TARGETS = {
    "nan": ([[1.0, math.nan], [0.0, 1.0]], ValueError, r"must be finite, got NaN or infinite values in 1 of 2 rows"),
    "inf": (torch.tensor([[math.inf], [1.0]]), ValueError, r"must be finite, got NaN or infinite values in 1 of 2"),
    "none at all": (np.zeros((0, 2)), ValueError, r"must have shape \(m, d\) with m, d >= 1, got \(0, 2\)"),
    "no coordinates": (np.zeros((3, 0)), ValueError, r"must have shape \(m, d\) with m, d >= 1, got \(3, 0\)"),
    "number": (3.0, ValueError, r"must have shape \(m, d\) with m, d >= 1, got \(\)"),
    "scalar tensor": (torch.tensor(3.0), ValueError, r"must have shape \(m, d\) with m, d >= 1, got \(\)"),
    "cube": (np.zeros((2, 2, 2)), ValueError, r"must have shape \(m, d\) with m, d >= 1, got \(2, 2, 2\)"),
    "too large": (GRID * 1e150, ValueError, r"must be below 1e150 .*, got 7e\+150"),
    "ragged": ([[1, 2], [3]], ValueError, "must be an array of numbers"),
    "none": (None, TypeError, "must be an array of real numbers, got dtype object"),
    "objects": (np.array([[1, None]]), TypeError, "must be an array of real numbers, got dtype object"),
    "string": ("abc", TypeError, "must be an array of real numbers, got dtype <U3"),
    "strings": ([["1", "2"]], TypeError, "must be an array of real numbers, got dtype <U1"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), TypeError, "must be an array of real numbers, got dtype datet"),
    "dictionary": ({1: 2}, TypeError, "must be an array of real numbers, got dtype object"),
    "iterator": (map(list, GRID), TypeError, "must be an array of real numbers, got dtype object of a map"),
    "complex": (GRID * 1j, TypeError, "must be an array of real numbers, got dtype complex128"),
    "complex tensor": (torch.ones(2, 2) * 1j, TypeError, "must be real, got torch.complex64"),
    "sparse matrix": (csr_array(GRID), TypeError, "must be an array of real numbers, got dtype object of a csr_array"),
    "sparse": (torch.eye(3).to_sparse(), TypeError, "must be a dense tensor, got layout torch.sparse_coo"),
}


@pytest.mark.parametrize(("y", "error", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_targets_are_refused(y, error, message):
    with pytest.raises(error, match=f"^targets {message}[^\n]*$"):
        problem(y)


BAD_WEIGHTS = {
    "negative": ([-1, 1, 1, 1], ValueError, "must be finite and not negative, got values from -1.0 to 1.0"),
    "nan": ([math.nan, 1, 1, 1], ValueError, "must be finite and not negative"),
    "inf": ([math.inf, 1, 1, 1], ValueError, "must be finite and not negative, got values from 1.0 to inf"),
    "all zero": (np.zeros(4), ValueError, "must not all be zero"),
    "too few": (np.ones(3), ValueError, r"must have shape \(4,\) to match the targets, got \(3,\)"),
    "a column": (np.ones((4, 1)), ValueError, r"must have shape \(4,\) to match the targets, got \(4, 1\)"),
    "a number": (1.0, ValueError, r"must have shape \(4,\) to match the targets, got \(\)"),
    "objects": (np.array([None] * 4), TypeError, "must be an array of real numbers, got dtype object"),
    "string": ("abcd", TypeError, "must be an array of real numbers, got dtype <U4"),
    "complex": (np.ones(4) * 1j, TypeError, "must be an array of real numbers, got dtype complex128"),
}


@pytest.mark.parametrize(("nu", "error", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused(nu, error, message):
    with pytest.raises(error, match=f"^weights {message}[^\n]*$"):
        problem(GRID, nu)
