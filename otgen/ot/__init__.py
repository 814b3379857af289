"""Semi-discrete optimal transport: problem, solvers, certificate, maps, and the estimator over them."""

from otgen.ot.certificate import Certificate
from otgen.ot.estimator import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.maps import SampleInfo, SingularSet
from otgen.ot.power_diagram import PowerDiagram
from otgen.ot.transport import NotFittedError

__all__ = [
    "Certificate",
    "ConvergenceWarning",
    "NotFittedError",
    "PowerDiagram",
    "SampleInfo",
    "SemiDiscreteOT",
    "SingularSet",
]
