"""What all figures share: the style file, colours, and axes of factors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import ParamSpec

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

P = ParamSpec("P")

OURS, PAPER = "#2166ac", "#9e9e9e"
"""Colours of our numbers and of the paper's wherever the two stand side by side."""

DISTRIBUTION_COLOURS = ("#1b7837", "#e08214", "#762a83")
"""From the narrowest to the widest data scale distribution."""


@contextmanager
def house_style() -> Iterator[None]:
    """The project's style while it lasts; the caller's matplotlib settings afterwards."""
    with (
        resources.as_file(resources.files("scalestudy.paper") / "scalestudy.mplstyle") as style,
        plt.style.context(style),
    ):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the project's style, leaving the caller's matplotlib settings alone."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return in_style


def factor_axis(axes: Axes, ticks: Sequence[float], label: str) -> None:
    """Make the horizontal axis logarithmic with plain numbers at `ticks`."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)


def bare(axes: Axes) -> None:
    """Leave nothing but the picture (and its labels) in axes that show an image."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def no_data(axes: Axes, text: str = "not measured") -> None:
    """Say inside empty axes that there is nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#888888")
