import pytest
import torch

from otgen import _ext, ops
from otgen.ops import rounding

UNITS = [
    pytest.param("cpu", marks=pytest.mark.skipif(not _ext.emulated, reason="built without -DOTGEN_CUDA=EMULATE")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=UNITS)
def matrix_unit(request):
    """Device of a matrix unit: emulated as coarse as the model of its rounding allows, or real."""
    if request.param == "cuda" and not (_ext.cuda and torch.cuda.is_available()):
        pytest.skip("no CUDA device or build")
    if request.param == "cpu":
        _ext.emulate(True)
    yield torch.device(request.param)
    if request.param == "cpu":
        _ext.emulate(False)


@pytest.fixture(params=rounding.FILTERS)
def instruction(request, matrix_unit):
    """Every instruction that a filter multiplies with."""
    if (
        request.param == "wgmma"
        and matrix_unit.type == "cuda"
        and torch.cuda.get_device_capability(matrix_unit)[0] != 9
    ):
        pytest.skip("only compute capability 9.0 has wgmma")
    return request.param


def test_sums_are_as_exact_as_the_filter_takes_for_granted(matrix_unit, instruction):
    worst = ops.rounding_error(matrix_unit, problems=16 if matrix_unit.type == "cuda" else 3, filter_name=instruction)
    assert len(worst) == 7
    assert max(worst.values()) <= rounding.MARGIN
    if matrix_unit.type == "cpu":
        assert max(worst.values()) <= 1 + 1e-6
        assert worst["cut off"] > 0.4  # so that the emulation is a trial for the bound


def test_whole_numbers_are_multiplied_exactly(matrix_unit, instruction):
    generator = torch.Generator().manual_seed(0)
    a, b, c = (
        torch.randint(-9, 10, shape, generator=generator).double() for shape in ((5, 16, 48), (5, 8, 48), (5, 16, 8))
    )
    assert rounding._error(a, b, c, matrix_unit, instruction) == 0


def test_an_error_is_seen(matrix_unit, monkeypatch):
    monkeypatch.setattr(_ext, "rounding", lambda *arguments: None)
    assert max(ops.rounding_error(matrix_unit, problems=2).values()) > 1000 * rounding.MARGIN


def test_an_unknown_filter_is_refused(matrix_unit):
    wanted = "rounding_error: filter_name must be one of bfloat16, wgmma, got 'float32'"
    with pytest.raises(ValueError, match=wanted):
        ops.rounding_error(matrix_unit, filter_name="float32")


def test_the_processor_has_no_matrix_unit_to_test():
    with pytest.raises(ValueError, match="rounding_error: device must be a CUDA device, got cpu"):
        ops.rounding_error("cpu")
