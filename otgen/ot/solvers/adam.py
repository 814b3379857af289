"""Algorithm 1 of the lecture (An et al., AE-OT, ICLR 2020), step by step: Adam on Monte Carlo gradients from h = 0.

Kept for comparison. It starts where only the corners of the targets' convex hull have mass, and its step size does not
shrink, so it seldom reaches a small chi2; `auto` does not use it.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otgen.ot.certificate import chi2_estimate, total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, State

BETAS = (0.9, 0.5)  # line 8 of the algorithm
EPSILON = 1e-8  # Adam's own
RATE = 0.01  # in units of the targets' spread times the source's; the lecture names none
FIRST = 10  # samples per target, N of line 1
PATIENCE = 30  # s of line 9
MAX_SAMPLES = 2000  # per target; N is not doubled beyond


@dataclass(frozen=True)
class AdamState(State):
    """Adds Adam's moments and the record of the energy.

    Attributes:
        n: N of the algorithm.
        first: First moment, (m,).
        second: Second moment, (m,).
        lowest: Smallest energy seen with this N.
        since: Steps since.
    """

    n: int = 0
    first: Tensor | None = None
    second: Tensor | None = None
    lowest: float = math.inf
    since: int = 0


class Adam:
    """Lines 3 to 12 of the lecture's Algorithm 1; comments give the lines."""

    name = "adam"
    state = AdamState

    def start(self, problem: Problem, run: Run) -> AdamState:
        """Line 3: h = 0, or the heights that a refit starts from."""
        zero = torch.zeros(problem.m, dtype=torch.float64, device="cpu")
        return AdamState(
            zero if run.start is None else run.start, n=max(FIRST * problem.m, 1000), first=zero, second=zero
        )

    def step(self, problem: Problem, state: AdamState, run: Run) -> AdamState:
        """Lines 5 to 11."""
        assert state.first is not None
        assert state.second is not None
        counted = run.measure(state.h, state.n, "adam", state.step, independent=True)  # 5
        chi2, _ = chi2_estimate(counted.counts, problem.nu)
        tv = total_variation(counted.counts, problem.nu)
        run.record(state.step, state.n, chi2, tv, int((counted.counts == 0).sum()))

        gradient = counted.counts.double() / state.n - problem.nu  # 6
        gradient = gradient - gradient.mean()  # 7
        t = state.step + 1
        first = BETAS[0] * state.first + (1 - BETAS[0]) * gradient  # 8
        second = BETAS[1] * state.second + (1 - BETAS[1]) * gradient.square()
        rate = RATE * problem.source.std(problem.d) * math.sqrt(problem.d)
        step = (first / (1 - BETAS[0] ** t)) / ((second / (1 - BETAS[1] ** t)).sqrt() + EPSILON)
        h = state.h - rate * step

        energy = counted.mean_u - float(state.h @ problem.nu)
        since = 0 if energy < state.lowest else state.since + 1
        double = since >= PATIENCE  # 9
        return replace(
            state,
            h=h - h.mean(),
            step=t,
            n=min(2 * state.n, MAX_SAMPLES * problem.m) if double else state.n,  # 10
            first=first,
            second=second,
            lowest=math.inf if double else min(energy, state.lowest),
            since=0 if double else since,
            expected=max(chi2, 0.0),
        )
