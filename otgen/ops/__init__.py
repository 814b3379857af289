"""Torch tensors in, torch tensors out: the compiled kernels behind one gate of checks."""

from otgen.ops.assign import assign
from otgen.ops.info import cuda_filter, has_cuda, instruction_set, instruction_sets
from otgen.ops.laplacian import laplacian
from otgen.ops.measure import Measure, measure
from otgen.ops.sample import sample
from otgen.ops.soft_assign import soft_assign
from otgen.ops.topk import topk

__all__ = [
    "Measure",
    "assign",
    "cuda_filter",
    "has_cuda",
    "instruction_set",
    "instruction_sets",
    "laplacian",
    "measure",
    "sample",
    "soft_assign",
    "topk",
]
