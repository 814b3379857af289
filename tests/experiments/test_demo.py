"""The demo: what it writes, and what it refuses before any work."""

import importlib
import json
import os
from importlib.metadata import version

import pytest
import torch
from matplotlib.image import imread

from otgen import SemiDiscreteOT, data
from otgen.experiments import demo
from otgen.files import load_array

MODULE = importlib.import_module("otgen.experiments.demo")  # the package's own `demo` is the function


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in a folder that is not there, with the fast demo of seed 3 in it; what was said and shown."""
    path = tmp_path_factory.mktemp("demo") / "new" / "folder"
    said, shown, decoded = [], [], []
    draw, decode = MODULE.plots.digits_figure, MODULE.AE.decode
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE.plots, "digits_figure", lambda *images: shown.extend(images) or draw(*images))
        patch.setattr(MODULE.AE, "decode", lambda ae, z: decoded.append((z, decode(ae, z))) or decoded[-1][1])
        outputs = demo(path, fast=True, seed=3, progress=False, note=said.append)
    assert torch.get_num_threads() == threads
    return path, outputs, said, shown, decoded


@pytest.fixture
def no_work(monkeypatch):
    """A demo that has begun to work has failed."""
    monkeypatch.setattr(MODULE, "_run", lambda *_: pytest.fail("work was begun"))


def listing(path):
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.is_file()}


def test_every_file_is_there_and_named(folder):
    path, outputs, said, *_ = folder
    assert {entry.name for entry in path.iterdir()} == set(MODULE.OUTPUTS)
    assert [output.path for output in outputs] == [path / name for name in MODULE.OUTPUTS]
    assert all(output.what for output in outputs)
    assert [text.split()[0] for text in said] == ["training", "fitting", "fitting", "drawing"]


@pytest.mark.parametrize("name", ["digits.png", "power-cells.png", "convergence.png"])
def test_pictures_are_not_blank(folder, name):
    image = imread(folder[0] / name)
    assert image.shape[0] > 500
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.05
    assert (image[..., :3].min(-1) > 0.95).mean() > 0.2  # and have a white ground


def test_the_digits_shown_are_real_reconstructed_and_new(folder):
    real, reconstructed, generated = (images.flatten(1) for images in folder[3])
    assert len(real) == len(reconstructed) == len(generated) == MODULE.SHEET
    digits = data.digits()[0]

    def nearest(images):
        """Root mean square distance to the nearest digit."""
        return float(torch.cdist(images, digits).amin(1).square().mean().sqrt())

    assert nearest(real) == 0
    error = float((real - reconstructed).square().sum(1).mean().sqrt())
    noise = nearest(digits[torch.arange(1, 101)[:, None], torch.randperm(64, generator=torch.manual_seed(0))])
    assert 0 < error < 0.5 * noise
    assert 0 < nearest(generated) < 0.5 * noise  # like digits, and not the digits
    assert float(torch.cdist(generated, generated).fill_diagonal_(9).amin(1).median()) > 0.3  # nor one another


def test_the_new_digits_are_decoded_from_new_codes(folder):
    path, _, _, (_, reconstructed, generated), ((codes, images), (new, new_images)) = folder
    assert torch.equal(codes, load_array(path / "codes.npy"))
    assert torch.equal(reconstructed, images[: MODULE.SHEET])
    sampled = SemiDiscreteOT.load(path / "map.safetensors").sample(MODULE.GENERATED)
    assert torch.equal(new, sampled[: MODULE.SHEET].float())
    assert torch.equal(generated, new_images)


def test_the_certificate_is_the_maps(folder):
    path, *_ = folder
    record = json.loads((path / "certificate.json").read_text())
    ot = SemiDiscreteOT.load(path / "map.safetensors")
    assert record["certificate"] == ot.certificate_.as_dict()
    assert (record["converged"], record["samples"]) == (ot.converged_, ot.samples_)
    assert (record["seed"], record["source"], record["tol"]) == (3, ot.source, ot.tol)
    assert ot.seed == 3
    assert record["converged"]
    assert record["certificate"]["chi2_upper"] <= record["tol"]
    assert {"otgen", "torch", "numpy", "python", "matplotlib", "scikit-learn"} == set(record["versions"])
    assert record["versions"]["torch"] == version("torch")  # `torch.__version__` may add "+cu130"
    assert 0 < record["seconds"] < 600


def test_the_maps_targets_are_the_codes(folder):
    codes = load_array(folder[0] / "codes.npy")
    assert codes.shape == (MODULE.FAST.digits, MODULE.FAST.d)
    torch.testing.assert_close(SemiDiscreteOT.load(folder[0] / "map.safetensors").targets_, codes.double())


def test_the_numbers_of_the_generation_can_be_had_again(folder):
    path, *_ = folder
    said = json.loads((path / "certificate.json").read_text())["generation"]
    ot, codes = SemiDiscreteOT.load(path / "map.safetensors"), load_array(path / "codes.npy").double()
    new, info = ot.sample(said["codes"], return_info=True)
    assert said["angle_threshold"] == pytest.approx(info.threshold)
    assert said["rejected"] == pytest.approx(info.rejected)
    apart = torch.cdist(codes, codes).fill_diagonal_(torch.inf).amin(1).median()
    ratio = float(torch.cdist(new, codes).amin(1).median() / apart)
    assert said["nearest_neighbour_ratio"] == pytest.approx(ratio, rel=1e-6)
    assert 0.2 < ratio < 1  # neither copies nor strangers


def test_the_reconstructions_are_better_than_the_mean(folder):
    record = json.loads((folder[0] / "certificate.json").read_text())
    x = data.digits()[0]
    assert 0 < record["reconstruction"]["error"] < 0.5 * float(x.var(0).sum())


def test_the_plane_has_a_threshold_between_its_angles():
    ot = SemiDiscreteOT(progress=False).fit(data.twenty_five_gaussians(MODULE.POINTS, 5))
    found = ot.singular_set(1e-9)
    same = found.pairs[:, 0] % MODULE.MODES == found.pairs[:, 1] % MODULE.MODES
    assert float(found.angles[same].max()) < MODULE.PLANE_ANGLE < float(found.angles[~same].min())


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_earlier_demo_is_kept(folder, no_work):
    before = listing(folder[0])
    with pytest.raises(FileExistsError, match="holds an earlier demo: .* --overwrite"):
        demo(folder[0])
    assert listing(folder[0]) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["digits.png", "map.safetensors", "certificate.json"])
def test_files_that_are_not_the_demos_are_never_replaced(tmp_path, no_work, name, overwrite):
    (tmp_path / name).write_text('{"made_by": "me"}')
    with pytest.raises(FileExistsError, match=f"holds {name}, which is not the demo's"):
        demo(tmp_path, overwrite=overwrite)
    assert listing(tmp_path) == {name: b'{"made_by": "me"}'}


def test_a_link_that_leads_nowhere_is_a_file_too(tmp_path, no_work):
    (tmp_path / "codes.npy").symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(FileExistsError):
        demo(tmp_path)


@pytest.fixture
def small(monkeypatch):
    """A demo of a second or two, good for files and not for looking at."""
    monkeypatch.setattr(MODULE, "FAST", MODULE.Size(digits=100, epochs=1, width=4, d=2, tol=0.5))
    monkeypatch.setattr(MODULE, "GENERATED", 100)
    monkeypatch.setattr(MODULE.plots, "power_diagram", lambda *_, **__: MODULE.plots.convergence([RECORD]))


RECORD = {"samples": 10, "tv": 0.5, "tv_floor": 0.1}


def test_an_earlier_demo_is_replaced_on_demand_and_nothing_else_is(tmp_path, small):
    (tmp_path / "notes.txt").write_text("mine")
    demo(tmp_path, fast=True, progress=False)
    first = listing(tmp_path)
    (tmp_path / "digits.png").unlink()
    (tmp_path / "digits.png").symlink_to(tmp_path / "notes.txt")
    demo(tmp_path, fast=True, seed=1, overwrite=True, progress=False)
    second = listing(tmp_path)
    assert second["notes.txt"] == b"mine"
    assert set(first) == set(second) == {*MODULE.OUTPUTS, "notes.txt"}
    assert first["codes.npy"] != second["codes.npy"]
    assert json.loads(second["certificate.json"])["seed"] == 1
    assert not (tmp_path / "digits.png").is_symlink()


def test_a_seed_gives_the_same_codes_and_pictures(tmp_path, small):
    for name in ("a", "b"):
        demo(tmp_path / name, fast=True, seed=2, progress=False)
    a, b = listing(tmp_path / "a"), listing(tmp_path / "b")
    assert a["codes.npy"] == b["codes.npy"]
    assert a["digits.png"] == b["digits.png"]


def test_a_file_that_comes_up_on_the_way_is_not_lost(tmp_path, small, monkeypatch):
    def interfere(text):
        (tmp_path / "codes.npy").write_text("mine")

    with pytest.raises(FileExistsError, match=r"codes\.npy, which is not the demo's"):
        demo(tmp_path, fast=True, progress=False, note=interfere)
    assert listing(tmp_path) == {"codes.npy": b"mine"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, no_work):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write into this folder: Not a directory"):
        demo(tmp_path / "file" / "folder")
    with pytest.raises(OSError, match="cannot write into this folder: File exists"):
        demo(tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, no_work, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere
        denied = PermissionError(13, "Permission denied")
        monkeypatch.setattr(MODULE.tempfile, "TemporaryFile", lambda dir: (_ for _ in ()).throw(denied))
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write into this folder: Permission denied"):
        demo(tmp_path)


def test_a_demo_that_fails_leaves_no_empty_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "_run", fail)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_missing_packages_are_named(tmp_path, no_work, monkeypatch):
    monkeypatch.setattr(MODULE, "find_spec", lambda module: None if module == "sklearn" else module)
    with pytest.raises(ImportError, match=r'scikit-learn installed: pip install "otgen\[demo\]"'):
        demo(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, True])
def test_a_seed_that_does_not_fit_is_refused(tmp_path, no_work, seed):
    with pytest.raises(ValueError, match="seed must be an int"):
        demo(tmp_path / "new", seed=seed)
