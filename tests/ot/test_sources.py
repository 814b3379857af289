import math

import pytest
import torch
from draws import randn
from torch.testing import assert_close

from otgen import ops
from otgen.ot import SemiDiscreteOT, sources
from otgen.ot.sources import CHUNK, INDEPENDENT, MAX_SOBOL_DIM, BuiltIn, Custom, Kind, make_source, most_telling
from otgen.seeds import stream

Y = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def disk(n, generator):
    """Uniform on the unit disk around (3, 0): mean (3, 0), E|x|^2 = 9.5, variance 1/4 in each coordinate."""
    r = torch.rand(n, generator=generator, dtype=torch.float64).sqrt()
    t = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.stack([3 + r * t.cos(), r * t.sin()], dim=1)


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3, 20])
@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_moments_are_those_of_the_samples(name, d):
    source, n = BuiltIn(name), 200_000
    x = source.sample(n, d, seed=1).double()
    error = 5 * source.std(d) / math.sqrt(n)
    assert_close(source.mean(d), x.mean(0), rtol=0, atol=error)
    assert_close(source.std(d), float(x.var(0).mean().sqrt()), rtol=0.01, atol=0)
    square = x.square().sum(1)
    assert_close(source.second_moment(d), float(square.mean()), rtol=0, atol=5 * float(square.std()) / math.sqrt(n))
    assert float((x - source.mean(d)).norm(dim=1).max()) <= source.radius(d)


def test_moments_of_a_custom_source_come_from_a_pilot_sample():
    source = Custom(disk)
    assert_close(source.mean(2), torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=0, atol=0.02)
    assert_close(source.std(2), 0.5, rtol=0.02, atol=0)
    assert_close(source.second_moment(2), 9.5, rtol=0.01, atol=0)
    assert 1 <= source.radius(2) <= 5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_radius_and_reach_grow_with_a_users_source(scale):
    def shell(n, generator):
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        return scale * (x / x.norm(dim=1, keepdim=True) + 5.0)

    source = Custom(shell)
    assert source.radius(3) == pytest.approx(4 * scale, rel=0.05)
    wanted = torch.full((2,), 2 * source.radius(3), dtype=torch.float64)
    assert_close(source.reach(torch.zeros(2, 3), torch.eye(3)[:2]), wanted)


@pytest.mark.parametrize("d", [1, 3, 50])
def test_a_normal_source_reaches_from_end_to_end(d):
    source = BuiltIn("normal")
    x = source.sample(7, d, 1).double()
    wanted = torch.full((7,), 2 * source.radius(d), dtype=torch.float64)
    assert_close(source.reach(x, x / x.norm(dim=1, keepdim=True)), wanted)


@pytest.mark.parametrize("d", [1, 2, 5, 30])
def test_the_cube_ends_where_its_face_is_reached(d):
    source, v = BuiltIn("uniform"), randn(500, d, seed=d)
    x, v = source.sample(500, d, 3).double(), v / v.norm(dim=1, keepdim=True)
    end = x + source.reach(x, v)[:, None] * v
    half = (end - 0.5).abs().amax(1)  # in the largest norm the cube is a ball
    assert_close(half, torch.full((500,), 0.5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_faces_along_which_a_direction_runs_are_not_reached(zero):
    x = torch.tensor([[0.25, 0.5, 0.0], [0.25, 0.0, 1.0], [0.0, 0.3, 0.4]], dtype=torch.float64)
    v = torch.tensor([[1.0, zero, zero], [-1.0, zero, zero], [zero, 0.6, 0.8]], dtype=torch.float64)
    assert_close(BuiltIn("uniform").reach(x, v), torch.tensor([0.75, 0.25, 0.75], dtype=torch.float64))


# --- samples and counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["uniform", "normal", disk])
@pytest.mark.parametrize("kind", [INDEPENDENT, Kind(sobol=True), Kind(images=8)])
def test_counts_are_those_of_the_samples(source, kind):
    """Measuring says of the samples of a seed what assigning them one by one says, across chunks."""
    source, n, h = make_source(source), CHUNK + 1000, torch.linspace(0, 1, 20, dtype=torch.float64)
    x = source.sample(n, 2, seed=5, kind=kind).double()
    best, score = ops.topk(x, Y, h, 2)
    got = source.measure(Y, h, n, 5, kind=kind, pairs=True, centroids=True)
    assert torch.equal(got.counts, torch.bincount(best[:, 0], minlength=20))
    assert torch.equal(got.pairs.long(), best)
    assert_close(got.gaps.double(), score[:, 0] - score[:, 1], rtol=1e-6, atol=1e-6)
    assert_close(got.mean_u, float(score[:, 0].mean()), rtol=1e-6, atol=0)
    sums = torch.zeros(20, 2, dtype=torch.float64).index_add_(0, best[:, 0], x)
    assert_close(got.centroids, sums / got.counts[:, None], rtol=0, atol=1e-5, equal_nan=True)


def test_two_counts_of_a_users_source_add_up():
    """As when a certificate looks twice: together they say what the samples of both say."""
    source, h = Custom(disk), torch.linspace(0, 1, 20, dtype=torch.float64)
    parts = [(300, 1), (700, 2)]
    a, b = (source.measure(Y, h, n, seed, pairs=True, centroids=True) for n, seed in parts)
    both = a + b
    x = torch.cat([source.sample(n, 2, seed) for n, seed in parts])
    best, score = ops.topk(x, Y, h, 2)
    assert torch.equal(both.counts, torch.bincount(best[:, 0], minlength=20))
    assert torch.equal(both.pairs.long(), best)
    assert_close(both.gaps, score[:, 0] - score[:, 1])
    assert_close(both.mean, x.mean(0))
    assert_close(both.second_moment, float(x.square().sum(1).mean()))
    assert_close(both.mean_u, float(score[:, 0].mean()))
    sums = torch.zeros(20, 2, dtype=torch.float64).index_add_(0, best[:, 0], x)
    assert_close(both.centroids, sums / both.counts[:, None], equal_nan=True)


def test_optional_results_are_left_out():
    got = Custom(disk).measure(Y, torch.zeros(20, dtype=torch.float64), 100, 0)
    assert got.pairs is None
    assert got.gaps is None
    assert got.centroids is None


@pytest.mark.parametrize("source", ["uniform", disk])
def test_seed_decides_the_samples(source):
    source = make_source(source)
    x = source.sample(1000, 2, seed=7)
    assert torch.equal(x, source.sample(1000, 2, seed=7))
    assert not torch.equal(x, source.sample(1000, 2, seed=8))


def scaled(m, d, scale, seed=0):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@pytest.mark.parametrize(
    ("scale", "kind"),
    [
        ([1.0] * MAX_SOBOL_DIM, Kind(sobol=True)),
        ([1.0] * (MAX_SOBOL_DIM + 1), Kind(images=16)),
        ([4.0, 4.0] + [0.0] * 62, Kind(images=2)),  # one pair of coordinates
        ([4.0, 0.0, 4.0] + [0.0] * 61, Kind(images=4)),  # pairs 0 and 1
        ([4.0, 0.0, 4.0, 0.0, 4.0, 0.0, 4.0] + [0.0] * 57, Kind(images=8)),  # pairs 0 to 3
        ([0.0] * 64, Kind(images=2)),  # no coordinate at all
    ],
)
def test_kind_of_samples_by_dimension_and_by_where_targets_vary(scale, kind):
    assert most_telling(scaled(400, len(scale), torch.tensor(scale))) == kind


@pytest.mark.parametrize("kind", [Kind(), Kind(sobol=True), Kind(images=16)])
def test_built_in_sources_make_samples_of_a_kind(kind):
    source, y, h = BuiltIn("uniform"), scaled(50, 20, 1), torch.zeros(50).double()
    wanted = ops.sample("uniform", 200, 20, seed=3, sobol=kind.sobol, images=kind.images)
    assert torch.equal(source.sample(200, 20, 3, kind=kind), wanted)
    counts = torch.bincount(ops.assign(wanted.double(), y, h)[0], minlength=50)
    assert torch.equal(source.measure(y, h, 200, 3, kind=kind).counts, counts)


def noise(y, images, n, repeats=40):
    """Sum of the counts' variances, as a part of that of independent samples."""
    h = -0.5 * y.square().sum(1)
    counts = torch.stack([ops.measure(y, h, "normal", n, seed, images=images).counts for seed in range(repeats)])
    p = counts.double().mean(0) / n
    return float(counts.double().var(0).sum() / (n * p * (1 - p)).sum())


@pytest.mark.parametrize(("m", "d"), [(400, 20), (400, 64)])
def test_images_tell_nearly_as_much_as_independent_samples(m, d):
    """The sum over hundreds of cells of the sample variance of 40 counts is good to two percent or so."""
    y = scaled(m, d, 1.0)
    images = most_telling(y).images
    assert images == 16
    assert noise(y, 1, 20 * m) == pytest.approx(1, abs=0.1)
    assert 0.9 < noise(y, images, 20 * m) < 1.2  # cells are of very different size here, and the large ones weigh most


def test_images_tell_little_where_targets_vary_in_few_coordinates():
    y = scaled(100, 64, torch.tensor([1.0] * 2 + [0.0] * 62))
    assert noise(y, 16, 2000) > 2
    assert noise(y, most_telling(y).images, 2000) == pytest.approx(1, abs=0.1)


def test_progress_of_a_custom_source_ends_at_one():
    done = []
    Custom(disk).measure(Y, torch.zeros(20, dtype=torch.float64), 2 * CHUNK + 1, 0, progress=done.append)
    assert len(done) == 3
    assert done == sorted(done)
    assert done[-1] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_samples_of_a_custom_source_become_float64(dtype):
    source = Custom(lambda n, generator: torch.rand(n, 2, generator=generator).to(dtype).requires_grad_())
    x = source.sample(10, 2, 0)
    assert x.dtype == torch.float64
    assert not x.requires_grad
    assert SemiDiscreteOT(source=source.sampler, progress=False).fit(Y[:3]).converged_


def test_samples_of_the_line_may_be_flat_as_targets_may():
    y = randn(20)
    flat, column = (
        SemiDiscreteOT(source=sampler, progress=False).fit(y)
        for sampler in (
            lambda n, generator: torch.randn(n, generator=generator),
            lambda n, generator: torch.randn(n, generator=generator)[:, None],
        )
    )
    assert torch.equal(flat.heights_, column.heights_)
    assert torch.equal(flat.sample(5, math.pi), column.sample(5, math.pi))


# --- what is refused -------------------------------------------------------------------------------------------------


def rand(n, generator, d=2):
    return torch.rand(n, d, generator=generator)


BAD_SAMPLERS = {
    "shape": (lambda n, g: rand(n, g, 3), ValueError, r"must return shape \(16384, 2\).*got \(16384, 3\)"),
    "flat": (lambda n, g: rand(n, g)[:, 0], ValueError, r"must return shape \(16384, 2\).*got \(16384,\)"),
    "too few": (lambda n, g: rand(n - 1, g), ValueError, r"must return shape \(16384, 2\).*got \(16383, 2\)"),
    "numpy": (lambda n, g: rand(n, g).numpy(), TypeError, "must return a torch.Tensor, got ndarray"),
    "nothing": (lambda n, g: None, TypeError, "must return a torch.Tensor, got NoneType"),
    "ints": (
        lambda n, g: torch.zeros(n, 2, dtype=torch.int64),
        TypeError,
        "must return floating-point samples, got torch.int64",
    ),
    "complex": (lambda n, g: rand(n, g) * 1j, TypeError, "must return floating-point samples, got torch.complex64"),
    "nan": (lambda n, g: rand(n, g) * math.nan, ValueError, "must return finite samples"),
    "inf": (lambda n, g: rand(n, g) / 0, ValueError, "must return finite samples"),
    "one point": (lambda n, g: torch.ones(n, 2), ValueError, "must return samples that differ"),
}


@pytest.mark.parametrize(("sampler", "error", "message"), BAD_SAMPLERS.values(), ids=BAD_SAMPLERS)
def test_bad_sampler_is_refused(sampler, error, message):
    with pytest.raises(error, match=f"^source: the sampler {message}[^\n]*$"):
        SemiDiscreteOT(source=sampler, progress=False).fit(Y)


def test_sampler_that_fails_later_is_refused_then():
    calls = []

    def fails(n, generator):
        calls.append(n)
        return rand(n, generator) * (math.nan if len(calls) == 4 else 1)

    with pytest.raises(ValueError, match="^source: the sampler must return finite samples[^\n]*$"):
        SemiDiscreteOT(source=fails, progress=False).fit(Y)


def test_sampler_keeps_its_own_error():
    with pytest.raises(ZeroDivisionError):
        SemiDiscreteOT(source=lambda n, generator: 1 / 0, progress=False).fit(Y)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gaussian", ValueError, "source must be one of uniform, normal or a callable, got 'gaussian'"),
        ("", ValueError, "source must be one of uniform, normal or a callable, got ''"),
        (3, TypeError, "source must be one of uniform, normal or a callable, got int"),
        (None, TypeError, "source must be one of uniform, normal or a callable, got NoneType"),
    ],
)
def test_unknown_source_is_refused(source, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        make_source(source)


def test_sources_pass_through():
    for source in (BuiltIn("normal"), Custom(disk)):
        assert make_source(source) is source


# --- streams ---------------------------------------------------------------------------------------------------------


def test_streams_differ_in_seed_purpose_and_number():
    seeds = {stream(s, p, i) for s in range(10) for p in ("certificate", "newton", "1", "1/1") for i in range(-1, 10)}
    assert len(seeds) == 10 * 4 * 11
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream(3, "certificate", 4) == stream(3, "certificate", 4)


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
def test_no_samples_serve_two_purposes(method, monkeypatch):
    """Every measurement has a stream of its own, and the certificate's samples are random ones, not Sobol points."""
    drawn = []

    def record(function):
        def wrapped(self, *args, **options):
            kind = options.get("kind", INDEPENDENT)
            drawn.append((args[-1], args[-2], function.__name__, kind == INDEPENDENT))
            return function(self, *args, **options)

        return wrapped

    y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(sources.BuiltIn, "measure", record(BuiltIn.measure))
    monkeypatch.setattr(sources.BuiltIn, "sample", record(BuiltIn.sample))
    fitted = SemiDiscreteOT("normal", method=method, tol=0.05, seed=11, progress=False).fit(y)
    assert fitted.converged_
    seeds = [seed for seed, *_ in drawn]
    assert len(set(seeds)) == len(seeds)
    certificate = fitted.certificate_
    assert not certificate.exact
    certified = [entry for entry in drawn if entry[0] == certificate.seed]
    assert certified == [(certificate.seed, certificate.samples, "measure", True)]


def test_a_sampler_may_fill_the_same_memory_again():
    memory = torch.empty(1 << 16, 3, dtype=torch.float64)

    def sampler(n, generator):
        return memory[:n].normal_(generator=generator)

    x = Custom(sampler).sample(3 << 16, 3, seed=0)
    assert x.unique(dim=0).shape[0] == 3 << 16
