"""The samples of the built-in sources, each a function of (seed, index)."""

from functools import lru_cache

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check

MAX_SOBOL_DIM = torch.quasirandom.SobolEngine.MAXDIM
"""Dimensions for which torch has direction numbers (Joe and Kuo, 2008)."""


def sample(
    source: str,
    n: int,
    d: int,
    *,
    seed: int = 0,
    first: int = 0,
    sobol: bool = False,
    images: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make samples number first, ..., first + n - 1 of a stream: the ones `measure` makes and does not keep.

    Args:
        source: "uniform" for the unit cube [0, 1]^d, "normal" for N(0, I).
        n: How many.
        d: Dimension.
        seed: Names the stream, 0 <= seed < 2^63.
        first: Number of the first sample, at most 2^62.
        sobol: Owen-scrambled Sobol points (hash-based scrambling: Burley, JCGT 2020) instead of random ones
            (Philox-4x32-10: Salmon et al., SC 2011). The scramble is a new one for each seed.
        images: Samples in sets of 1, 2, 4, 8 or 16, by turns 32 of those samples, then 32 of each kind of image. An
            image has some coordinates on the other side of the source's middle, 1 - x or -x: all of them (Hammersley
            and Morton, 1956), or pairs 0-1, 2-3, ... by the signs of a row of a Hadamard matrix, or of its negative.
            Each sample by itself has the source's law. Two of a set are opposite, or on different sides in half of the
            coordinates where d is a multiple of `images`; where it is less some are the same. Sets are whole where
            `first` and `n` are multiples of `32 * images`.
        device: Where to make them; the same numbers everywhere.

    Returns:
        Samples, (n, d), float32. Coordinates are uniform on a grid of 2^23 cell centres, or normal by inversion.

    Raises:
        ValueError: A name or number is out of range.
        TypeError: A number is not whole.
    """
    check.source("sample", source)
    check.integer("sample", "n", n, 0, check.MAX_INDEX)
    check.integer("sample", "d", d, 1)
    check.stream("sample", seed, first)
    check.images("sample", images)
    place = check.device("sample", device)
    table = directions(d, place) if sobol else None
    x = torch.empty(n, d, dtype=torch.float32, device=place)
    address = 0 if table is None else table.data_ptr()
    _ext.sample(source, seed, first, address, images, n, d, check.where(x), x.data_ptr())
    return x


@lru_cache(maxsize=8)
def directions(d: int, device: torch.device) -> Tensor:
    """Sobol direction numbers as the kernels read them: (d, 32) int32, bits reversed."""
    check.integer("sobol", "d", d, 1, MAX_SOBOL_DIM)
    with torch.device("cpu"):  # whatever the default device is
        state = torch.quasirandom.SobolEngine(d).sobolstate.to(torch.int64)  # (d, 30), the first bit on top
    bits = state.shape[1]
    table = torch.zeros(d, 32, dtype=torch.int64, device="cpu")
    for b in range(bits):
        table[:, :bits] |= ((state >> (bits - 1 - b)) & 1) << b
    return table.where(table < 2**31, table - 2**32).to(torch.int32).to(device)
