"""`otgen models`."""

import argparse
import inspect

from otgen.cli.parser import OK, Commands, Parser
from otgen.models import MODELS


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = "List the models that otgen train knows, with one line each."
    parser = commands.add_parser("models", help="what can be trained", description=about)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List them."""
    width = max(map(len, MODELS))
    for name, model in MODELS.items():
        print(f"{name:{width}}  {(inspect.getdoc(model) or '').splitlines()[0]}")
    return OK
