"""What all commands have in common: exit codes, endings of files, notes, and a parser that raises."""

import argparse
import sys
from typing import NoReturn, TypeAlias

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; the last is a shell's for a program that Ctrl-C ended."""

ARRAYS = (".npy", ".npz", ".safetensors")
MAPS = (".safetensors",)
PICTURES = (".png",)
PAGES = (".html", ".htm")

FORMATS = "files of arrays may be .npy, .npz or .safetensors"


class Usage(ValueError):
    """A command line that does not parse."""


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise Usage(f"{message} (see {self.prog} --help)")


Commands: TypeAlias = argparse._SubParsersAction
"""What a command adds itself to."""


def note(text: str) -> None:
    """Say on stderr what happens next."""
    print(f"otgen: {text}", file=sys.stderr, flush=True)
