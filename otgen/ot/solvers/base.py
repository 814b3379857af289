"""What a solver is, and the loop that runs one: budget, history, progress, checkpoint, certificate."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from otgen import ops
from otgen.bars import Bar
from otgen.ot import checkpoint
from otgen.ot.certificate import CONFIDENCE, Certificate, certify, floor_of, samples_needed
from otgen.ot.problem import Problem
from otgen.ot.sources import INDEPENDENT, BuiltIn
from otgen.seeds import stream

CENTROID_SAMPLES = 20
"""Samples per target for the centroids: their error is then less than a quarter of the spread within a cell. A look
takes as many where the budget allows, and gives them for a quarter of the time that more samples would take."""

READY = 0.8
"""A solver asks for a certificate when it expects at most this part of the tolerance."""

AGAIN = 0.6
"""A standard error on twice the samples, as a part of itself: 0.5 where cells' noise makes it, 0.7 where errors do."""

GLANCE = 10
"""Samples per target, at least, in the last certificate of a run that gave up; a twentieth of the budget at most."""


S = TypeVar("S")


@dataclass(frozen=True)
class State:
    """Where a solver stands; subclasses add what they need. Fields are tensors, numbers and truth values.

    Attributes:
        h: Heights, (m,), float64, in the problem's units.
        step: Steps taken.
        expected: The chi2 that the solver expects of `h`; infinite while it is not worth a look.
        looks: Certificates asked for.
        chi2: Of `h`, as a certificate that failed estimates it.
        chi2_se: Its standard error; infinite if no certificate was asked for.
        exhausted: Whether going on is pointless.
        fallback: Heights to give up with, (m,), where the last need not be the best; `None` for the last.
    """

    h: Tensor
    step: int = 0
    expected: float = math.inf
    looks: int = 0
    chi2: float = 0.0
    chi2_se: float = math.inf
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
        centroids: Of the cells, (m, d), float64, NaN for cells without a sample; `None` if the certificate's samples
            were too few, or more than `ops.MOST_CENTROIDS`.
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
        self,
        h: Tensor,
        n: int,
        name: str,
        index: int,
        *,
        pairs: bool = False,
        centroids: bool = False,
        independent: bool = False,
    ) -> ops.Measure:
        """Count n samples by cell; `name` and `index` choose the stream, so they name a measurement for good."""
        before = self.used

        def advance(done: float) -> None:
            self._show(before + int(done * n))

        seed = stream(self.seed, name, index)
        kind = INDEPENDENT if independent else self.problem.kind
        counted = self.problem.source.measure(
            self.problem.y, h, n, seed, kind=kind, pairs=pairs, centroids=centroids, progress=advance
        )
        self.spend(n)
        return counted

    def sample(self, n: int, name: str, index: int, *, again: bool = False) -> Tensor:
        """Draw n samples, (n, d), in the source's dtype; `again` if a measurement of that name and index had them."""
        self.spend(0 if again else n)
        problem, seed = self.problem, stream(self.seed, name, index)
        return problem.source.sample(n, problem.d, seed, kind=problem.kind)

    def spend(self, n: int) -> None:
        """Count samples that were used."""
        self.used += n
        self._show(self.used)

    def resume(self, kind: type[S], identity: str) -> S | None:
        """Go on with the record of a run that was interrupted, its seconds included; its state, if there was one."""
        found = checkpoint.load(self.path, kind, identity, self.problem.m)
        if found is None:
            return None
        state, self.history, self.used = found
        self._began -= self.history[-1].get("seconds", 0.0) if self.history else 0.0
        return state

    def save(self, state: State, identity: str) -> None:
        """Replace the checkpoint, if there is to be one."""
        if self.path is not None:
            checkpoint.save(self.path, state, self.history, self.used, identity)

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

    def fresh(self, h: Tensor, n: int, look: int) -> ops.Measure:
        """Count n independent samples that serve no step, for a certificate."""
        enough = CENTROID_SAMPLES * self.problem.m <= n <= ops.MOST_CENTROIDS
        return self.measure(h, n, "certificate", look, centroids=enough, independent=True)

    def certify(self, h: Tensor, counted: ops.Measure, look: int, share: float) -> Certificate:
        """Certificate of `h` from what was counted, beginning with that look."""
        return certify(self.problem, h, counted, stream(self.seed, "certificate", look), share)

    @contextmanager
    def bar(self, name: str) -> Iterator[None]:
        """Show the progress bar while the block runs."""
        with Bar(
            desc=name, unit=" samples", unit_scale=True, initial=self.used, disable=not self.progress
        ) as self._bar:
            try:
                yield
            finally:
                self._bar = None

    def _show(self, used: int) -> None:
        if self._bar is not None:
            self._bar.update(used - self._bar.n)


def solve_by_samples(solver: Solver, run: Run, identity: str = "") -> Solution:
    """Run a solver until a certificate holds, the budget is spent, or it knows no further."""
    problem = run.problem

    def solution(h: Tensor, converged: bool, certificate: Certificate, counted: ops.Measure) -> Solution:
        measures = counted.counts.double() / counted.counts.sum()
        return Solution(h, converged, certificate, measures, run.history, run.used, counted.centroids)

    # The sampler of a source of one's own may need all threads.
    alone = ops.torch_on_one_thread() if isinstance(problem.source, BuiltIn) else nullcontext()
    with run.bar(solver.name), alone:
        state = run.resume(solver.state, identity) or solver.start(problem, run)
        while True:
            if state.expected <= READY * run.tol and _affordable(run, state):
                passed, looks, certificate, counted = _look(run, state)
                if passed:
                    return solution(state.h, True, certificate, counted)
                chi2, se = certificate.chi2, certificate.chi2_se
                state = replace(state, looks=looks, expected=math.inf, chi2=chi2, chi2_se=se)
            if state.exhausted or run.used >= run.max_samples:
                n = _samples_of_glance(run, state.looks)
                h = state.h if state.fallback is None else state.fallback
                counted = run.fresh(h, n, -1)
                certificate = run.certify(h, counted, -1, _share(state.looks))
                return solution(h, certificate.holds(run.tol), certificate, counted)
            state = solver.step(problem, state, run)
            run.save(state, identity)


def _affordable(run: Run, state: State) -> bool:
    """Whether the budget would do for a look, or steps have had half of it or have nothing to gain.

    A tiny weight may want more samples than there are; the first look would take them all, and leave rough heights.
    """
    return _wanted(run, state) <= run.max_samples or run.used >= run.max_samples / 2 or state.expected == 0


def _wanted(run: Run, state: State) -> int:
    return samples_of_look(run.problem, run.tol, state.expected, _confidence(state.looks))


def _look(run: Run, state: State) -> tuple[bool, int, Certificate, ops.Measure]:
    """Whether the heights are certified, how many looks there were by now, and what the last one saw.

    Every look risks passing by luck, so look k gets the share 1 / (k (k + 1)) of the allowed error probability: the
    shares sum to one, and the stated confidence holds for the whole run. A look that fails by little is followed by one
    on as many samples more, together with its own.
    """
    h, looks = state.h, state.looks
    left = max(run.max_samples - run.used, _samples_of_glance(run, looks))
    n = min(_wanted(run, state), left)
    counted = run.fresh(h, n, looks)
    certificate = run.certify(h, counted, looks, _share(looks))
    passed = certificate.holds(run.tol)
    doubt = replace(certificate, share=_share(looks + 1)).upper() - certificate.chi2
    if not passed and certificate.chi2 + AGAIN * doubt <= run.tol and n <= run.max_samples - run.used:
        counted += run.fresh(h, n, looks + 1)
        certificate = run.certify(h, counted, looks, _share(looks + 1))
        looks += 1
        passed = certificate.holds(run.tol)
    return passed, looks + 1, certificate, counted


def samples_of_look(problem: Problem, tol: float, expected: float, confidence: float) -> int:
    """Samples of a certificate that is likely to hold: enough for it, and for the centroids."""
    needed = samples_needed(problem.m, float(problem.nu.min()), tol, expected, confidence)
    return max(needed, CENTROID_SAMPLES * problem.m)


def _samples_of_glance(run: Run, looks: int) -> int:
    """Of the last certificate of a run that gave up after so many looks."""
    m, least = run.problem.m, float(run.problem.nu.min())
    needed = samples_needed(m, least, run.tol, 0.5 * run.tol, _confidence(looks))
    return max(GLANCE * m, min(needed, run.max_samples // 20), 1000)


def _share(looks: int) -> float:
    """Of the allowed error probability, for the next look after so many."""
    return 1 / ((looks + 1) * (looks + 2))


def _confidence(looks: int) -> float:
    """Of the next look, after so many."""
    return 1 - _share(looks) * (1 - CONFIDENCE)
