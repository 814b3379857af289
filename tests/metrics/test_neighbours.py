import pytest
import torch
from draws import normal
from torch.testing import assert_close

from otgen.metrics import neighbours
from otgen.metrics.neighbours import balls_around, in_any_ball, nearest, spacing


def distances(x, y):
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nearest(offset, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 100)
    x, y = normal(70, 3, seed=1) + offset, normal(90, 3, seed=2) + offset
    near, distance = nearest(x, y, 4)
    want = distances(x, y).topk(4, largest=False)
    assert_close(near, want.indices)
    assert_close(distance, want.values, rtol=1e-9, atol=1e-9)


def test_nearest_of_none():
    near, distance = nearest(torch.zeros(0, 3, dtype=torch.float64), normal(5, 3), 2)
    assert near.shape == distance.shape == (0, 2)


def test_spacing_leaves_the_point_itself_out_but_not_its_copy():
    x = torch.tensor([[0.0], [1.0], [1.0], [5.0]], dtype=torch.float64)
    assert spacing(x).tolist() == [1.0, 0.0, 0.0, 4.0]
    assert spacing(x, 2).tolist() == [1.0, 1.0, 1.0, 4.0]


@pytest.mark.parametrize("scale", [0.05, 1.0, 5.0])
def test_balls(scale, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 500)
    x, c = normal(80, 3, seed=1) + 1e8, normal(150, 3, seed=2) + 1e8
    r = scale * normal(150, seed=3).abs()
    inside = distances(x, c) <= r
    assert inside.any()
    assert not inside.all()
    assert_close(in_any_ball(x, c, r), inside.any(1))
    assert_close(balls_around(x, c, r), inside.sum(1))


@pytest.mark.parametrize("m", [3, 16, 17, 65])
def test_a_point_may_lie_in_all_balls(m):
    radii = torch.full((m,), 50.0, dtype=torch.float64)
    assert balls_around(normal(5, 3, seed=1), normal(m, 3), radii).tolist() == [m] * 5


@pytest.mark.parametrize("away", [1e8, 1e12, 1e15])
def test_one_far_outlier_takes_no_digits_from_the_others(away):
    x, y = normal(100, 2, seed=1), normal(200, 2, seed=2)
    y[7] = away
    rows = torch.arange(200) != 7
    wanted = torch.cdist(x, y[rows]).sort(dim=1).values[:, :3]
    assert_close(nearest(x, y, 3)[1], wanted)
    radii = torch.full((200,), 0.3, dtype=torch.float64)
    counts = (torch.cdist(x, y) <= 0.3).sum(1)
    assert torch.equal(balls_around(x, y, radii), counts)
    assert torch.equal(in_any_ball(x, y, radii), counts > 0)
