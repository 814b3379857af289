"""`otgen sample`: from a map, new codes; from a trained model, new samples."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from otgen import ops, plots
from otgen.cli.checks import check_output, check_room, drawable
from otgen.cli.folder import MODEL, under_way
from otgen.cli.parser import ARRAYS, FORMATS, OK, PICTURES, Commands, Parser
from otgen.experiments.run import device_of
from otgen.files import read_metadata, save_array, save_images, write_bytes
from otgen.models import Generative, load
from otgen.models.storage import FORMAT as MODEL_FORMAT
from otgen.ot import SemiDiscreteOT
from otgen.ot.settings import whole
from otgen.seeds import stream

CODES, TILES = 1000, 64  # how many samples there are without -n, in an array and in a picture


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = (
        "Generate new codes with a fitted map, blending the targets of nearby cells, or new samples with a trained"
        f" model; {FORMATS}, and samples of a model go into a .png picture as well."
    )
    parser = commands.add_parser("sample", help="generate codes with a map, or samples with a model", description=about)
    parser.add_argument("map", help="a map that otgen fit wrote, or the folder or model file that otgen train wrote")
    parser.add_argument("-n", type=int, help=f"how many [default: {CODES}, in a picture {TILES}]")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the new codes, (n, d), float64, or the new samples"
    )
    parser.add_argument(
        "--angle-threshold",
        metavar="ANGLE",
        type=_angle,
        default="auto",
        help="map: largest angle between cells that is blended across: auto, or radians in (0, pi]"
        " [default: %(default)s]",
    )
    parser.add_argument("--hard", action="store_true", help="map: do not blend: every code is one of the targets")
    parser.add_argument("--seed", type=int, help="decides the samples; that of the fit or the training without it")
    parser.add_argument("--device", help="model: where torch computes [default: cpu]")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate."""
    source = Path(args.map) / MODEL if Path(args.map).is_dir() else Path(args.map)
    if source != Path(args.map) and not source.exists():
        more = "its training has not ended (otgen train with --resume goes on)"
        why = more if under_way(Path(args.map)) else "it is no run of otgen train"
        raise FileNotFoundError(f"{args.map} holds no {MODEL}: {why}")
    check_output(args.output, (*ARRAYS, *PICTURES), [str(source)], args.overwrite)
    if args.seed is not None:
        whole("seed", args.seed, 0)
    picture = Path(args.output).suffix.lower() in PICTURES
    args.n = (TILES if picture else CODES) if args.n is None else args.n
    if not 1 <= args.n < 2**63:
        raise ValueError(f"n must be a positive int below 2^63, got {args.n}")
    about = read_metadata(source)
    of_model = about.get("format") == MODEL_FORMAT or "otgen" in about  # a checkpoint is refused as a model
    lines = (_model if of_model else _map)(args, source, picture)
    for line in [*lines, f"wrote {args.output}"]:
        print(line)
    return OK


def _map(args: argparse.Namespace, path: Path, picture: bool) -> list[str]:
    if args.hard and args.angle_threshold != "auto":
        raise ValueError("--hard blends nothing, so --angle-threshold has no meaning beside it")
    if args.device is not None:
        raise ValueError("--device is for models; a map samples on the CPU")
    ot = SemiDiscreteOT.load(path)
    if picture:
        raise ValueError(f"the output must end in {', '.join(ARRAYS)} for the codes of a map, got {args.output}")
    m, d = ot.targets_.shape
    check_room(args.output, args.n * d * 8)
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
    return lines


def _model(args: argparse.Namespace, path: Path, picture: bool) -> list[str]:
    if args.hard or args.angle_threshold != "auto":
        raise ValueError("--hard and --angle-threshold are for maps; a model's threshold is one of its settings")
    model = load(path, device_of(args.device or "cpu"))
    if picture and not drawable(model.shape):
        raise ValueError(
            f"the output must end in {', '.join(ARRAYS)} for samples of shape {model.shape}, got {args.output}"
        )
    if isinstance(model, Generative):
        check_room(args.output, args.n * torch.Size(model.shape).numel() * 4)
    samples = model.sample(args.n, model.seed if args.seed is None else args.seed)
    _write(args.output, samples, picture)
    return [f"{args.n} samples of shape {model.shape} from {type(model).__name__}"]


def _write(path: str, samples: Tensor, picture: bool) -> None:
    if not picture:
        save_array(path, samples)
    elif samples.ndim == 4:
        save_images(path, samples)
    else:
        write_bytes(path, plots.render(plots.points_figure(samples)))


def _angle(text: str) -> "float | str":
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be auto or a number, got {text!r}") from None
