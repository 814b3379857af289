"""The command line: `otgen demo | fit | sample | info`.

What a command was asked for goes to stdout, bars and messages go to stderr. What cannot work is refused before any
work is done, in one line, with exit code 2.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import torch

from otgen import ops
from otgen.experiments import demo
from otgen.files import load_array, save_array
from otgen.ot import Certificate, ConvergenceWarning, SemiDiscreteOT
from otgen.ot.solvers import METHODS
from otgen.ot.streams import stream

OK, NOT_CERTIFIED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; the last is a shell's for a program that Ctrl-C ended."""

ARRAYS = (".npy", ".npz", ".safetensors")
MAPS = (".safetensors",)

WORKING_COPIES = 4
"""Arrays of the result's size that `sample` holds at once."""

UNMEASURED = "no CUDA kernel has been run or timed on a GPU yet: bench/gpu_check.py does"
"""What `info` says until bench/results holds what was measured."""

FORMATS = "files of arrays may be .npy, .npz or .safetensors"


class Usage(ValueError):
    """A command line that does not parse."""


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise Usage(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words after `otgen`; `None` for those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if a map was fitted but not certified, 2 for input that cannot be used,
        130 if interrupted.
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
    except KeyboardInterrupt:
        print("\notgen: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has seen enough; what stays in the buffer must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"otgen: error: {_reason(error)}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> Parser:
    parser = Parser(prog="otgen", description="Semi-discrete optimal transport for generative modelling.")
    parser.add_argument("--version", action="version", version=f"otgen {version('otgen')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    _add_demo(commands)
    _add_fit(commands)
    _add_sample(commands)
    _add_info(commands)
    return parser


# --- demo ------------------------------------------------------------------------------------------------------------


def _add_demo(commands: "argparse._SubParsersAction[Parser]") -> None:
    about = "Learn to draw digits with an autoencoder and a transport map, and show what the map does."
    parser = commands.add_parser("demo", help="digits and power cells in half a minute", description=about)
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", default="otgen-demo", help="where to write [default: %(default)s]"
    )
    parser.add_argument("--fast", action="store_true", help="do less: seconds, and digits that show it")
    parser.add_argument("--seed", type=int, default=0, help="decides everything [default: %(default)s]")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier demo, and no others")
    parser.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    def note(text: str) -> None:
        print(f"otgen: {text}", file=sys.stderr, flush=True)

    outputs = demo(args.output, fast=args.fast, seed=args.seed, overwrite=args.overwrite, note=note)
    width = max(len(str(output.path)) for output in outputs)
    for output in outputs:
        print(f"{output.path!s:{width}}  {output.what}")
    return OK


# --- fit -------------------------------------------------------------------------------------------------------------


def _add_fit(commands: "argparse._SubParsersAction[Parser]") -> None:
    about = f"Fit the optimal transport from noise to points, and certify it on fresh samples; {FORMATS}."
    end = "Exit code: 0 if the map is certified, 1 if it is not (it is written all the same), 2 for bad input."
    parser = commands.add_parser("fit", help="fit a map to codes", description=about, epilog=end)
    parser.add_argument("codes", help="file with the targets, (m, d)")
    parser.add_argument("-o", "--output", metavar="MAP", required=True, help="the map, a .safetensors file")
    parser.add_argument("--name", help="which array of the file of codes, if it holds several")
    parser.add_argument("--weights", metavar="FILE", help="file with the targets' weights, (m,); equal ones without it")
    parser.add_argument("--weights-name", metavar="NAME", help="which array of the file of weights")
    parser.add_argument(
        "--source", default="uniform", help="the noise: uniform (unit cube) or normal [default: %(default)s]"
    )
    parser.add_argument("--method", default="auto", help=f"one of {', '.join(METHODS)} [default: %(default)s]")
    parser.add_argument(
        "--tol",
        type=float,
        default=0.01,
        help="goal for chi2, the cells' mean squared relative error [default: %(default)s]",
    )
    parser.add_argument("--max-samples", type=int, help="budget of noise samples; 100 m / tol without it")
    parser.add_argument("--seed", type=int, default=0, help="decides every sample [default: %(default)s]")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="keep the running fit here, and go on from it if it exists"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the map if it exists")
    parser.add_argument("--quiet", action="store_true", help="no bar and no report; the exit code says it")
    parser.set_defaults(run=_fit)


def _fit(args: argparse.Namespace) -> int:
    began = time.monotonic()
    inputs = [name for name in (args.codes, args.weights) if name is not None]
    if args.checkpoint is not None:
        _check_output(args.checkpoint, None, inputs, overwrite=True)
        inputs.append(args.checkpoint)
    _check_output(args.output, MAPS, inputs, args.overwrite)
    ot = SemiDiscreteOT(
        source=args.source,
        method=args.method,
        tol=args.tol,
        max_samples=args.max_samples,
        seed=args.seed,
        checkpoint=args.checkpoint,
        progress=not args.quiet,
    )
    codes = load_array(args.codes, args.name)
    weights = None if args.weights is None else load_array(args.weights, args.weights_name)
    ot.fit(codes, weights)
    ot.save(args.output)
    if not args.quiet:
        m, d = ot.targets_.shape
        print(f"{args.codes}: {m} targets in {d} dimensions, source {args.source}, method {args.method}")
        for line in _report(ot.certificate_, ot.tol):
            print(line)
        print(f"samples      {ot.samples_:,} in {time.monotonic() - began:.1f} s")
        yes = f"yes: chi2 <= {ot.tol:g} is certified"
        no = f"NO: chi2 <= {ot.tol:g} is not certified; raise --tol or --max-samples"
        print(f"converged    {yes if ot.converged_ else no}")
        print(f"wrote        {args.output}")
    return OK if ot.converged_ else NOT_CERTIFIED


def _report(c: Certificate, tol: float) -> list[str]:
    """The certificate in a few lines."""
    if c.exact:
        how = "computed exactly"
        chi2, tv = f"{c.chi2:.3g}", f"{c.tv:.3g}"
    else:
        how = f"on {c.samples:,} fresh samples"
        chi2 = f"{c.chi2:.3g} +- {c.chi2_se:.1g}, at most {c.upper():.3g} with 95 % confidence (goal {tol:g})"
        tv = f"{c.tv:.3g}, of which sampling alone makes {c.tv_floor:.3g}"
    return [
        f"accuracy     {how}",
        f"chi2         {chi2}",
        f"tv           {tv}",
        f"empty cells  {c.empty_cells} of {c.targets}",
        f"W2^2         {c.primal:.6g} (dual value {c.dual:.6g})",
    ]


# --- sample ----------------------------------------------------------------------------------------------------------


def _add_sample(commands: "argparse._SubParsersAction[Parser]") -> None:
    about = f"Generate new codes with a fitted map, blending the targets of nearby cells; {FORMATS}."
    parser = commands.add_parser("sample", help="generate codes with a map", description=about)
    parser.add_argument("map", help="a file written by otgen fit or SemiDiscreteOT.save")
    parser.add_argument("-n", type=int, default=1000, help="how many codes [default: %(default)s]")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the new codes, (n, d), float64")
    parser.add_argument(
        "--angle-threshold",
        metavar="ANGLE",
        type=_angle,
        default="auto",
        help="largest angle between cells that is blended across: auto, or radians in (0, pi] [default: %(default)s]",
    )
    parser.add_argument("--hard", action="store_true", help="do not blend: every code is one of the targets")
    parser.add_argument("--seed", type=int, help="decides the codes; the fit's without it")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=_sample)


def _sample(args: argparse.Namespace) -> int:
    _check_output(args.output, ARRAYS, [args.map], args.overwrite)
    if args.hard and args.angle_threshold != "auto":
        raise ValueError("--hard blends nothing, so --angle-threshold has no meaning beside it")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise ValueError(f"seed must be an int in [0, 2^63), got {args.seed}")
    ot = SemiDiscreteOT.load(args.map)
    m, d = ot.targets_.shape
    if args.n < 1:
        raise ValueError(f"n must be a positive int, got {args.n}")
    _check_room(args.output, args.n * d * 8)
    if args.hard:
        seed = stream(ot.seed if args.seed is None else args.seed, "hard")
        points = ot.transport(ops.sample(str(ot.source), args.n, d, seed=seed))
        lines = [f"{args.n} codes in {d} dimensions, each one of the {m} targets"]
    else:
        points, info = ot.sample(args.n, args.angle_threshold, seed=args.seed, return_info=True)
        blended = float(info.blended.double().mean())
        lines = [
            f"{args.n} codes in {d} dimensions, {blended:.1f} targets blended into each on average",
            f"angle threshold {info.threshold:.4g} rad, {info.rejected:.1%} of the noise samples rejected",
        ]
    save_array(args.output, points)
    for line in [*lines, f"wrote {args.output}"]:
        print(line)
    return OK


def _angle(text: str) -> "float | str":
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be auto or a number, got {text!r}") from None


# --- info ------------------------------------------------------------------------------------------------------------


def _add_info(commands: "argparse._SubParsersAction[Parser]") -> None:
    about = "Show versions and what the kernels run on."
    parser = commands.add_parser("info", help="versions and what the kernels run on", description=about)
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    kernels = "built" if ops.has_cuda() else "not built"
    device = "found" if torch.cuda.is_available() else "not found"
    usable = ops.has_cuda() and torch.cuda.is_available()
    for name, value in {
        "otgen": version("otgen"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": f"{ops.instruction_set()} (available: {', '.join(ops.instruction_sets())})",
        "CUDA": f"{'yes' if usable else 'no'} (kernels {kernels}, device {device})",
        **({"CUDA-filter": f"{ops.cuda_filter()} ({UNMEASURED})"} if ops.has_cuda() else {}),
        "threads": torch.get_num_threads(),
    }.items():
        print(f"{name:13}{value}")
    return OK


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_output(name: str, endings: Sequence[str] | None, inputs: Sequence[str], overwrite: bool) -> None:
    """Find out before any work what would spoil the last step.

    Args:
        name: The file to be written.
        endings: What it may end in; `None` for anything.
        inputs: Files that it must not replace.
        overwrite: Whether it may be there.
    """
    path = Path(name)
    if endings is not None and path.suffix.lower() not in endings:
        raise ValueError(f"the output must end in {', '.join(endings)}, got {name}")
    if path.is_dir():
        raise IsADirectoryError(f"{name} is a folder, not a file")
    if path.resolve() in [Path(other).resolve() for other in inputs]:
        raise ValueError(f"{name} is asked for twice: every input and output must be a file of its own")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{name} exists: choose another name, or replace it with --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot write into this folder: {error.strerror}", str(path.parent)) from error


def _check_room(name: str, size: int) -> None:
    """Refuse a result that fits neither the disk nor the memory: both would fail late, the second without a word."""
    room = shutil.disk_usage(Path(name).parent).free
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        room = min(room, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // WORKING_COPIES)
    if size > room:
        raise ValueError(f"n codes would take {size:.2g} bytes, and there is room for {room:.2g}: take a smaller n")


def _reason(error: BaseException) -> str:
    """An error's message on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
