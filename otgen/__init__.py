"""Semi-discrete optimal transport and the generative models that stand on it."""

from importlib.metadata import version

from otgen import ops
from otgen.ot import (
    Certificate,
    ConvergenceWarning,
    NotFittedError,
    PowerDiagram,
    SampleInfo,
    SemiDiscreteOT,
    SingularSet,
)

__version__ = version("otgen")

__all__ = [
    "Certificate",
    "ConvergenceWarning",
    "NotFittedError",
    "PowerDiagram",
    "SampleInfo",
    "SemiDiscreteOT",
    "SingularSet",
    "__version__",
    "ops",
]
