import ast
import errno
import os
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import otgen
from otgen import files

ENDINGS = [".npy", ".npz", ".safetensors"]
X = torch.arange(12.0).reshape(3, 4)


@pytest.fixture(params=ENDINGS)
def path(request, tmp_path):
    return tmp_path / f"x{request.param}"


def fails(path, *reason, name=None):
    """Check that `path` is refused in one line that names it and holds each reason."""
    with pytest.raises(ValueError, match="^load_array: ") as caught:
        files.load_array(path, name)
    for part in (str(path), *reason):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7, 5), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_array_comes_back(path, shape, dtype):
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    files.save_array(path, x)
    y = files.load_array(str(path))
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert torch.equal(x, y)
    assert os.listdir(path.parent) == [path.name]


def test_slice_with_gradient_comes_back(path):
    x = X.clone().requires_grad_()
    files.save_array(path, x.T[1:])
    assert torch.equal(files.load_array(path), X.T[1:])


def test_loaded_array_is_not_tied_to_the_file(path):
    files.save_array(path, X)
    y = files.load_array(path)
    path.write_bytes(b"")
    y += 1
    assert torch.equal(y, X + 1)


def test_saving_again_replaces_the_file(path):
    files.save_array(path, torch.zeros(100))
    files.save_array(path, X)
    assert torch.equal(files.load_array(path), X)


def test_saved_array_has_the_name_array(path):
    files.save_array(path, X)
    if path.suffix != ".npy":
        assert torch.equal(files.load_array(path, "array"), X)
    else:
        assert np.array_equal(np.load(path), X.numpy())


def test_file_has_the_usual_permissions(path):
    files.save_array(path, X)
    other = path.with_name("other")
    other.write_bytes(b"")
    assert path.stat().st_mode == other.stat().st_mode


def test_a_replaced_file_keeps_its_permissions(path):
    files.save_array(path, X)
    path.chmod(0o600)
    files.save_array(path, X)
    assert path.stat().st_mode & 0o777 == 0o600


def test_pending_signs_and_conjugates_are_written(path):
    z = torch.tensor([1 + 2j, 3 - 1j]).conj()
    for x in (z, z.imag, z.imag[:1]):
        files.save_array(path, x)
        assert torch.equal(files.load_array(path), x.resolve_conj().resolve_neg())
    files.write_safetensors(path, {"z": z, "sign": z.imag}, {})
    tensors, _ = files.read_safetensors(path)
    assert torch.equal(tensors["z"], z.resolve_conj())
    assert torch.equal(tensors["sign"], z.imag.resolve_neg())


def test_a_link_is_replaced_and_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "link").symlink_to(mine)
    files.write_text(tmp_path / "link", "✓ new")
    assert (mine.read_text(), (tmp_path / "link").read_text("utf-8")) == ("mine", "✓ new")
    assert not (tmp_path / "link").is_symlink()


def test_an_array_of_numpy_is_refused_by_type(tmp_path):
    with pytest.raises(TypeError, match=r"save_array: the array must be a torch.Tensor, got ndarray"):
        files.save_array(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(TypeError, match=r"save_images: images must be a torch.Tensor, got ndarray"):
        files.save_images(tmp_path / "x.png", np.zeros((1, 1, 8, 8)))


@pytest.mark.parametrize("write", [files.write_text, lambda path, text: files.write_safetensors(path, {"x": X}, {})])
def test_an_error_names_the_file_that_was_asked_for(tmp_path, write):
    for name in ("none/x", "a" * 300):
        with pytest.raises(OSError, match="cannot write the file: ") as caught:
            write(tmp_path / name, "")
        assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("array", [np.asfortranarray(X.numpy()), X.numpy().astype(">f4"), X.numpy()[:, ::2]])
def test_other_layouts_and_byte_orders_are_read(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    assert torch.equal(files.load_array(tmp_path / "x.npy"), torch.tensor(array.astype("f4").tolist()))
    assert np.array_equal(files.map_array(tmp_path / "x.npy"), array)


def test_an_empty_array_is_mapped(tmp_path):
    np.save(tmp_path / "x.npy", np.empty((0, 3), np.float32))
    x = files.map_array(tmp_path / "x.npy")
    assert (x.shape, x.dtype) == ((0, 3), np.float32)


def test_numpy_format_2_and_compressed_files_are_read(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, X.numpy(), version=(2, 0))
    np.savez_compressed(tmp_path / "x.npz", x=X.numpy())
    assert torch.equal(files.load_array(tmp_path / "x.npy"), X)
    assert torch.equal(files.load_array(tmp_path / "x.npz"), X)


def test_bfloat16_is_kept_by_safetensors(tmp_path):
    files.save_array(tmp_path / "x.safetensors", X.bfloat16())
    assert torch.equal(files.load_array(tmp_path / "x.safetensors"), X.bfloat16())


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[".npz", ".safetensors"])
def pair(request, tmp_path):
    """A file with two arrays, a and b."""
    path = tmp_path / f"pair{request.param}"
    if request.param == ".npz":
        np.savez(path, a=X.numpy(), b=X.numpy() + 1)
    else:
        safetensors.torch.save_file({"a": X, "b": X + 1}, path)
    return path


def test_named_array_is_read(pair):
    assert torch.equal(files.load_array(pair, "a"), X)
    assert torch.equal(files.load_array(pair, "b"), X + 1)


def test_one_of_several_must_be_named(pair):
    fails(pair, "must hold one array, or one must be named, got 'a', 'b'")


def test_absent_name_is_refused(pair):
    fails(pair, "must hold an array named 'c', got 'a', 'b'", name="c")


def test_name_is_refused_where_there_are_none(tmp_path):
    files.save_array(tmp_path / "x.npy", X)
    fails(tmp_path / "x.npy", "without a name, got the name 'a'", name="a")


def test_file_without_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz")
    safetensors.torch.save_file({}, tmp_path / "x.safetensors")
    fails(tmp_path / "x.npz", "got no array")
    fails(tmp_path / "x.safetensors", "got no array")


# --- what cannot be read ---------------------------------------------------------------------------------------------


def test_missing_file_and_folder_are_the_systems_errors(path):
    with pytest.raises(FileNotFoundError, match=path.name):
        files.load_array(path)
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=path.name):
        files.load_array(path)


@pytest.mark.parametrize("name", ["x.csv", "x", "x.pt", "x.npy.gz"])
def test_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"load_array: .*must end in \.npy, \.npz, \.safetensors, got .*{name}$"):
        files.load_array(tmp_path / name)
    with pytest.raises(ValueError, match=rf"save_array: .*must end in \.npy, \.npz, \.safetensors, got .*{name}$"):
        files.save_array(tmp_path / name, X)


def test_ending_may_be_upper_case(tmp_path):
    files.save_array(tmp_path / "x.NPY", X)
    assert torch.equal(files.load_array(tmp_path / "x.NPY"), X)


def test_file_cut_off_anywhere_is_refused(path):
    files.save_array(path, X)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        fails(path)


def test_foreign_files_are_refused(path):
    for content in (b"", b"\0" * 100, b"x,y\n1,2\n" * 20, pickle.dumps([1.0] * 50), b"\x80\x04"):
        path.write_bytes(content)
        fails(path)


def test_other_formats_under_this_name_are_refused(path):
    for ending in set(ENDINGS) - {path.suffix}:
        other = path.with_suffix(ending)
        files.save_array(other, X)
        path.write_bytes(other.read_bytes())
        fails(path)


@pytest.fixture(params=[".npy", ".npz"])
def write(request, tmp_path):
    """Write the bytes of a .npy file, or of an .npz file's one array."""
    path = tmp_path / f"x{request.param}"

    def write(content):
        if path.suffix == ".npy":
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", content)
        return path

    return write


def numpy_bytes(shape, dtype, content=b"\0" * 64, version=b"\x01\x00"):
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(245).encode() + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + content


def test_honest_header_is_believed(write):
    assert torch.equal(files.load_array(write(numpy_bytes("(4, 4)", "'<f4'"))), torch.zeros(4, 4))


@pytest.mark.parametrize("size", [15, 17, -1, 10**13, 10**30])
def test_forged_size_is_refused(write, size):
    expected = f"an array of shape ({size},) and dtype float32 takes {4 * size} bytes, got 64"
    fails(write(numpy_bytes(f"({size},)", "'<f4'")), expected)


@pytest.mark.parametrize("shape", ["(-4, -4)", "(-1, -16)", "(10**30,)", "(4, 4", "'16'", "(0, -1)"])
def test_forged_shape_is_refused(write, shape):
    fails(write(numpy_bytes(shape, "'<f4'", b"" if "0," in shape else b"\0" * 64)))


def test_message_of_many_lines_is_put_on_one(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }".ljust(20_000).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    fails(tmp_path / "x.npy", "large and may not be safe")


def test_error_without_message_is_named(monkeypatch, path):
    files.save_array(path, X)

    def fail(*_):
        raise MemoryError

    monkeypatch.setitem(files._READERS, path.suffix, fail)
    fails(path, f"{path}: MemoryError")


@pytest.mark.parametrize("dtype", ["'|O'", "'<U4'", "'|V0'", "'|S0'", "'<M8[s]'", "[('a', '<f4')]", "'<f16'", "'?!'"])
def test_array_of_something_else_is_refused(write, dtype):
    fails(write(numpy_bytes("(4,)", dtype)))


def test_other_versions_are_refused(write):
    fails(write(numpy_bytes("(4, 4)", "'<f4'", version=b"\x03\x00")), "format 1.0 or 2.0, got (3, 0)")


class Trap:
    """Unpickling this raises the alarm."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_object_array_is_refused_without_unpickling(tmp_path):
    array = np.array([Trap()], dtype=object)
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    np.savez(tmp_path / "x.npz", array)
    for ending in (".npy", ".npz"):
        fails(tmp_path / f"x{ending}", "must hold numbers or truth values, got dtype object")


def test_damaged_bytes_in_npz_are_noticed(tmp_path):
    files.save_array(tmp_path / "x.npz", X)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[content.index(X.numpy().tobytes()) + 9] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    fails(tmp_path / "x.npz", "CRC")


# --- what cannot be written ------------------------------------------------------------------------------------------


def test_missing_folder_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"save_array: .*nowhere.*{path.name}"):
        files.save_array(path.parent / "nowhere" / path.name, X)


def test_folder_that_is_a_file_is_refused(path):
    (path.parent / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=f"save_array: .*file.*{path.name}"):
        files.save_array(path.parent / "file" / path.name, X)


def test_folder_in_the_place_of_the_file_is_refused(path):
    path.mkdir()
    with pytest.raises(OSError, match=f"save_array: .*{path.name}"):
        files.save_array(path, X)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_refused(path):
    path.parent.chmod(0o500)
    with pytest.raises(PermissionError, match=f"save_array: .*{path.name}"):
        files.save_array(path, X)
    path.parent.chmod(0o700)


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError("3 of 9 written")])
def test_failed_write_leaves_the_old_file_and_nothing_else(monkeypatch, path, function, error):
    files.save_array(path, X)

    def fail(*_):
        raise error

    monkeypatch.setattr(os, function, fail)
    expected = f"save_array: cannot write the file: {error.strerror or error}: .*{path.name}"
    with pytest.raises(OSError, match=expected) as caught:
        files.save_array(path, X + 1)
    assert caught.value.errno == (error.errno or errno.EIO)
    monkeypatch.undo()
    assert torch.equal(files.load_array(path), X)
    assert os.listdir(path.parent) == [path.name]


def test_interrupted_write_leaves_the_old_file_and_nothing_else(monkeypatch, path):
    files.save_array(path, X)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.save_array(path, X + 1)
    assert torch.equal(files.load_array(path), X)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_dtype_that_the_format_lacks_is_refused(tmp_path, ending):
    with pytest.raises(ValueError, match=rf"save_array: .*x\{ending} cannot hold torch\.bfloat16"):
        files.save_array(tmp_path / f"x{ending}", X.bfloat16())
    assert os.listdir(tmp_path) == []


# --- images ----------------------------------------------------------------------------------------------------------


def save_image(path, color, mode="RGB", size=(8, 8)):
    Image.new(mode, size, color).save(path)


def test_grey_images_have_one_channel(tmp_path):
    save_image(tmp_path / "b.png", 255, "L")
    save_image(tmp_path / "a.png", 51, "L", (20, 10))
    x = files.images(tmp_path, 4)
    assert x.shape == (2, 1, 4, 4)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    torch.testing.assert_close(x[:, 0, 0, 0], torch.tensor([0.2, 1.0]))


def test_images_of_one_bit_are_grey(tmp_path):
    Image.new("1", (4, 4), 1).save(tmp_path / "a.png")
    assert torch.equal(files.images(tmp_path, 4), torch.ones(1, 1, 4, 4))


def test_a_sheet_rounds_to_the_nearest_level_and_cuts_off_the_rest(tmp_path):
    levels = torch.arange(-8, 264).view(16, 17)
    files.save_images(tmp_path / "x.png", (levels[None, None] - 0.4) / 255)
    factor = 800 // 19  # of 17 pixels and a frame
    pixels = np.asarray(Image.open(tmp_path / "x.png"))[factor:-factor:factor, factor:-factor:factor]
    assert torch.equal(torch.tensor(pixels).long(), levels.clamp(0, 255))


def test_one_colour_image_makes_all_colour(tmp_path):
    save_image(tmp_path / "a.PNG", (255, 0, 51))
    save_image(tmp_path / "b.png", 51, "L")
    save_image(tmp_path / "c.jpg", (255, 255, 255))
    save_image(tmp_path / "d.png", (0, 255, 0, 255), "RGBA")
    (tmp_path / "notes.txt").write_text("not an image")
    x = files.images(tmp_path, 3)
    assert x.shape == (4, 3, 3, 3)
    assert x.is_contiguous()
    expected = torch.tensor([[1, 0, 0.2], [0.2, 0.2, 0.2], [1, 1, 1], [0, 1, 0]])
    torch.testing.assert_close(x, expected[:, :, None, None].expand(4, 3, 3, 3))


def test_middle_square_is_kept_and_not_turned(tmp_path):
    pixels = np.zeros((2, 6), dtype=np.uint8)
    pixels[0, 2], pixels[1, 3] = 255, 51
    Image.fromarray(pixels).save(tmp_path / "a.png")
    torch.testing.assert_close(files.images(tmp_path, 2)[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.2]]))


def test_camera_orientation_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 2, axis=1).repeat(8, 0).repeat(8, 1))
    image.save(tmp_path / "a.jpg", exif=exif)
    x = files.images(tmp_path, 16)[0, 0]
    assert x[0].min() > 0.9
    assert x[-1].max() < 0.1


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"images: the folder must hold .png or .jpg files, got none in {tmp_path}"):
        files.images(tmp_path, 4)
    (tmp_path / "cats").mkdir()
    with pytest.raises(ValueError, match="got none in .* itself; folders inside it are not entered"):
        files.images(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        files.images(tmp_path / "nowhere", 4)


def test_size_zero_is_refused(tmp_path):
    with pytest.raises(ValueError, match="images: size must be at least 1, got 0"):
        files.images(tmp_path, 0)


def test_broken_and_deep_images_are_refused_by_name(tmp_path):
    save_image(tmp_path / "a.png", 1, "L", (64, 64))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"images: wanted an image from .*a\.png"):
        files.images(tmp_path, 4)
    save_image(tmp_path / "a.png", 1000, "I;16")
    with pytest.raises(ValueError, match=r"a\.png: it must have 8 bits a channel, got Pillow's mode I;16"):
        files.images(tmp_path, 4)


def test_missing_pillow_says_how_to_install_it(monkeypatch, tmp_path):
    save_image(tmp_path / "a.png", 1, "L")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'images: wanted Pillow.*pip install "otgen\[demo\]"'):
        files.images(tmp_path, 4)


def test_nothing_is_ever_unpickled():
    """No module of otgen imports pickle or its kin, calls torch.load or torch.save, or lets NumPy unpickle."""
    for module in Path(otgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                assert name.split(".")[0] not in {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}, module
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                assert (owner, node.func.attr) not in {("torch", "load"), ("torch", "save"), ("np", "load")}, module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is False, module


def png_of_16_bits(colour, pixels):
    """A PNG file of 16 bits a channel: colour type 2 is RGB, 4 grey with transparency, which Pillow does not write."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    h, w = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2)])
def test_images_of_16_bits_are_not_cut(tmp_path, colour, channels):
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colour, np.full((4, 4, channels), 300)))
    with pytest.raises(ValueError, match="it must have 8 bits a channel, got Pillow's mode .*16"):
        files.images(tmp_path, 4)


def test_grey_palettes_are_grey(tmp_path):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.convert("P").save(tmp_path / "a.png")
    assert files.images(tmp_path, 8).shape == (1, 1, 8, 8)
    assert torch.equal(files.images(tmp_path, 8)[0, 0].mul(255).round().long(), torch.arange(64).view(8, 8))
    colours = np.stack([np.arange(64, dtype=np.uint8).reshape(8, 8)] * 3, axis=2)
    colours[..., 2] = 200
    Image.fromarray(colours).quantize(64).save(tmp_path / "b.png")
    assert files.images(tmp_path, 8).shape == (2, 3, 8, 8)
