"""Samples of every model, trained on the same data for as many steps, in one picture.

    python bench/contact_sheet.py digits                              # docs/contact-digits.png
    python bench/contact_sheet.py mnist5k --steps 2000 --width 8 --batch-size 32 --amp   # docs/contact-mnist5k.png

The first row holds real images. An autoencoder cannot generate: its row holds reconstructions of them. All networks
have one width, and all runs one number of steps, but for what `LONGER` says; rates are those of the experiments.
What was trained is kept in --runs, and taken from there again.
"""

import argparse
import inspect
import time
from pathlib import Path

import torch

from otgen import data, plots
from otgen.experiments.lineup import CHOICES
from otgen.files import write_bytes
from otgen.models import MODELS, Generative, Model, load

SHOWN = 20  # images in a row

BOX = 0.32  # WGAN's clip times width: the paper's 0.01 for our usual 32; see the model
LONGER = {"wgan": 3, "wgan-gp": 2, "wgan-div": 2, "sngan": 2}
"""Times --steps: these take five steps of the critic for one of the generator, and WGAN's are the smallest."""


def trained(name: str, x: torch.Tensor, args: argparse.Namespace) -> Model:
    """The trained model, from the folder of runs if it is there."""
    path = args.runs / f"{args.data}-{name}.safetensors"
    if path.exists():
        return load(path)
    began, kind = time.monotonic(), MODELS[name]
    epochs = max(1, args.steps * args.batch_size // len(x))
    wanted = {"width": args.width, "ae_epochs": epochs, "d": args.d, "clip": BOX / args.width}
    known = inspect.signature(kind.__init__).parameters
    model = kind(tuple(x.shape[1:]), **{k: v for k, v in wanted.items() if k in known}, **CHOICES.get(name, {}), seed=0)
    model.fit(x, steps=LONGER.get(name, 1) * args.steps, batch_size=args.batch_size, amp=args.amp, progress=False)
    model.save(path)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return model


def main() -> None:
    """Train what is not there yet, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(data.IMAGES))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--d", type=int, default=8, help="size of codes and noise; 8 is the WAE paper's for MNIST")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    x = data.IMAGES[args.data]()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    rows = {"data": x[:SHOWN]}
    for name in args.models:
        model = trained(name, x, args)
        rows[name] = model.sample(SHOWN, 0) if isinstance(model, Generative) else model.reconstruct(x[:SHOWN])
    output = args.output or Path("docs") / f"contact-{args.data}.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, plots.render(plots.contact_sheet(rows)))
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
