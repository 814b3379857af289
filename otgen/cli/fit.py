"""`otgen fit`."""

import argparse
import time

from otgen.cli.checks import check_output
from otgen.cli.parser import FAILED, FORMATS, MAPS, OK, Commands, Parser
from otgen.files import load_array
from otgen.ops import check
from otgen.ot import SemiDiscreteOT
from otgen.ot.solvers import METHODS


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
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
    parser.add_argument(
        "--max-samples", type=int, help="budget of noise samples; 100 m / tol without it, at least a million"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides every sample [default: %(default)s]")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="keep the running fit here, and go on from it if it exists"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the map if it exists")
    parser.add_argument("--quiet", action="store_true", help="no bar and no report; the exit code says it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, write the map and report."""
    began = time.monotonic()
    if args.weights_name is not None and args.weights is None:
        raise ValueError("--weights-name is for the file of --weights, which is not given")
    check.source("fit", args.source)  # which in Python may be a sampler, too
    inputs = [name for name in (args.codes, args.weights) if name is not None]
    if args.checkpoint is not None:
        check_output(args.checkpoint, None, inputs, overwrite=True)
        inputs.append(args.checkpoint)
    check_output(args.output, MAPS, inputs, args.overwrite)
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
        for line in _report(ot):
            print(line)
        print(f"samples      {ot.samples_:,} in {time.monotonic() - began:.1f} s")
        yes = f"yes: chi2 <= {ot.tol:g} is certified"
        mend = "--tol" if ot.certificate_.exact else "--tol or --max-samples"
        no = f"NO: chi2 <= {ot.tol:g} is not certified; raise {mend}"
        print(f"converged    {yes if ot.converged_ else no}")
        print(f"wrote        {args.output}")
    return OK if ot.converged_ else FAILED


def _report(ot: SemiDiscreteOT) -> list[str]:
    """Accuracy and distance in a few lines."""
    c = ot.certificate_
    if c.exact:
        how = "computed exactly"
        chi2, tv = f"{c.chi2:.3g}", f"{c.tv:.3g}"
        distance = f"{c.primal:.6g} (dual value {c.dual:.6g})"
    else:
        how = f"on {c.samples:,} fresh samples"
        chi2 = f"{c.chi2:.3g} +- {c.chi2_se:.1g}, at most {c.upper():.3g} with 95 % confidence (goal {ot.tol:g})"
        tv = f"{c.tv:.3g}, where exact heights would show {c.tv_floor:.3g} by sampling alone"
        cost, (low, high) = ot.cost()  # the certificate's has more noise, and no interval
        distance = f"{cost:.4g}, {low:.4g} to {high:.4g} with 95 % confidence"
    return [
        f"accuracy     {how}",
        f"chi2         {chi2}",
        f"tv           {tv}",
        f"empty cells  {c.empty_cells} of {c.targets}",
        f"W2^2         {distance}",
    ]
