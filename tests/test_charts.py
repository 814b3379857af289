import numpy as np
import pytest
import torch

from otgen import plots
from otgen.charts import Cloud, Line, Panel, chart

pytest.importorskip("matplotlib")


def test_panels_in_rows():
    figure = chart([Panel(f"p{i}", lines=[Line([0, 1], [0, i])]) for i in range(5)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["p0", "p1", "p2", "p3", "p4", ""]
    assert not figure.axes[5].axison
    assert plots.render(figure).startswith(b"\x89PNG")


def test_lines_bands_marks_and_scales():
    line = Line([1, 10, 100], [1.0, 2.0, 3.0], "up", band=[0.1, 0.2, 0.3], style="o--", colour=2)
    panel = Panel("t", "x", "y", [line], marks={10.0: "here"}, xscale="log", ylim=(0, 5), xlim=(1, 200))
    (axes,) = chart([panel]).axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 1], [10, 2], [100, 3]])
    assert axes.lines[0].get_color() == plots.PALETTE[2]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.9, 3.3)
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylim(), axes.get_xlim()) == (
        "log",
        "linear",
        (0, 5),
        (1, 200),
    )
    assert [text.get_text() for text in axes.texts] == ["here"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["up"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_clouds_and_equal_units():
    points = torch.rand(7, 2)
    (axes,) = chart([Panel(clouds=[Cloud(points), Cloud(points, marker="+")], equal=True)]).axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), points)
    assert len(axes.collections) == 2
    assert axes.get_aspect() == 1
    assert axes.get_legend() is None


def test_images():
    (axes,) = chart([Panel("digits", images=torch.rand(9, 1, 8, 8))]).axes
    assert axes.images[0].get_array().shape == (26, 26)
    assert not axes.axison


def test_none_is_refused():
    with pytest.raises(ValueError, match="there must be at least one panel"):
        chart([])


def test_words_for_ticks():
    lines = [Line([1.0, 2.0], [3.0, 4.0])]
    (axes,) = chart([Panel(lines=lines, ticks={1.0: "one", 2.0: "two"})]).axes
    assert axes.get_xticks().tolist() == [1, 2]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["one", "two"]
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {0}
    (axes,) = chart([Panel(lines=lines, ticks={float(i): str(i) for i in range(9)})]).axes
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {45}


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(("high", "plain"), [(60.0, True), (1e5, False)])
def test_short_logarithmic_axes_have_plain_numbers(axis, high, plain):
    line = Line(**{"x": [0, 1], "y": [0, 1], axis: [15.0, high]})
    (axes,) = chart([Panel(lines=[line], **{f"{axis}scale": "log"})]).axes
    axes.figure.canvas.draw()
    labels = [text.get_text() for text in getattr(axes, f"get_{axis}ticklabels")()]
    assert ("20" in labels and "50" in labels) == plain


def test_no_columns():
    with pytest.raises(ValueError, match="chart: columns must be at least 1, got 0"):
        chart([Panel()], columns=0)
