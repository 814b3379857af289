"""`otgen train`."""

import argparse
import inspect
import json
import shlex
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from otgen import data
from otgen.cli.checks import drawable
from otgen.cli.folder import CHECKPOINT, MODEL, begin, check_folder, under_way
from otgen.cli.parser import OK, Commands, Parser
from otgen.experiments.run import device_of
from otgen.files import image_paths, load_array, map_array, read_images
from otgen.models import MODELS, Generative, Model, OTPrior

EPOCHS = 50  # enough for digits to be known again; most papers train longer
LOOKED_AT = 64  # images of a folder by which it counts as grey
LARGEST = 1024  # side of the largest images that the papers' GANs are trained on
FIXED = ("self", "shape", "seed", "device")  # not for --set


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = (
        f"Train a model and keep it in a folder: {MODEL} when it is done, {CHECKPOINT} on the way."
        " `otgen models` lists the models, and their docstrings the settings."
    )
    end = "Exit code: 0 if it was trained, 1 if the training diverged, 2 for bad input, 130 if interrupted."
    parser = commands.add_parser("train", help="train a generative model", description=about, epilog=end)
    parser.add_argument("model", help="one of those that otgen models lists; dashes may be left out")
    parser.add_argument(
        "--data",
        required=True,
        help=f"{', '.join(data.TRAINING_SETS)} (with a number of points: swiss-roll-500), a .npy, .npz or .safetensors"
        " file of samples (n, features) or (n, c, h, w), or a folder of images, which are grey if its first"
        f" {LOOKED_AT} are",
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the run's folder; made if need be")
    parser.add_argument("--name", help="which array of the file, if it holds several")
    parser.add_argument(
        "--size", type=int, default=32, help="height and width of a folder's images [default: %(default)s]"
    )
    parser.add_argument("--epochs", type=int, help=f"length in epochs; {EPOCHS} without it and --steps")
    parser.add_argument("--steps", type=int, help="length in steps")
    parser.add_argument("--batch-size", type=int, default=64, help="samples in a batch [default: %(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="decides everything [default: %(default)s]")
    parser.add_argument("--device", default="cpu", help="where torch computes [default: %(default)s]")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the model, such as d=8, lr=1e-4 or loss=bce; may be repeated",
    )
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--compile", action="store_true", help="compile the networks")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="begin again in a folder that holds a run")
    parser.add_argument("--quiet", action="store_true", help="no bar and no report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and write the run's folder."""
    began = time.monotonic()
    if args.resume and args.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite begins again: take one of them")
    if not 1 <= args.size <= LARGEST:
        raise ValueError(f"--size must be from 1 to {LARGEST}, got {args.size}")
    device_of(args.device)
    folder = check_folder(args.output, args.resume, args.overwrite)
    samples, shape, name = _samples(args)
    model = _model(args, shape)
    record = {
        "data": name,
        "model": model.recipe.name,
        "batch_size": args.batch_size,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in model.recipe.arguments.items()},
    }
    with begin(folder, record, args.resume) as forget:
        try:
            model.fit(
                samples,
                epochs=EPOCHS if args.epochs is None and args.steps is None else args.epochs,
                steps=args.steps,
                batch_size=args.batch_size,
                seed=args.seed,
                progress=not args.quiet,
                checkpoint=folder / CHECKPOINT,
                resume=args.resume,
                callbacks=[lambda model, step, values: forget()],
                amp=args.amp,
                compile=args.compile,
            )
        except KeyboardInterrupt:
            if under_way(folder):
                raise KeyboardInterrupt("the same command with --resume goes on") from None
            raise
    model.save(folder / MODEL)
    if not args.quiet:
        for line in _report(args, model, time.monotonic() - began):
            print(line)
    return OK


def _samples(args: argparse.Namespace) -> tuple[Tensor | str, tuple[int, ...], str]:
    """What to train on, the size of a sample, and the name of the set or the whole path of the file or folder."""
    made, path = data.training_set(args.data, args.seed), Path(args.data)
    if args.name is not None and (made is not None or path.is_dir()):
        raise ValueError(f"--name is for a file that holds several arrays, got --data {args.data}")
    if made is not None:
        return made, tuple(made.shape[1:]), args.data
    name = str(path.resolve())
    if path.is_dir():
        looked_at = read_images(image_paths(path)[:LOOKED_AT], 1)
        return args.data, (looked_at.shape[1], args.size, args.size), name
    if not path.exists():
        raise FileNotFoundError(
            f"--data must be one of {', '.join(data.TRAINING_SETS)}, a file or a folder, got {args.data}"
        )
    on_disk = path.suffix.lower() == ".npy" and args.name is None
    array = map_array(path) if on_disk else load_array(path, args.name)
    if array.ndim not in (2, 4):
        raise ValueError(f"{path} must hold samples (n, features) or (n, c, h, w), got {tuple(array.shape)}")
    kept = array if isinstance(array, Tensor) else args.data  # a .npy file stays on the disk
    return kept, tuple(array.shape[1:]), name


def _model(args: argparse.Namespace, shape: tuple[int, ...]) -> Model:
    names = {name.replace("-", ""): model for name, model in MODELS.items()}
    kind = names.get(args.model.lower().replace("-", ""))
    if kind is None:
        raise ValueError(f"the model must be one of {', '.join(MODELS)}, got {args.model}")
    settings = dict(_setting(text) for text in args.set)
    # not of `kind`: where `__init__` is inherited, Python 3.10 shows the signature of `Model.__new__`
    known = [name for name in inspect.signature(kind.__init__).parameters if name not in FIXED]
    for name in settings:
        if name not in known:
            raise ValueError(f"{kind.__name__} knows the settings {', '.join(known)}, got {name}")
    make: Any = kind
    model: Model = make(shape, **settings, seed=args.seed, device=args.device)
    return model


def _setting(text: str) -> tuple[str, Any]:
    """Name and value: a number, true, false, null, a list in JSON, or else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set wants NAME=VALUE, got {text}")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    items = parsed if isinstance(parsed, list) else [parsed]
    if any(isinstance(item, (dict, list)) for item in items):
        raise ValueError(f"--set wants a number, true, false, null, a list of these or a word, got {text}")
    return name, tuple(parsed) if isinstance(parsed, list) else parsed


def _report(args: argparse.Namespace, model: Model, seconds: float) -> list[str]:
    history = model.history_
    steps = len(next(iter(history.values())))
    last = max(1, steps // 20)
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        f"{type(model).__name__}: {parameters:,} parameters, samples of shape {model.shape}, data {args.data}",
        f"steps        {steps:,} in {seconds:.1f} s, batches of {args.batch_size}",
        *(f"{name:12} {values[-last:].mean():.4g} over the last {last} steps" for name, values in history.items()),
        *(f"transport    {_certified(part)}" for part in model.modules() if isinstance(part, OTPrior)),
        f"wrote        {Path(args.output) / MODEL}",
    ]
    if isinstance(model, Generative):
        picture = "grid.png" if drawable(model.shape) else "new.npy"
        lines.append(f"next         otgen sample {shlex.quote(args.output)} -n 64 -o {picture}")
    return lines


def _certified(prior: OTPrior) -> str:
    """How exact a map from noise to codes is, in one line; `otgen fit` says more of its own."""
    if prior.ot_ is None:
        return "not solved"
    goal = f"chi2 <= {prior.ot_.tol:g}"
    if prior.ot_.converged_:
        return f"{goal} is certified"
    return f"{goal} is NOT certified, at most {prior.ot_.certificate_.upper():.3g}; raise --set tol"
