"""What the figures share: the house style, colours, axes of factors."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

STYLE = ["default", "scalestudy.paper.scalestudy"]
"""Matplotlib's own defaults, so that no setting of the user leaks in, then ``scalestudy.mplstyle``."""

OURS, PAPER = "#2166ac", "#9e9e9e"  # wherever the two stand side by side
DISTRIBUTION_COLOURS = ("#1b7837", "#e08214", "#762a83")  # from the narrowest to the widest
SYSTEM_CYCLE = cycler(color=["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"], marker=["o", "^", "s", "D", "v"])
"""Lines of the systems in one panel, again and again: colours of Okabe and Ito, safe for the colour-blind."""


def use_house_style() -> None:
    """Draw in the project's style from here on."""
    plt.style.use(STYLE)


def factor_axis(axes: Axes, ticks: Sequence[float], label: str = "") -> None:
    """Make the horizontal axis logarithmic with plain numbers at `ticks`."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)


def picture(axes: Axes, image: np.ndarray, title: str = "", signed: bool = False) -> None:
    """Show an image without axes; signed values in red and blue around 0."""
    limit = float(np.abs(image).max())
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"vmin": 0, "vmax": 255}
    axes.imshow(image, **colours)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="center", fontweight="normal")


def plain_log_numbers(axis: Axis) -> None:
    """Mark 1, 2, 5, 10 ... on a logarithmic axis as plain numbers; where it spans three decades, 1, 10, ... only."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
