"""Heights to start from: those of ever larger groups of targets, from the largest down."""

import math

import torch
from torch import Tensor

from otgen import ops
from otgen.ot.problem import Problem, make_problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.newton import Newton, NewtonState, first_samples
from otgen.ot.solvers.starts import best_guess, samples_to_carry, touching
from otgen.seeds import stream

GROUP = 4  # targets, on average
FEW = 100  # targets for which guesses are good enough
LLOYD = 2  # rounds that make groups
CLOSE = 0.05  # largest chi2 to which groups are solved
PART = 0.7  # of the tolerance, or of the chi2 of the groups before, to which they are solved where that is less
SEEN = 2  # most times that chi2 that was measured last: where a cell crosses a gap, more moves than was foreseen
STEPS = 60  # in which that is tried


def multiscale(problem: Problem, run: Run, level: int = 0) -> Tensor:
    """Heights in which each target takes its share of the cell of its group, and groups have theirs.

    What is left to do is local. So it is in a source of several pieces, which seldom hold just what the targets on them
    weigh: what is missing must come over a gap, one target after the other, and groups are fewer. (Mérigot, A
    multiscale approach to optimal transport, 2011; there groups give the heights of their targets as they are.)

    Args:
        problem: What is solved.
        run: Counts the samples and chooses them.
        level: How many times targets have been grouped before.

    Returns:
        Heights, (m,), of mean 0.
    """
    if problem.m <= FEW:
        return best_guess(problem, run)
    seed = stream(run.seed, "groups", level)
    groups = grouped(problem, seed)
    goal = min(CLOSE, PART * run.tol)
    coarse = Run(groups, tol=goal, max_samples=(run.max_samples - run.used) // GROUP, seed=seed)
    h = multiscale(groups, coarse, level + 1)
    state = NewtonState(h, n=first_samples(groups, coarse))
    while max(state.expected, state.signal / SEEN) > goal:
        if state.step == STEPS or coarse.used >= coarse.max_samples:
            break
        state = Newton().step(groups, state, coarse)
    run.spend(coarse.used)
    h = touching(problem, groups, state.h, run.sample(samples_to_carry(problem), "carry", level))
    return h - h.mean()


def grouped(problem: Problem, seed: int) -> Problem:
    """Means of neighbouring targets, about a quarter as many, with the weights of all."""
    generator = torch.Generator().manual_seed(seed)
    y = problem.y[torch.randperm(problem.m, generator=generator, device="cpu")[: math.ceil(problem.m / GROUP)]]
    for _ in range(LLOYD):
        group = ops.assign(problem.y, y, -0.5 * y.square().sum(1))[0].long()
        nu = torch.bincount(group, weights=problem.nu, minlength=len(y))
        sums = torch.zeros_like(y).index_add_(0, group, problem.nu[:, None] * problem.y)
        y, nu = sums[nu > 0] / nu[nu > 0, None], nu[nu > 0]
    return make_problem(problem.source, problem.scale * y + problem.centre, nu)
