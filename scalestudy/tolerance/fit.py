"""Joint fit of internal scale tolerance models to data scale distributions (paper, section 4.1, Fig. 2 and Fig. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from scalestudy.tolerance._checks import check_above, check_num_scales
from scalestudy.tolerance.density import (
    JOINT_GRID,
    TAIL_OCTAVES,
    ToleranceGrid,
    data_density,
    kl_divergence,
    model_scales,
    tolerance_density,
)

PAPER_RANGES: tuple[tuple[float, float], ...] = ((1.0, 2.83), (1.0, 4.76), (1.0, 8.0))
"""Ranges of the three log-uniform data scale distributions, as printed (section 4)."""
START: tuple[float, float, float] = (1.0, 2.0, 0.1)
"""Reference scale, ISR and tau where the joint fit starts (released notebook)."""
MIN_REFERENCE, MIN_ISR, MIN_TAU = 0.5, 1.5, 0.1
"""Lower bounds of the fit (released notebook)."""
FIG2_RANGE: tuple[float, float] = (0.6, 2.0)
"""Range of the log-uniform data scales of Fig. 2 (caption)."""
FIG2_ISR, FIG2_NUM_SCALES = 2.0, 4
"""ISR (caption of Fig. 2) and number of internal scales (released notebook) of the example."""
FIG2_START: tuple[float, float, float] = (1.25, 2.0, 0.1)
"""Start of the fit of Fig. 2 (released notebook); its ISR stays fixed."""

_MAX_RESTARTS = 10


@dataclass(frozen=True)
class ToleranceFit:
    """Result of `fit_tolerance`; the tuples hold one entry per data distribution, in the order given.

    Attributes
    ----------
    ranges : data ranges (low, high).
    num_scales : number of internal scales N.
    reference_scales : fitted smallest centres, in units of the data scale (not pixels).
    isrs : fitted (or fixed) internal scale ranges; NaN for N = 1, where there is none.
    tau : shared tolerance, octaves.
    objective, objective_at_start : sum of the divergences, nats.
    divergences : KL per distribution, nats.
    converged : whether the last restart met the tolerances and moved nothing any more.
    evaluations : number of evaluations of the objective.
    grid : data scales on which the densities were compared.
    """

    ranges: tuple[tuple[float, float], ...]
    num_scales: int
    reference_scales: tuple[float, ...]
    isrs: tuple[float, ...]
    tau: float
    objective: float
    objective_at_start: float
    divergences: tuple[float, ...]
    converged: bool
    evaluations: int
    grid: ToleranceGrid = JOINT_GRID

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the distributions, such as `log-uniform [1, 2.83]`."""
        return tuple(f"log-uniform [{low:g}, {high:g}]" for low, high in self.ranges)

    @property
    def internal_scales(self) -> tuple[tuple[float, ...], ...]:
        """Fitted centres per distribution, in units of the data scale."""
        isrs = [FIG2_ISR if np.isnan(isr) else isr for isr in self.isrs]  # without effect for one scale
        return tuple(
            tuple(model_scales(reference, isr, self.num_scales).tolist())
            for reference, isr in zip(self.reference_scales, isrs, strict=True)
        )

    @property
    def dips(self) -> tuple[float, ...]:
        """Depth of the deepest gap between neighbouring centres, per distribution: 1 - density there / peak, in [0, 1].

        Not in the paper, which speaks of gaps in Fig. 5 without a number: our choice, because it is 0 where the
        tolerances of neighbours blend (spacing up to about 2 tau) and 1 where nothing covers the middle.
        """
        depths = []
        for scales in self.internal_scales:
            if len(scales) < 2:
                depths.append(0.0)
                continue
            density = tolerance_density(scales[0], scales[-1] / scales[0], self.tau, self.num_scales, self.grid)
            middles = np.sqrt(np.multiply(scales[:-1], scales[1:]))
            at_middles = np.interp(np.log2(middles), self.grid.octaves, density)
            at_scales = np.interp(np.log2(scales), self.grid.octaves, density)
            lower_neighbours = np.minimum(at_scales[:-1], at_scales[1:])
            depths.append(float(np.maximum(1.0 - at_middles / lower_neighbours, 0.0).max()))
        return tuple(depths)

    def as_frame(self) -> pd.DataFrame:
        """One row per distribution: distribution, low, high, reference_scale, isr, tau, kl, dip, scale_1 .. scale_N."""
        frame = pd.DataFrame(
            {
                "distribution": self.labels,
                "low": [low for low, _ in self.ranges],
                "high": [high for _, high in self.ranges],
                "reference_scale": self.reference_scales,
                "isr": self.isrs,
                "tau": self.tau,
                "kl": self.divergences,
                "dip": self.dips,
            }
        )
        for i in range(self.num_scales):
            frame[f"scale_{i + 1}"] = [scales[i] for scales in self.internal_scales]
        return frame


def fit_tolerance(
    ranges: Sequence[tuple[float, float]] = PAPER_RANGES,
    num_scales: int = 3,
    fixed_isr: float | None = None,
    start: tuple[float, float, float] = START,
    grid: ToleranceGrid = JOINT_GRID,
    tail: float = TAIL_OCTAVES,
) -> ToleranceFit:
    """Fit tolerance models to several data distributions jointly: own reference scale and ISR each, one shared tau.

    Source: paper, section 3 and section 4.1 (combined optimisation, Fig. 5); start and bounds (reference >= 0.5, ISR
    >= 1.5, tau >= 0.1) from the released notebook.  Nelder-Mead with tight tolerances is restarted from its own result
    until nothing moves (our choice, because the simplex can stall in seven dimensions).  SciPy's default tolerances,
    as the authors used them, end within 2e-5 of the optimum in the joint fit and 1e-4 in Fig. 2: no printed digit
    differs.

    Parameters
    ----------
    ranges : sequence of (low, high)
        Ranges of log-uniform data scale distributions, 0 < low < high; at least one.
    num_scales : int
        Number of internal scales of every model, >= 1.
    fixed_isr : float or None
        ISR to keep for every distribution, > 1; None fits it.
    start : (reference scale, ISR, tau)
        Start for every distribution; within the bounds above (the ISR counts only where it is fitted).
    grid : ToleranceGrid
        Data scales.
    tail : float
        Tails of the data in octaves, > 0.

    Returns
    -------
    ToleranceFit

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    problem = _Problem(tuple((float(low), float(high)) for low, high in ranges), num_scales, fixed_isr, grid, tail)
    _check_start(start, fits_isr=problem.fits_isr)
    count = len(problem.ranges)
    point = np.array([start[0]] * count + ([start[1]] * count if problem.fits_isr else []) + [start[2]])
    at_start = problem.objective(point)
    point, evaluations, converged = _minimise(problem, point)
    references, isrs, tau = problem.unpack(point)
    divergences = problem.divergences(point)
    return ToleranceFit(
        ranges=problem.ranges,
        num_scales=num_scales,
        reference_scales=tuple(references.tolist()),
        isrs=tuple(isrs.tolist()) if num_scales > 1 else (float("nan"),) * count,
        tau=tau,
        objective=sum(divergences),
        objective_at_start=at_start,
        divergences=tuple(divergences),
        converged=converged,
        evaluations=evaluations,
        grid=grid,
    )


class _Problem:
    """Objective of the joint fit; a point is (references, ISRs unless fixed, tau)."""

    def __init__(
        self,
        ranges: tuple[tuple[float, float], ...],
        num_scales: int,
        fixed_isr: float | None,
        grid: ToleranceGrid,
        tail: float,
    ) -> None:
        if not ranges:
            raise ValueError(
                "ranges=() is empty: give at least one (low, high) with 0 < low < high, such as (1.0, 2.83)."
            )
        check_num_scales(num_scales)
        if fixed_isr is not None:
            check_above("fixed_isr", fixed_isr, 1.0, "use an ISR such as 2.0, or None to fit it")
        self.ranges, self.num_scales, self.fixed_isr, self.grid = ranges, num_scales, fixed_isr, grid
        self.fits_isr = fixed_isr is None and num_scales > 1
        self.data = [data_density(low, high, grid, tail) for low, high in ranges]
        count = len(ranges)
        self.bounds = [(MIN_REFERENCE, None)] * count + [(MIN_ISR, None)] * (count * self.fits_isr) + [(MIN_TAU, None)]

    def unpack(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        count = len(self.ranges)
        isrs = point[count : 2 * count] if self.fits_isr else np.full(count, self.fixed_isr or FIG2_ISR)
        return point[:count], isrs, float(point[-1])

    def divergences(self, point: np.ndarray) -> list[float]:
        references, isrs, tau = self.unpack(point)
        return [
            kl_divergence(tolerance_density(float(reference), float(isr), tau, self.num_scales, self.grid), data)
            for reference, isr, data in zip(references, isrs, self.data, strict=True)
        ]

    def objective(self, point: np.ndarray) -> float:
        return sum(self.divergences(point))


def _minimise(problem: _Problem, point: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Nelder-Mead until a restart moves nothing; returns the point, the evaluations, and whether that was reached."""
    options = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000}
    evaluations = 0
    for _ in range(_MAX_RESTARTS):
        result = minimize(problem.objective, point, method="Nelder-Mead", bounds=problem.bounds, options=options)
        evaluations += int(result.nfev)
        moved = float(np.abs(result.x - point).max())
        point = result.x
        if result.success and moved < 1e-5:
            return point, evaluations, True
    return point, evaluations, False


def _check_start(start: tuple[float, float, float], fits_isr: bool) -> None:
    lowest = (MIN_REFERENCE, MIN_ISR if fits_isr else 0.0, MIN_TAU)
    if len(start) != 3 or not all(
        np.isfinite(value) and value >= low for value, low in zip(start, lowest, strict=True)
    ):
        raise ValueError(
            f"start={start!r} is outside the allowed range: it must be (reference scale >= {MIN_REFERENCE}, "
            f"ISR >= {MIN_ISR}, tau >= {MIN_TAU}); the released notebook starts at {START}."
        )
