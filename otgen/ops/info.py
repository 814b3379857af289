"""What the kernels run on."""

from otgen import _ext


def instruction_set() -> str:
    """Name of the instruction set in use: the fastest of this machine, or the environment variable OTGEN_ISA's."""
    return _ext.isa()


def instruction_sets() -> list[str]:
    """Names of all that this machine runs, slowest first."""
    return _ext.available_isas()


def has_cuda() -> bool:
    """Whether this build holds CUDA kernels."""
    return _ext.cuda


def cuda_filter() -> str | None:
    """Name of the CUDA kernels' filter: the default, or that of the environment's OTGEN_CUDA_FILTER; `None` without."""
    return _ext.cuda_filter() if _ext.cuda else None
