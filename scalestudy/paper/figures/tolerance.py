"""Fig. 2 and Fig. 5: the internal scale tolerance model beside the data it is fitted to."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalestudy.paper.figures.style import OURS, factor_axis, styled
from scalestudy.tolerance import ToleranceFit, data_density, tolerance_components, tolerance_density

_DATA = "#b2182b"


@styled
def tolerance_example(fit: ToleranceFit) -> Figure:
    """Fig. 2: one fit, with the tolerance of each internal scale.

    Parameters
    ----------
    fit : ToleranceFit
        Of a single distribution.
    """
    figure, axes = plt.subplots(figsize=(7, 4.2))
    _panel(axes, fit, 0, components=True)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def tolerance_fit(fit: ToleranceFit) -> Figure:
    """Fig. 5: the joint fit, one panel per distribution."""
    figure, panels = plt.subplots(1, len(fit.ranges), figsize=(4 * len(fit.ranges), 3.4), sharey=True, squeeze=False)
    for index, axes in enumerate(panels[0]):
        _panel(axes, fit, index, components=False)
        if index:
            axes.set_ylabel("")
    handles, labels = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _panel(axes: Axes, fit: ToleranceFit, index: int, components: bool) -> None:
    low, high = fit.ranges[index]
    grid = fit.grid
    arguments = (fit.reference_scales[index], fit.isrs[index], fit.tau, fit.num_scales, grid)
    spacing = grid.octaves[1] - grid.octaves[0]
    model, data = tolerance_density(*arguments) / spacing, data_density(low, high, grid) / spacing
    axes.fill_between(grid.data_scales, data, color=_DATA, alpha=0.12, lw=0, label="data, with tails of 0.4 octaves")
    axes.plot(grid.data_scales, model, color=OURS, label="fitted tolerance")
    if components:
        parts = tolerance_components(*arguments)
        for number, part in enumerate(parts):
            label = "tolerance of one internal scale" if number == 0 else None
            axes.plot(grid.data_scales, part / parts.sum() / spacing, color=OURS, lw=0.9, alpha=0.6, label=label)
    for number, scale in enumerate(fit.internal_scales[index]):
        label = "internal scales" if number == 0 else None
        axes.axvline(scale, color=OURS, ls="--", lw=1, label=label)
    for number, limit in enumerate((low, high)):
        label = "limits of the data" if number == 0 else None
        axes.axvline(limit, color=_DATA, ls=":", lw=1.2, label=label)
    factor_axis(axes, [0.25, 0.5, 1, 2, 4, 8, 16], "data scale")
    axes.set(xlim=(max(grid.low, low / 4), min(grid.high, high * 2.5)), ylim=(0, None), ylabel="density per octave")
    axes.set_title(f"{fit.labels[index]}: ISR {fit.isrs[index]:.2f}")
