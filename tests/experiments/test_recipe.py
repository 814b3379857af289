import math
import sys

import pytest

from otgen.experiments import recipe as recipes
from otgen.experiments import run
from otgen.experiments.registry import EXPERIMENTS

GOOD = """
# a comment
title = "A # title"  # another
experiment = "toy"
claim = "c"
seed = 3

[settings]
steps = 100
rates = [0.5, 1e-3, -2]
on = true

[fast]
steps = 5
"""


def write(folder, text, name="mine.toml"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_recipe_from_a_file(tmp_path):
    recipe = recipes.load(write(tmp_path, GOOD))
    assert (recipe.name, recipe.title, recipe.experiment, recipe.seed) == ("mine", "A # title", "toy", 3)
    assert recipe.sized(False) == {"steps": 100, "rates": [0.5, 0.001, -2], "on": True}
    assert recipe.sized(True) == {"steps": 5, "rates": [0.5, 0.001, -2], "on": True}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no reader of TOML")
def test_they_are_toml(tmp_path):
    import tomllib

    texts = [path.read_text(encoding="utf-8") for path in recipes.FOLDER.glob("*.toml")]
    assert texts
    for text in [*texts, GOOD]:
        assert recipes.parse(text) == tomllib.loads(text)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_of_ours_can_be_run(name):
    recipe = recipes.load(name)
    assert recipe.experiment in EXPERIMENTS
    assert recipe.name == name
    assert recipe.fast


def test_they_come_in_the_order_of_the_claims():
    assert recipes.names()[:3] == ["parallel-lines", "perfect-discriminator", "minimax"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = ", "line 1: .*'x ='"),
        ("x 3", "line 1: wanted key = value or"),
        ("x = 3 4", "wanted nothing but a comment after the value, got '4'"),
        ("x = null", "a value must be a string, number, truth value or array"),
        ('x = {"a": 1}', "a value must be a string"),
        ("x = [1, [null]]", "a value must be a string"),
        ("x = NaN", "NaN is no value"),
        ("x = 1\nx = 2", "line 2: x is there already"),
        ("[a]\n[a]", "line 2: a is there already"),
        ("x = 'single'", "line 1"),
    ],
)
def test_what_is_not_read_is_refused(line, message):
    with pytest.raises(ValueError, match=message):
        recipes.parse(line)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "", "the keys must be title"),
        ("seed = 3", 'seed = 3\ncolour = "red"', "the keys must be title"),
        ("seed = 3", "seed = true", "seed must be int, got bool"),
        ("seed = 3", "seed = -1", "seed must be at least 0"),
        ("steps = 5", "stepz = 5", r"\[fast\] must change settings that \[settings\] has, got stepz"),
    ],
)
def test_a_recipe_is_checked_and_named(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=rf"mine.toml: {message}"):
        recipes.load(write(tmp_path, GOOD.replace(old, new)))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="recipe must be one of parallel-lines, .*, all, or a .toml file, got 'nix'"):
        recipes.load("nix")
    with pytest.raises(FileNotFoundError):
        recipes.load("nix.toml")


def test_numbers_keep_their_kind():
    parsed = recipes.parse("a = 1\nb = 1.0\nc = -0.5e3")
    assert [type(v) for v in parsed.values()] == [int, float, float]
    assert math.isclose(parsed["c"], -500)


@pytest.mark.parametrize(
    ("settings", "fast", "message"),
    [
        ("", "", "mine: .settings. must have sets, m, n, angles, tol, got no angles"),
        (
            "sets = []\nm = 9\nn = 9\nangles = 3\ntol = 1",
            "",
            "mine: sets must be like .'twenty-five-gaussians'., got ..",
        ),
        ('sets = ["two-moons", 3]\nm = 9\nn = 9\nangles = 3\ntol = 1', "", "sets must be like"),
        (
            'sets = ["two-moons"]\nm = "9"\nn = 9\nangles = 3\ntol = 1',
            "",
            "m must be like 1000 and at least 1, got",
        ),
        ('sets = ["two-moons"]\nm = 9\nn = 0\nangles = 3\ntol = 1', "", "n must be like 5000 and at least 1, got 0"),
        ('sets = ["two-moons"]\nm = 9\nn = 9\nangles = 1\ntol = 0.1', "", "angles must be at least 2, got 1"),
        (
            'sets = ["two-moons"]\nm = 9\nn = 9\nangles = 3\ntol = 1',
            "n = true",
            "n must be like 5000 and .*, got True",
        ),
    ],
)
def test_settings_that_an_experiment_needs(tmp_path, settings, fast, message):
    text = f'title = "A"\nexperiment = "singular_set"\nclaim = "c"\nseed = 3\n[settings]\n{settings}\n[fast]\n{fast}\n'
    with pytest.raises(ValueError, match=message):
        run(write(tmp_path, text), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
