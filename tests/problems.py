"""Samples, targets and heights that are hard to assign, and kinds of streams: what tests of the ops share."""

from functools import cache

import torch

from otgen.ops import reference

KINDS = [{}, {"sobol": True}, {"images": 2}, {"images": 16}, {"sobol": True, "images": 8}]
STREAMS = [(source, kind) for source in ("uniform", "normal") for kind in KINDS]


def random_problem(n, m, d, dtype=torch.float32, seed=0):
    """Standard normal samples (n, d), targets (m, d) and heights (m,)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((n, d), (m, d), (m,)))


def on_a_line(m=12, seed=0):
    """Sorted targets (m, 1), float64, and their weights (m,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(-2, 2, m, dtype=torch.float64) + 0.05 * torch.randn(m, generator=generator, dtype=torch.float64)
    return y[:, None], torch.rand(m, generator=generator, dtype=torch.float64) + 0.3


def one_ulp(v, steps):
    """Move each element of v up by a whole number of units in the last place."""
    bits = v.view(torch.int32 if v.dtype == torch.float32 else torch.int64)
    return (bits + steps.to(bits.dtype)).view(v.dtype)


def _duplicates(dtype):
    """A few points many times over, in no order: the smallest index wins."""
    x, y, h = random_problem(150, 9, 5, dtype)
    pick = torch.randint(9, (200,), generator=torch.Generator().manual_seed(1))
    return x, y[pick], h[pick]


def _lattice(dtype):
    """Small whole numbers: distinct targets tie exactly."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((200, 3), (150, 3), (150,))
    return tuple(torch.randint(-2, 3, shape, generator=generator).to(dtype) for shape in shapes)


def _last_place(dtype):
    """Targets that differ by units in the last place of one coordinate."""
    generator = torch.Generator().manual_seed(0)
    x, y, h = random_problem(200, 1, 6, dtype)
    y = y.expand(150, -1).clone()
    y[:, 2] = one_ulp(y[:, 2].clone(), torch.randint(0, 40, (150,), generator=generator))
    return x, y, h.expand(150).clone()


def _last_place_of_height(dtype):
    """Equal targets, heights that differ by units in the last place: far below the rounding of a float32 score."""
    generator = torch.Generator().manual_seed(0)
    x, y, h = random_problem(200, 1, 6, dtype)
    small = torch.full((150,), 1e-7, dtype=dtype)
    return 10 * x, y.expand(150, -1).clone(), one_ulp(small, torch.randint(0, 200, (150,), generator=generator))


def _offset(distance):
    def make(dtype):
        """All targets far from the origin, heights to match: what they share moves no boundary."""
        x, y, h = random_problem(150, 150, 7, dtype)
        y = y + distance * torch.linspace(-1, 1, 7, dtype=dtype)
        return x, y, h - 0.5 * (y.double() ** 2).sum(1).to(dtype)

    return make


def _height_offset(dtype):
    """A constant in the heights that leaves them few digits."""
    x, y, h = random_problem(150, 150, 7, dtype)
    return x, y, h + 1e6


def _voronoi(dtype):
    """Nearest neighbours, the samples among the targets."""
    x, y, _ = random_problem(150, 150, 7, dtype)
    return torch.cat([x, y[:40]]), y, -0.5 * (y * y).sum(1)


def _scaled(sx, sy, sh):
    def make(dtype):
        """Numbers far from 1."""
        x, y, h = random_problem(90, 70, 5, dtype)
        return (
            (x.double() * sx).clamp(-3e38, 3e38).to(dtype),
            (y.double() * sy).clamp(-3e38, 3e38).to(dtype),
            (h.double() * sh).clamp(-3e38, 3e38).to(dtype),
        )

    return make


def _scaled64(sx, sy, sh):
    def make(dtype):
        """Numbers that only float64 holds, and that even there underflow or overflow in a product."""
        x, y, h = random_problem(90, 70, 5, torch.float64)
        return x * sx, y * sy, h * sh

    return make


def _infinite(sx, sy):
    def make(dtype):
        """Float64 scores beyond the largest float64: all that overflow upwards are equal."""
        x, y, h = random_problem(90, 70, 1, torch.float64)
        return x.abs() * sx, y * sy, h

    return make


def _largest_heights(sign):
    def make(dtype):
        """Heights beside the largest float64, so that small products decide which sums overflow."""
        x, y, _ = random_problem(90, 70, 5, torch.float64)
        return x, y * 1e295, torch.full((70,), sign * torch.finfo(torch.float64).max, dtype=torch.float64)

    return make


def _lost_in_float32(dtype):
    """Samples that are zero in float32, and targets so large that their products take the digits of the heights."""
    _, y, h = random_problem(1, 70, 5, torch.float64)
    y[:, 0] = 2.0**168
    return torch.full((90, 5), 6e-46, dtype=torch.float64), y, 1e-12 * h


def _alike(dtype):
    """All targets equal up to 1e-9, in a small and in a large frame: every group may hold the winner."""
    x, y, h = random_problem(100, 300, 5, dtype)
    return x, 1 + 1e-9 * y, 1e-9 * h


def _alike_groups(dtype):
    """Every group of twelve holds one of the best targets, the same one: a full list of candidates, all tied."""
    x, y, h = random_problem(100, 12 * 50, 5, dtype)
    y[5::12], h[5::12] = 4.0, 3.0
    return x.abs(), y, h


def _outlier(dtype):
    """One target a million times as far as the rest: it takes the digits of a common scale."""
    x, y, h = random_problem(150, 150, 7, dtype)
    y[77] *= 1e6
    h[77] = -1e6
    return x, y, h


def _zero(dtype):
    """Nothing but zeros: index 0 wins."""
    return torch.zeros(33, 3, dtype=dtype), torch.zeros(25, 3, dtype=dtype), torch.zeros(25, dtype=dtype)


def _zero_heights_of_both_signs(dtype):
    """Zero and minus zero are equal."""
    x, y, h = _zero(dtype)
    h[::2] = -0.0
    return x, y, h


def _rising(dtype):
    """Scores that rise with the index: the list of candidates is renewed with every group."""
    x, y, h = random_problem(70, 400, 3, dtype)
    return x, 1e-3 * y, torch.arange(400, dtype=dtype)


def _clusters(dtype):
    """Tight clusters far apart."""
    x, y, h = random_problem(150, 200, 4, dtype)
    centres = random_problem(1, 12, 4, dtype, seed=1)[1]
    y = centres[torch.arange(200) % 12] + 1e-6 * y
    return x, y, -0.5 * (y * y).sum(1)


def _one_wins_all(dtype):
    """Heights far above all products."""
    x, y, h = random_problem(150, 150, 7, dtype)
    return x, y, h * 1e8


def _mixed_norms(dtype):
    """Samples from 1e-30 to 1e30 in one tile."""
    x, y, h = random_problem(130, 150, 7, dtype)
    return x * torch.logspace(-30, 30, 130, dtype=dtype)[:, None], y, h


def _rounding_decides(dtype):
    """A large common coordinate and tiny differences: which score is largest is up to how float64 rounds."""
    x, y, h = random_problem(150, 150, 7, dtype)
    y[:, 1:] *= 1e-9
    y[:, 0] = 1e7
    return x, y, 0 * h


def _stagnation(d, together=1):
    def make(dtype):
        """Sums from 1 of many products just below, or above, half a unit of float32: it keeps none, or doubles all.

        So the winner's score falls, and that of a rival in another group rises, by as much as d roundings can do; or
        as sums of so many products can, where a matrix unit adds these together.
        """
        unit, small, gap = 2.0**-24 / together, 2.0**-8, 48
        y = torch.zeros(2 * gap, d, dtype=torch.float64)
        y[3::gap, 0] = 1 + 2.0**-7
        y[3, 1:], y[3 + gap, 1:] = 0.875 * unit / small, 1.125 * unit / small
        y[4::gap] = -y[3::gap]  # which puts the centre at 0
        h = torch.zeros(2 * gap, dtype=torch.float64)
        h[gap:] = -0.375 * unit * (d - 1)
        x = torch.full((34, d), small, dtype=torch.float64)
        x[:, 0] = 1.0
        x[::2] *= -1
        return x.to(dtype), y.to(dtype), h.to(dtype)

    return make


def _one_span_rounds_more(dtype):
    """Targets that are nearly zero, enough for a span of groups, and two whose large products take their digits.

    Those two win or lose by less than rounding does to them, and by more than it does to the others.
    """
    generator = torch.Generator().manual_seed(0)
    y, h = torch.zeros(386, 8, dtype=torch.float64), torch.linspace(0, -0.3, 386, dtype=torch.float64)
    y[-2:, :3] = torch.tensor([[1e4, -1e4, 1.0], [-1e4, 1e4, 1.0]])
    h[-2:] = -1.0001
    x = torch.zeros(100, 8, dtype=torch.float64)
    x[:, :2] = 1 + 0.1 * torch.rand(100, 1, generator=generator, dtype=torch.float64)
    x[::2] *= -1
    x[:, 2] = 1 + 4e-4 * torch.rand(100, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype), h.to(dtype)


def _cut_off(dtype):
    """Numbers of few digits whose products a sum of 24 bits cuts off beside a height of one, again and again.

    A matrix unit that rounds towards zero keeps nothing of them, and a rival in another group then looks better.
    """
    m, d, unit = 96, 512, 2.0**-24
    y, h = torch.zeros(m, d, dtype=dtype), torch.full((m,), -1.0, dtype=dtype)
    y[5], h[5] = 1.875 * unit, 1.0
    h[40] = 1 + 460 * unit
    return torch.ones(33, d, dtype=dtype), y, h


def _rounds_one_way(bits):
    def make(dtype):
        """Samples whose coordinates all lose half a unit when rounded to so many bits, to the harm of the winner.

        Its rival gains as much: the two differ by all that such a rounding can do, and are in groups of their own.
        """
        m, d, lost = 60, 64, 0.99 * 2.0**-bits
        side = torch.ones(m, dtype=torch.float64)
        side[::2] = -1.0
        h = side * -d * (1 + lost) - 1.0  # all scores are -1
        h[3] += 1.0 + lost * d / 50
        h[40] += 1.0
        x = torch.full((33, d), 1 + lost, dtype=torch.float64)
        return x.to(dtype), (side[:, None] * torch.ones(m, d)).to(dtype), h.to(dtype)

    return make


def _whole_steps(x, most, margin):
    """A sample, its negative, and two so far out that 1 is the step of whole numbers up to `most`."""
    far = torch.zeros(2, x.shape[1], dtype=x.dtype)
    far[:, 0] = torch.tensor([most / margin, -most / margin])
    return torch.cat([x, -x, far])


def _step_of_a_target(most, margin, d):
    def make(dtype):
        """A target whose coordinates lose half a step each, unlike the rest of its group; its rival gains as much."""
        m, lost = 60, 0.49
        y = torch.zeros(m, d, dtype=torch.float64)
        y[::2, 0], y[1::2, 0] = -float(most), float(most)
        h = -y[:, 0] - 40  # all scores of a sample of ones are -40
        y[3, 1:], y[40, 1:] = lost, -lost
        h[3] += 40.5 - lost * (d - 1)
        h[40] += 40.0 + lost * (d - 1)
        return _whole_steps(torch.ones(1, d, dtype=torch.float64), most, margin).to(dtype), y.to(dtype), h.to(dtype)

    return make


def _steps_of_samples(most, margin, d):
    def make(dtype):
        """Samples whose coordinates all lose half a step, to the harm of the winner, while its rival gains as much."""
        m, lost = 60, 0.49
        side = torch.ones(m, dtype=torch.float64)
        side[::2] = -1.0
        h = -side * lost * d - 1.0
        h[3] += 1.0 + lost * d / 50
        h[40] += 1.0
        x = torch.full((1, d), lost, dtype=torch.float64)
        return _whole_steps(x, most, margin).to(dtype), side[:, None].expand(m, d).to(dtype), h.to(dtype)

    return make


def _step_of_a_height(most, margin, d):
    def make(dtype):
        """A height that loses half a unit; its rival is the highest of another group, whose height is exact."""
        y = torch.zeros(26, d, dtype=torch.float64)
        y[:13, 0], y[13:, 0] = -float(most), float(most)
        x = _whole_steps(torch.eye(1, d, dtype=torch.float64), most, margin)
        h = -y[:, 0] - 50.0  # all scores of the first sample are -50, but for
        h[0] += 50 - 0.56  # the rival, the highest of the first group,
        h[12] += 50 - 2 * most  # the highest of the second group, half a unit above
        h[13] += 50 - 0.51  # the winner, which becomes -1
        return x.to(dtype), y.to(dtype), h.to(dtype)

    return make


BYTES = (127, 1.1)  # the largest of them, or norm, and by how much it is over those of most samples
SHORTS = (32767, 2.0)


def _samples_out_of_reach(dtype):
    """Samples a hundred times as far as the 64 that tell where samples lie."""
    x, y, h = random_problem(64, 60, 5, torch.float64)
    side = torch.ones(60, dtype=torch.float64)
    side[::2] = -1.0
    y[:, 0] = side
    far = 0 * x[:33]
    far[:, 0] = 300.0
    h = -300 * side - 5.0 + 0 * h
    h[3] += 5.5
    h[40] += 5.0
    return torch.cat([x.clamp(-3, 3), far]).to(dtype), y.to(dtype), h.to(dtype)


def _shorts_of_far_samples(dtype):
    """Samples so far beyond the 64 that tell where samples lie that products of their shorts would leave int32."""
    x, y, h = random_problem(64, 60, 16, torch.float64)
    y[7] = 3.0
    most = 2 * x.norm(dim=1).quantile(0.9)  # of the norms that fit
    far = torch.linspace(2.05, 3.95, 31, dtype=torch.float64)[:, None] * most / 4 * torch.ones(16, dtype=torch.float64)
    return torch.cat([x, far, -far]).to(dtype), y.to(dtype), (0 * h).to(dtype)


def _one_sample_far_away(dtype):
    """All samples the same but one, for which their step is nothing."""
    x, y, h = random_problem(1, 60, 16, torch.float64)
    x = x.expand(90, -1).clone()
    x[77] = 1.4e16
    y[7] = 3.0
    return x.to(dtype), y.to(dtype), h.to(dtype)


def _one_sample_far_beyond(dtype):
    """One sample so far away that a sort of the others by whole steps has no place for it."""
    x, y, h = random_problem(90, 60, 3, dtype)
    x = 1e13 * x
    x[77] = 1e30
    return x, y, 1e13 * h


def _shorts_that_line_up(dtype):
    """Samples and a target along one diagonal, where shorts as large as their bits allow have products beyond int32."""
    x, y, h = random_problem(80, 60, 23, torch.float64)
    y[7] = 3.0
    x = 0.01 * x
    x[::2] += 1.0
    x[1::2] -= 1.0
    return x.to(dtype), y.to(dtype), (0 * h).to(dtype)


def _far_samples(dtype):
    """Samples far from the origin and near each other, heights to match: float32 keeps whole numbers of them."""
    x, y, h = random_problem(60, 300, 7, torch.float64)
    y, h = torch.cat([y, -y]), torch.cat([h, -h])  # the middle of the heights is 0 before and after
    middle = 1e7 * torch.linspace(0.9, 1, 7, dtype=torch.float64)
    return (middle + 0.01 * x).to(dtype), y.to(dtype), (0.01 * h - y @ middle).to(dtype)


def _rounding_decides_on_both_sides(dtype):
    """The same for samples of one tile whose middle is the origin."""
    x, y, h = _rounding_decides(dtype)
    return torch.cat([x[:16], -x[:16]]), y, h


def _rounding_decides_far_away(dtype):
    """The same for samples far from the origin and near each other."""
    x, y, h = _rounding_decides(dtype)
    y[:, 1:] *= 0.1
    return 1e3 + 1e-3 * x, y, h


def _heights_of_sixteen_digits(dtype):
    """Heights so large that scores are even numbers: most samples have several best targets."""
    x, y, h = random_problem(150, 150, 7, dtype)
    return x, y, 0 * h + 1e16


def _huge_targets_apart(dtype):
    """Targets at both ends of float32, so that even their distance overflows."""
    x, y, h = random_problem(60, 60, 4, dtype)
    return x, y.sign() * 3e38, h.sign() * 3e38


HARD = {
    "duplicates": _duplicates,
    "lattice": _lattice,
    "last_place": _last_place,
    "last_place_of_height": _last_place_of_height,
    "offset_1e4": _offset(1e4),
    "offset_1e7": _offset(1e7),
    "height_offset": _height_offset,
    "voronoi": _voronoi,
    "norms_1e30": _scaled(1e30, 1e30, 1e30),
    "norms_1e38": _scaled(1e38, 1e38, 1e38),
    "huge_samples": _scaled(1e38, 1, 1),
    "huge_targets": _scaled(1, 1e38, 1),
    "huge_targets_apart": _huge_targets_apart,
    "small": _scaled(1e-20, 1e-20, 1e-40),
    "denormal_samples": _scaled(1e-41, 1, 1e-41),
    "denormal_targets": _scaled(1, 1e-41, 1e-41),
    "denormal_heights": _scaled(1e-22, 1e-22, 1e-44),
    "denormal_products": _scaled(1e-40, 1e-40, 0),
    "mixed_norms": _mixed_norms,
    "one_wins_all": _one_wins_all,
    "alike": _alike,
    "alike_groups": _alike_groups,
    "rounding_decides": _rounding_decides,
    "rounding_decides_on_both_sides": _rounding_decides_on_both_sides,
    "rounding_decides_far_away": _rounding_decides_far_away,
    "heights_of_sixteen_digits": _heights_of_sixteen_digits,
    "stagnation_64": _stagnation(64),
    "stagnation_1000": _stagnation(1000),
    "stagnation_of_tiles": _stagnation(512, 32),
    "one_span_rounds_more": _one_span_rounds_more,
    "cut_off": _cut_off,
    "bfloat16_rounds_one_way": _rounds_one_way(8),
    "float32_rounds_one_way": _rounds_one_way(24),
    "byte_of_a_target": _step_of_a_target(*BYTES, 64),
    "bytes_of_samples": _steps_of_samples(*BYTES, 64),
    "byte_of_a_height": _step_of_a_height(*BYTES, 64),
    "short_of_a_target": _step_of_a_target(*SHORTS, 32),
    "shorts_of_samples": _steps_of_samples(*SHORTS, 32),
    "short_of_a_height": _step_of_a_height(*SHORTS, 4),
    "samples_out_of_reach": _samples_out_of_reach,
    "shorts_of_far_samples": _shorts_of_far_samples,
    "one_sample_far_away": _one_sample_far_away,
    "one_sample_far_beyond": _one_sample_far_beyond,
    "shorts_that_line_up": _shorts_that_line_up,
    "far_samples": _far_samples,
    "outlier": _outlier,
    "zero": _zero,
    "zero_heights_of_both_signs": _zero_heights_of_both_signs,
    "rising": _rising,
    "clusters": _clusters,
    "float64_huge": _scaled64(1e150, 1e150, 1e300),
    "float64_largest": _scaled64(0.5, 1e308 / 4, 1e308 / 4),
    "float64_tiny": _scaled64(1e-150, 1e-150, 1e-300),
    "float64_denormal_targets": _scaled64(1, 1e-320, 1e-320),
    "float64_denormal_products": _scaled64(1e-16, 1e-306, 0),
    "float64_underflow": _scaled64(1e-200, 1e-200, 0),
    "float64_infinite": _infinite(1e200, 1e200),
    "float64_infinite_targets": _infinite(1e20, 1e290),
    "float64_largest_heights": _largest_heights(1),
    "float64_lowest_heights": _largest_heights(-1),
    "float64_lost_in_float32": _lost_in_float32,
}
"""Name -> function of a dtype that makes (x, y, h); those called float64_* are float64 whatever is asked for."""


def widen(x, y, h):
    """The same scores from 45 more coordinates, where all targets are zero: for filters made for many dimensions."""
    d = x.shape[1] + 45
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(d, generator=generator)[: x.shape[1]]
    wide_x, wide_y = torch.randn(len(x), d, generator=generator, dtype=x.dtype), torch.zeros(len(y), d, dtype=y.dtype)
    wide_x[:, order], wide_y[:, order] = x, y
    return wide_x, wide_y, h


def crowd(x, y, h):
    """Much the same in three coordinates at most and 700 targets: where targets are pruned by boxes."""
    d = min(3, x.shape[1])
    generator = torch.Generator().manual_seed(0)
    pick = torch.cat([torch.arange(len(y)), torch.randint(len(y), (max(0, 700 - len(y)),), generator=generator)])
    y = y[pick, :d].clone()
    steps = torch.randint(0, 3, y[::2].shape, generator=generator)
    y[::2] = one_ulp(y[::2].clone(), steps * (y[::2] != 0) * (y[::2].abs() < 1e38))
    return x[:, :d].contiguous(), y, h[pick]


def same(x, y, h):
    """As they are."""
    return x, y, h


@cache  # for all instruction sets
def hard(name, dtype, lay):
    """A problem of HARD, laid out anew, and the 19 best targets of its samples."""
    problem = lay(*HARD[name](dtype))
    return problem, reference.topk(*problem, 19)


# One, a prime, one past a tile of 32 samples, a group of 12 or 16 targets, a block of 256 samples, a step of 32
# coordinates of the matrix unit; one coordinate and many.
SIZES = [
    (1, 1, 1),
    (1, 13, 3),
    (31, 1, 2),
    (33, 11, 1),
    (32, 12, 16),
    (33, 13, 17),
    (257, 25, 5),
    (64, 257, 3),
    (513, 101, 8),
    (33, 16, 12),
    (40, 17, 31),
    (65, 33, 32),
    (33, 49, 33),
    (97, 1009, 64),  # one past a chunk of 256 KiB, 84 groups of 12
    (97, 1025, 64),  # and 64 groups of 16
    (40, 2053, 64),
    (5, 61, 1823),  # two groups a chunk
    (3, 29, 6007),  # a group larger than a chunk
]
"""Triples (n, m, d)."""
