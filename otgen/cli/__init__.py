"""The command line: one file per command; the only part that prints."""

from otgen.cli.program import main

__all__ = ["main"]
