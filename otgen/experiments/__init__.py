"""Experiments: data, model and map put together, and what came of it written down."""

from otgen.experiments.demo import Output, demo

__all__ = ["Output", "demo"]
