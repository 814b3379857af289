"""Truths from outside: closed forms, small exact solvers, and other people's algorithms in NumPy."""

import math
from fractions import Fraction

import numpy as np
import ot
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import qmc
from torch.testing import assert_close


def assert_same_bits(got, want):
    """Check dtype, shape and every bit, so that 0 is not -0 and denormals count."""
    ints = {torch.float32: torch.int32, torch.float64: torch.int64}
    assert got.dtype == want.dtype
    assert_close(*(v.contiguous().view(ints.get(v.dtype, v.dtype)) for v in (got, want)), rtol=0, atol=0)


# --- cells in closed form --------------------------------------------------------------------------------------------


def two_targets_normal(y, h):
    """Measures (2,) of the cells of two targets under the standard normal source, in any dimension."""
    first = float(ndtr(float(h[0] - h[1]) / float((y[0] - y[1]).double().norm())))
    return torch.tensor([first, 1 - first], dtype=torch.float64)


def uniform_1d(y, h):
    """Measures (m,) of the cells of sorted targets (m, 1) under the uniform source on [0, 1], all cells in order."""
    y, h = y[:, 0].double(), h.double()
    ends = ((h[:-1] - h[1:]) / (y[1:] - y[:-1])).clamp(0, 1)
    return torch.diff(ends, prepend=torch.zeros(1), append=torch.ones(1))


# --- power cells -----------------------------------------------------------------------------------------------------


def polytope_volume(a, b):
    """Volume of the bounded body {x: <a_k, x> <= b_k}, of sequences of numbers: exact for `Fraction`s.

    The recursion of Lasserre (1983), "An analytical expression and an algorithm for the volume of a convex polyhedron":
    the cones from the origin over the facets, each projected along the largest coordinate of its normal.
    """
    d, rows = len(a[0]), []
    for normal, bound in zip(a, b, strict=True):
        size = max(abs(v) for v in normal)
        if size > 0:
            rows.append((*(v / size for v in normal), bound / size))
        elif bound < 0:
            return 0
    rows = list(dict.fromkeys(rows))  # the same half-space twice is one facet
    if d == 1:
        return max(0, min(c for v, c in rows if v > 0) + min(c for v, c in rows if v < 0))
    total = 0
    for k, (*normal, bound) in enumerate(rows):
        if bound == 0:
            continue
        axis = max(range(d), key=lambda i: abs(normal[i]))
        shares = [(row, row[axis] / normal[axis]) for row in rows[:k] + rows[k + 1 :]]
        a_in = [[row[i] - share * normal[i] for i in range(d) if i != axis] for row, share in shares]
        b_in = [row[d] - share * bound for row, share in shares]
        total += bound / abs(normal[axis]) * polytope_volume(a_in, b_in)
    return total / d


def power_cells_uniform(y, h):
    """Measures (m,) of the power cells of targets (m, d) on [0, 1]^d, in exact arithmetic.

    Of exact duplicates the highest has the cell, of equally high ones the first.
    """
    m, d = y.shape
    y, h = [[Fraction(v) for v in row] for row in y.tolist()], [Fraction(v) for v in h.tolist()]
    sides = [[Fraction(sign * (i == axis)) for i in range(d)] for axis in range(d) for sign in (1, -1)]
    measures = []
    for p in range(m):
        if any(y[q] == y[p] and (h[q], -q) > (h[p], -p) for q in range(m)):
            measures.append(0.0)
            continue
        rivals = [q for q in range(m) if y[q] != y[p]]
        a = [[u - v for u, v in zip(y[q], y[p], strict=True)] for q in rivals]
        b = [h[p] - h[q] for q in rivals]
        measures.append(float(polytope_volume(sides + a, [Fraction(1), Fraction(0)] * d + b)))
    return torch.tensor(measures, dtype=torch.float64)


# --- problems solved in closed form ----------------------------------------------------------------------------------


def two_heights_normal(y, nu):
    """Heights (2,), mean 0, that give two targets their weights under the standard normal source, in any dimension.

    Cell 0 is where <x, y_1 - y_0> <= h_0 - h_1, so h_0 - h_1 = |y_1 - y_0| Phi^-1(1 - nu_1).
    """
    half = float((y[1] - y[0]).double().norm()) * float(ndtri(1 - float(nu[1]))) / 2
    return torch.tensor([half, -half], dtype=torch.float64)


def two_cost_normal(y, nu):
    """Squared Wasserstein distance from the standard normal source to two weighted targets (2, d)."""
    y, nu = y.double(), nu.double()
    t = float(ndtri(float(nu[0])))  # the facet's distance from the origin; phi(t) is the first moment beyond it
    phi = math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    return y.shape[1] + float(nu @ y.square().sum(1)) - 2 * phi * float((y[1] - y[0]).norm())


def heights_1d(y, nu):
    """Heights (m,), mean 0, that give sorted targets (m, 1) their weights under the uniform source on [0, 1].

    The facet between cells j and j + 1 lies at the cumulative weight c_j: h_{j+1} = h_j - c_j (y_{j+1} - y_j).
    """
    drops = nu.double().cumsum(0)[:-1] * torch.diff(y[:, 0].double())
    h = -torch.cat([torch.zeros(1, dtype=torch.float64), drops.cumsum(0)])
    return h - h.mean()


def cost_1d(y, nu):
    """Squared Wasserstein distance from the uniform source on [0, 1] to sorted weighted targets (m, 1)."""
    y, ends = y[:, 0].double(), torch.cat([torch.zeros(1, dtype=torch.float64), nu.double().cumsum(0)])
    return float(((ends[1:] - y) ** 3 - (ends[:-1] - y) ** 3).sum() / 3)  # the integral of (x - y_j)^2 over cell j


def energy(x, y, h, nu):
    """The energy that heights minimise, over fixed samples (n, d): mean of max_j <x, y_j> + h_j, less <h, nu>."""
    return float((x @ y.T + h).max(dim=1).values.mean() - h @ nu)


def gradient(x, y, h, nu):
    """Its gradient (m,): share of the samples in each cell less its weight."""
    return torch.bincount((x @ y.T + h).argmax(dim=1), minlength=len(y)).double() / len(x) - nu


def dual_value(x, y, h, nu):
    """Value of the Kantorovich dual for |x - y|^2 over fixed samples (n, d), whose maximum the heights are."""
    g = y.square().sum(1) + 2 * h
    return float(x.square().sum(1).mean() - 2 * (x @ y.T + h).max(dim=1).values.mean() + nu @ g)


def linear_program(x, y, nu):
    """Squared Wasserstein distance from equally weighted samples (n, d) to weighted targets, by network simplex."""
    cost = (x[:, None, :] - y[None, :, :]).square().sum(2).numpy()
    return float(ot.emd2(np.full(len(x), 1 / len(x)), nu.numpy(), np.ascontiguousarray(cost), numItermax=10**7))


# --- samples ---------------------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox-4x32-10 of Salmon et al., SC 2011: counters (..., 4) and a 64-bit key to words (..., 4)."""
    low, c = np.uint64(0xFFFFFFFF), np.asarray(counter, dtype=np.uint64)
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p = [c[..., 0] * np.uint64(0xD2511F53), c[..., 2] * np.uint64(0xCD9E8D57)]
        high = [v >> np.uint64(32) for v in p]
        words = [high[1] ^ c[..., 1] ^ np.uint64(k[0]), p[1] & low, high[0] ^ c[..., 3] ^ np.uint64(k[1]), p[0] & low]
        c = np.stack(words, axis=-1)
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c.astype(np.uint32)


def random_words(n, d, seed, first):
    """The word behind each coordinate of samples first, ..., first + n - 1 of a random stream, (n, d)."""
    blocks = -(-d // 4)
    counter = np.zeros((n, blocks, 4), dtype=np.uint64)
    index = np.arange(n, dtype=np.uint64) + np.uint64(first)
    counter[:, :, 0] = (index & np.uint64(0xFFFFFFFF))[:, None]
    counter[:, :, 1] = (index >> np.uint64(32))[:, None]
    counter[:, :, 2] = np.arange(blocks, dtype=np.uint64)
    return philox(counter, seed).reshape(n, 4 * blocks)[:, :d]


# Degree, coefficients and first numbers of the primitive polynomials behind dimensions 2-8 (Joe and Kuo, 2008).
JOE_KUO = [
    (1, 0, [1]),
    (2, 1, [1, 3]),
    (3, 1, [1, 3, 1]),
    (3, 2, [1, 1, 1]),
    (4, 1, [1, 1, 3, 3]),
    (4, 4, [1, 3, 5, 13]),
    (5, 2, [1, 1, 5, 5, 17]),
]


def sobol_points(index, d):
    """Points (n, d) of the Sobol sequence, d <= 8, as 32-bit fractions of which the upper 30 bits are in use."""
    points = np.zeros((len(index), d), dtype=np.uint32)
    for k in range(d):
        degree, coefficients, odd = JOE_KUO[k - 1] if k else (0, 0, [1] * 30)
        numbers = [m << (29 - i) for i, m in enumerate(odd)]
        for i in range(len(numbers), 30):
            number = numbers[i - degree] ^ numbers[i - degree] >> degree
            for j in range(1, degree):
                number ^= (coefficients >> (degree - 1 - j) & 1) * numbers[i - j]
            numbers.append(number)
        for b, number in enumerate(numbers):
            points[:, k] ^= np.where(index >> b & 1, number << 2, 0).astype(np.uint32)
    return points


def many_sobol_points(k, d):
    """The first 2^k points (2^k, d) likewise, from SciPy, in any dimension."""
    index = np.arange(2**k)
    points = np.zeros((2**k, d), dtype=np.uint32)
    points[index ^ index >> 1] = qmc.Sobol(d, scramble=False, bits=30).random(2**k) * 2**32  # SciPy counts in Gray code
    return points


def scramble(points, seed, run=0):
    """The words behind the samples of a scrambled Sobol stream, (n, d), one run of 2^30 points at a time."""
    return reverse_bits(owen_hash(reverse_bits(points), scramble_seeds(points.shape[1], seed, run)))


def sobol_words(n, d, seed, first):
    """Likewise of samples first, ..., first + n - 1, which must lie in one run, d <= 8."""
    return scramble(sobol_points(np.arange(n) + first % 2**30, d), seed, first >> 30)


def scramble_seeds(d, seed, run=0):
    """What the hash of each dimension is seeded with, (d,)."""
    counter = np.zeros((d, 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1], counter[:, 2] = np.arange(d), run & 0xFFFFFFFF, run >> 32
    counter[:, 3] = int.from_bytes(b"Sobo", "big")
    return philox(counter, seed)[:, 0]


def owen_hash(v, seed):
    """Nested scramble of bit-reversed numbers (Burley, JCGT 2020, with Vegdahl's constants)."""
    v = v ^ v * np.uint32(0x3D20ADEA)
    v = v + seed
    v = v * (seed >> np.uint32(16) | np.uint32(1))
    v = v ^ v * np.uint32(0x05526C56)
    return v ^ v * np.uint32(0x53A22864)


def reverse_bits(v):
    """The 32 bits of each number in the other order."""
    text = np.ascontiguousarray(v, dtype="<u4").view(np.uint8).reshape(*v.shape, 4)
    bits = np.unpackbits(text, axis=-1, bitorder="little")
    return np.packbits(bits[..., ::-1], axis=-1, bitorder="little").view("<u4")[..., 0]


def uniform_from_word(w):
    """The centre of one of 2^23 parts of [0, 1]."""
    return torch.from_numpy(((w >> np.uint32(9)).astype(np.float64) + 0.5) * 2.0**-23).float()


def normal_from_word(w):
    """The normal quantile of a word, float64: its upper bit is the sign, the rest counts from the tail to 0."""
    tail = ((w & np.uint32(0x7FFFFFFF)).astype(np.float64) + 0.5) * 2.0**-32
    return torch.from_numpy(np.where(w >> np.uint32(31), -ndtri(tail), ndtri(tail)))


def sobol_index_of_word(w, seed):
    """The index below 2^30 at which the first coordinate of a scrambled Sobol stream has the upper 30 bits of w.

    The first coordinate is van der Corput's, whose reversed bits are the index itself; and bit b of the hash depends on
    the bits up to b alone, so that the index can be found from the lowest bit upwards.
    """
    key, wanted = scramble_seeds(1, seed)[0], reverse_bits(np.asarray(w, dtype=np.uint32))
    index = np.zeros_like(wanted)
    for b in range(30):
        bit = np.uint32(1 << b)
        index = np.where((owen_hash(index, key) ^ wanted) & bit, index | bit, index)
    return index


def mean_abs_normal():
    """E |x| of a standard normal."""
    return math.sqrt(2 / math.pi)
