"""Experiments: data, model and map put together, and what came of it written down."""

from otgen.experiments.demo import demo
from otgen.experiments.record import Output
from otgen.experiments.report import report
from otgen.experiments.run import run

__all__ = ["Output", "demo", "report", "run"]
