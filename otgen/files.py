"""Arrays and image folders on disk: read without ever unpickling, written whole or not at all.

Every error is one line that says what was wanted and what came: an `OSError` for a file or folder that the system does
not open, a `TypeError` for what is no tensor, an `ImportError` where Pillow is missing, a `ValueError` for the rest.
"""

import errno
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

GAP = 1  # pixels between two images of a sheet
PAPER = 0.5  # grey between them
SHEET = 800  # a sheet is enlarged as far as it stays below so many pixels

# --- arrays ----------------------------------------------------------------------------------------------------------


def load_array(path: str | os.PathLike[str], name: str | None = None) -> Tensor:
    """Read an array from a .npy, .npz or .safetensors file.

    Args:
        path: The file.
        name: Which array of an .npz or .safetensors file; None if it holds just one.

    Returns:
        The array, with the file's shape and dtype, on the CPU. Its numbers are not looked at.
    """
    path = Path(path)
    read = _READERS[_ending("load_array", path)]
    must_open(path)
    try:
        return read(path, name)
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"load_array: wanted an array from {path}: {one_line(error)}") from error


def map_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Open a .npy file whose numbers stay on the disk until they are looked at, for arrays larger than the memory.

    Args:
        path: The file.

    Returns:
        The array, not to be written to.
    """
    path = Path(path)
    must_open(path)
    try:
        with path.open("rb") as file:
            shape, order, dtype = _header(file)
            begin = file.tell()
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, mode="r", offset=begin, shape=shape, order=order)
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"map_array: wanted an array from {path}: {one_line(error)}") from error


def save_array(path: str | os.PathLike[str], tensor: Tensor) -> None:
    """Write an array to a .npy, .npz or .safetensors file, which appears whole or not at all.

    Args:
        path: The file; one that is there is replaced. In .npz and .safetensors the array is called "array".
        tensor: Any shape, and any dtype that the format knows (bfloat16 needs .safetensors).
    """
    path = Path(path)
    write = _WRITERS[_ending("save_array", path)]
    if not isinstance(tensor, Tensor):
        raise TypeError(f"save_array: the array must be a torch.Tensor, got {type(tensor).__name__}")
    try:
        _replace(path, lambda file: write(file, _plain(tensor)))
    except OSError as error:
        raise OSError(error.errno, f"save_array: {error.strerror}", str(path)) from error
    except Exception as error:  # each format refuses in its own way
        raise ValueError(f"save_array: {path} cannot hold {tensor.dtype}: {one_line(error)}") from error


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a .safetensors file, and its metadata.

    Returns:
        Tensors by name, on the CPU, and strings by name.
    """
    path = Path(path)
    must_open(path)
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            tensors = {name: archive.get_tensor(name).clone() for name in archive.keys()}  # noqa: SIM118 (no iterator)
            return tensors, dict(archive.metadata() or {})
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"{path}: wanted a whole .safetensors file: {one_line(error)}") from error


def write_safetensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata to a .safetensors file, which appears whole or not at all."""
    # copies: safetensors refuses tensors that share memory, as tied weights do
    write_bytes(
        path, safetensors.torch.save({name: _plain(tensor).clone() for name, tensor in tensors.items()}, metadata)
    )


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what is written beside the tensors of a .safetensors file; nothing for a file of another kind."""
    path = Path(path)
    must_open(path)
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            return dict(archive.metadata() or {})
    except Exception:  # a forged file can raise anything, and whoever reads the rest will say it
        return {}


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    _replace(Path(path), lambda file: file.write(content))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file that appears whole or not at all, in UTF-8."""
    write_bytes(path, text.encode())


def _plain(tensor: Tensor) -> Tensor:
    """The numbers themselves, row by row on the CPU: no gradient, no strides, no pending sign or conjugate."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _read_npy(path: Path, name: str | None) -> Tensor:
    if name is not None:
        raise ValueError(f"a .npy file holds one array without a name, got the name {name!r}")
    with path.open("rb") as file:
        return _decode(file)


def _read_npz(path: Path, name: str | None) -> Tensor:
    with zipfile.ZipFile(path) as archive:
        names = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
        with archive.open(f"{_choose(names, name)}.npy") as file:
            return _decode(file)


def _read_safetensors(path: Path, name: str | None) -> Tensor:
    with safetensors.safe_open(path, framework="pt") as archive:
        tensor: Tensor = archive.get_tensor(_choose(list(archive.keys()), name))
        return tensor.clone()  # memory of its own, not a view of the file


_READERS: dict[str, Callable[[Path, str | None], Tensor]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
_WRITERS: dict[str, Callable[[BinaryIO, Tensor], object]] = {
    ".npy": lambda file, tensor: np.save(file, tensor.numpy(), allow_pickle=False),
    ".npz": lambda file, tensor: np.savez(file, array=tensor.numpy()),
    ".safetensors": lambda file, tensor: file.write(safetensors.torch.save({"array": tensor})),
}


def _ending(function: str, path: Path) -> str:
    """Return the file's ending, if it is one we know."""
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise ValueError(f"{function}: the file must end in {', '.join(_READERS)}, got {path}")
    return ending


def _choose(names: list[str], name: str | None) -> str:
    """Pick the named array, or the only one."""
    held = ", ".join(map(repr, sorted(names))) or "no array"
    if name is None and len(names) != 1:
        raise ValueError(f"the file must hold one array, or one must be named, got {held}")
    if name is not None and name not in names:
        raise ValueError(f"the file must hold an array named {name!r}, got {held}")
    return names[0] if name is None else name


def _decode(file: IO[bytes]) -> Tensor:
    """Read one array of numbers in NumPy's format; what its header claims is checked before it is believed."""
    shape, order, dtype = _header(file)
    data = file.read()
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} takes {wanted} bytes, got {len(data)}")
    array = np.frombuffer(data, dtype).reshape(shape, order=order)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Read shape, order and dtype of an array of numbers in NumPy's format."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # 3.0 differs only in the field names of records
        raise ValueError(f"an array of numbers must have NumPy's format 1.0 or 2.0, got {version}")
    format_1 = version == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if format_1 else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.kind not in "biufc":  # objects would need pickle; items of no size stop NumPy and torch with a crash
        raise ValueError(f"the array must hold numbers or truth values, got dtype {dtype}")
    return shape, "F" if fortran_order else "C", dtype


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside `path` and move it there when it is complete and on the disk, with the old one's mode.

    A link is replaced, not followed. Errors name `path`.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            if path.is_file() and not path.is_symlink():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))  # before there is anything to read
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = f"cannot write the file: {error.strerror or one_line(error)}"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error
    finally:
        with suppress(OSError):  # it is there no more if all went well
            temporary.unlink()


def must_open(path: Path) -> None:
    """Let the system report a file that is missing, or closed to us."""
    path.open("rb").close()


def one_line(error: BaseException) -> str:
    """Put an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


# --- images ----------------------------------------------------------------------------------------------------------


def images(folder: str | os.PathLike[str], size: int) -> Tensor:
    """Read a folder's .png and .jpg images in the order of their names, cut to the middle square and resized.

    Args:
        folder: The folder; folders inside it are not entered.
        size: Height and width h = w of the result.

    Returns:
        Images (n, c, h, w), float32 in [0, 1]; c is 1 if every image is grey, else 3. Transparency is dropped.
    """
    if size < 1:
        raise ValueError(f"images: size must be at least 1, got {size}")
    return read_images(image_paths(folder), size)


def image_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """A folder's .png and .jpg files in the order of their names, one at least."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        inside = any(path.is_dir() for path in Path(folder).iterdir())
        more = " itself; folders inside it are not entered" if inside else ""
        raise ValueError(f"images: the folder must hold .png or .jpg files, got none in {folder}{more}")
    return paths


def read_images(paths: Sequence[Path], size: int, channels: int | None = None) -> Tensor:
    """Read images, cut to the middle square and resized.

    Args:
        paths: .png or .jpg files.
        size: Height and width h = w of the result.
        channels: 1 for grey, 3 for colour; `None` for 1 if every image is grey, else 3.

    Returns:
        Images (n, c, h, w), float32 in [0, 1]. Transparency is dropped.
    """
    pictures = [_read_image(path, size, channels == 1) for path in paths]
    channels = channels or max(picture.shape[2] for picture in pictures)
    pixels = np.stack([np.broadcast_to(picture, (size, size, channels)) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()


def _read_image(path: Path, size: int, grey: bool) -> NDArray[np.uint8]:
    """Read one image (size, size, c), c = 1 if it is grey or asked to be, and 3 for colour."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('images: wanted Pillow, which is not installed: pip install "otgen[demo]"') from error
    with path.open("rb") as file:
        try:
            image = Image.open(file)
            stored = f"{image.mode} {image.tile[0][3] if image.tile else ''}"  # Pillow cuts RGB of 16 bits in silence
            if image.mode[0] in "IF" or "16" in stored:
                raise ValueError(f"it must have 8 bits a channel, got Pillow's mode {stored}")
            plain = ImageOps.exif_transpose(image)
            grey = grey or plain.mode in ("1", "L", "LA")
            if plain.mode in ("P", "PA"):  # the palette decides
                red, green, blue = plain.convert("RGB").split()
                grey = grey or red == green == blue
            plain = plain.convert("L" if grey else "RGB")
            return np.asarray(ImageOps.fit(plain, (size, size))).reshape(size, size, -1)
        except Exception as error:  # a damaged image can raise anything
            raise ValueError(f"images: wanted an image from {path}: {one_line(error)}") from error


def save_images(path: str | os.PathLike[str], images: Tensor) -> None:
    """Write images side by side to a .png file, as square a sheet as there can be; it appears whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        images: (n, c, h, w), n at least 1, c 1 or 3, in [0, 1]; small ones are enlarged by a whole factor.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('save_images: wanted Pillow, which is not installed: pip install "otgen[demo]"') from error
    if not isinstance(images, Tensor):
        raise TypeError(f"save_images: images must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or len(images) < 1 or images.shape[1] not in (1, 3):
        raise ValueError(f"save_images: images must have shape (n, c, h, w), c 1 or 3, got {tuple(images.shape)}")
    n, c, h, w = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = torch.full((c, rows * (h + GAP) + GAP, columns * (w + GAP) + GAP), PAPER, device="cpu")
    for index, image in enumerate(images.detach().cpu().float().clamp(0, 1)):
        top, left = (h + GAP) * (index // columns) + GAP, (w + GAP) * (index % columns) + GAP
        sheet[:, top : top + h, left : left + w] = image
    pixels = sheet.mul(255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if c == 1 else pixels)
    factor = max(1, SHEET // max(picture.size))
    enlarged = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    _replace(Path(path), lambda file: enlarged.save(file, format="PNG"))
