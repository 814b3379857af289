"""`otgen report`."""

import argparse

from otgen.cli.checks import check_output
from otgen.cli.parser import OK, PAGES, Commands, Parser
from otgen.experiments import report


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = "Put the results of `otgen run` on one HTML page that needs no other file."
    parser = commands.add_parser("report", help="one page of all results", description=about)
    parser.add_argument("folder", nargs="?", default="otgen-results", help="of the results [default: %(default)s]")
    parser.add_argument("-o", "--output", metavar="FILE", help="the page [default: report.html in the folder]")
    parser.add_argument("--readme", metavar="FILE", help="a Markdown file whose tables between the marks are replaced")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE also if it is no earlier page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and name it."""
    if args.output is not None:  # whether an earlier file may be replaced depends on what is in it
        check_output(args.output, PAGES, [] if args.readme is None else [args.readme], overwrite=True)
    for output in report(args.folder, output=args.output, readme=args.readme, overwrite=args.overwrite):
        print(f"{output.path}  {output.what}")
    return OK
