"""The internal scale tolerance model: which internal scales suit a known distribution of data scales.

The paper (section 3, Fig. 2 and Fig. 5) puts a normal distribution on a logarithmic scale axis around each internal
scale and fits the mixture to the distribution of data scales by the Kullback-Leibler divergence.  The text leaves much
open.  What follows the authors' released notebook: the axis is log2, the grid and its limits, tails of 0.4 octaves that
continue the plateau, components scaled to the same peak, the direction KL(model || data) in nats, starting point and
bounds. Our choice: the fit runs to the optimum instead of stopping at SciPy's default tolerances.
"""

from scalestudy.tolerance.density import (
    FIG2_GRID,
    JOINT_GRID,
    TAIL_OCTAVES,
    ToleranceGrid,
    data_density,
    kl_divergence,
    model_scales,
    tolerance_components,
    tolerance_density,
)
from scalestudy.tolerance.fit import (
    FIG2_ISR,
    FIG2_NUM_SCALES,
    FIG2_RANGE,
    FIG2_START,
    MIN_ISR,
    MIN_REFERENCE,
    MIN_TAU,
    PAPER_RANGES,
    START,
    ToleranceFit,
    fit_tolerance,
)

__all__ = [
    "FIG2_GRID",
    "FIG2_ISR",
    "FIG2_NUM_SCALES",
    "FIG2_RANGE",
    "FIG2_START",
    "JOINT_GRID",
    "MIN_ISR",
    "MIN_REFERENCE",
    "MIN_TAU",
    "PAPER_RANGES",
    "START",
    "TAIL_OCTAVES",
    "ToleranceFit",
    "ToleranceGrid",
    "data_density",
    "fit_tolerance",
    "kl_divergence",
    "model_scales",
    "tolerance_components",
    "tolerance_density",
]
