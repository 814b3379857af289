import pytest
import torch
from oracles import assert_same_bits
from problems import HARD, crowd, random_problem, same, widen

from otgen import ops
from otgen.ops import reference


def check(x, y, h, new, k=8, want=None):
    """Hold a shortlist to the reference, bit for bit; the share of samples that it scored anew."""
    shortlist = ops.Shortlist(x, y, h, k)
    index, score = shortlist.assign(new)
    want_index, want_score = want or reference.assign(x, y, new)
    assert_same_bits(index, want_index)
    assert_same_bits(score, want_score)
    return shortlist.scored / max(1, len(x))


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("step", [0.0, 1e-7, 1e-3, 1.0])
def test_equals_reference_on_hard_problems(dtype, name, step):
    for lay in (same, widen, crowd):
        x, y, h = lay(*HARD[name](dtype))
        move = torch.randn(len(h), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        most = torch.finfo(h.dtype).max
        new = h.double() / 2 + step * move * (h.double() / 2).abs().median()  # halved, or the sum may be infinite
        new = (2 * new.clamp(-most / 2, most / 2)).to(h.dtype)
        want = reference.assign(x, y, new)
        for k in (2, 8):
            check(x, y, h, new, k, want)


@pytest.mark.parametrize(("n", "m", "k"), [(0, 5, 8), (1, 1, 2), (5, 2, 2), (4097, 3, 8), (33, 9, 9), (200, 50, 50)])
def test_every_size(dtype, n, m, k):
    x, y, h = random_problem(n, m, 5, dtype)
    check(x, y, h, h + 0.1 * h.sin(), k)


@pytest.mark.parametrize("which", range(3), ids="xyh")
def test_numbers_may_lie_apart_in_memory(dtype, which):
    given = list(random_problem(50, 30, 5, dtype))
    given[which] = given[which].repeat_interleave(2, -1)[..., ::2]
    check(*given, given[2] + 0.1 * given[2].sin())


def test_a_small_step_needs_few_scores():
    x, y, h = random_problem(3000, 400, 6)
    assert check(x, y, h, h + 0.01 * h.sin()) < 0.05
    assert check(x, y, h, h + 0.0) < 0.001
    assert check(x, y, h, h + 5.0) < 0.001  # all rise alike
    assert check(x, y, h, h.flip(0) * 3) > 0.3


def test_a_target_that_was_not_listed_wins_when_it_rises():
    x, y, h = random_problem(100, 60, 3)
    h[7] -= 100.0
    new = h.clone()
    new[7] += 200.0
    assert check(x, y, h, new) == 1.0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 1}, ValueError, "Shortlist: k must be .*2.*got 1"),
        ({"k": 2.0}, TypeError, "Shortlist: k must be an int"),
        ({"h": torch.zeros(3)}, ValueError, "Shortlist: h must have shape"),
        ({"x": torch.zeros(7, 3)}, ValueError, r"Shortlist: x must have shape \(n, 2\)"),
    ],
)
def test_bad_arguments(change, error, words):
    x, y, h = random_problem(7, 5, 2)
    with pytest.raises(error, match=words):
        ops.Shortlist(**{"x": x, "y": y, "h": h, **change})


def test_heights_that_change_in_place():
    x, y, h = random_problem(200, 60, 3)
    shortlist = ops.Shortlist(x, y, h)
    h[7] += 100.0
    assert_same_bits(shortlist.assign(h)[0], torch.full((200,), 7))


@pytest.mark.parametrize("name", ["denormal_heights", "denormal_samples", "denormal_products", "denormal_targets"])
def test_denormals_count_also_where_torch_flushes_them(dtype, flush_denormals, name):
    x, y, h = HARD[name](dtype)
    want = reference.assign(x, y, h.flip(0))
    flush_denormals()
    index, score = ops.Shortlist(x, y, h).assign(h.flip(0))
    assert_same_bits(index, want[0])
    assert_same_bits(score, want[1])


def test_bad_heights():
    shortlist = ops.Shortlist(*random_problem(7, 5, 2))
    with pytest.raises(ValueError, match=r"Shortlist.assign: h must have shape \(5,\)"):
        shortlist.assign(torch.zeros(4))


@pytest.mark.parametrize(
    ("x_scale", "y_scale", "rise"), [(1e150, 1e-165, 1e-17), (1e-165, 1e150, 1e-17), (1.0, 1.0, 1e-2)]
)
def test_norms_whose_squares_leave_float64_are_not_forgotten(x_scale, y_scale, rise):
    """Targets whose scores are equal but for rounding, which the slack must cover."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        one = y_scale * torch.randn(8, generator=generator, dtype=torch.float64)
        y = torch.stack([one[torch.randperm(8, generator=generator)] for _ in range(40)])
        x = x_scale * torch.randn(64, 1, generator=generator, dtype=torch.float64).expand(64, 8)
        check(x.contiguous(), y, torch.zeros(40, dtype=torch.float64), torch.full((40,), rise, dtype=torch.float64))
