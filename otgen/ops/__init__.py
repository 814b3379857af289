"""Torch tensors in, torch tensors out: the compiled kernels behind one gate of checks."""

from otgen.ops.assign import assign
from otgen.ops.info import cuda_filter, has_cuda, instruction_set, instruction_sets
from otgen.ops.laplacian import laplacian
from otgen.ops.measure import MOST_CENTROIDS, Measure, measure
from otgen.ops.power_diagram import MAX_DIM, Cell, Diagram, Domain, Sites, SmallCell, cube
from otgen.ops.rounding import rounding_error
from otgen.ops.sample import sample
from otgen.ops.shortlist import Shortlist
from otgen.ops.soft_assign import soft_assign
from otgen.ops.threads import blas_on_one_thread, torch_on_one_thread
from otgen.ops.topk import topk

__all__ = [
    "MAX_DIM",
    "Cell",
    "Diagram",
    "Domain",
    "MOST_CENTROIDS",
    "Measure",
    "Shortlist",
    "Sites",
    "SmallCell",
    "assign",
    "blas_on_one_thread",
    "cube",
    "cuda_filter",
    "has_cuda",
    "instruction_set",
    "instruction_sets",
    "laplacian",
    "measure",
    "rounding_error",
    "sample",
    "soft_assign",
    "topk",
    "torch_on_one_thread",
]
