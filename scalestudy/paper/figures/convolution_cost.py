"""What the scale convolution costs: time against four sizes, and memory; ours beside dense convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from scalestudy.paper.figures.style import OURS, PAPER, factor_axis, no_data, styled

KINDS = {
    ("ours", "fixed"): (OURS, "o", "ours, fixed scales"),
    ("ours", "learned"): ("#e08214", "s", "ours, learned scales"),
    ("dense", "fixed"): (PAPER, "^", "dense, fixed scales"),
    ("dense", "learned"): ("#5e5e5e", "v", "dense, learned scales"),
}
"""Algorithm and parameterisation: colour, marker, name."""

PANELS = {
    "isr": "internal scale range (ISR)",
    "num_scales": "number of internal scales",
    "image_size": "height and width of the image (pixels)",
    "batch": "images in the batch",
}
"""What is varied, and how its axis is labelled."""

POWERS = {"num_scales": 1, "image_size": 2}
"""Dotted guides: proportional to the number of scales, and to the number of pixels."""

PHASES = {"step": "Training step", "eval": "Evaluation"}


@styled
def convolution_cost(rows: pd.DataFrame, phase: Literal["step", "eval"] = "step") -> Figure:
    """Milliseconds per image against ISR, number of scales, image size and batch: median, and bars from least to most.

    Parameters
    ----------
    rows : pandas.DataFrame
        As `scalestudy.paper.costs.Costs.rows`.  Cases that ran once at a large ISR are hollow.
    phase : {"step", "eval"}
        A training step or a forward pass without gradients.
    """
    if phase not in PHASES:
        raise ValueError(f"phase must be one of {', '.join(PHASES)}, got {phase!r}")
    chosen = rows[rows["phase"] == phase]
    figure, panels = plt.subplots(2, 2, figsize=(10, 7))
    shown = set()
    for axes, (sweep, label) in zip(panels.flat, PANELS.items(), strict=True):
        own = chosen[chosen["sweep"] == sweep]
        for kind in KINDS:
            shown |= {kind} if _line(axes, _of(own, kind), sweep, kind) else set()
        if sweep == "isr":
            _once(axes, own, chosen[(chosen["sweep"] == "large_isr") & (chosen["rounds"] == 1)])
        _guide(axes, _of(own, ("ours", "fixed")), sweep)
        _axes(axes, sorted(own[sweep].unique()), label)
    figure.suptitle(f"{PHASES[phase]} of the Table 1 network", x=0.01, ha="left", weight="bold", size=11)
    _legend(figure, [kind for kind in KINDS if kind in shown], chosen)
    return figure


def _of(rows: pd.DataFrame, kind: tuple[str, str]) -> pd.DataFrame:
    return rows[(rows["algorithm"] == kind[0]) & (rows["parameterisation"] == kind[1])]


def _line(axes: Axes, rows: pd.DataFrame, sweep: str, kind: tuple[str, str]) -> bool:
    """One line with bars; whether there was anything to draw."""
    colour, marker, _ = KINDS[kind]
    rows = rows.sort_values(sweep)
    middle = rows["median_ms"]
    bars = np.stack([middle - rows["least_ms"], rows["most_ms"] - middle])
    if len(rows):
        axes.errorbar(rows[sweep], middle, yerr=bars, color=colour, marker=marker, capsize=2, elinewidth=1)
    return len(rows) > 0


def _once(axes: Axes, rows: pd.DataFrame, slow: pd.DataFrame) -> None:
    """Dense convolution where one image takes seconds: one step, joined to the line by dots."""
    colour, marker, _ = KINDS["dense", "fixed"]
    slow = _of(slow, ("dense", "fixed")).sort_values("isr")
    if slow.empty:
        return
    points = pd.concat([_of(rows, ("dense", "fixed")).sort_values("isr").tail(1), slow])
    axes.plot(points["isr"], points["median_ms"], color=colour, ls=":", lw=1.2)
    axes.plot(slow["isr"], slow["median_ms"], color=colour, ls="", marker=marker, mfc="white")


def _guide(axes: Axes, rows: pd.DataFrame, sweep: str) -> None:
    """A dotted line through the last median of ours, where the cost is expected to be proportional to something."""
    if sweep in POWERS and len(rows) > 1:
        rows = rows.sort_values(sweep)
        values = rows[sweep].to_numpy(dtype=float)
        guide = rows["median_ms"].iloc[-1] * (values / values[-1]) ** POWERS[sweep]
        axes.plot(values, guide, color="#444444", ls=":", lw=1, zorder=1)


def _axes(axes: Axes, ticks: Sequence[float], label: str) -> None:
    factor_axis(axes, ticks, label)
    axes.set(yscale="log", ylabel="milliseconds per image")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(axes) < 3 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if not ticks:
        no_data(axes)


def _decades(axes: Axes) -> float:
    low, high = axes.get_ylim()
    return np.log10(high / low)


def _legend(figure: Figure, kinds: Sequence[tuple[str, str]], rows: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, label=label) for colour, marker, label in map(KINDS.get, kinds)
    ]
    colour, marker, _ = KINDS["dense", "fixed"]
    once = {"ls": ":", "lw": 1.2, "marker": marker, "mfc": "white"}
    if ((rows["sweep"] == "large_isr") & (rows["rounds"] == 1)).any():
        handles.append(Line2D([], [], color=colour, **once, label="dense, one image, timed once"))
    if rows["sweep"].isin(POWERS).any():
        handles.append(
            Line2D([], [], color="#444444", ls=":", lw=1, label="proportional to scales, to pixels (through ours)")
        )
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


@styled
def convolution_memory(memory: pd.DataFrame) -> Figure:
    """MiB that a training step adds at its peak; dashed: the responses at all scales alone.

    Parameters
    ----------
    memory : pandas.DataFrame
        As `scalestudy.paper.costs.Costs.memory`, cases that differ in nothing but algorithm and parameterisation.
    """
    kinds = [kind for kind in KINDS if len(_of(memory, kind))]
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.42 * max(2, len(kinds))))
    for height, kind in enumerate(kinds):
        (mebibytes,) = _of(memory, kind)["mebibytes"]
        axes.barh(height, mebibytes, color=KINDS[kind][0], height=0.62)
        place = {"xy": (mebibytes, height), "xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{mebibytes:.0f}", **place, bbox={"fc": "white", "ec": "none", "pad": 1})
    axes.set_yticks(range(len(kinds)), [KINDS[kind][2] for kind in kinds])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("memory added by a training step (MiB)")
    if not kinds:
        no_data(axes)
        return figure
    case = memory.iloc[0]
    axes.set_title(f"batch of {case['batch']}, {case['image_size']} x {case['image_size']} pixels, ISR {case['isr']:g}")
    dashed = {"color": "#444444", "ls": "--", "lw": 1}
    axes.axvline(case["response_mebibytes"], **dashed, label="responses at all scales alone")
    axes.set_xlim(0, 1.12 * memory["mebibytes"].max())
    figure.legend(loc="outside lower center")
    return figure
