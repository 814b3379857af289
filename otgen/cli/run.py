"""`otgen run`."""

import argparse

from otgen.cli.parser import OK, Commands, Parser, note
from otgen.experiments import run as run_experiments
from otgen.experiments.recipe import names


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = (
        "Do an experiment of the lecture's and judge its claims. What is finished is kept: the same command goes on"
        " where it was stopped."
    )
    parser = commands.add_parser("run", help="test the lecture's claims", description=about)
    parser.add_argument("name", help=f"{', '.join(names())}, all, or a recipe of your own (.toml)")
    parser.add_argument("--fast", action="store_true", help="do less: minutes on two cores")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", default="otgen-results", help="where to write [default: %(default)s]"
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--device", default="cpu", help="where torch computes [default: %(default)s]")
    parser.add_argument("--overwrite", action="store_true", help="replace parts that were made with other settings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the experiments and name what was written."""
    outputs = run_experiments(
        args.name,
        output=args.output,
        fast=args.fast,
        seed=args.seed,
        device=args.device,
        overwrite=args.overwrite,
        note=note,
    )
    for output in outputs:
        print(f"{output.path}  {output.what}")
    return OK
