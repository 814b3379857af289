"""`otgen demo`."""

import argparse

from otgen.cli.parser import OK, Commands, Parser, note
from otgen.experiments import demo


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = "Learn to draw digits with an autoencoder and a transport map, and show what the map does."
    parser = commands.add_parser("demo", help="digits and power cells in a few minutes", description=about)
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", default="otgen-demo", help="where to write [default: %(default)s]"
    )
    parser.add_argument("--fast", action="store_true", help="do less: seconds, and digits that show it")
    parser.add_argument("--seed", type=int, default=0, help="decides everything [default: %(default)s]")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier demo, and no others")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the demo and name its files."""
    outputs = demo(args.output, fast=args.fast, seed=args.seed, overwrite=args.overwrite, note=note)
    width = max(len(str(output.path)) for output in outputs)
    for output in outputs:
        print(f"{output.path!s:{width}}  {output.what}")
    return OK
