import math
import re

import pytest
import torch
from draws import normal
from torch.nn.functional import avg_pool2d

from otgen.metrics import sharpness


def test_white_noise_scores_twenty_times_its_variance(seed):
    images = 0.5 * normal(200, 1, 32, 32, seed=seed)
    score = sharpness(images)
    assert score.value == pytest.approx(20 * 0.25, rel=0.03)
    assert abs(score.value - 5) < 5 * score.spread + 5 / 900  # a variance of 900 correlated pixels, uncorrected
    assert score.n == 200


def test_a_plane_wave_has_a_closed_form():
    # the Laplacian of cos(w x) is (2 cos w - 2) cos(w x); whole periods have variance 1/2
    w = 2 * math.pi / 8
    wave = torch.cos(w * torch.arange(34, dtype=torch.float64)).expand(2, 1, 34, 34)
    assert sharpness(wave).value == pytest.approx((2 * math.cos(w) - 2) ** 2 / 2)
    assert sharpness(wave).spread == pytest.approx(0, abs=1e-12)


def test_flat_and_sloping_images_score_nothing():
    slope = torch.arange(10.0).expand(2, 1, 10, 10) + 5
    assert sharpness(slope).value == pytest.approx(0, abs=1e-10)


def test_blur_lowers_it_and_grey_in_three_channels_changes_nothing():
    images = normal(20, 1, 16, 16)
    assert sharpness(avg_pool2d(images, 3, 1)).value < 0.1 * sharpness(images).value
    assert sharpness(images.expand(-1, 3, -1, -1)).value == pytest.approx(sharpness(images).value)


def test_colours_count_by_their_luma():
    grey = normal(20, 1, 8, 8)
    for channel, luma in enumerate((0.299, 0.587, 0.114)):
        images = torch.zeros(20, 3, 8, 8)
        images[:, channel] = grey[:, 0]
        assert sharpness(images).value == pytest.approx(luma**2 * sharpness(grey).value, rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 2, 8, 8), (1, 1, 8, 8), (5, 1, 3, 8), (5, 1, 8, 3)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=rf"sharpness: images must have shape .* got {re.escape(str(shape))}"):
        sharpness(torch.zeros(shape))


def test_what_is_no_tensor_is_refused_by_name():
    with pytest.raises(TypeError, match="sharpness: images must be a torch.Tensor, got list"):
        sharpness(torch.zeros(3, 1, 8, 8).tolist())
