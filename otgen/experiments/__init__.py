"""Experiments: data, model and map put together, and what came of it written down."""

from otgen.experiments.demo import Output, demo
from otgen.experiments.report import report
from otgen.experiments.run import run

__all__ = ["Output", "demo", "report", "run"]
