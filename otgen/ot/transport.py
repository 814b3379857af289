"""A fitted transport map: where it sends samples, what lies between its targets, and how accurate it is."""

import math
import os
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from otgen import ops
from otgen.bars import by_share, of_samples
from otgen.ot import fitted as files
from otgen.ot.certificate import Certificate, certify
from otgen.ot.fitted import Fitted
from otgen.ot.maps import (
    ALIKE,
    ANGLE_QUANTILE,
    Extension,
    SampleInfo,
    SingularSet,
    find_neighbours,
    pair_angles,
    shoot_rays,
)
from otgen.ot.problem import NumericArray, Problem, as_matrix
from otgen.ot.settings import check_angle, whole
from otgen.ot.solvers import exact
from otgen.ot.sources import CHUNK, Custom
from otgen.seeds import stream

FITTED = (
    "heights_", "targets_", "weights_", "cell_measures_", "centroids_", "certificate_", "converged_", "history_",
    "samples_", "n_features_in_",
)  # fmt: skip
"""Attributes that only a fit has."""


class NotFittedError(ValueError, AttributeError):
    """A fitted attribute or method was asked for before `fit`."""


class TransportMap:
    """What a solved problem gives; `SemiDiscreteOT` solves it, and says what the attributes are."""

    device: str | torch.device
    progress: bool

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
        self.n_features_in_ = problem.d
        self._median_angle: float | None = None

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
        seed = whole("certificate: seed", seed, 0)
        with of_samples("certificate", n, self.progress) as done:
            counted = problem.source.measure(problem.y, h, n, seed, progress=by_share(done))
        return certify(problem, h, counted, seed)

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
        """Squared Wasserstein distance between the source and the weighted targets, and its 95 % confidence interval.

        The value of the Kantorovich dual at the fitted heights, E|x|^2 - 2 E u(x) + sum_j nu_j (|y_j|^2 + 2 h_j), on
        fresh samples and about the means of source and targets. It is largest for exact heights: what it lacks is of
        second order in their error (0.4 % or less of the distance on seven problems at the default `tol`; more where
        the distance is small, to 500 or 2000 points spread as the source is in the plane up to 14 %, spread evenly
        27 %, at a larger `tol` more than all of it), and not in the interval, which is of sampling alone. The mean of
        |x - T(x)|^2, `certificate_.primal`, is the distance to the measure that is reached, off to first order (up to
        8 %); where cells are exact it is the distance itself.

        Args:
            n: Number of samples, at least 2; some hundred for an interval that covers as much (of 10 it covers 85 %).
            seed: Names the samples; `None` for the fit's seed.

        Returns:
            Estimate and interval.
        """
        problem = self._fitted()
        n, seed = whole("cost: n", n, 2), self._seed("cost", seed)
        mean = problem.source.mean(problem.d)
        apart = mean - problem.centre
        values = torch.empty(n, dtype=torch.float64, device="cpu")
        with of_samples("cost", n, self.progress) as done:
            for index, begin in enumerate(range(0, n, CHUNK)):
                x = problem.source.sample(min(CHUNK, n - begin), problem.d, stream(seed, "cost", index)).double()
                u = self._winners(x)[1]
                x -= mean
                values[begin : begin + CHUNK] = x.square().sum(1) - 2 * problem.scale * u
                if isinstance(problem.source, Custom):  # whose mean is not known, but estimated
                    values[begin : begin + CHUNK] += 2 * x @ apart
                done.update(len(x))
        heights = float(problem.nu @ (problem.scale * problem.y.square().sum(1) + 2 * self._h))
        known = float(apart.square().sum()) + problem.scale * heights
        unit = float(values.abs().max()) or 1.0  # squares of very large ones leave float64's range
        value = known + unit * float((values / unit).mean())
        error = unit * float((values / unit).std()) / math.sqrt(n)
        return value, (value - 1.96 * error, value + 1.96 * error)

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
        j, u = self._winners(samples)
        first = problem.first_rows()
        lift = self._heights[first[0]] - problem.scale * self._h[0]  # heights have another mean
        return first[j], problem.scale * u + samples @ problem.centre + lift

    def _winners(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Winners and their scores among the targets as solvers have them, (n,) both, of samples (n, d), float64.

        As certified: products with targets that lie far from the origin would lose the digits that decide.
        """
        j, u = ops.assign(*(v.to(self.device) for v in (x, self._fitted().y, self._h)))
        return j.cpu(), u.cpu()

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
        weights 1 / distance; a sample with none left is abandoned. So targets far from their neighbours come less often
        than their weights say, the more so the smaller the threshold.

        Args:
            n: Number of points.
            angle_threshold: In radians, on centred and scaled targets. Too small rejects everything or copies targets,
                too large mixes modes. "auto" is the median over samples of the angle between their best and second-best
                target; most pairs of neighbouring cells have a larger one.
            seed: Decides the points; `None` for the fit's seed.
            return_info: Whether to return also what was rejected and blended.

        Returns:
            Points (n, d), float64, and with `return_info` a `SampleInfo`.

        Raises:
            ValueError: A number does not fit, or the threshold rejects nearly everything.
        """
        problem = self._fitted()
        n, seed = whole("sample: n", n, 1), self._seed("sample", seed)
        points, info = self._extension(angle_threshold).sample(n, seed, self.progress)
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
            An `otgen.ops.Cell` each, with `corners`, `faces`, and in `neighbours` the target behind each face (of
            duplicates the first).

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
            elsewhere those that rays from 50 samples per target find, across large facets rather than small ones: of
            all pairs 70 % at 110 targets in 4 dimensions, but at 300 19 % in 8 and 6 % in 32, where nearly all meet.
        """
        problem = self._fitted()
        threshold = self._threshold(angle_threshold)
        if exact.knows(problem):
            pairs = ops.Sites(problem.y).diagram(self._h, ops.cube(problem.source.name, problem.d)).pairs
        else:
            pairs = shoot_rays(problem, self._h, self._settings["seed"], self.progress)
        angles = pair_angles(problem.y, pairs)
        jump = angles > threshold
        return SingularSet(problem.first_rows()[pairs[jump]], angles[jump], threshold)

    def _threshold(self, angle: Any) -> float:
        if isinstance(angle, str) and angle == "auto":
            if self._median_angle is None:
                found = find_neighbours(self._fitted(), self._h, self._settings["seed"], self.progress)
                self._median_angle = found.quantile(ANGLE_QUANTILE)
            return min((1 + ALIKE) * self._median_angle, math.pi)
        return check_angle(angle)

    # ---- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted map to one safetensors file, whole or not at all. A custom source is not saved.

        Args:
            path: The file; one that is there is replaced.
        """
        self._fitted()
        files.save(path, self._fit, self._settings)

    def state(self) -> tuple[dict[str, Tensor], str]:
        """The fitted map as tensors and a JSON record, for who keeps it inside a file of his own."""
        self._fitted()
        tensors, record = files.pack(self._fit, self._settings)
        return {name: tensor.clone() for name, tensor in tensors.items()}, record
