"""Semi-discrete optimal transport as an estimator: fit, map, generate, certify, save."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from otgen import ops
from otgen.ot import checkpoint as checkpoints
from otgen.ot import fitted as files
from otgen.ot.certificate import Certificate, certify
from otgen.ot.fitted import Fitted
from otgen.ot.maps import (
    ALIKE,
    ANGLE_QUANTILE,
    Extension,
    Neighbours,
    SampleInfo,
    SingularSet,
    fill_centroids,
    find_centroids,
    find_neighbours,
    plane_angles,
    shoot_rays,
)
from otgen.ot.problem import NumericArray, Problem, as_matrix, make_problem
from otgen.ot.settings import check_angle, check_settings, whole
from otgen.ot.solvers import LOST, Run, Solution, exact, solve
from otgen.ot.solvers.base import CENTROID_SAMPLES
from otgen.ot.solvers.starts import carried
from otgen.ot.sources import CHUNK, Sampler, make_source
from otgen.seeds import stream

DEFAULT_BUDGET = 100
"""Default `max_samples` in units of m / tol, where sampling noise alone is the tolerance; solved ones take 2 to 4."""

LEAST_BUDGET = 1_000_000
"""Samples in a second or two: no budget need be smaller."""

PARAMETERS = ("source", "method", "tol", "max_samples", "device", "seed", "checkpoint", "progress")
"""Arguments of the constructor."""

FITTED = (
    "heights_", "targets_", "weights_", "cell_measures_", "centroids_", "certificate_", "converged_", "history_",
    "samples_",
)  # fmt: skip
"""Attributes that only a fit has."""


class ConvergenceWarning(UserWarning):
    """The tolerance was not reached within the budget."""


class NotFittedError(ValueError, AttributeError):
    """A fitted attribute or method was asked for before `fit`."""


class SemiDiscreteOT:
    """Optimal transport from a continuous source to weighted points, for the cost |x - y|^2.

    Finds heights h of `u(x) = max_j <x, y_j> + h_j` such that the cell of every target has the measure of its weight;
    then T = grad u is the optimal map (Brenier; Gu, Luo, Sun and Yau, 2013).

    Args:
        source: "uniform" for the unit cube [0, 1]^d, "normal" for N(0, I), or `(n, generator) -> (n, d)` samples; these
            not farther from the origin than a million times their spread, as steps are computed in float32.
        method: "auto" (exact cells in up to three dimensions, otherwise Newton on fresh samples, annealed where
            needed), "exact", "newton", "log_ratio", or "adam" (Algorithm 1 of the lecture, for comparison).
        tol: Goal for `chi2 = sum_j (w_j - nu_j)^2 / nu_j`, certified on fresh samples with 95 % confidence. The default
            0.01 is a root-mean-square error of 10 % in the measure of a cell; halving the error takes four times the
            samples.
        max_samples: Budget of source samples; `None` for 100 m / tol, at least a million (a fit usually takes 2 to 4
            m / tol). The start, the step at hand when it is spent, and the last certificate with its centroids are made
            all the same, and come on top: 40 to 50 m (at least 20 000), the step, and a twentieth of the budget.
        device: Where the kernels count and assign samples: "cpu", or "cuda" where this build and machine have it.
            The same seed gives the same solution on both; what is returned is on the CPU.
        seed: Decides every sample, so a fit is reproducible.
        checkpoint: File that holds the running fit, replaced after every step; a fit with the same data and settings
            goes on from it, and a `refit` replaces that of the fit it starts from. `None` for none.
        progress: Whether to show a bar once a fit lasts over two seconds.

    Attributes:
        heights_: Heights, (m,), float64, in the units of targets and source, with mean 0 over targets that have weight.
        targets_: Targets as given, (m, d), float64; the map's own, not to be changed in place.
        weights_: Weights, (m,), float64, summing to 1; likewise.
        cell_measures_: Measures of the cells, computed or on the certificate's samples, (m,), float64; duplicates share
            theirs.
        centroids_: Mean of the source over each cell, (m, d), float64.
        certificate_: Accuracy, computed or on fresh samples.
        converged_: Whether `tol` was certified.
        history_: A dict per measurement: step, samples (so far), n, chi2, tv, tv_floor, empty (cells), seconds.
        samples_: Source samples spent.

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

    # ---- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None = None) -> "SemiDiscreteOT":
        """Find the heights.

        Args:
            targets: (m, d), or (m,) for d = 1; an array or tensor of any real dtype. Exact duplicates are merged and
                share their mass; targets of weight zero get none.
            weights: (m,), not negative, in any unit; `None` for equal ones. Below 1e-30 of the largest they count as
                zero.

        Returns:
            The fitted estimator itself.

        Raises:
            ValueError: A shape, value or setting does not fit, or the checkpoint belongs to another fit.
            TypeError: A type does not fit.

        Warns:
            ConvergenceWarning: `tol` was not certified within the budget; `certificate_` says what was reached.
        """
        self._check_settings()
        with self._no_autocast():
            return self._solve(self._make_problem(targets, weights), None)

    def refit(self, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None = None) -> "SemiDiscreteOT":
        """Fit added, removed or changed targets, starting from the present heights.

        Targets that were there keep their heights; a new one starts where its plane touches the potential just enough
        to take its share of a sample.

        Args:
            targets: As for `fit`.
            weights: As for `fit`.

        Returns:
            The fitted estimator itself.

        Raises:
            NotFittedError: There are no present heights.
            ValueError: As for `fit`, or the dimension has changed.
            TypeError: As for `fit`.
        """
        old = self._fitted()
        self._check_settings()
        with self._no_autocast():
            problem = self._make_problem(targets, weights)
            if problem.d != old.d:
                raise ValueError(f"refit: targets must have {old.d} coordinates as before, got {problem.d}")
            return self._solve(problem, carried(problem, old, self._h, self.seed))

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
            warnings.warn(_shortfall(self.method, tol, solution), ConvergenceWarning, stacklevel=3)
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

    def _adopt(self, fit: Fitted, settings: dict[str, Any]) -> None:
        problem = fit.problem
        self._fit, self._problem, self._h, self._centroids = fit, problem, fit.h, fit.centroids
        self._settings = settings  # of this fit, whatever its owner sets for the next one
        self._heights = problem.heights_out(fit.h)
        self.heights_ = self._heights.clone()  # who changes it changes no map
        self.targets_ = problem.given
        self.weights_ = problem.weights
        self.cell_measures_ = problem.spread(fit.measures)
        self.centroids_ = fit.centroids[problem.index.clamp_min(0)]
        self.centroids_[problem.index < 0] = math.nan
        self.certificate_ = fit.certificate
        self.converged_ = fit.converged
        self.history_ = fit.history
        self.samples_ = fit.samples
        self._neighbours: Neighbours | None = None

    def _check_settings(self) -> None:
        check_settings(self.method, self.tol, self.max_samples, self.seed, self.checkpoint, self.device)

    def _seed(self, method: str, seed: int | None) -> int:
        """The fit's seed if none is given."""
        return whole(f"{method}: seed", self._settings["seed"] if seed is None else seed, 0)

    def _fitted(self) -> Problem:
        if not hasattr(self, "_problem"):
            raise NotFittedError("this SemiDiscreteOT is not fitted yet: call fit(targets) first")
        return self._problem

    def __getattr__(self, name: str) -> Any:
        """Say what is wrong where a fitted attribute is read too early."""
        if name in FITTED:
            raise NotFittedError(f"SemiDiscreteOT has no {name} yet: call fit(targets) first")
        raise AttributeError(f"SemiDiscreteOT has no attribute {name!r}")

    # ---- accuracy ---------------------------------------------------------------------------------------------------

    def certificate(
        self, n: int | None = None, *, heights: Tensor | NumericArray | None = None, seed: int | None = None
    ) -> Certificate:
        """Accuracy on n fresh samples.

        Args:
            n: Number of samples; `None` for 100 per target.
            heights: Heights of the given targets, (m,), also from elsewhere; `None` for the fitted ones.
            seed: Names the samples; `None` for ones that neither the fit nor an earlier call on this object has used.

        Returns:
            The certificate.

        Raises:
            ValueError: A number or shape does not fit, or targets of weight zero win.
        """
        problem = self._fitted()
        n = whole("certificate: n", 100 * problem.m if n is None else n, 3)
        h = self._h
        if heights is not None:
            values = as_matrix("certificate: heights", heights)
            m = self.weights_.shape[0]
            if tuple(values.shape) != (m, 1):
                raise ValueError(f"certificate: heights must have shape ({m},), got {tuple(np.shape(heights))}")
            h = problem.heights_in(values[:, 0])
            self._refuse_weightless(values[:, 0], n)
        if seed is None:
            self._asked = getattr(self, "_asked", 0) + 1
            seed = stream(self._settings["seed"], "asked", self._asked)
        return certify(problem, h, problem.source.measure(problem.y, h, n, seed), seed)

    def _refuse_weightless(self, heights: Tensor, n: int) -> None:
        """Refuse heights with which a target of weight zero wins: chi2 would be infinite, and is not seen."""
        problem = self._fitted()
        weighty = problem.index >= 0
        if bool(weighty.all()):
            return
        y = (problem.given - problem.centre) / problem.scale
        counted = problem.source.measure(y, heights / problem.scale, n, stream(self._settings["seed"], "weightless"))
        wins = int(counted.counts[~weighty].sum())
        if wins:
            raise ValueError(f"certificate: with these heights targets of weight zero win {wins} of {n} samples")

    def cost(self, n: int = 100_000, seed: int | None = None) -> tuple[float, tuple[float, float]]:
        """Squared Wasserstein distance: mean of |x - T(x)|^2 over fresh samples, and its 95 % confidence interval.

        The interval covers the cost of the map as it is, that is the distance to the measure it reaches; how far this
        is from the weights, `certificate_` says.

        Args:
            n: Number of samples, at least 2.
            seed: Names the samples; `None` for the fit's seed.

        Returns:
            Estimate and interval.
        """
        problem = self._fitted()
        n, seed = whole("cost: n", n, 2), self._seed("cost", seed)
        costs = torch.empty(n, dtype=torch.float64, device="cpu")
        for index, begin in enumerate(range(0, n, CHUNK)):
            x = problem.source.sample(min(CHUNK, n - begin), problem.d, stream(seed, "cost", index)).double()
            costs[begin : begin + CHUNK] = (x - self.transport(x)).square().sum(1)
        unit = float(costs.max()) or 1.0  # squares of very large ones leave float64's range
        mean, se = unit * float((costs / unit).mean()), unit * float((costs / unit).std()) / math.sqrt(n)
        return mean, (mean - 1.96 * se, mean + 1.96 * se)

    # ---- maps -------------------------------------------------------------------------------------------------------

    def assign(self, x: Tensor | NumericArray) -> Tensor:
        """Index of the cell of each sample, (n,), int64; of exact duplicates among the targets the first.

        Args:
            x: Samples, (n, d).
        """
        return self._score(x)[0]

    def transport(self, x: Tensor | NumericArray) -> Tensor:
        """The optimal map T(x) = y_j for x in cell j: (n, d), float64. Every value is one of the targets."""
        return self._fitted().given[self.assign(x)]

    def potential(self, x: Tensor | NumericArray) -> Tensor:
        """Brenier's potential u(x) = max_j <x, y_j> + h_j, (n,), float64; carries no gradient: that is `transport`."""
        return self._score(x)[1]

    def _score(self, x: Tensor | NumericArray) -> tuple[Tensor, Tensor]:
        samples, problem = self._samples(x), self._fitted()
        # As certified: products with targets that lie far from the origin would lose the digits that decide.
        j, u = ops.assign(*(v.to(self.device) for v in (samples, problem.y, self._h)))
        first = problem.first_rows()
        lift = self._heights[first[0]] - problem.scale * self._h[0]  # heights have another mean
        return first[j.cpu()], problem.scale * u.cpu() + samples @ problem.centre + lift

    def _samples(self, x: Tensor | NumericArray) -> Tensor:
        d = self._fitted().d
        samples = as_matrix("x", x, least=0)
        if samples.shape[1] != d:
            raise ValueError(f"x must have shape (n, {d}) to match the targets, got {tuple(np.shape(x))}")
        return samples

    # ---- generation -------------------------------------------------------------------------------------------------

    @overload
    def sample(
        self,
        n: int,
        angle_threshold: float | Literal["auto"] = ...,
        *,
        seed: int | None = ...,
        return_info: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def sample(
        self,
        n: int,
        angle_threshold: float | Literal["auto"] = ...,
        *,
        seed: int | None = ...,
        return_info: Literal[True],
    ) -> tuple[Tensor, SampleInfo]: ...
    def sample(
        self,
        n: int,
        angle_threshold: float | Literal["auto"] = "auto",
        *,
        seed: int | None = None,
        return_info: bool = False,
    ) -> Tensor | tuple[Tensor, SampleInfo]:
        """Generate new points by the lecture's Algorithm 2: blend the targets of nearby cells, not across jumps.

        The hard map `transport` only ever returns targets. Here a sample takes the targets of the d + 1 nearest cell
        centroids, drops those whose plane meets the nearest one's at more than the threshold, and blends the rest with
        weights 1 / distance; a sample with none left is abandoned.

        Args:
            n: Number of points.
            angle_threshold: In radians, on centred and scaled targets. Too small rejects everything or copies targets,
                too large mixes modes. "auto" is the median angle between neighbouring cells.
            seed: Decides the points; `None` for the fit's seed.
            return_info: Whether to return also what was rejected and blended.

        Returns:
            Points (n, d), float64, and with `return_info` a `SampleInfo`.

        Raises:
            ValueError: A number does not fit, or the threshold rejects nearly everything.
        """
        problem = self._fitted()
        n, seed = whole("sample: n", n, 1), self._seed("sample", seed)
        points, info = self._extension(angle_threshold).sample(n, seed)
        info = replace(info, targets=problem.first_rows()[info.targets])
        return (points, info) if return_info else points

    def extend(self, x: Tensor | NumericArray, angle_threshold: float | Literal["auto"] = "auto") -> Tensor:
        """Map given samples by the lecture's Algorithm 2, as `sample` does its own: to walk along a path of the source.

        Args:
            x: Samples, (n, d).
            angle_threshold: As for `sample`.

        Returns:
            Points (n, d), float64; nan where a sample is abandoned, since its nearest cell has no neighbour within the
            threshold.
        """
        samples = self._samples(x)
        points, kept, _, _ = self._extension(angle_threshold)(samples.double())
        result = points.new_full(samples.shape, math.nan)
        result[kept] = points
        return result

    def _extension(self, angle_threshold: float | Literal["auto"]) -> Extension:
        problem = self._fitted()
        values = problem.y * problem.scale + problem.centre
        threshold = self._threshold(angle_threshold)
        return Extension(problem.source, problem.y, values, self._centroids, threshold)

    def cells(self) -> list[ops.Cell]:
        """Cells as intervals, polygons or polyhedra, one a target; of the normal source cut off at coordinates of 10.

        Exact duplicates have one cell together, each of them all of it. Targets of weight zero have an empty one.

        Returns:
            Corners, facets, and the target behind each facet (of duplicates the first).

        Raises:
            ValueError: The targets have more than three dimensions, or the source is not a named one.
        """
        problem = self._fitted()
        if not exact.knows(problem):
            came = f"{problem.d} dimensions and the {problem.source.name} source"
            raise ValueError(f"cells: only targets of 1 to 3 dimensions under a named source have them, got {came}")
        domain = ops.cube(problem.source.name, problem.d)
        found = ops.Sites(problem.y).cells(self._h, domain, torch.arange(problem.m, device="cpu"))
        first = problem.first_rows()
        none = torch.empty(0, dtype=torch.int64, device="cpu")
        nothing = ops.Cell(none.double().view(0, problem.d), [], none)
        cells = [
            ops.Cell(c.corners, c.faces, torch.where(c.neighbours < 0, c.neighbours, first[c.neighbours.clamp_min(0)]))
            for c in found
        ]
        return [nothing if row < 0 else cells[row] for row in problem.index.tolist()]

    def singular_set(self, angle_threshold: float | Literal["auto"] = "auto") -> SingularSet:
        """Pairs of neighbouring cells across which the map jumps: angles between their planes above the threshold.

        Args:
            angle_threshold: In radians; "auto" as for `sample`.

        Returns:
            Pairs of rows of the targets, their angles, and the threshold. Where cells are exact these are all pairs;
            elsewhere those that rays from 50 samples per target find: 40 to 80 % of them in more than three dimensions,
            the large facets rather than the small ones.
        """
        problem = self._fitted()
        threshold = self._threshold(angle_threshold)
        if exact.knows(problem):
            pairs = ops.Sites(problem.y).diagram(self._h, ops.cube(problem.source.name, problem.d)).pairs
        else:
            pairs = shoot_rays(problem, self._h, self._settings["seed"])
        angles = plane_angles(problem.y, pairs[:, 0], pairs[:, 1])
        jump = angles > threshold
        return SingularSet(problem.first_rows()[pairs[jump]], angles[jump], threshold)

    def _threshold(self, angle: Any) -> float:
        if isinstance(angle, str) and angle == "auto":
            return min((1 + ALIKE) * self._find_neighbours().quantile(ANGLE_QUANTILE), math.pi)
        return check_angle(angle)

    def _find_neighbours(self) -> Neighbours:
        problem = self._fitted()
        if self._neighbours is None:
            self._neighbours = find_neighbours(problem, self._h, self._settings["seed"])
        return self._neighbours

    # ---- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted map to one safetensors file, whole or not at all. A custom source is not saved.

        Args:
            path: The file; one that is there is replaced.
        """
        self._fitted()
        files.save(path, self._fit, self._settings)

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
        """
        return cls._restored(*files.load(path, source), source, str(path))

    def state(self) -> tuple[dict[str, Tensor], str]:
        """The fitted map as tensors and a JSON record, for who keeps it inside a file of his own."""
        self._fitted()
        tensors, record = files.pack(self._fit, self._settings)
        return {name: tensor.clone() for name, tensor in tensors.items()}, record

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], record: str, source: Sampler | None = None) -> "SemiDiscreteOT":
        """Make a fitted map from what `state` gave.

        Args:
            tensors: By name.
            record: The JSON record.
            source: The custom source it was fitted with, if it was.

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


def _shortfall(method: str, tol: float, solution: Solution) -> str:
    """What was not certified, how far it got, and what to do about it."""
    c = solution.certificate
    how = f"after {solution.samples:,} samples" if not c.exact else "by exact cells"
    if not c.exact:
        mend = "raise tol or max_samples"
    elif method == "exact" and c.max_relative_error >= LOST:
        mend = 'take method="auto", which samples where these fail'
    else:
        mend = "raise tol: this is what rounding leaves"
    return (
        f"SemiDiscreteOT: chi2 <= {tol:g} was not certified {how}: chi2 is {c.chi2:.3g}, at most {c.upper():.3g} with"
        f" 95 % confidence, {c.empty_cells} cells are empty; {mend}"
    )
