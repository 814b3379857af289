"""Entropic annealing, which finds heights to start from wherever it begins."""

import math

from torch import Tensor

from otgen import ops
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run

SAMPLES = 20  # per target
SHRINK = 0.5  # of eps from level to level
ROUNDS = 12  # fixed-point rounds at one level, at most
SOFT_TV = 0.03  # a level is done when the soft cells are this close
OVERRELAX = 1.5  # of the fixed point; Sinkhorn's iteration converges for factors below 2
PILOT = 4  # samples per target that tell the gaps
FINE = 0.1  # the last eps, in units of the mean gap between best and second-best score


def anneal(problem: Problem, run: Run, h: Tensor) -> Tensor:
    """Entropic annealing: soft assignment with eps going down, `h_j -= 1.5 eps log(share_j / nu_j)` at each level.

    With soft cells no cell is empty and distant ones feel each other, so large imbalances are settled while eps is
    large. The samples are fixed: what noise they leave is the next method's to remove.

    Args:
        problem: What is solved.
        run: Counts the samples and chooses them.
        h: Heights to start from, (m,).

    Returns:
        Heights, (m,), of mean 0.
    """
    n = SAMPLES * problem.m
    x = run.sample(n, "anneal", 0, again=True).double()  # every round counts them
    pilot = x[: 1 << 8] @ problem.y.T
    eps = float(pilot.std(1).mean())
    x32, y32 = x.float(), problem.y.float()
    level = 0
    while True:
        for _ in range(ROUNDS):
            share = ops.soft_assign(x32, y32, h.float(), eps)[1].double() / n
            run.spend(n)
            h = h - OVERRELAX * eps * (share.clamp_min(1e-30) / problem.nu).log()
            h = h - h.mean()
            if run.used >= run.max_samples:
                return h
            if float((share - problem.nu).abs().sum()) / 2 < SOFT_TV:
                break
        gaps = run.measure(h, PILOT * problem.m, "anneal-gap", level, pairs=True).gaps
        assert gaps is not None
        if eps <= FINE * float(gaps.mean()) or eps < 1e-7 * math.sqrt(problem.d):  # float32 resolves no finer
            return h
        eps *= SHRINK
        level += 1
