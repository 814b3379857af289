"""The compiled module itself: the choice of an instruction set, and what it is linked with."""

from pathlib import Path

import pytest

from otgen import _ext

# Loads the extension by its path, so without the package and without torch.
LOAD = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("_ext", {_ext.__file__!r})
_ext = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_ext)
"""


def output(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_the_fastest_is_chosen_of_all_that_run_here(start_python):
    names = _ext.available_isas()
    assert names[0] == "baseline"
    assert len(set(names)) == len(names)
    assert output(start_python(LOAD + "print(_ext.isa())", OTGEN_ISA="")).strip() == names[-1]


@pytest.mark.parametrize("name", _ext.available_isas())
def test_environment_chooses(start_python, name):
    assert output(start_python(LOAD + "print(_ext.isa())", OTGEN_ISA=name)).strip() == name


def test_environment_with_an_unknown_name_gives_one_line(start_python):
    code = (
        LOAD + "for _ in range(2):\n    try:\n        _ext.isa()\n    except ValueError as error:\n        print(error)"
    )
    lines = output(start_python(code, OTGEN_ISA="sse9")).splitlines()
    assert lines == [f"OTGEN_ISA: this machine runs {', '.join(_ext.available_isas())}, got 'sse9'"] * 2


def test_an_unknown_name_fails_the_ops_and_not_the_import(start_python):
    code = """
import torch
from otgen import ops
for call in (lambda: ops.assign(*map(torch.zeros, ((3, 2), (4, 2), (4,)))), lambda: ops.sample("normal", 9, 2)):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    lines = output(start_python(code, OTGEN_ISA="sse9")).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("OTGEN_ISA: ") and line.endswith("got 'sse9'") for line in lines)


@pytest.mark.parametrize("isa", _ext.available_isas(), indirect=True)
def test_setting_an_unknown_name_changes_nothing(isa):
    with pytest.raises(ValueError, match="this machine runs baseline.*, got 'sse9'"):
        _ext.set_isa("sse9")
    assert _ext.isa() == isa


@pytest.mark.skipif(not (_ext.cuda or _ext.emulated), reason="built without CUDA kernels")
def test_setting_an_unknown_filter_changes_nothing():
    before = _ext.cuda_filter()
    with pytest.raises(ValueError, match="OTGEN_CUDA_FILTER: must be none, float32, .* got 'fp4'"):
        _ext.set_cuda_filter("fp4")
    assert _ext.cuda_filter() == before


@pytest.mark.skipif(not (_ext.cuda or _ext.emulated), reason="built without CUDA kernels")
@pytest.mark.parametrize(("name", "chosen"), [("", "float32"), ("bfloat16", "bfloat16"), ("none", "none")])
def test_environment_chooses_the_filter(start_python, name, chosen):
    assert output(start_python(LOAD + "print(_ext.cuda_filter())", OTGEN_CUDA_FILTER=name)).strip() == chosen


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what a process has mapped")
def test_links_neither_torch_nor_a_second_openmp_runtime(start_python):
    code = LOAD + "_ext.isa()\nprint(open('/proc/self/maps').read())"
    mapped = {Path(line.split()[-1]).name for line in output(start_python(code)).splitlines() if ".so" in line}
    assert Path(_ext.__file__).name in mapped
    unwanted = ("libgomp", "libomp", "libiomp", "libtorch", "libc10", "libmkl", "libcudart")
    assert not [name for name in mapped if name.startswith(unwanted)]
    assert not [name for name in mapped if name.startswith("libstdc++")]  # linked in, so that wheels run anywhere


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_peak_is_a_rate_that_a_processor_can_have(isa):
    before = _ext.isa()
    try:
        _ext.set_isa(isa)
        assert 0.1 < _ext.peak_gflops(1) < 2e4
    finally:
        _ext.set_isa(before)
