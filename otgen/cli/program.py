"""The program: `otgen demo | fit | train | sample | models | run | report | info`.

What a command was asked for goes to stdout, bars and messages go to stderr. What cannot work is refused before any
work is done, in one line, with exit code 2.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import TextIO

from otgen.cli import demo, fit, info, models, report, run, sample, train
from otgen.cli.parser import BAD_INPUT, FAILED, INTERRUPTED, Parser
from otgen.ot import ConvergenceWarning

COMMANDS = (demo, fit, train, sample, models, run, report, info)


OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
"""Stands in the RuntimeErrors by which torch says so."""

FRAMES = "Exception raised from"
"""Begins the C++ part of torch's messages, which fills pages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words after `otgen`; `None` for those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if a map was fitted but not certified, a training diverged or nobody reads
        the messages, 2 for input that cannot be used, 130 if interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
    said = io.StringIO()
    with redirect_stdout(said):
        code = _guarded(lambda: _run(argv))
    return _guarded(lambda: _say(said.getvalue(), code))  # a reader that leaves early does not change the code


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # every command says it in its own words
        code: int = args.run(args)
    return code


def _say(text: str, code: int) -> int:
    """Write to stdout, if there is one; whoever reads it may have seen enough."""
    if sys.stdout is not None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            _silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                raise
    return code


def _silence(stream: TextIO) -> None:
    """Drop what is in a stream's buffer, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _guarded(work: Callable[[], int]) -> int:
    """Do the work; turn errors into one line on stderr and an exit code."""
    try:
        return work()
    except SystemExit as end:  # argparse has shown help or the version
        return int(end.code or 0)
    except KeyboardInterrupt as hint:
        print(f"\notgen: interrupted{f': {hint}' if str(hint) else ''}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # of stderr: the work was stopped
        _silence(sys.stderr)
        return FAILED
    except FloatingPointError as error:
        print(f"otgen: error: {_reason(error)}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError, OverflowError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
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
    return " ".join(str(error).split(FRAMES)[0].split()) or type(error).__name__
