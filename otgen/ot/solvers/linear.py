"""Linear systems of exact Newton steps: by sparse factors, by multigrid, or by the inverse of a step before."""

import warnings
from typing import Any

import numpy as np
import pyamg
import scipy.sparse
import torch
from pyamg.krylov import cg
from scipy.sparse.linalg import LinearOperator, splu
from torch import Tensor

DIRECT = {1: 1_000_000, 2: 200_000, 3: 5_000}
"""Up to this many targets, by dimension, a sparse factorisation is faster than multigrid, and small enough."""

RESIDUAL = 1e-3
"""Relative residual of a linear system, at most, and at most a tenth of the error, which then falls as Newton's step
lets it. A looser one is paid for in damping: the error sits in small cells."""

MULTIGRID = {
    "strength": None,
    "smooth": ("jacobi", {"weighting": "local"}),
    "presmoother": ("gauss_seidel", {"sweep": "forward"}),
    "postsmoother": ("gauss_seidel", {"sweep": "backward"}),
    "max_coarse": 500,
}
"""Of pyamg. Its own weighting asks numpy's global generator; the two sweeps are symmetric together, as conjugate
gradients want, at half the work of its own choice."""

ROUGH = 10.0
"""The residual may be so many times the tolerance by its own norm."""

MAX_ITERATIONS = 200
"""Of conjugate gradients; 10 to 40 are usual with multigrid."""

SETTLED = 8.0
"""Largest relative error below which the Hessian changes so little that its inverse of before serves again."""


class Linear:
    """Solves with the Hessians of successive steps."""

    def __init__(self, direct: int) -> None:
        self._direct = direct
        self._inverse: Any = None  # about that of a Hessian of before

    def solve(self, hessian: Any, right: Tensor, error: float, enough: float = 0.0) -> Tensor:
        """The direction of Newton's step, (m,), of mean zero, for heights whose largest relative error is `error`.

        A residual of norm `enough` will do.

        Raises:
            RuntimeError: The Hessian is singular.
        """
        b = right.numpy()[1:]
        tol = min(RESIDUAL, max(0.1 * error, enough / float(right.norm())))
        inner: Any = None
        reached = False
        if self._inverse is not None and error <= SETTLED:
            inner, reached = self._iterate(hessian, b, tol)
        if not reached:  # an inverse of before may be of something else by now
            self._inverse = None
            if right.shape[0] <= self._direct:
                options = {"SymmetricMode": True}
                factors = splu(hessian.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
                self._inverse = LinearOperator(hessian.shape, factors.solve, dtype=np.float64)
                inner = factors.solve(b)
            else:
                # scipy.sparse's older matrix class is the one that pyamg takes
                matrix = scipy.sparse.csr_matrix(hessian)
                levels = pyamg.smoothed_aggregation_solver(matrix, **MULTIGRID)
                self._inverse = levels.aspreconditioner()
                inner, _ = self._iterate(hessian, b, tol)  # a rough direction is one as well
        if not np.isfinite(inner).all():
            self._inverse = None
            raise RuntimeError("the Hessian is singular")
        direction = torch.from_numpy(np.concatenate([[0.0], inner]))
        return direction - direction.mean()

    def _iterate(self, hessian: Any, b: Any, tol: float) -> tuple[Any, bool]:
        """Conjugate gradients with the inverse at hand, and whether they reached the tolerance."""
        with np.errstate(all="ignore"), warnings.catch_warnings(record=True):  # of what is no inverse
            x, _ = cg(hessian, b, M=self._inverse, tol=tol, maxiter=MAX_ITERATIONS)
            # cg weighs residuals by the inverse, so what it reached with one of another Hessian may be nothing
            left = np.linalg.norm(b - hessian @ x)
        return x, bool(left <= ROUGH * tol * np.linalg.norm(b))
