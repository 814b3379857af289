"""The program: `otgen demo | fit | train | sample | models | run | report | info`.

What a command was asked for goes to stdout, bars and messages go to stderr. What cannot work is refused before any
work is done, in one line, with exit code 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from otgen.cli import demo, fit, info, models, report, run, sample, train
from otgen.cli.parser import BAD_INPUT, FAILED, INTERRUPTED, OK, Parser
from otgen.ot import ConvergenceWarning

COMMANDS = (demo, fit, train, sample, models, run, report, info)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words after `otgen`; `None` for those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if a map was fitted but not certified or a training diverged, 2 for input
        that cannot be used, 130 if interrupted.
    """
    try:
        args = _parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # every command says it in its own words
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse has shown help or the version
        return int(end.code or 0)
    except KeyboardInterrupt as hint:
        print(f"\notgen: interrupted{f': {hint}' if str(hint) else ''}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has seen enough; what stays in the buffer must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except FloatingPointError as error:
        print(f"otgen: error: {_reason(error)}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"otgen: error: {_reason(error)}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> Parser:
    parser = Parser(prog="otgen", description="Optimal transport for generative modelling.")
    parser.add_argument("--version", action="version", version=f"otgen {version('otgen')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


def _reason(error: BaseException) -> str:
    """An error's message on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
