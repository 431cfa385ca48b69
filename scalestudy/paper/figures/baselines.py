"""Section 4.3: Tables 5 and 6 as pictures, and the cost of the compared systems."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from scalestudy.models import SYSTEMS
from scalestudy.paper.baseline_report import MARKS, run_sizes, shown_systems, timed_on
from scalestudy.paper.baseline_tables import TABLE6_VALUES, paper_table5, paper_table6
from scalestudy.paper.figures.style import OURS, PAPER, factor_axis, no_data, styled

KINDS = {
    False: (OURS, "o", -0.16, "without rescaling"),
    True: ("#e08214", "s", 0.16, "with random rescaling (+)"),
}
"""Without and with random rescaling of the training images: colour, marker, shift in a row, name."""


@styled
def baseline_errors(runs: pd.DataFrame) -> Figure:
    """Table 5 as a picture: test error of each system; ours on the left, the paper's on the right.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_frame`.  Variants that no table of the paper has stand below a line.
    """
    names = shown_systems(runs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 1.6 + 0.33 * len(names)), sharey=True)
    paper = paper_table5().set_index(["model", "augmented"])
    for height, name in enumerate(names):
        for augmented, (colour, marker, shift, _) in KINDS.items():
            errors = runs[(runs["name"] == name) & (runs["augmented"] == augmented)]["test_error"].dropna()
            _dots(left, errors, height + shift, colour, marker)
            if SYSTEMS[name].in_table5:
                mean, std = paper.loc[(SYSTEMS[name].title, augmented), ["test_error_mean", "test_error_std"]]
                right.errorbar(mean, height + shift, xerr=std, fmt=marker, color=colour, capsize=2, elinewidth=1)
    _title_sizes(left, runs)
    right.set_title("the paper:\n10000 images, 60 epochs, 5 or 6 runs")
    for axes in (left, right):
        axes.set_xlabel("test error (%)")
    _rows_of(left, names)
    _line_above_variants((left, right), names)
    _legend_of_kinds(figure, "mean" if runs["seed"].nunique() > 1 else None)
    return figure


@styled
def learned_scales(runs: pd.DataFrame) -> Figure:
    """Table 6 as a picture: internal scales of the systems that have some, ours and the paper's.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_frame`; systems without internal scales are left out.
    """
    paper = paper_table6().set_index(["model", "augmented"])
    printed = set(paper.index.get_level_values("model"))
    having = set(runs[runs["internal_scales"].map(len) > 0]["name"])
    names = [name for name, system in SYSTEMS.items() if system.title in printed or name in having]
    figure, panels = plt.subplots(1, 2, figsize=(10, 1.6 + 0.42 * len(names)), sharex=True, sharey=True)
    for axes, augmented in zip(panels, MARKS, strict=True):
        for height, name in enumerate(names):
            own = runs[(runs["name"] == name) & (runs["augmented"] == augmented)]
            for scales in own["internal_scales"]:
                axes.plot(scales, [height - 0.14] * len(scales), "o", color=OURS, alpha=0.75)
            if (key := (SYSTEMS[name].title, augmented)) in paper.index:
                means, spreads = (
                    [paper.loc[key, f"{value}_{part}"] for value in TABLE6_VALUES] for part in ("mean", "std")
                )
                axes.errorbar(means, [height + 0.14] * 4, xerr=spreads, fmt="s", color=PAPER, capsize=2)
        factor_axis(axes, [1, 1.5, 2, 3, 4, 6], "internal scales (pixels)")
        axes.set_title(KINDS[augmented][-1])
    _rows_of(panels[0], names)
    _line_above_variants(panels, names)
    ours = f"ours, one dot per run and scale ({run_sizes(runs)})" if having else "ours: not measured"
    handles = [
        Line2D([], [], ls="", marker="o", color=OURS, label=ours),
        Line2D([], [], ls="", marker="s", color=PAPER, label="the paper, mean ± standard deviation"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def cost(runs: pd.DataFrame) -> Figure:
    """Milliseconds per image of each system in training and in the test, a dot per run; a row of panels per machine.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_frame`.
    """
    timed = runs.dropna(subset=["train_ms_per_image", "inference_ms_per_image"], how="all")
    timed = timed.assign(machine=timed_on(timed))
    machines = sorted(timed["machine"].unique()) or [""]
    names = [name for name in shown_systems(timed) if name in set(timed["name"])] or shown_systems(timed)
    size = (10, (1.2 + 0.3 * len(names)) * len(machines) + 0.4)
    figure, panels = plt.subplots(len(machines), 2, figsize=size, sharey=True, sharex="col", squeeze=False)
    for row, machine in zip(panels, machines, strict=True):
        own = timed[timed["machine"] == machine]
        for axes, column, work in zip(
            row, ("train_ms_per_image", "inference_ms_per_image"), ("training", "inference"), strict=True
        ):
            for height, name in enumerate(names):
                for augmented, (colour, marker, shift, _) in KINDS.items():
                    chosen = (own["name"] == name) & (own["augmented"] == augmented)
                    _dots(axes, own[chosen][column].dropna(), height + shift, colour, marker, np.median)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_title(f"{work}:\n{machine}" if machine else work)
            if own[column].dropna().empty:
                no_data(axes)
    for axes in panels[-1]:
        axes.set_xlabel("milliseconds per image")
    _rows_of(panels[0, 0], names)
    _legend_of_kinds(figure, "median" if runs["seed"].nunique() > 1 else None)
    return figure


def _dots(
    axes: Axes,
    values: pd.Series,
    height: float,
    colour: str,
    marker: str,
    middle: Callable[[Sequence[float]], float] = np.mean,
) -> None:
    """A small dot per run, and a large marker at their middle."""
    if len(values) > 1:
        axes.plot(values, [height] * len(values), ".", color=colour, alpha=0.55, ms=4)
    if len(values):
        axes.plot(middle(values), height, marker, color=colour, mec="white", mew=0.6, ms=7)


def _rows_of(axes: Axes, names: Sequence[str]) -> None:
    """Name the systems on the vertical axis, the first one on top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(SYSTEMS[name].title, 34) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _line_above_variants(panels: Sequence[Axes], names: Sequence[str]) -> None:
    variants = [height for height, name in enumerate(names) if not SYSTEMS[name].in_table5]
    for axes in panels if variants else ():
        axes.axhline(variants[0] - 0.5, color="#444444", lw=0.8)


def _title_sizes(axes: Axes, runs: pd.DataFrame) -> None:
    if runs.empty:
        no_data(axes)
    else:
        axes.set_title(f"ours:\n{run_sizes(runs)}")


def _legend_of_kinds(figure: Figure, middle: str | None) -> None:
    """Explain the colours; `middle` names what the large markers stand for where there are small ones."""
    note = f": large {middle}, small one run" if middle else ""
    handles = [
        Line2D([], [], ls="", marker=marker, color=colour, mec="white", mew=0.6, ms=7, label=label + note)
        for colour, marker, _, label in KINDS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
