"""Section 4.3, not in the paper: how the compared systems respond to the size of a digit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scalestudy.models import SYSTEMS
from scalestudy.paper.figures.baselines import KINDS
from scalestudy.paper.figures.style import factor_axis, no_data, styled
from scalestudy.training.spec import VARIANTS

_REFERENCE = "cnn"
"""Drawn in every panel of curves, in grey and dashed."""

_VARIANTS_GROUP = "not in the paper"

_GROUPS = {
    "rescaled filters or images": ("sicnn", "si_convnet", "sevf", "dss", "ss_cnn"),
    "fixed or learned internal scales": ("sesn", "disco", "ours_isr", "ours_spacings", "ours_direct"),
    _VARIANTS_GROUP: VARIANTS,
}
"""Systems that share a panel of curves."""

_STYLES = (("#0072b2", "o"), ("#e69f00", "^"), ("#009e73", "s"), ("#cc79a7", "D"), ("#d55e00", "v"))
"""Colours (of Okabe and Ito: safe for the colour-blind) and markers within a panel of curves."""

_CHANGES = {
    "relative_change": "change of the logits, relative",
    "prediction_change": "digits of another class (%)",
}


@styled
def equivariance_by_factor(by_factor: pd.DataFrame, value: str = "relative_change") -> Figure:
    """How much the outputs change when digits are enlarged; a scale-invariant network has 0 everywhere.

    Parameters
    ----------
    by_factor : pandas.DataFrame
        As from `scalestudy.paper.frames.equivariance_frame`.
    value : {"relative_change", "prediction_change"}
        Change of the logits relative to their norm, or percent of the digits whose predicted class changes.

    Raises
    ------
    ValueError
        If `value` is neither.
    """
    if value not in _CHANGES:
        raise ValueError(f"value must be one of {', '.join(_CHANGES)}, got {value!r}")
    figure, panels = _panels_of_curves(by_factor, "factor", value, _CHANGES[value])
    for axes in panels.flat:
        factor_axis(axes, [0.5, 0.71, 1, 1.41, 2], "")
    for axes in panels[-1]:
        axes.set(xlabel="enlargement of the digits", xlim=(0.47, 2.13))
    return figure


@styled
def error_by_data_scale(by_scale: pd.DataFrame) -> Figure:
    """Test error against the size at which each digit of MNIST-Scale is shown.

    Parameters
    ----------
    by_scale : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_scale_frame`: bins 0.1 wide, drawn at their middle.
    """
    rows = by_scale.assign(middle=by_scale["data_scale"].astype(float) + 0.05)
    figure, panels = _panels_of_curves(rows, "middle", "test_error", "test error (%)")
    for axes in panels[-1]:
        axes.set(xlabel="data scale of the digit", xlim=(0.3, 1.0), xticks=[0.3, 0.5, 0.7, 0.9])
    return figure


def _panels_of_curves(frame: pd.DataFrame, x: str, y: str, label: str) -> tuple[Figure, np.ndarray]:
    """Panels of means over runs: a column per group of systems, a row without and one with random rescaling.

    A row without any run is left out.  Systems of other groups are drawn faintly, so that each panel has all.
    """
    measured = frame.dropna(subset=[y])
    there = set(measured["name"])
    groups = [group for group, names in _GROUPS.items() if group != _VARIANTS_GROUP or there & set(names)]
    kinds = {kind: text for kind, text in KINDS.items() if (measured["augmented"] == kind).any()} or KINDS
    size = (0.6 + 3.6 * len(groups), 1.6 + 2.9 * len(kinds))
    figure, panels = plt.subplots(len(kinds), len(groups), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, (augmented, (_, _, _, title)) in zip(panels, kinds.items(), strict=True):
        rows = measured[measured["augmented"] == augmented]
        for axes, group in zip(row, groups, strict=True):
            _curves(axes, rows, x, y, _GROUPS[group])
        row[0].set_ylabel(f"{title}\n{label}")
    for axes, group in zip(panels[0], groups, strict=True):
        axes.set_title(group)
        axes.set_ylim(bottom=0)
    for axes, group in zip(panels[-1], groups, strict=True):
        _legend_of_systems(axes, [name for name in (_REFERENCE, *_GROUPS[group]) if name in there])
    return figure, panels


def _curves(axes: Axes, frame: pd.DataFrame, x: str, y: str, names: Sequence[str]) -> None:
    """A line per system: those of `names` in colour, the reference in grey, all others faintly behind them."""
    means = {name: rows.groupby(x)[y].mean().astype(float) for name, rows in frame.groupby("name")}
    for name, mean in means.items():
        if name not in (_REFERENCE, *names):
            axes.plot(mean.index, mean, color="#d4d4d4", lw=0.9)
    for name in (_REFERENCE, *names):
        if name in means:
            axes.plot(means[name].index, means[name], **_style(name))
    if not means:
        no_data(axes)


def _style(name: str) -> dict[str, object]:
    if name == _REFERENCE:
        return {"color": "#5e5e5e", "ls": "--", "lw": 1.5}
    colour, marker = next(_STYLES[names.index(name)] for names in _GROUPS.values() if name in names)
    return {"color": colour, "marker": marker, "lw": 1.5, "ms": 5.5, "mec": "white", "mew": 0.5}


def _legend_of_systems(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines below a column of panels."""
    if names:
        handles = [Line2D([], [], label=textwrap.fill(SYSTEMS[name].title, 34), **_style(name)) for name in names]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.2), borderaxespad=0.0)
