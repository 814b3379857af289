"""The gate: each wrong argument is refused before any work, in one line that says what was wanted and what came."""

import pytest
import torch

from otgen import _ext, ops
from otgen.ops import check

X, Y, H = torch.zeros(7, 2), torch.ones(3, 2), torch.zeros(3)
PAIRS, GAPS, BAND = torch.tensor([[0, 1], [2, 1]], dtype=torch.int32), torch.ones(2), torch.ones(3)
NAN, INF = float("nan"), float("inf")

# What each op is called with; a case below replaces some of it.
CALLS = {
    "assign": (ops.assign, {"x": X, "y": Y, "h": H}),
    "topk": (ops.topk, {"x": X, "y": Y, "h": H, "k": 2}),
    "soft_assign": (ops.soft_assign, {"x": X, "y": Y, "h": H, "eps": 1.0}),
    "measure": (ops.measure, {"y": Y, "h": H, "source": "normal", "n": 5}),
    "sample": (ops.sample, {"source": "normal", "n": 5, "d": 2}),
    "laplacian": (ops.laplacian, {"pairs": PAIRS, "gaps": GAPS, "bandwidth": BAND, "n": 2}),
}


def with_value(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


def bad_tensors(name, good):
    """Cases (change, error, words) for a float tensor argument."""
    return [
        ({name: good.tolist()}, TypeError, ("torch.Tensor", "list")),
        ({name: good.numpy()}, TypeError, ("torch.Tensor", "ndarray")),
        ({name: None}, TypeError, ("torch.Tensor", "NoneType")),
        ({name: good.half()}, TypeError, ("float32 or float64", "float16")),
        ({name: good.bfloat16()}, TypeError, ("float32 or float64", "bfloat16")),
        ({name: good.long()}, TypeError, ("float32 or float64", "int64")),
        ({name: good.to(torch.complex64)}, TypeError, ("float32 or float64", "complex64")),
        ({name: good.to_sparse()}, TypeError, ("dense", "sparse_coo")),
        ({name: good.to("meta")}, ValueError, (name, "meta")),
        ({name: with_value(good, NAN)}, ValueError, ("finite", "1 NaN or infinite")),
        ({name: with_value(good, INF)}, ValueError, ("finite", "1 NaN or infinite")),
        ({name: with_value(good, -INF)}, ValueError, ("finite", "1 NaN or infinite")),
        ({name: good[None]}, ValueError, ("shape", str((1, *good.shape)))),
        ({name: torch.tensor(1.0)}, ValueError, ("shape", "got ()")),
    ]


def bad_integers(name, low, high=None):
    """Cases for a whole number in [low, high]."""
    cases = [
        ({name: low - 1}, ValueError, (name, str(low), f"got {low - 1}")),
        ({name: -(2**70)}, ValueError, (name, str(low), f"got {-(2**70)}")),
        ({name: 2.0}, TypeError, (name, "int", "float")),
        ({name: True}, TypeError, (name, "int", "bool")),
        ({name: "2"}, TypeError, (name, "int", "str")),
        ({name: None}, TypeError, (name, "int", "NoneType")),
        ({name: torch.tensor(2)}, TypeError, (name, "int", "Tensor")),
    ]
    if high is not None:
        cases.append(({name: high + 1}, ValueError, (name, str(high), f"got {high + 1}")))
    return cases


TARGETS = [
    *bad_tensors("y", Y),
    *bad_tensors("h", H),
    ({"y": Y[:, 0]}, ValueError, ("y must have shape (m, d)", "(3,)")),
    ({"y": Y[:0], "h": H[:0]}, ValueError, ("at least one target", "(0, 2)")),
    ({"y": Y[:, :0]}, ValueError, ("at least one coordinate", "(3, 0)")),
    ({"h": H[:2]}, ValueError, ("h must have shape (3,)", "(2,)")),
    ({"h": H[:, None]}, ValueError, ("h must have shape (3,)", "(3, 1)")),
    ({"h": H.double()}, TypeError, ("float32", "got float64")),
    ({"y": Y.double()}, TypeError, ("float64", "got float32")),
]
SAMPLES = [
    *bad_tensors("x", X),
    ({"x": X.double()}, TypeError, ("float32", "got float64")),
    ({"x": X[:, :1]}, ValueError, ("x must have shape (n, 2) to match y of shape (3, 2)", "got (7, 1)")),
    ({"x": X[0]}, ValueError, ("x must have shape (n, 2)", "got (2,)")),
]
STREAM = [
    ({"source": "gaussian"}, ValueError, ("source must be one of uniform, normal", "'gaussian'")),
    ({"source": None}, ValueError, ("source", "None")),
    ({"source": ["normal"]}, ValueError, ("source", "['normal']")),
    *bad_integers("seed", 0, 2**63 - 1),
    *bad_integers("first", 0, 2**62),
    ({"images": 3}, ValueError, ("images must be one of 1, 2, 4, 8, 16", "got 3")),
    ({"images": True}, TypeError, ("images must be an int", "bool")),
]
PROGRESS = [({"progress": 3}, TypeError, ("progress must be a function or None", "int"))]
CASES = {
    "assign": [*TARGETS, *SAMPLES, *PROGRESS],
    "topk": [*TARGETS, *SAMPLES, *PROGRESS, *bad_integers("k", 1, 3)],
    "soft_assign": [
        *TARGETS,
        *SAMPLES,
        *[({"eps": bad}, ValueError, ("eps must be positive and finite", f"got {bad}")) for bad in (0, -1.0, INF, NAN)],
        ({"eps": 10**400}, ValueError, ("eps must be positive and finite", "got 1000")),
        *[({"eps": bad}, TypeError, ("eps must be a number",)) for bad in (True, "1", None, torch.tensor(1.0))],
    ],
    "measure": [
        *TARGETS,
        *STREAM,
        *PROGRESS,
        *bad_integers("n", 1, 2**62),
        ({"y": Y[:1], "h": H[:1], "pairs": True}, ValueError, ("two targets", "one")),
        ({"y": torch.ones(3, 21202), "sobol": True}, ValueError, ("d must be between 1 and 21201", "21202")),
    ],
    "sample": [
        *STREAM,
        *bad_integers("n", 0, 2**62),
        *bad_integers("d", 1),
        ({"d": 21202, "sobol": True}, ValueError, ("d must be between 1 and 21201", "21202")),
    ],
    "laplacian": [
        *bad_tensors("bandwidth", BAND),
        *bad_tensors("gaps", GAPS),
        *bad_integers("n", 2),
        ({"pairs": PAIRS.tolist()}, TypeError, ("pairs", "int32", "list")),
        ({"pairs": PAIRS.long()}, TypeError, ("pairs", "int32", "int64")),
        ({"pairs": PAIRS.float()}, TypeError, ("pairs", "int32", "float32")),
        ({"pairs": PAIRS.to("meta")}, ValueError, ("pairs", "cpu", "meta")),
        ({"pairs": PAIRS[:1]}, ValueError, ("pairs must have shape (2, 2)", "(1, 2)")),
        ({"pairs": PAIRS[0]}, ValueError, ("pairs must have shape (2, 2)", "(2,)")),
        ({"pairs": PAIRS - 1}, ValueError, ("pairs must lie in [0, 3)", "-1 to 1")),
        ({"pairs": PAIRS + 1}, ValueError, ("pairs must lie in [0, 3)", "1 to 3")),
        ({"pairs": PAIRS * 0}, ValueError, ("two different targets",)),
        ({"bandwidth": with_value(BAND, 0.0)}, ValueError, ("bandwidth must be positive", "got 0.0")),
        ({"bandwidth": with_value(BAND, -1.0)}, ValueError, ("bandwidth must be positive", "got -1.0")),
        ({"bandwidth": with_value(BAND.double(), 1e300)}, ValueError, ("bandwidth", "finite")),
        ({"gaps": GAPS[:1]}, ValueError, ("pairs must have shape (1, 2)", "(2, 2)")),
    ],
}


@pytest.mark.parametrize("op", CALLS)
def test_the_good_call_is_good(op):
    function, arguments = CALLS[op]
    function(**arguments)


@pytest.mark.parametrize(
    ("op", "change", "error", "words"),
    [
        pytest.param(op, *case, id=f"{op}-{'-'.join(case[0])}-{i}")
        for op, cases in CASES.items()
        for i, case in enumerate(cases)
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(op, change, error, words):
    function, arguments = CALLS[op]
    with pytest.raises(error) as caught:
        function(**{**arguments, **change})
    text = str(caught.value)
    assert caught.type is error
    assert "\n" not in text
    assert text.startswith("sobol: " if change.get("sobol") else f"{op}: ")
    for word in words:
        assert word in text


def test_the_largest_that_is_allowed_works():
    top = {"seed": 2**63 - 1, "first": 2**62}
    assert ops.sample("normal", 100, 2, **top).isfinite().all()
    assert int(ops.measure(Y, H, "uniform", 100, **top).counts.sum()) == 100
    assert ops.topk(X, Y, H, 3)[0].shape == (7, 3)


def test_a_tensor_for_the_gpu_on_a_build_without_one_says_how_to_build():
    if _ext.cuda:
        pytest.skip("this build has CUDA kernels")
    with pytest.raises(ValueError, match="this build of otgen has kernels for the CPU only .*from source.*nvcc"):
        check.tensor("assign", "x", torch.ones(2, 3, device="meta"), ("n", "d"))


def test_the_gate_gives_dense_memory_and_keeps_what_is_dense():
    dense = torch.ones(4, 3)
    assert check.tensor("op", "x", dense, ("n", 3)).data_ptr() == dense.data_ptr()
    assert check.tensor("op", "x", dense.T, (3, "n")).is_contiguous()
    assert not check.tensor("op", "x", dense.clone().requires_grad_(), ("n", 3)).requires_grad


def test_the_extension_refuses_an_unknown_dtype():
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
        _ext.assign("float16", 0, 0, 0, 0, 1, 1, (1, -1, 0, 0), None, 0, 0)
