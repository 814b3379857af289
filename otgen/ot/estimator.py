"""Semi-discrete optimal transport as an estimator: settings, fit and refit; all else is the map's that comes of it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from otgen import ops
from otgen.ot import checkpoint as checkpoints
from otgen.ot import fitted as files
from otgen.ot.certificate import CONFIDENCE, samples_needed
from otgen.ot.fitted import Fitted
from otgen.ot.maps import fill_centroids, find_centroids
from otgen.ot.problem import NumericArray, Problem, make_problem
from otgen.ot.settings import check_settings
from otgen.ot.solvers import LOST, Run, Solution, solve
from otgen.ot.solvers.base import CENTROID_SAMPLES
from otgen.ot.solvers.starts import carried, samples_to_carry
from otgen.ot.sources import Sampler, make_source
from otgen.ot.transport import TransportMap
from otgen.seeds import stream

DEFAULT_BUDGET = 100
"""Default `max_samples` in units of m / tol, where sampling noise alone is the tolerance; solved ones take 2 to 4."""

LEAST_BUDGET = 1_000_000
"""Samples in a second or two: no budget need be smaller."""

PARAMETERS = ("source", "method", "tol", "max_samples", "device", "seed", "checkpoint", "progress")
"""Arguments of the constructor."""


class ConvergenceWarning(UserWarning):
    """The tolerance was not reached within the budget."""


class SemiDiscreteOT(TransportMap):
    """Optimal transport from a continuous source to weighted points, for the cost |x - y|^2.

    Finds heights h of `u(x) = max_j <x, y_j> + h_j` such that the cell of every target has the measure of its weight;
    then T = grad u is the optimal map (Brenier; Gu, Luo, Sun and Yau, 2013).

    Args:
        source: "uniform" for the unit cube [0, 1]^d, "normal" for N(0, I), or `(n, generator) -> (n, d)` samples, also
            (n,) for d = 1, random through the generator alone; these not farther from the origin than a million times
            their spread, as steps are computed in float32.
        method: "auto" (exact cells in up to three dimensions under a named source, otherwise Newton on fresh samples,
            in up to six from groups of targets), "exact", "newton", "log_ratio", or "adam" (Algorithm 1 of the lecture,
            for comparison).
        tol: Goal for `chi2 = sum_j (w_j - nu_j)^2 / nu_j`, certified on fresh samples with 95 % confidence. The default
            0.01 is a root-mean-square error of 10 % in the measure of a cell; halving the error takes four times the
            samples.
        max_samples: Budget of source samples; `None` for 100 m / tol, at least a million (a fit usually takes 2 to 4
            m / tol). The start, the step at hand when it is spent, and the last certificate with its centroids are made
            all the same, and come on top: 8 to 55 m (27 000 at most where m is small), the step, and one or two
            twentieths of the budget.
        device: Where the kernels count and assign samples: "cpu", or "cuda" where this build and machine have it.
            The same seed gives the same solution on both; what is returned is on the CPU.
        seed: Decides every sample, so a fit is reproducible.
        checkpoint: File that holds the running fit, replaced after every step; a fit with the same data and settings
            goes on from it, and a `refit` replaces that of the fit it starts from. `None` for none.
        progress: Whether to show a bar once a fit, or what is asked of the map, lasts over two seconds.

    Attributes:
        heights_: Heights, (m,), float64, in the units of targets and source, with mean 0 over targets that have weight.
        targets_: Targets as given, (m, d), float64; the map's own, not to be changed in place.
        weights_: Weights, (m,), float64, summing to 1; likewise.
        cell_measures_: Measures of the cells, computed or on the certificate's samples, (m,), float64; duplicates share
            theirs.
        centroids_: Mean of the source over each cell, (m, d), float64, computed, or of samples, 20 per target or more:
            their error is about a quarter of a cell's spread, or less, but more in cells of less weight than others.
            nan for targets of weight zero.
        certificate_: Accuracy, computed or on fresh samples.
        converged_: Whether `tol` was certified.
        history_: A dict per measurement: step, samples (so far), n, chi2, tv, tv_floor (of n independent samples; tv on
            Sobol points, which steps take up to ten dimensions, may lie below), empty (cells), seconds.
        samples_: Source samples spent.
        n_features_in_: Dimension d of the targets.

    Example:
        >>> ot = SemiDiscreteOT(seed=0).fit(latents)
        >>> new = ot.sample(1000)
    """

    def __init__(
        self,
        source: str | Sampler = "uniform",
        method: Literal["auto", "exact", "newton", "log_ratio", "adam"] = "auto",
        tol: float = 0.01,
        max_samples: int | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.source = source
        self.method = method
        self.tol = tol
        self.max_samples = max_samples
        self.device = device
        self.seed = seed
        self.checkpoint = checkpoint
        self.progress = progress

    def __repr__(self) -> str:
        names = ("source", "method", "tol", "max_samples", "seed")
        return f"SemiDiscreteOT({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the settings by name, as scikit-learn's `clone` asks for them; `deep` changes nothing here."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **settings: Any) -> "SemiDiscreteOT":
        """Change settings, which the next fit checks and takes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: There is no setting of that name; then none is changed.
        """
        for name in settings.keys() - set(PARAMETERS):
            raise ValueError(f"set_params: settings must be of {', '.join(PARAMETERS)}, got {name!r}")
        for name, value in settings.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn from 1.6 on asks of a pipeline's parts, to draw it and to see whether it is fitted."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))

    # ---- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None = None) -> "SemiDiscreteOT":
        """Find the heights.

        Args:
            targets: (m, d), or (m,) for d = 1; an array or tensor of any real dtype. Exact duplicates are merged and
                share their mass; targets of weight zero get none.
            weights: (m,), not negative, in any unit; `None` for equal ones. Below 1e-30 of the largest they count as
                zero. A pipeline of scikit-learn hands labels on as these: fit it without labels.

        Returns:
            The fitted estimator itself.

        Raises:
            ValueError: A shape, value or setting does not fit, or the checkpoint belongs to another fit.
            TypeError: A type does not fit.
            OSError: The checkpoint cannot be written.

        Warns:
            ConvergenceWarning: `tol` was not certified within the budget; `certificate_` says what was reached.
        """
        self._check_settings()
        with self._no_autocast():
            return self._solve(self._make_problem(targets, weights), None)

    def refit(self, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None = None) -> "SemiDiscreteOT":
        """Fit added, removed or changed targets, starting from the present heights.

        Targets that were there keep their heights; a new one starts where its plane touches the potential just enough
        to take its share of a sample. Where so much has changed that this is no start, "auto" begins anew.

        Args:
            targets: As for `fit`.
            weights: As for `fit`.

        Returns:
            The fitted estimator itself.

        Raises:
            NotFittedError: There are no present heights.
            ValueError: As for `fit`, or the dimension has changed.
            TypeError: As for `fit`.
            OSError: As for `fit`.

        Warns:
            ConvergenceWarning: As for `fit`.
        """
        old = self._fitted()
        self._check_settings()
        with self._no_autocast():
            problem = self._make_problem(targets, weights)
            if problem.d != old.d:
                raise ValueError(f"refit: targets must have {old.d} coordinates as before, got {problem.d}")
            x = problem.source.sample(samples_to_carry(problem), problem.d, stream(self.seed, "refit"))
            return self._solve(problem, carried(problem, old, self._h, x))

    @contextmanager
    def _no_autocast(self) -> Iterator[None]:
        """The caller's would round what a fit starts from, and what his sampler draws."""
        with torch.autocast("cpu", enabled=False), torch.autocast(torch.device(self.device).type, enabled=False):
            yield

    def _make_problem(self, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None) -> Problem:
        with ops.torch_on_one_thread():  # another one would still spin beside the solver's first kernel
            return make_problem(make_source(self.source, self.device), targets, weights)

    def _solve(self, problem: Problem, start: Tensor | None) -> "SemiDiscreteOT":
        tol = float(self.tol)
        given = {"method": self.method, "tol": tol, "seed": int(self.seed)}
        settings, seed = given | {"source": problem.source.name}, int(self.seed)
        if problem.source.name == "custom" and self.checkpoint is not None:
            settings["sampler"] = checkpoints.digest(problem.source.sample(16, problem.d, 0))
        if start is not None:
            settings["start"] = checkpoints.digest(start)
            seed = stream(seed, f"refit {settings['start']}")  # for the old fit's samples have chosen the start
        run = Run(
            problem,
            tol=tol,
            max_samples=int(self.max_samples or max(LEAST_BUDGET, DEFAULT_BUDGET * problem.m / tol)),
            seed=seed,
            start=start,
            path=None if self.checkpoint is None else Path(self.checkpoint),
            progress=self.progress,
        )
        identity = checkpoints.fingerprint(problem, settings)
        if run.path is not None and start is not None and self._fit.identity in checkpoints.owner(run.path):
            run.path.unlink()  # of the fit that is done, and the start of this one
        solution = solve(self.method, run, identity)
        fit = self._finish(problem, solution, identity)
        with ops.torch_on_one_thread():  # so that sums do not depend on the number of threads
            self._adopt(fit, given)
        if not solution.converged:
            warnings.warn(_shortfall(self.method, run, solution), ConvergenceWarning, stacklevel=3)
        return self

    def _finish(self, problem: Problem, solution: Solution, identity: str) -> Fitted:
        centroids, n = solution.centroids, 0
        if centroids is None:
            n = max(CENTROID_SAMPLES * problem.m, 10_000)
            centroids = find_centroids(problem, solution.h, self.seed, n, self.progress)
        centroids = fill_centroids(problem, solution.h, centroids, self.seed)
        return Fitted(
            problem,
            solution.h,
            solution.measures,
            centroids,
            solution.certificate,
            solution.converged,
            solution.history,
            solution.samples + n,
            identity,
        )

    def _check_settings(self) -> None:
        check_settings(self.method, self.tol, self.max_samples, self.seed, self.checkpoint, self.device)

    # ---- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str], source: Sampler | None = None) -> "SemiDiscreteOT":
        """Read a fitted map.

        Args:
            path: A file written by `save`.
            source: The custom source it was fitted with, if it was.

        Returns:
            The fitted estimator.

        Raises:
            OSError: The file cannot be opened.
            ValueError: It is damaged, not a map of otgen, or needs its custom source.
            TypeError: The source is not callable.
        """
        return cls._restored(*files.load(path, source), source, str(path))

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], record: str, source: Sampler | None = None) -> "SemiDiscreteOT":
        """Make a fitted map from what `state` gave.

        Args:
            tensors: By name.
            record: The JSON record.
            source: The custom source it was fitted with, if it was.

        Returns:
            The fitted estimator.

        Raises:
            ValueError: It is damaged, or needs its custom source.
            TypeError: The source is not callable.
        """
        own = {name: held.clone() if isinstance(held, Tensor) else held for name, held in tensors.items()}
        return cls._restored(*files.unpack(own, record, source, "state"), source, "state")

    @classmethod
    def _restored(cls, fit: Fitted, settings: dict[str, Any], source: Sampler | None, where: str) -> "SemiDiscreteOT":
        ot = cls(source=source if source is not None else fit.problem.source.name, **settings)
        try:
            ot._check_settings()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: not a whole map of otgen: {error}") from None
        ot._adopt(fit, settings)
        return ot


def _shortfall(method: str, run: Run, solution: Solution) -> str:
    """What was not certified, how far it got, and what to do about it."""
    c, tol = solution.certificate, run.tol
    how = f"after {solution.samples:,} samples" if not c.exact else "by exact cells"
    if not c.exact:
        mend = "raise tol or max_samples"
        weights = 1 / run.problem.m, float(run.problem.nu.min())
        equal, least = (samples_needed(run.problem.m, weight, tol, tol / 2, CONFIDENCE) for weight in weights)
        if equal <= run.max_samples < least:
            mend += f", or make the least weights zero: {weights[1]:.1g} of the whole wants {least:.1g} samples"
    elif method == "exact" and c.max_relative_error >= LOST:
        mend = 'take method="auto", which samples where these fail'
    else:
        mend = "raise tol: this is what rounding leaves"
    return (
        f"SemiDiscreteOT: chi2 <= {tol:g} was not certified {how}: chi2 is {c.chi2:.3g}, at most {c.upper():.3g} with"
        f" 95 % confidence, {c.empty_cells} cells are empty; {mend}"
    )
