"""What a solver is, and the loop that runs one: budget, history, progress, checkpoint, certificate."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from otgen import ops
from otgen.ot import checkpoint
from otgen.ot.certificate import CONFIDENCE, Certificate, certify, floor_of, samples_needed
from otgen.ot.problem import Problem
from otgen.ot.sources import BuiltIn
from otgen.ot.streams import stream

READY = 0.75
"""A solver asks for a certificate when it expects at most this part of the tolerance."""

GLANCE = 10
"""Samples per target, at least, in the last certificate of a run that gave up; a twentieth of the budget at most."""


@dataclass(frozen=True)
class State:
    """Where a solver stands; subclasses add what they need. Fields are tensors, numbers and truth values.

    Attributes:
        h: Heights, (m,), float64, in the problem's units.
        step: Steps taken.
        expected: The chi2 that the solver expects of `h`; infinite while it is not worth a look.
        looks: Certificates asked for.
        exhausted: Whether going on is pointless.
        fallback: Heights to give up with, (m,), where the last need not be the best; `None` for the last.
    """

    h: Tensor
    step: int = 0
    expected: float = math.inf
    looks: int = 0
    exhausted: bool = False
    fallback: Tensor | None = None


class Solver(Protocol):
    """One method. All it knows between steps is in its state, so that a run can stop and go on anywhere."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def state(self) -> type[State]:
        """The class of its states."""

    def start(self, problem: Problem, run: "Run") -> State:
        """State before the first step, from `run.start` if the caller gave heights."""

    def step(self, problem: Problem, state: Any, run: "Run", /) -> State:
        """One step; draws samples through `run`."""


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Attributes:
        h: Heights, (m,), float64, in the problem's units.
        converged: Whether the certificate holds, decided where the loop stopped.
        certificate: Of these heights, on samples of its own.
        measures: Of the cells, as the certificate knows them, (m,), float64.
        history: A record for every measurement: samples so far, n, chi2, tv and its floor, empty cells, seconds.
        samples: All that were drawn, those of certificates included.
        centroids: Of the cells, (m, d), float64, where they were computed on the way; otherwise `None`.
    """

    h: Tensor
    converged: bool
    certificate: Certificate
    measures: Tensor
    history: list[dict[str, float]]
    samples: int
    centroids: Tensor | None = None


@dataclass
class Run:
    """One run of a solver on a problem: its goal and budget, and the record of what it did.

    Args:
        problem: What is solved.
        tol: Goal for chi2.
        max_samples: Budget.
        seed: Decides every sample.
        start: Heights to start from, (m,), in the problem's units; `None` to choose.
        path: Checkpoint; `None` for none.
        progress: Whether to show a bar once the run lasts over two seconds.
    """

    problem: Problem
    tol: float
    max_samples: int
    seed: int
    start: Tensor | None = None
    path: Path | None = None
    progress: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    used: int = 0
    _began: float = field(default_factory=time.monotonic)
    _bar: Any = None

    def measure(
        self, h: Tensor, n: int, name: str, index: int, *, pairs: bool = False, sobol: bool = True
    ) -> ops.Measure:
        """Count n samples by cell; `name` and `index` choose the stream, so they name a measurement for good."""
        before = self.used

        def advance(done: float) -> None:
            self._show(before + int(done * n))

        seed = stream(self.seed, name, index)
        counted = self.problem.source.measure(self.problem.y, h, n, seed, sobol=sobol, pairs=pairs, progress=advance)
        self.spend(n)
        return counted

    def sample(self, n: int, name: str, index: int, *, again: bool = False) -> Tensor:
        """Draw n samples, (n, d), float64; `again` if a measurement of that name and index has had them already."""
        self.spend(0 if again else n)
        return self.problem.source.sample(n, self.problem.d, stream(self.seed, name, index), sobol=True).double()

    def spend(self, n: int) -> None:
        """Count samples that were used."""
        self.used += n
        self._show(self.used)

    def record(self, step: int, n: int, chi2: float, tv: float, empty: int) -> None:
        """Add a measurement of the current heights to the history."""
        floor = floor_of(self.problem, n)
        seconds = time.monotonic() - self._began
        self.history.append(
            {"step": step, "samples": self.used, "n": n, "chi2": chi2, "tv": tv, "tv_floor": floor, "empty": empty,
             "seconds": seconds}
        )  # fmt: skip
        if self._bar is not None:
            self._bar.set_postfix_str(f"chi2 {chi2:.3g} -> {self.tol:g}, {n:,} samples a step", refresh=False)

    def certificate(self, h: Tensor, n: int, look: int) -> tuple[Certificate, Tensor]:
        """Certificate of `h` on n independent samples that serve nothing else, and the measures of its cells there."""
        seed = stream(self.seed, "certificate", look)
        counted = self.measure(h, n, "certificate", look, sobol=False)
        return certify(self.problem, h, counted, seed), counted.counts.double() / n

    @contextmanager
    def bar(self, name: str) -> Iterator[None]:
        """Show the progress bar while the block runs."""
        with tqdm(
            desc=name, unit=" samples", unit_scale=True, initial=self.used, delay=2, disable=not self.progress
        ) as self._bar:
            try:
                yield
            finally:
                self._bar = None

    def _show(self, used: int) -> None:
        if self._bar is not None:
            self._bar.update(used - self._bar.n)


def solve_by_samples(solver: Solver, run: Run, identity: str = "") -> Solution:
    """Run a solver until a certificate holds, the budget is spent, or it knows no further.

    Every look at a fresh certificate risks passing by luck, so look k gets the share 1 / (k (k + 1)) of the allowed
    error probability: the shares sum to one, and the stated confidence holds for the whole run.
    """
    problem = run.problem
    # The sampler of a source of one's own may need all threads.
    alone = ops.torch_on_one_thread() if isinstance(problem.source, BuiltIn) else nullcontext()
    with run.bar(solver.name), alone:
        resumed = checkpoint.load(run.path, solver.state, identity, problem.m) if run.path is not None else None
        if resumed is None:
            state = solver.start(problem, run)
        else:
            state, run.history, run.used = resumed
        while True:
            if state.expected <= READY * run.tol:
                confidence = 1 - (1 - CONFIDENCE) / ((state.looks + 1) * (state.looks + 2))
                wanted = samples_needed(problem.m, float(problem.nu.min()), run.tol, state.expected, confidence)
                n = min(wanted, max(run.max_samples, 1000))  # tiny weights may want more than there is
                certificate, measures = run.certificate(state.h, n, state.looks)
                if certificate.holds(run.tol, confidence):
                    return Solution(state.h, True, certificate, measures, run.history, run.used)
                state = replace(state, looks=state.looks + 1, expected=math.inf)
            if state.exhausted or run.used >= run.max_samples:
                needed = samples_needed(problem.m, float(problem.nu.min()), run.tol, 0.5 * run.tol, CONFIDENCE)
                n = max(GLANCE * problem.m, min(needed, run.max_samples // 20), 1000)
                h = state.h if state.fallback is None else state.fallback
                certificate, measures = run.certificate(h, n, -1)
                return Solution(h, False, certificate, measures, run.history, run.used)
            state = solver.step(problem, state, run)
            if run.path is not None:
                checkpoint.save(run.path, state, run.history, run.used, identity)


def per_cell(index: Tensor, values: Tensor, m: int) -> Tensor:
    """Sums of values by cell, (m,), float64."""
    return torch.bincount(index, weights=values.double(), minlength=m)
