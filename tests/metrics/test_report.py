import pytest
import torch
from draws import normal, rand

from otgen.metrics import Pixels, Score, compare, fid, kid
from otgen.metrics.report import DISTANCES

SHAPE = (1, 3, 3)
PIXELS = Pixels(SHAPE)


def test_it_names_what_was_looked_at_and_the_sizes():
    real, generated = normal(300, *SHAPE, seed=1), normal(200, *SHAPE, seed=2, shift=0.5)
    reports = compare(real, generated, PIXELS)
    assert [r.name for r in reports] == ["FID[pixels-1x3x3]", "KID[pixels-1x3x3]"]
    assert [(r.score.n, r.floor.n) for r in reports] == [(200, 150), (200, 150)]
    assert reports[0].score.value > 5 * reports[0].floor.value
    assert str(reports[0]) == f"FID[pixels-1x3x3] = {reports[0].score}, real against real {reports[0].floor}"


def test_the_scores_are_the_metrics_of_the_features():
    real, generated = normal(100, *SHAPE, seed=1), normal(100, *SHAPE, seed=2)
    f, k = compare(real, generated, PIXELS)
    assert f.score.value == pytest.approx(fid(real.flatten(1), generated.flatten(1)).value, rel=1e-9)
    assert k.score.value == pytest.approx(kid(real.flatten(1), generated.flatten(1)).value, rel=1e-9, abs=1e-12)


def test_data_against_itself_is_at_the_floor(seed):
    x = normal(800, *SHAPE, seed=seed)
    (report,) = compare(x[:400], x[400:], PIXELS, ["KID"])
    assert abs(report.score.value) < 5 * report.score.spread
    assert abs(report.floor.value) < 5 * report.floor.spread


def test_copies_of_the_data_are_below_the_floor():
    x = normal(200, *SHAPE)
    (report,) = compare(x, x.clone(), PIXELS, ["FID"])
    assert report.score.value < 1e-9 < report.floor.value


def test_the_floor_has_no_sample_twice():
    x = torch.arange(20.0).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    (report,) = compare(x, x.flip(0), PIXELS, ["FID"])
    assert report.floor.n == 10
    assert report.floor.value > 0


@pytest.mark.parametrize(("n", "m", "sizes"), [(100, 40, [40, 40]), (60, 200, [60, 30]), (60, 50, [50, 30])])
def test_what_is_compared_is_equally_large_and_halves_share_nothing(monkeypatch, n, m, sizes):
    seen = []
    monkeypatch.setitem(DISTANCES, "FID", lambda x, y: seen.append((x, y)) or Score(0.0, 0.0, len(x)))
    real, generated = rand(n, *SHAPE), 2 + rand(m, *SHAPE, seed=1)
    compare(real, generated, PIXELS, ["FID"])
    assert [(len(x), len(y)) for x, y in seen] == [(size, size) for size in sizes]
    (x, y), halves = seen
    assert x.max() < 2 <= y.min()
    assert torch.cat(halves).max() < 2
    assert len(torch.cat(halves).unique(dim=0)) == 2 * sizes[1]


def test_an_unknown_name_is_refused_before_any_work():
    with pytest.raises(ValueError, match="names must be of FID, KID, got 'IS'"):
        compare(normal(20, *SHAPE), normal(20, *SHAPE), PIXELS, ["FID", "IS"])


@pytest.mark.parametrize(("real", "made"), [(15, 30), (30, 5)])
def test_too_few_images_are_refused_in_words(real, made):
    with pytest.raises(ValueError, match=f"wanted 20 real and 10 generated images at least, got {real} and {made}"):
        compare(torch.rand(real, 1, 4, 4), torch.rand(made, 1, 4, 4), Pixels((1, 4, 4)))


def test_the_kernel_distance_alone_wants_few_images():
    (report,) = compare(torch.rand(6, 1, 4, 4), torch.rand(3, 1, 4, 4), Pixels((1, 4, 4)), ("KID",))
    assert (report.score.n, report.floor.n) == (3, 3)
