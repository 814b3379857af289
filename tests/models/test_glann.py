import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close
from torch.utils.data import DataLoader

from otgen.models import GLANN
from otgen.nn import losses
from otgen.train import Setup

SHAPE = (1, 8, 8)


def images(n=40):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def test_every_sample_has_a_code_on_the_sphere():
    glann = GLANN(SHAPE, 5, width=2, sampler_epochs=1)
    assert glann.codes.shape == (0, 5)
    glann.fit(images(), steps=3, batch_size=8, progress=False)
    assert glann.codes.shape == (40, 5)
    assert_close(glann.codes.detach().norm(dim=1), torch.ones(40))
    kept = glann.codes
    glann.fit(images(), steps=1, batch_size=8, progress=False)
    assert glann.codes is kept  # training goes on
    glann.fit(images(20), steps=1, batch_size=8, progress=False)
    assert glann.codes.shape == (20, 5)


def test_a_step_moves_generator_and_codes_by_the_pyramid_loss():
    glann, x = GLANN(SHAPE, 5, width=2), images(8)
    glann._allocate(8)
    rows = torch.tensor([3, 1, 6])
    before = glann.codes.detach().clone()
    wanted = losses.laplacian(glann.decode(before[rows]), x[rows])
    assert glann.step_rows(x[rows], rows) == {"loss": pytest.approx(wanted.item(), rel=1e-5)}
    moved = (glann.codes.detach() - before).abs().amax(1) > 1e-4
    assert moved.nonzero()[:, 0].tolist() == [1, 3, 6]


def test_codes_and_generator_learn_at_their_own_rates():
    """Adam's first step moves every number by its learning rate, whatever the gradient; then codes are normalised."""
    glann, moved = GLANN(SHAPE, 5, width=2, lr=1e-3, codes_lr=0.05), []
    glann._allocate(8)
    codes, weights = glann.codes.detach().clone(), parameters_to_vector(glann.generator.parameters()).detach()
    glann.codes_optimiser.register_step_post_hook(lambda *_: moved.append((glann.codes.detach() - codes).abs()))
    glann.step_rows(images(8), torch.arange(8))
    assert_close(moved[0], torch.full((8, 5), 0.05), rtol=1e-2, atol=0)
    steps = parameters_to_vector(glann.generator.parameters()) - weights
    assert steps.abs().max().item() == pytest.approx(1e-3, rel=1e-2)


def test_codes_of_any_length_are_taken_to_the_sphere():
    glann, z = GLANN(SHAPE, 5, width=2), torch.randn(4, 5)
    assert_close(glann.decode(3 * z), glann.decode(z))


def test_the_models_seed_decides_the_codes_and_the_runs_seed_does_not():
    def codes(seed, run):
        glann = GLANN((2,), 3, width=2, sampler_epochs=1, codes_lr=1e-9, seed=seed)
        x = torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
        return glann.fit(x, seed=run, steps=1, batch_size=5, progress=False).codes.detach()

    assert_close(codes(0, 1), codes(0, 2))
    assert not torch.allclose(codes(0, 1), codes(1, 1))


def test_each_code_is_given_its_nearest_noise():
    """The other way round, codes without a candidate near would be dropped."""
    glann = GLANN((2,), 4, width=2)
    codes = torch.nn.functional.normalize(torch.randn(30, 4))
    state = glann.rng.get_state()
    noise = glann._nearest_noise(codes)
    glann.rng.set_state(state)
    pool = glann._normal(60, glann.rng)
    with torch.no_grad():
        candidates = GLANN((2,), 4, width=2).sampler(pool)
    nearest = torch.cdist(codes, candidates, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert_close(noise, pool[nearest])


def test_the_sampler_learns_from_less_than_a_batch():
    glann = GLANN((2,), 2, width=2, sampler_epochs=1)
    glann._allocate(20)
    before = glann.sampler[0].weight.clone()
    glann.finish(None, Setup(batch_size=8, progress=False))
    assert not torch.equal(glann.sampler[0].weight, before)


def test_the_sampler_learns_the_codes():
    glann = GLANN((2,), 2, width=2, sampler_epochs=30)
    glann._allocate(200)
    with torch.no_grad():  # a quarter of the circle
        angle = torch.rand(200) * torch.pi / 2
        glann.codes.copy_(torch.stack([angle.cos(), angle.sin()], 1))
    glann.eval()
    far = (glann._noise(500) < -0.1).any(1).float().mean()
    glann.train()
    glann.finish(None, Setup(batch_size=8, progress=False))
    glann.eval()
    near = (glann._noise(500) < -0.1).any(1).float().mean()
    assert near < 0.15
    assert far > 0.3
    spread = torch.atan2(*glann._noise(500).T.flip(0)).std()
    assert 0.3 < spread < 0.6  # uniform on the quarter has 0.45


def test_data_without_row_numbers_are_refused():
    with pytest.raises(TypeError, match="GLANN learns one code per sample: data must be in memory, in files or a"):
        GLANN(SHAPE, width=2).fit(DataLoader(images(), 8), steps=1, progress=False)
