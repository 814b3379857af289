"""Nothing that a program around otgen may have set or may do afterwards changes a fit: torch's defaults, its memory."""

import pytest
import torch
from draws import randn
from fits import assert_same_fit, fit

from otgen import PowerDiagram, SemiDiscreteOT, ops


def everything(y):
    """A fit, and all that can be asked of it, on the way through every sampler and kernel."""
    ot = fit(y, seed=3)
    points, info = ot.sample(50, return_info=True)
    answers = [ot.cost(2000), ot.certificate(5000, seed=1), points.sum(), info.x.sum(), ot.singular_set().angles.sum()]
    answers += [ot.transport(info.x).sum(), ot.extend(info.x).nansum(), ot.refit(y + 0.1 * y.abs()).heights_.sum()]
    if y.shape[1] <= 3:
        answers += [PowerDiagram(y).costs.sum(), len(ot.cells())]
    return fit(y, seed=3), answers


@pytest.fixture
def defaults():
    """Sets torch's default dtype and device, and puts them back."""

    def choose(dtype, device):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)

    yield choose
    choose(torch.float32, "cpu")
    torch.set_default_device(None)


@pytest.mark.parametrize("d", [2, 6, 12])
@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.float16, "cpu"), (torch.float32, "meta")], ids=str
)
def test_torchs_defaults_change_nothing(defaults, dtype, device, d):
    y = randn(120, d)  # enough to be grouped
    plain, answers = everything(y)
    defaults(dtype, device)
    other, others = everything(y)
    defaults(torch.float32, "cpu")
    assert_same_fit(other, plain)
    assert others == answers


@pytest.fixture
def rough_products():
    """Matrix products may round to bfloat16, for all and by autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", torch.bfloat16):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("d", [2, 6, 12])
def test_precision_of_matrix_products_changes_no_points(request, d):
    ot = fit(randn(300, d), tol=0.1)
    points, jumps = ot.sample(2000), ot.singular_set()
    request.getfixturevalue("rough_products")
    assert torch.equal(ot.sample(2000), points)
    assert torch.equal(ot.singular_set().pairs, jumps.pairs)
    assert ot.singular_set().threshold == jumps.threshold


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_samples_are_float32_by_any_default(defaults, dtype):
    plain = ops.sample("normal", 100, 5, seed=1)
    defaults(dtype, "cpu")
    assert torch.equal(ops.sample("normal", 100, 5, seed=1), plain)


def test_kernels_answer_where_they_were_asked(defaults):
    x, y, h = randn(20, 3).double(), randn(10, 3).double(), randn(10).double()
    pairs, gaps, band = torch.tensor([[0, 1]], dtype=torch.int32), torch.ones(1), 2 * torch.ones(2)
    defaults(torch.float32, "meta")
    for found in (ops.laplacian(pairs, gaps, band, 1), ops.Shortlist(x, y, h).assign(h)):
        assert [v.device.type for v in found] == ["cpu", "cpu"]


@pytest.mark.parametrize("d", [2, 6])
def test_inference_mode(d):
    y = randn(60, d)
    plain = fit(y)
    with torch.inference_mode():
        other = fit(y.clone())
        assert torch.equal(other.sample(10), plain.sample(10))
    assert_same_fit(other, plain)


def test_what_was_given_may_change_afterwards():
    y, nu = randn(60, 6).double(), torch.full((60,), 1 / 60, dtype=torch.float64)
    ot, plain = fit(y, nu), fit(y.clone(), nu.clone())
    diagram = PowerDiagram(sites := randn(30, 2).double(), heights := randn(30).double() / 10)
    hessian, kept = diagram.hessian(), diagram.heights.clone()
    for given in (y, nu, sites, heights):
        given.mul_(2.0).add_(1.0)
    assert_same_fit(ot, plain)
    assert torch.equal(ot.transport(randn(5, 6)), plain.transport(randn(5, 6)))
    assert torch.equal(diagram.hessian(), hessian)
    assert torch.equal(diagram.heights, kept)


def test_heights_do_not_depend_on_the_number_of_threads():
    y, before = randn(40_000, 1), torch.get_num_threads()
    try:
        fits = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            fits.append(SemiDiscreteOT(progress=False).fit(y))
    finally:
        torch.set_num_threads(before)
    assert_same_fit(*fits)
