"""Densities of the internal scale tolerance model (paper, section 3): model P, data Q, and their divergence."""

from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from scalestudy.tolerance._checks import check_above, check_num_scales, check_range

TAIL_OCTAVES = 0.4
"""Standard deviation of the half-normal tails of the data (paper, section 3: 0.4; released notebook: in octaves)."""

_ZERO_DENSITY = 1e-100  # released notebook: replaces exact zeros of the data density


@dataclass(frozen=True)
class ToleranceGrid:
    """Equidistant points on the log2 axis of the data scale.

    Source: the authors' released notebook (0.5 to 17 with 10 000 points for Fig. 5, 0.2 to 9 for Fig. 2).

    Parameters
    ----------
    low, high : float
        First and last data scale, as factors of the original size; 0 < low < high.
    points : int
        Number of points, at least 2.

    Raises
    ------
    ValueError
        If a limit is not positive, the limits are reversed, or there are fewer than 2 points.
    """

    low: float = 0.5
    high: float = 17.0
    points: int = 10_000

    def __post_init__(self) -> None:
        check_range("grid limits (low, high)", self.low, self.high)
        if self.points < 2:
            raise ValueError(
                f"points={self.points!r} is too small: a grid needs at least 2 points; the paper's has 10000."
            )

    @property
    def octaves(self) -> np.ndarray:
        """log2 of the data scales, shape (points,)."""
        return np.linspace(np.log2(self.low), np.log2(self.high), self.points)

    @property
    def data_scales(self) -> np.ndarray:
        """Data scales as factors of the original size, shape (points,)."""
        return 2.0**self.octaves


JOINT_GRID = ToleranceGrid()
"""Grid of the joint fit, Fig. 5."""
FIG2_GRID = ToleranceGrid(low=0.2, high=9.0)
"""Grid of Fig. 2."""


def model_scales(reference_scale: float, isr: float, num_scales: int) -> np.ndarray:
    """Centres of the tolerance model: `reference_scale * isr ** (i / (num_scales - 1))`.

    Source: paper Eq. 2 with the reference internal scale in the place of sigma_basis; that the reference is the
    smallest centre is from the released notebook.

    Parameters
    ----------
    reference_scale : float
        Smallest centre, in units of the data scale (a factor, not pixels), > 0.
    isr : float
        Largest over smallest centre, > 1; without effect if `num_scales` is 1.
    num_scales : int
        Number of centres, >= 1.

    Returns
    -------
    numpy.ndarray
        Centres in units of the data scale, ascending, shape (num_scales,).

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> model_scales(1.0, 4.0, 3).tolist()
    [1.0, 2.0, 4.0]
    """
    check_above("reference_scale", reference_scale, 0.0, "use a positive data scale such as 1.0")
    check_above("isr", isr, 1.0, "use the largest over the smallest internal scale, such as 2.0")
    check_num_scales(num_scales)
    return reference_scale * isr ** (np.arange(num_scales) / max(num_scales - 1, 1))


def tolerance_components(
    reference_scale: float, isr: float, tau: float, num_scales: int, grid: ToleranceGrid = JOINT_GRID
) -> np.ndarray:
    """Tolerance of each internal scale over the data scales, with a peak of 1 on the grid.

    Source: paper, section 3 (a normal distribution on a logarithmic axis for each internal scale); the common peak is
    from the released notebook.  A centre outside the grid is scaled to 1 at the grid point nearest to it, as there.

    Parameters
    ----------
    reference_scale, isr, num_scales
        As in `model_scales`.
    tau : float
        Tolerance: standard deviation in octaves, > 0.
    grid : ToleranceGrid
        Data scales.

    Returns
    -------
    numpy.ndarray
        Shape (num_scales, grid.points), values in [0, 1].

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    check_above("tau", tau, 0.0, "use a standard deviation in octaves, such as the paper's 0.459")
    centres = np.log2(model_scales(reference_scale, isr, num_scales))
    exponents = -((grid.octaves - centres[:, None]) ** 2) / (2.0 * tau**2)  # (num_scales, points)
    # Shifting the exponents divides by the maximum without 0/0 when a far centre underflows everywhere.
    return np.exp(exponents - exponents.max(axis=1, keepdims=True))


def tolerance_density(
    reference_scale: float, isr: float, tau: float, num_scales: int, grid: ToleranceGrid = JOINT_GRID
) -> np.ndarray:
    """The model P: sum of the components, normalised to a sum of 1 over the grid (paper, section 3: mixture model).

    Parameters, errors: as in `tolerance_components`.

    Returns
    -------
    numpy.ndarray
        Shape (grid.points,), non-negative, sum 1.

    Examples
    --------
    >>> round(float(tolerance_density(1.0, 2.0, 0.1, 3).sum()), 12)
    1.0
    """
    total = tolerance_components(reference_scale, isr, tau, num_scales, grid).sum(axis=0)
    return total / total.sum()


def data_density(low: float, high: float, grid: ToleranceGrid = JOINT_GRID, tail: float = TAIL_OCTAVES) -> np.ndarray:
    """The data Q: log-uniform on [low, high], continued by a half-normal tail on each side.

    Source: paper, section 3 (tails with sigma 0.4); that sigma counts octaves and that a tail starts at the height of
    the plateau is from the released notebook.

    Parameters
    ----------
    low, high : float
        Range of the data scales, 0 < low < high.
    grid : ToleranceGrid
        Data scales.
    tail : float
        Standard deviation of the tails in octaves, > 0.

    Returns
    -------
    numpy.ndarray
        Shape (grid.points,), non-negative, sum 1.

    Raises
    ------
    ValueError
        If the range is empty or reversed, lies beyond the grid, or `tail` is not positive.
    """
    check_range("data range (low, high)", low, high)
    check_above("tail", tail, 0.0, "use a standard deviation in octaves, such as the paper's 0.4")
    if high < grid.low or low > grid.high:
        raise ValueError(
            f"data range ({low!r}, {high!r}) lies beyond the grid [{grid.low!r}, {grid.high!r}]: "
            "widen the grid to contain it."
        )
    octaves = grid.octaves
    outside = np.maximum(np.maximum(np.log2(low) - octaves, octaves - np.log2(high)), 0.0)  # octaves beyond the range
    density = np.exp(-(outside**2) / (2.0 * tail**2))
    return density / density.sum()


def kl_divergence(model: np.ndarray, data: np.ndarray) -> float:
    """KL(model || data) in nats: sum of P ln(P / Q), with 0 ln 0 = 0.

    Source: paper, section 3 (Kullback-Leibler); direction, natural logarithm and the 1e-100 in the place of exact
    zeros of the data are from the released notebook.  Both arguments are normalised to a sum of 1.

    Parameters
    ----------
    model, data : numpy.ndarray
        Densities on the same grid, shape (points,), finite, non-negative, with a positive sum.

    Returns
    -------
    float
        Divergence in nats, 0 for equal densities (rounding apart), else positive.

    Raises
    ------
    ValueError
        If the shapes differ or a density is negative, not finite, or zero everywhere.

    Examples
    --------
    >>> round(kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    if model.shape != data.shape:
        raise ValueError(f"model has shape {model.shape}, data {data.shape}: evaluate both densities on the same grid.")
    for name, density in (("model", model), ("data", data)):
        if not np.isfinite(density).all() or (density < 0).any() or density.sum() <= 0:
            raise ValueError(
                f"{name} is no density: values must be finite, >= 0 and not all 0; got minimum {density.min()!r}."
            )
    data = np.where(data == 0, _ZERO_DENSITY, data)
    return float(rel_entr(model / model.sum(), data / data.sum()).sum())
