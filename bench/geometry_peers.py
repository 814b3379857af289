"""Other makers of Voronoi and power diagrams, called alike; those that are not installed are left out.

Each is given what suits it best: only the diagram is timed, as plain arrays where it has them, and what its measures
take is done afterwards for the check. Most make less than `otgen.PowerDiagram`, which has moments and facets too.
Voro++ has absolute tolerances and refuses close sites, so it gets a cube in which the mean cell has measure 1.
"""

import importlib.util
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, Voronoi

import otgen

AGREE = 1e-4
"""Largest difference of two measures, in mean cells; Voro++, under three of the peers, makes up to 2e-5."""

FREE = 4.0
"""Cells that far from the sides, in units of m^(-1/d), are the same in a box and on a torus (3 is not enough)."""

LOST = 1e-3
"""Share of facets that scipy's Voronoi may lack: in 3-D it leaves out one in 1e4, which brute force finds."""

CHECKED = 1000
"""Polyhedra whose volume is found from their corners, one by one."""


@dataclass(frozen=True)
class Peer:
    """How to call a peer.

    Attributes:
        dims: Dimensions it knows.
        weighted: Whether it makes power diagrams; otherwise Voronoi diagrams alone.
        make: Sites (m, d) and weights w (m,), cells of smallest |x - y_j|^2 - w_j, to the peer's own diagram.
        agrees: The peer's diagram and ours to whether they are the same.
    """

    dims: tuple[int, ...]
    weighted: bool
    make: Callable[[Any, Any], Any]
    agrees: Callable[[Any, otgen.PowerDiagram], bool]


def installed(threads: int) -> dict[str, Peer]:
    """The peers that can be imported; a line for each that cannot."""
    peers = {"scipy": scipy_peer()}
    for module, package, make in (
        ("geogram", "geogram", _geogram),
        ("pyvoro2", "pyvoro2", _pyvoro2),
        ("multivoro", "multivoro", _multivoro),
        ("freud", "freud-analysis", _freud),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed: left out (pip install {package})", file=sys.stderr)
        else:
            peers[module] = make(threads)
    return peers


def scipy_peer() -> Peer:
    """Qhull, one thread, not clipped to the cube; as neighbours and corners."""
    return Peer((2, 3), False, lambda y, w: Voronoi(y), _scipy_agrees)


def _scipy_agrees(found: Any, ours: otgen.PowerDiagram) -> bool:
    """Whether its neighbours that meet within the cube are ours, and ours are its; it does not clip."""
    m = len(found.points)
    pairs = np.sort(found.ridge_points.astype(np.int64), axis=1) @ (m, 1)
    inside = ((found.vertices > 0) & (found.vertices < 1)).all(axis=1)
    sizes = np.fromiter(map(len, found.ridge_vertices), dtype=np.int64)
    corners = np.fromiter(itertools.chain.from_iterable(found.ridge_vertices), dtype=np.int64)
    meets = np.logical_or.reduceat((corners >= 0) & inside[corners], sizes.cumsum() - sizes)
    mine = ours.pairs.numpy() @ np.array((m, 1))
    return bool((~np.isin(mine, pairs)).mean() < LOST and np.isin(pairs[meets], mine).all())


def _geogram(threads: int) -> Peer:
    """Geogram (Lévy): exact predicates, all threads there are; cells come cut into simplices."""
    import geogram

    def make(y: Any, w: Any) -> Any:
        corners, simplices = geogram.shape.quad() if y.shape[1] == 2 else (geogram.shape.cube()[0], tetrahedra)
        found = geogram.Voronoi(y, weights=w, domain_vertices=corners, domain_simplices=simplices)
        return found.q, found.t, found.tseed

    def agrees(found: Any, ours: otgen.PowerDiagram) -> bool:
        q, t, seed = map(np.asarray, found)
        signed = np.linalg.det(q[t[:, 1:]] - q[t[:, :1]]) / (2 if q.shape[1] == 2 else 6)
        volumes = signed if q.shape[1] == 3 else np.abs(signed)  # simplices overlap with both signs, in 3-D alone
        return same(np.bincount(seed.ravel(), volumes, len(ours.measures)), ours)

    tetrahedra = _six_tetrahedra(geogram.shape.cube()[0])
    return Peer((2, 3), True, make, agrees)


def _pyvoro2(threads: int) -> Peer:
    """Voro++ (Rycroft), one thread; measures alone, since everything else comes as Python objects."""
    import pyvoro2
    from pyvoro2 import planar

    def make(y: Any, w: Any) -> Any:
        m, d = y.shape
        side = m ** (1 / d)
        module, rest = (planar, "return_edges") if d == 2 else (pyvoro2, "return_faces")
        options = {rest: False, "return_vertices": False, "return_adjacency": False, "include_empty": True}
        return module.compute(
            y * side, domain=module.Box(((0, side),) * d), mode="power", weights=w * side**2, **options
        )

    return Peer((2, 3), True, make, lambda found, ours: same(found.cell_measures / len(ours.measures), ours))


def _multivoro(threads: int) -> Peer:
    """Voro++'s multithreaded branch; its wheels have one thread."""
    import multivoro

    def make(y: Any, w: Any) -> Any:
        side = len(y) ** (1 / 3)
        limits, radii = np.array([[0.0] * 3, [side] * 3]), side * np.sqrt(w - w.min())
        return multivoro.compute_voronoi(y * side, limits=limits, radii=radii, n_threads=threads)

    def agrees(found: Any, ours: otgen.PowerDiagram) -> bool:
        some = [i for i in range(min(CHECKED, len(found))) if ours.measures[i] > 1e-3 * ours.measures.mean()]
        volumes = np.array([ConvexHull(np.asarray(found[i].get_vertices())).volume for i in some]) / len(found)
        return same(volumes, ours, some)

    return Peer((3,), True, make, agrees)


def _freud(threads: int) -> Peer:
    """Voro++ in freud, on a torus, whose cells are ours far from the sides; in 2-D its time is quadratic."""
    import freud

    freud.parallel.set_num_threads(threads)

    def make(y: Any, w: Any) -> Any:
        side = len(y) ** (1 / 3)
        return freud.locality.Voronoi().compute((freud.box.Box.cube(side), (y - 0.5) * side))

    def agrees(found: Any, ours: otgen.PowerDiagram) -> bool:
        m, d = ours.sites.shape
        free = ((ours.sites - 0.5).abs().amax(1) < 0.5 - FREE * m ** (-1 / d)).nonzero()[:, 0].tolist()
        return same(found.volumes[free] / m, ours, free)

    return Peer((3,), False, make, agrees)


def sdot_solver() -> Callable[[Any], tuple[int, float]] | None:
    """Solver of sdot, uniform source, equal weights: from sites to steps and largest relative error.

    Its 2026.10 needs Python 3.12 and JAX, and compiles its kernels at the first call for each kind of problem.
    """
    try:
        import sdot
    except (ImportError, SyntaxError) as error:
        print(f"sdot cannot be imported: left out ({error})", file=sys.stderr)
        return None

    def solve(y: Any) -> tuple[int, float]:
        plan = sdot.OtProblem(sdot.SumOfDiracs(y), sdot.Box()).solve()
        return len(plan.history), float(np.abs(np.asarray(plan.cell_masses) * len(y) - 1).max())

    return solve


def same(measures: Any, ours: otgen.PowerDiagram, which: Any = slice(None)) -> bool:
    """Whether measures are ours, of all cells or of some."""
    m = len(ours.measures)
    return bool(np.abs(np.asarray(measures) - ours.measures.numpy()[which]).max() * m < AGREE)


def _six_tetrahedra(corners: Any) -> Any:
    """The cube cut along its diagonal into tetrahedra that all turn the same way, (6, 4); corner i has i's bits."""
    rows = []
    for a, b, _ in itertools.permutations((1, 2, 4)):
        row = [0, a, a + b, 7]
        if np.linalg.det(corners[row[1:]] - corners[0]) < 0:
            row[1], row[2] = row[2], row[1]
        rows.append(row)
    return np.array(rows, dtype=np.uint32)
