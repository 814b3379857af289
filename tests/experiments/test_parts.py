"""The experiments' own arithmetic, and each of them from end to end in very small."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otgen import data, plots
from otgen.experiments import (
    critics,
    interpolation,
    lineup,
    meaningful_loss,
    minimax,
    parallel_lines,
    perfect_discriminator,
    singular_set,
    useful_w,
    vae_regulariser,
)
from otgen.experiments import recipe as recipes
from otgen.experiments.experiment import Context, Outcome
from otgen.experiments.registry import EXPERIMENTS
from otgen.metrics import train_lenet
from otgen.models import GAN, VAE, WGAN
from otgen.nn import adversarial
from otgen.ot import SemiDiscreteOT

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

TINY = {
    "parallel-lines": {"thetas": [0.0, 0.5], "repeats": 2, "steps": 16, "batch": 32, "hidden": [8]},
    "perfect-discriminator": {"epochs": [1], "steps": 20, "looks": 4, "width": 2, "d": 3},
    "minimax": {"repeats": 1, "epochs": 1, "every": 2, "n": 50, "width": 2, "d": 3, "n_critic": [2]},
    "vae-regulariser": {"latents": [2, 3], "repeats": 1, "epochs": 1, "width": 2},
    "meaningful-loss": {"kinds": ["gan", "wgan"], "repeats": 1, "steps": 4, "every": 1, "width": 2, "n_critic": 1},
    "useful-w": {"kinds": ["wgan-gp"], "repeats": 1, "steps": 4, "every": 1, "width": 2},
    "interpolation": {"repeats": 1, "pairs": 5, "points": 41, "epochs": 1, "width": 2, "d": 2, "tol": 0.5},
    "singular-set": {"sets": ["eight-gaussians"], "m": 32, "n": 100, "angles": 4, "tol": 0.05},
}


def context_of(name, tmp_path):
    recipe = recipes.load(name)
    assert TINY[name].keys() <= recipe.settings.keys()
    return recipe, Context(recipe.sized(True) | TINY[name], 0, torch.device("cpu"), tmp_path)


TRAINED = (
    "minimax",
    "vae-regulariser",
    "meaningful-loss",
    "useful-w",
    "interpolation",
)  # networks and metrics of images: seconds each


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in TRAINED else n for n in TINY])
def test_from_end_to_end(name, tmp_path, monkeypatch):
    for module in (lineup, interpolation):
        monkeypatch.setattr(module, "train_lenet", partial(train_lenet, epochs=1))
    monkeypatch.setattr(useful_w, "BATCHES", 3)
    monkeypatch.setattr(perfect_discriminator, "BATCHES", 2)
    monkeypatch.setattr(perfect_discriminator, "BATCH", 16)
    recipe, context = context_of(name, tmp_path)
    experiment = EXPERIMENTS[recipe.experiment]
    outcomes = {part: work() for part, work in experiment.parts(context).items()}
    findings = experiment.conclude(context, outcomes)
    assert findings.claims
    for claim in findings.claims:
        assert claim.verdict in ("confirmed", "not confirmed", "not testable at this size")
        assert claim.figure in findings.pictures
        assert claim.evidence
    for table in findings.tables:
        assert {len(row) for row in table.rows} == {len(table.header)}
    for picture in findings.pictures.values():
        assert plots.render(picture.figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["parallel-lines", "singular-set"])
def test_a_seed_decides_everything(name, tmp_path):
    recipe, context = context_of(name, tmp_path)
    part, work = next(iter(EXPERIMENTS[recipe.experiment].parts(context).items()))
    other = EXPERIMENTS[recipe.experiment].parts(replace(context, seed=1))[part]
    assert work().values == work().values != other().values


# --- parallel lines --------------------------------------------------------------------------------------------------


@pytest.fixture
def trainee(tmp_path):
    _, context = context_of("parallel-lines", tmp_path)
    optimiser = partial(torch.optim.SGD, lr=0.1)
    return parallel_lines._Trainee(context, 0.5, 0, parallel_lines._critic_loss, optimiser, clip=0.2)


def test_the_segments(trainee):
    x = trainee.draw(1000, 0.5)
    assert (x[:, 0] == 0.5).all()
    assert 0 <= float(x[:, 1].min()) < 0.05
    assert 0.95 < float(x[:, 1].max()) <= 1


def test_slope_and_gap_of_a_linear_critic(trainee):
    trainee.network = nn.Linear(2, 1)
    with torch.no_grad():
        trainee.network.weight.copy_(torch.tensor([[-2.0, 0.0]]))
        trainee.network.bias.zero_()
    assert trainee.gap() == pytest.approx(1.0)  # f(0, z) - f(0.5, z)
    assert trainee.slope(adversarial.wasserstein_generator) == pytest.approx(2.0)  # of -f = 2 theta
    s = 1 / (1 + math.exp(1))
    assert trainee.slope(adversarial.minimax_generator) == pytest.approx(2 * s)  # d/dtheta -softplus(-2 theta)


def test_clipping_holds(trainee):
    trainee.train(3)
    assert trainee.steps == 3
    assert max(float(p.abs().max()) for p in trainee.network.state_dict().values()) <= 0.2001


# --- perfect discriminator -------------------------------------------------------------------------------------------


def test_the_jacobian_of_a_linear_generator_has_a_closed_form():
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    got = perfect_discriminator._jacobian_norms(nn.Linear(3, 5), z)
    assert_close(got, (z.square().sum(1) + 1).sqrt())  # W z + b: every output has the gradient (z, 1) of its own row


def test_the_distance_to_the_perfect_discriminator():
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 4.0]]))
        network.bias.fill_(-1.0)
    d = 1 / (1 + math.exp(1))
    got = perfect_discriminator._distance(lambda x: network(x)[:, 0], torch.zeros(4, 2))
    assert got == pytest.approx(d + 5 * d * (1 - d))


def test_gradients_and_the_bound_of_theorem_3():
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
    with torch.no_grad():
        discriminator.weight.mul_(0.2)
        discriminator.bias.fill_(-3.0)

    def score(x):
        return discriminator(x)[:, 0]

    z = torch.randn(perfect_discriminator.BATCH * 4, 3)
    values = perfect_discriminator._gradients(score, generator, z)
    grads = torch.autograd.grad(adversarial.minimax_generator(score(generator(z))), list(generator.parameters()))
    assert values["mm"] == pytest.approx(float(torch.cat([g.flatten() for g in grads]).norm()), rel=1e-4)
    m = math.sqrt(float(perfect_discriminator._jacobian_norms(generator, z).square().mean()))
    eps = perfect_discriminator._distance(score, generator(z))
    assert 0 < values["mm"] <= m * eps / (1 - eps)
    assert values["ns"] > values["mm"]  # D is sure of itself
    assert perfect_discriminator._bound({"m": m}, {"eps": eps}) == pytest.approx(m * eps / (1 - eps))
    assert math.isnan(perfect_discriminator._bound({"m": m}, {"eps": 1.2}))


def test_accuracy():
    real, fake = torch.tensor([[1.0], [2.0], [-1.0], [0.0]]), torch.tensor([[-1.0], [-2.0], [-3.0], [4.0]])
    assert perfect_discriminator._accuracy(nn.Flatten(0), real, fake) == pytest.approx(5 / 8)


# --- minimax ---------------------------------------------------------------------------------------------------------


def test_gradient_of_each_loss_by_its_factor():
    gan = GAN((4,), 3, width=1, seed=0)
    z = torch.randn(minimax.BATCH * 2, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in gan.critic.parameters():
            parameter.mul_(0.1)
        list(gan.critic.parameters())[-1].fill_(-4.0)  # D is nearly constant
    slow, fast = (minimax._gradient(gan, loss, z) for loss in ("minimax", "nonsaturating"))
    d = 1 / (1 + math.exp(4))
    assert slow["believed"] == fast["believed"] == pytest.approx(d, rel=0.01)
    assert fast["gradient"] / slow["gradient"] == pytest.approx((1 - d) / d, rel=0.02)


def test_curves_are_thinned_to_means():
    assert minimax._thinned(torch.arange(4.0)) == [0, 1, 2, 3]
    thin = minimax._thinned(torch.arange(1000.0))
    assert (len(thin), thin[0], thin[-1]) == (200, 2.0, 997.0)
    assert minimax._swing([0.0, 1.0, -1.0]) == 1.5


# --- regulariser of the VAE ------------------------------------------------------------------------------------------


def test_likelihood_and_posterior_are_those_of_the_training_loss():
    x = (torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    vae = VAE((1, 8, 8), 2, likelihood="bernoulli", width=4, seed=0)
    mu, logvar = vae.posterior(x)
    want = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1).mean()
    assert_close(vae.step(x)["kl"], float(want), rtol=1e-5, atol=1e-6)
    z = torch.zeros(9, 2)
    logits = torch.logit(vae.decode(z).double())
    bce = nn.functional.binary_cross_entropy_with_logits(logits, x.double(), reduction="none").flatten(1).sum(1)
    assert_close(vae_regulariser._log_likelihood(vae, x, z), -bce, rtol=1e-5, atol=1e-5)


def test_what_is_said_of_the_ceiling():
    assert "stays well below its ceiling log N = 3" in vae_regulariser._about_ceiling([], "log N = 3")
    assert "at its ceiling log N = 3 for 10 and 20 latents" in vae_regulariser._about_ceiling([10, 20], "log N = 3")


def test_one_number_of_latents_shows_no_growth(tmp_path):
    _, context = context_of("vae-regulariser", tmp_path)
    parts = dict.fromkeys(vae_regulariser.PARTS, 1.0) | {"distance": 0.2, "floors": [0.1, 0.19]}
    values = parts | {"latents": 3, "repeat": 0, "n": 9, "saturated": False, "holes": 0.5}
    shown = {"z": torch.zeros(9, 2), "prior": torch.zeros(9, 1, 8, 8), "posterior": torch.zeros(9, 1, 8, 8)}

    def verdicts(values):
        claims = vae_regulariser.conclude(context, {"latents03-0": Outcome(values, shown)}).claims
        return [claim.verdict for claim in claims]

    assert verdicts(values) == ["not testable at this size", "confirmed"]
    assert verdicts(values | {"floors": [0.1, 0.21]}) == ["not testable at this size", "not confirmed"]


def test_the_lattice_of_codes_goes_through_the_prior_row_by_row():
    codes = vae_regulariser._lattice().view(vae_regulariser.SIDE, vae_regulariser.SIDE, 2)
    assert (codes[0, 1:, 0] > codes[0, :-1, 0]).all()  # along a row the first
    assert_close(codes, codes.transpose(0, 1).flip(-1))
    shares = torch.special.ndtr(codes[0, :, 0])
    assert_close(shares.diff(), torch.full((vae_regulariser.SIDE - 1,), 1 / vae_regulariser.SIDE))
    assert_close(shares + shares.flip(0), torch.ones(vae_regulariser.SIDE))


def test_an_unknown_data_set_is_refused(tmp_path):
    _, context = context_of("vae-regulariser", tmp_path)
    with pytest.raises(ValueError, match="data must be one of digits, mnist, got 'celeba'"):
        vae_regulariser.parts(replace(context, settings=context.settings | {"data": "celeba"}))


# --- singular set ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four():
    """Two modes of two targets each, in turn, far apart."""
    y = torch.tensor([[-3.0, 0.1], [3.0, 0.1], [-3.0, -0.1], [3.0, -0.1]], dtype=torch.float64)
    return y, SemiDiscreteOT("uniform", tol=0.02, progress=False).fit(y)


def test_blends_of_two_modes_are_counted(four):
    y, ot = four
    for angle, low, high in ((0.3, 0.0, 0.0), (math.pi, 0.5, 1.0)):
        points, info = ot.sample(2000, angle, return_info=True)
        share = singular_set._mixed(ot, info.x, y, 2, angle)
        assert low <= share <= high
        assert float((points[:, 0].abs() < 2.99).double().mean()) == pytest.approx(share, abs=1e-9)


def test_which_thresholds_are_chosen():
    rows = [
        {"angle": 0.1, "rejected": 1.0},
        {"angle": 0.2, "rejected": 0.97, "mixed": 0.0},
        {"angle": 0.3, "rejected": 0.4, "mixed": 0.0},
        {"angle": 0.4, "rejected": 0.1, "mixed": 0.0005},
        {"angle": 0.5, "rejected": 0.0, "mixed": 0.3},
    ]
    chosen = [pick(rows)["angle"] for pick in (singular_set._too_small, singular_set._proper, singular_set._too_large)]
    assert chosen == [0.2, 0.4, 0.5]
    assert singular_set._too_small(rows[2:]) is None
    assert singular_set._proper(rows[:2]) is None
    assert singular_set._too_large(rows[:4]) is None
    assert singular_set._range({"rows": rows}) == "0.3 to 0.4 rad"


def test_the_row_of_auto_is_measured_at_auto(tmp_path):
    _, context = context_of("singular-set", tmp_path)
    (name,), m, n = (context.settings[key] for key in ("sets", "m", "n"))
    outcome = singular_set._sweep(context, name)
    row = next(row for row in singular_set._rows(outcome.values) if row[1] == "auto")
    y = data.problem(f"{name}-{m}", context.seed)[0].double()
    ot = SemiDiscreteOT("uniform", tol=context.settings["tol"], seed=context.seed, progress=False).fit(y)
    info = ot.sample(n, "auto", return_info=True)[1]
    assert row[2:4] == (f"{info.threshold:.3g}", f"{info.rejected:.1%}")
    assert 0 < info.rejected < 1
    assert row[4] == f"{singular_set._mixed(ot, info.x, y, 8, info.threshold):.1%}"


def test_an_unknown_set_is_refused(tmp_path):
    _, context = context_of("singular-set", tmp_path)
    with pytest.raises(ValueError, match="sets must be of twenty-five-gaussians, .*, got 'digits'"):
        singular_set.parts(replace(context, settings={**context.settings, "sets": ["digits"]}))


def test_too_few_looks_are_refused(tmp_path):
    _, context = context_of("minimax", tmp_path)
    with pytest.raises(ValueError, match="every must be at most a tenth of the training's steps, got 50"):
        minimax.parts(replace(context, settings=context.settings | {"every": 50}))


# --- critics ---------------------------------------------------------------------------------------------------------


def linear(model, weight):
    """Replace a model's critic by `weight` times the first feature."""
    critic = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[weight, 0.0]]))
    model.critic = critic
    return model


def test_estimates_by_hand():
    real, fake = torch.tensor([[1.0, 5.0], [3.0, 0.0]]), torch.tensor([[-1.0, 2.0], [-1.0, 2.0], [0.5, 0.0]])
    assert critics.estimate(linear(WGAN((2,), 3, width=1), 2.0), real, fake) == pytest.approx(2 * (2 + 0.5))
    gan = GAN((2,), 3, width=1)
    assert critics.estimate(linear(gan, 0.0), real, fake) == pytest.approx(0.0, abs=1e-6)  # knows nothing
    assert critics.estimate(linear(gan, 100.0), real, -real) == pytest.approx(math.log(2))  # tells all
    loss = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-3))) / 2
    assert critics.estimate(linear(gan, 1.0), real, -real) == pytest.approx(math.log(2) - loss)


def test_rank_correlation_by_hand():
    assert critics.rank_correlation([1.0, 2.0, 30.0], [0.1, 5.0, 6.0]) == pytest.approx(1)
    assert critics.rank_correlation([1.0, 2.0, 3.0], [9.0, 5.0, 1.0]) == pytest.approx(-1)
    assert critics.rank_correlation([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]) == pytest.approx(0.6)
    assert critics.rank_correlation([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(3) / 2)  # a tie
    assert critics.rank_correlation([1.0, 1.0], [1.0, 2.0]) == 0


def test_unknown_kinds_and_too_few_looks_of_critics_are_refused(tmp_path):
    for name, module in (("meaningful-loss", meaningful_loss), ("useful-w", useful_w)):
        _, context = context_of(name, tmp_path)
        with pytest.raises(ValueError, match=r"kinds must be of .*wgan, wgan-gp, got 'vae'"):
            module.parts(replace(context, settings=context.settings | {"kinds": ["vae"]}))
        with pytest.raises(ValueError, match=r"every must leave at least four measurements, got 2"):
            module.parts(replace(context, settings=context.settings | {"every": 2}))


# --- is W useful? ----------------------------------------------------------------------------------------------------


def test_centres_of_two_clusters_are_their_means():
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0], [8.0, 9.0], [10.0, 10.0]])
    centres = useful_w._centres(x, 2, 1)
    assert_close(centres[centres[:, 0].argsort()], torch.tensor([[0.0, 0.5], [9.0, 9.0]]))


def test_batches_repeat_nothing():
    batches = useful_w._batches(torch.arange(100.0)[:, None], 3, 0)
    assert batches.shape == (3, 64, 1)
    assert all(len(batch.unique()) == 64 for batch in batches)
    assert not torch.equal(batches[0], batches[1])
    assert len(useful_w._batches(torch.arange(100.0)[:, None], 1, 0, 100).unique()) == 100


def test_an_estimate_between_the_bounds_is_no_failure():
    rows = [{"step": k, "estimate": 1.0, "nearest": 0.5, "whole": 2.0} for k in (80, 90, 100)]
    low = [row | {"estimate": 0.4} for row in rows]
    assert useful_w._about_the_estimate([{"rows": low}, {"rows": low}]).verdict == "confirmed"
    assert useful_w._about_the_estimate([{"rows": low}, {"rows": rows}]).verdict == "not confirmed"
    early = [{"step": 10, "estimate": 9.0}, *rows]
    assert useful_w._late({"rows": early}, "estimate") == 1


# --- interpolation ---------------------------------------------------------------------------------------------------


def test_pairs_are_of_different_classes():
    labels = torch.arange(50) % 3
    a, b = interpolation._pairs(labels, 40, 0)
    assert len(a) == len(b) == 40
    assert bool((labels[a] != labels[b]).all())


def test_gaps_are_filled_with_what_came_before():
    points, kept = torch.tensor([[0.0], [1.0], [9.0], [9.0], [4.0]]), torch.tensor([True, True, False, False, True])
    assert interpolation._filled(points, kept).flatten().tolist() == [0, 1, 1, 1, 4]


def test_a_jump_keeps_its_size_with_half_the_points():
    t = torch.linspace(0, 1, 101)
    smooth = t.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    step = (smooth > 0.42).float()
    assert float(interpolation._lengths(smooth).max()) == pytest.approx(0.01, rel=1e-3)
    assert float(interpolation._lengths(smooth[::2]).max()) == pytest.approx(0.02, rel=1e-3)
    assert float(interpolation._lengths(step).max()) == float(interpolation._lengths(step[::2]).max()) == 1


def test_even_numbers_of_points_are_refused(tmp_path):
    _, context = context_of("interpolation", tmp_path)
    with pytest.raises(ValueError, match="points must be odd, .* at least 41, got 26"):
        interpolation.parts(replace(context, settings=context.settings | {"points": 26}))
    with pytest.raises(ValueError, match="pairs must be at least 5, which are drawn, got 4"):
        interpolation.parts(replace(context, settings=context.settings | {"pairs": 4}))


def test_a_way_that_only_stands_still_in_gaps_does_not_jump(tmp_path):
    """Any way makes one large step where it is cut, so the map's is compared with that of the line, cut alike."""
    _, context = context_of("interpolation", tmp_path)
    row = {"coarse": 0.02, "length": 1.0, "doubt": 0.0, "abandoned": 0.3, "still": 0.35}

    def verdict(jumps):
        line = [row | {"jump": 0.01, "distance": 2.0 + 0.01 * i} for i in range(4)]
        path = [row | {"jump": jump, "distance": 1.0} for jump in jumps]
        values = {"ways": {"line": line, "map": path}, "converged": True, "generated": 1.0, "copies": 1.0}
        still = torch.zeros(2 * interpolation.PICTURED, 3)
        pictures = torch.zeros(2 * interpolation.PICTURED, 2, 1, 8, 8)
        outcome = Outcome(values, {"pictures": pictures, "steps": still})
        return interpolation.conclude(context, {"aeot-0": outcome}).claims[0].verdict

    assert verdict([0.35, 0.36, 0.34, 0.35]) == "not confirmed"
    assert verdict([0.85, 0.86, 0.84, 0.90]) == "confirmed"


def test_thetas_are_refused_that_would_be_lost(tmp_path):
    _, context = context_of("parallel-lines", tmp_path)
    for thetas in ([0.0, 0.5, 0.5001], [0.0], [-0.05, 0.05]):
        with pytest.raises(ValueError, match="thetas must differ by a thousandth, and one be at least 0.2 from 0"):
            parallel_lines.parts(replace(context, settings=context.settings | {"thetas": thetas}))
