"""Finding out before any work what would spoil the last step."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

WORKING_COPIES = 4
"""Arrays of the result's size that `sample` holds at once."""


def check_output(name: str, endings: Sequence[str] | None, inputs: Sequence[str], overwrite: bool) -> None:
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


def check_room(name: str, size: int) -> None:
    """Refuse a result that fits neither the disk nor the memory: both would fail late, the second without a word."""
    room = shutil.disk_usage(Path(name).parent).free
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        room = min(room, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // WORKING_COPIES)
    if size > room:
        raise ValueError(f"n samples would take {size:.2g} bytes, and there is room for {room:.2g}: take a smaller n")


def drawable(shape: tuple[int, ...]) -> bool:
    """Whether samples of a shape can be shown: grey and coloured images, and points of the plane."""
    return (len(shape) == 3 and shape[0] in (1, 3)) or shape == (2,)
