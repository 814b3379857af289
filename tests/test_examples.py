"""The scripts of examples/ run, and what their pictures show is so."""

import re
import runpy
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture
def outcome(tmp_path):
    """What the `main` of a script returns once it has drawn its picture."""

    def run(name):
        picture = tmp_path / "picture.png"
        found = runpy.run_path(str(FOLDER / f"{name}.py"))["main"](str(picture))
        with Image.open(picture) as image:
            assert image.width == 1200
        return found

    before = mpl.get_backend()
    mpl.use("agg")
    yield run
    plt.close("all")
    mpl.use(before)


def test_moons(outcome):
    copies, mixed, new = outcome("moons")
    assert copies == 0
    assert 0 < new < 0.01 < 0.03 < mixed < 0.1


@pytest.mark.slow
def test_colours(outcome):
    before, *after = outcome("colours")
    assert before > 0.3
    assert max(after) < 0.03  # a thousand colours of a photo are as far from all of its pixels


@pytest.mark.slow
def test_stipple(outcome):
    distances = outcome("stipple")
    assert 1.5 < distances[-1] < distances[0] / 2


@pytest.mark.slow
def test_digits(outcome):
    gaussian, transported = outcome("digits")
    assert 0 < transported < gaussian / 2


@pytest.mark.slow
def test_morph(outcome):
    assert outcome("morph") > 0


@pytest.mark.slow
def test_accuracy(outcome):
    ratios = outcome("accuracy")
    assert sum(ratio > 1 for ratio in ratios) <= 0.05 * len(ratios)
    assert min(ratios) > 0.2


def test_the_gallery_shows_them_all():
    page = (FOLDER.parent / "docs" / "gallery.md").read_text()
    scripts = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert scripts
    assert sorted(re.findall(r"`python examples/(\w+)\.py`", page)) == scripts
    assert sorted(re.findall(r"\]\(gallery/(\w+)\.\w+\)", page)) == scripts
