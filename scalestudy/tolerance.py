"""The internal scale tolerance model: which internal scales suit a known distribution of data scales.

The paper (section 3, Fig. 2 and Fig. 5) puts a normal distribution on a logarithmic scale axis around each internal
scale and fits the mixture to the distribution of data scales by the Kullback-Leibler divergence.  The text leaves much
open.  From the authors' released notebook: the axis is log2, the grid, tails of 0.4 octaves that continue the plateau,
components scaled to the same peak, the direction KL(model || data) in nats, start and bounds.  Our choice: the fit runs
to the optimum instead of stopping at SciPy's default tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import rel_entr

TAIL_OCTAVES = 0.4  # standard deviation of the data's tails (section 3: 0.4; released notebook: in octaves)
# Released notebook: reference scale, ISR and tau where the joint fit starts, and their lower bounds.
START = (1.0, 2.0, 0.1)
MIN_REFERENCE, MIN_ISR, MIN_TAU = 0.5, 1.5, 0.1
_ZERO_DENSITY = 1e-100  # released notebook: replaces exact zeros of the data density


@dataclass(frozen=True)
class ToleranceGrid:
    """Equidistant points on the log2 axis of the data scale, from `low` to `high` (released notebook)."""

    low: float = 0.5
    high: float = 17.0
    points: int = 10_000

    @property
    def octaves(self) -> np.ndarray:
        """log2 of the data scales, shape (points,)."""
        return np.linspace(np.log2(self.low), np.log2(self.high), self.points)

    @property
    def data_scales(self) -> np.ndarray:
        """Factors of the original size, shape (points,)."""
        return 2.0**self.octaves


JOINT_GRID, FIG2_GRID = ToleranceGrid(), ToleranceGrid(low=0.2, high=9.0)  # of Fig. 5, of Fig. 2


def model_scales(reference_scale: float, isr: float, num_scales: int) -> np.ndarray:
    """Centres of the model, factors of the original size, ascending: Eq. 2 from the reference (smallest) scale on.

    >>> model_scales(1.0, 4.0, 3).tolist()
    [1.0, 2.0, 4.0]
    """
    return reference_scale * isr ** (np.arange(num_scales) / (num_scales - 1))


def tolerance_components(
    reference_scale: float, isr: float, tau: float, num_scales: int, grid: ToleranceGrid = JOINT_GRID
) -> np.ndarray:
    """Tolerance of each internal scale, shape (num_scales, points): a normal of `tau` octaves with a peak of 1.

    The common peak is from the released notebook; a centre beyond the grid peaks at the grid point nearest to it.
    """
    centres = np.log2(model_scales(reference_scale, isr, num_scales))
    exponents = -((grid.octaves - centres[:, None]) ** 2) / (2.0 * tau**2)
    # Shifting the exponents divides by the maximum without 0/0 when a far centre underflows everywhere.
    return np.exp(exponents - exponents.max(axis=1, keepdims=True))


def tolerance_density(
    reference_scale: float, isr: float, tau: float, num_scales: int, grid: ToleranceGrid = JOINT_GRID
) -> np.ndarray:
    """The model P, shape (points,): sum of the components, normalised to a sum of 1 (paper, section 3)."""
    total = tolerance_components(reference_scale, isr, tau, num_scales, grid).sum(axis=0)
    return total / total.sum()


def data_density(low: float, high: float, grid: ToleranceGrid = JOINT_GRID) -> np.ndarray:
    """The data Q, shape (points,), sum 1: log-uniform on [low, high], a half-normal tail on each side.

    That a tail starts at the height of the plateau is from the released notebook.
    """
    if not grid.low <= low < high <= grid.high:
        raise ValueError(
            f"ranges must be (low, high) with low < high in the grid [{grid.low:g}, {grid.high:g}], got "
            f"({low!r}, {high!r}); swap the two or widen the grid"
        )
    octaves = grid.octaves
    outside = np.maximum(np.maximum(np.log2(low) - octaves, octaves - np.log2(high)), 0.0)  # octaves beyond the range
    density = np.exp(-(outside**2) / (2.0 * TAIL_OCTAVES**2))
    return density / density.sum()


def kl_divergence(model: np.ndarray, data: np.ndarray) -> float:
    """KL(model || data) in nats: sum of P ln(P / Q), with 0 ln 0 = 0; both shape (points,), normalised here.

    >>> round(kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    data = np.where(data == 0, _ZERO_DENSITY, data)
    return float(rel_entr(model / model.sum(), data / data.sum()).sum())


@dataclass(frozen=True)
class ToleranceFit:
    """Result of `fit_tolerance`; tuples hold one entry per data distribution."""

    ranges: tuple[tuple[float, float], ...]
    num_scales: int
    reference_scales: tuple[float, ...]  # smallest centres, in units of the data scale (not pixels)
    isrs: tuple[float, ...]
    tau: float  # shared, octaves
    divergences: tuple[float, ...]  # nats
    objective_at_start: float  # sum of the divergences, nats
    converged: bool  # whether the last restart met the tolerances and moved nothing any more
    grid: ToleranceGrid = JOINT_GRID

    @property
    def objective(self) -> float:
        return sum(self.divergences)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"log-uniform [{low:g}, {high:g}]" for low, high in self.ranges)

    @property
    def internal_scales(self) -> tuple[tuple[float, ...], ...]:
        """Centres per distribution, in units of the data scale."""
        pairs = zip(self.reference_scales, self.isrs, strict=True)
        return tuple(tuple(model_scales(reference, isr, self.num_scales).tolist()) for reference, isr in pairs)

    @property
    def dips(self) -> tuple[float, ...]:
        """Depth of the deepest gap between neighbouring centres, per distribution: 1 - density there / peak, in [0, 1].

        Not in the paper, which speaks of gaps in Fig. 5 without a number: our choice, because it is 0 where the
        tolerances of neighbours blend (spacing up to about 2 tau) and 1 where nothing covers the middle.
        """
        depths = []
        for scales in self.internal_scales:
            density = tolerance_density(scales[0], scales[-1] / scales[0], self.tau, self.num_scales, self.grid)
            middles = np.sqrt(np.multiply(scales[:-1], scales[1:]))
            at_middles = np.interp(np.log2(middles), self.grid.octaves, density)
            at_scales = np.interp(np.log2(scales), self.grid.octaves, density)
            lower_neighbours = np.minimum(at_scales[:-1], at_scales[1:])
            depths.append(float(np.maximum(1.0 - at_middles / lower_neighbours, 0.0).max()))
        return tuple(depths)

    def as_frame(self) -> pd.DataFrame:
        """One row per distribution: distribution, low, high, reference_scale, isr, tau, kl, dip, scale_1 .. scale_N."""
        frame = pd.DataFrame(self.ranges, columns=["low", "high"])
        frame.insert(0, "distribution", self.labels)
        columns = {"reference_scale": self.reference_scales, "isr": self.isrs, "tau": self.tau}
        frame = frame.assign(**columns, kl=self.divergences, dip=self.dips)
        frame[[f"scale_{number + 1}" for number in range(self.num_scales)]] = self.internal_scales
        return frame


def fit_tolerance(
    ranges: Sequence[tuple[float, float]],
    num_scales: int = 3,
    fixed_isr: float | None = None,
    start: tuple[float, float, float] = START,
    grid: ToleranceGrid = JOINT_GRID,
) -> ToleranceFit:
    """Fit tolerance models to several data distributions jointly: own reference scale and ISR each, one shared tau.

    Source: paper, section 4.1 (combined optimisation, Fig. 5).  SciPy's default tolerances, as the authors used them,
    end within 2e-5 of this optimum, in Fig. 2 within 1e-4: no printed digit differs.

    Parameters
    ----------
    ranges : sequence of (low, high)
        Log-uniform data scale distributions, low < high, within the grid; at least one.
    num_scales : int
        Number of internal scales of every model, >= 2.
    fixed_isr : float or None
        ISR to keep for every distribution, > 1; None fits it.
    start : (reference scale >= 0.5, ISR >= 1.5, tau >= 0.1)
        Of every distribution; the fit has the same bounds (released notebook).
    grid : ToleranceGrid
        Data scales.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    ranges = tuple((float(low), float(high)) for low, high in ranges)
    _check_settings(ranges, num_scales, fixed_isr, start)
    count = len(ranges)
    data = [data_density(low, high, grid) for low, high in ranges]

    def divergences(point: np.ndarray) -> tuple[float, ...]:
        isrs = point[count:-1] if fixed_isr is None else [fixed_isr] * count
        pairs = zip(point[:count], isrs, strict=True)
        models = [tolerance_density(reference, isr, point[-1], num_scales, grid) for reference, isr in pairs]
        return tuple(kl_divergence(model, wanted) for model, wanted in zip(models, data, strict=True))

    repeats = (count, count if fixed_isr is None else 0, 1)
    first, lowest = np.repeat(start, repeats), np.repeat((MIN_REFERENCE, MIN_ISR, MIN_TAU), repeats)
    best, converged = _minimise(lambda point: sum(divergences(point)), first, [(low, None) for low in lowest])
    references, isrs, tau = tuple(best[:count].tolist()), tuple(best[count:-1].tolist()), float(best[-1])
    isrs = isrs or (fixed_isr,) * count
    at_start = sum(divergences(first))
    return ToleranceFit(ranges, num_scales, references, isrs, tau, divergences(best), at_start, converged, grid)


def best_isr(data: np.ndarray, tau: float, num_scales: int = 3, grid: ToleranceGrid = JOINT_GRID) -> float:
    """ISR of the tolerance model of a known `tau` (octaves) that fits a density of data scales, shape (points,)."""

    def divergence(point: np.ndarray) -> float:
        return kl_divergence(tolerance_density(*point, tau, num_scales, grid), data)

    (_, isr), _ = _minimise(divergence, np.array(START[:2]), [(MIN_REFERENCE, None), (MIN_ISR, None)])
    return float(isr)


def _minimise(objective: Callable, point: np.ndarray, bounds: list) -> tuple[np.ndarray, bool]:
    """Nelder-Mead, restarted until nothing moves: our choice, because the simplex can stall in seven dimensions."""
    options = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000}
    for _ in range(10):
        result = minimize(objective, point, method="Nelder-Mead", bounds=bounds, options=options)
        moved = float(np.abs(result.x - point).max())
        point = result.x
        if result.success and moved < 1e-5:
            return point, True
    return point, False


def _check_settings(ranges: tuple, num_scales: int, fixed_isr: float | None, start: tuple) -> None:
    lowest = (MIN_REFERENCE, MIN_ISR, MIN_TAU)
    if not ranges:
        raise ValueError("ranges must hold at least one (low, high), got none; give one such as (1.0, 2.83)")
    if num_scales < 2:
        raise ValueError(f"num_scales must be at least 2, got {num_scales!r}; the paper has 3 or 4")
    if fixed_isr is not None and not 1 < fixed_isr < np.inf:
        raise ValueError(f"fixed_isr must be greater than 1, got {fixed_isr!r}; leave it out to fit the ISR")
    if not all(low <= value < np.inf for low, value in zip(lowest, start, strict=True)):
        raise ValueError(f"start must be (reference scale, ISR, tau) from {lowest} on, got {start}; leave it out")
