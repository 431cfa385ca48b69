"""Figures 3, 4 and 6, and pictures of Tables 3 and 4: what the trained networks did, beside the paper."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from scalestudy.paper import reported
from scalestudy.paper.figures.style import DISTRIBUTION_COLOURS, OURS, PAPER, factor_axis, no_data, styled

ISR_TICKS = (1.5, 2, 3, 4, 6, 8)


@styled
def error_by_isr(runs: pd.DataFrame) -> Figure:
    """Fig. 3: test error against the fixed ISR; ours on the left, the paper's on the right.

    Parameters
    ----------
    runs : pandas.DataFrame
        Rows of `scalestudy.paper.frames.frame` with fixed scales.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for index, (name, colour) in enumerate(zip(reported.DISTRIBUTIONS, DISTRIBUTION_COLOURS, strict=True)):
        dodge = 1.012 ** (index - 1)  # so that bars at one ISR stand side by side
        ours = runs[runs["distribution"] == name]
        left.scatter(ours["init_isr"] * dodge, ours["test_error"], color=colour, s=9, alpha=0.45, lw=0)
        groups = ours.groupby("init_isr")["test_error"]
        _curve(left, groups.mean(), groups.std(), name, colour, dodge)
        paper = reported.table("fig3").query("distribution == @name").set_index("isr")
        _curve(right, paper["test_error_mean"], paper["test_error_std"], name, colour, dodge)
    _title_sizes(left, runs)
    right.set_title("the paper: 10000 images, 60 epochs, 3 seeds")
    for axes in (left, right):
        factor_axis(axes, ISR_TICKS, "internal scale range (ISR)")
        axes.set(ylabel="test error (%)", xlim=(1.4, 8.1))
    right.legend(title="star: best ISR", loc="upper right")
    return figure


def _curve(axes: Axes, mean: pd.Series, std: pd.Series, name: str, colour: str, dodge: float) -> None:
    if mean.empty:
        return
    axes.errorbar(
        mean.index * dodge, mean, yerr=std.fillna(0.0), color=colour, marker="o", capsize=2, elinewidth=1, label=name
    )
    best = mean.idxmin()
    axes.plot(best * dodge, mean[best], marker="*", ms=16, color=colour, mec="white", zorder=5)


def _title_sizes(axes: Axes, runs: pd.DataFrame) -> None:
    if runs.empty:
        no_data(axes)
        return
    row = runs.iloc[0]
    epochs, seeds = row["epochs"], runs["seed"].nunique()
    shrunk = f", lengths / {row['shrink']}" if row["shrink"] > 1 else ""
    axes.set_title(f"ours: {row['train_images']} images, {epochs} epochs, {_plural(seeds, 'seed')}{shrunk}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


@styled
def error_by_scale(scale_test: pd.DataFrame) -> Figure:
    """Fig. 4: test error at each data scale, a panel per distribution, a line per fixed ISR.

    Parameters
    ----------
    scale_test : pandas.DataFrame
        As from `scalestudy.paper.frames.scale_test_frame`.
    """
    names = reported.DISTRIBUTIONS
    figure, panels = plt.subplots(1, len(names), figsize=(12, 3.6), sharey=True)
    isrs = sorted(scale_test["isr"].unique())
    colours = dict(zip(isrs, plt.get_cmap("viridis")(np.linspace(0, 0.88, len(isrs))), strict=True))
    for axes, name in zip(panels, names, strict=True):
        rows = scale_test[scale_test["distribution"] == name]
        for isr, group in rows.groupby("isr"):
            by_scale = group.groupby("data_scale")["test_error"]
            mean, spread = by_scale.mean(), by_scale.std().fillna(0.0)
            axes.plot(mean.index, mean, color=colours[isr])
            axes.fill_between(
                mean.index, (mean - spread).clip(lower=0.1), mean + spread, color=colours[isr], alpha=0.08, lw=0
            )
        low, high = (float(number) for number in name.split("[")[1].rstrip("]").split(","))
        axes.axvspan(low, high, color="#000000", alpha=0.05, lw=0)
        factor_axis(axes, [0.5, 1, 2, 4, 8], "data scale")
        axes.set_title(name)
        if rows.empty:
            no_data(axes)
    lowest = scale_test.groupby(["distribution", "isr", "data_scale"])["test_error"].mean().min()
    panels[0].set(yscale="log", ylabel="test error (%)", ylim=(max(0.3, 0.6 * lowest) if isrs else 1, 100))
    panels[0].set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    panels[0].yaxis.set_minor_locator(NullLocator())
    if isrs:
        lines = [Line2D([], [], color=colours[isr], label=f"{isr:g}") for isr in isrs]
        panels[-1].legend(handles=lines, title="ISR", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def isr_history(runs: pd.DataFrame, best_fixed_isr: float | None) -> Figure:
    """Fig. 6: the learned ISR over the epochs on the widest distribution, a line per seed.

    Parameters
    ----------
    runs : pandas.DataFrame
        Rows with learned scales on the widest distribution, from (sigma_basis, ISR) = (2, 3).
    best_fixed_isr : float or None
        The fixed ISR with our lowest test error, for comparison.
    """
    figure, axes = plt.subplots(figsize=(7, 4.4))
    for index, (_, run) in enumerate(runs.sort_values("seed").iterrows()):
        history = run["isr_history"]
        label = "ours, one line per seed; dot: selected epoch" if index == 0 else None
        axes.plot(range(len(history)), history, color=OURS, alpha=0.8, label=label)
        axes.plot(run["selected_epoch"], history[run["selected_epoch"]], "o", color=OURS)
    if best_fixed_isr is not None:
        axes.axhline(best_fixed_isr, color=OURS, ls="--", lw=1.2, label=f"our best fixed ISR ({best_fixed_isr:g})")
    learned = reported.table("table2").query("distribution == 'log-uniform [1, 8]' and scale_learning == 'learned'")
    mean, std = learned["isr_mean"].item(), learned["isr_std"].item()
    axes.axhspan(mean - std, mean + std, color=PAPER, alpha=0.3, lw=0, label=f"paper: learned {mean:.2f} ± {std:.2f}")
    theirs = reported.table("fig3").query("distribution == 'log-uniform [1, 8]'").set_index("isr")["test_error_mean"]
    axes.axhline(theirs.idxmin(), color=PAPER, ls="--", lw=1.2, label=f"paper: best fixed ISR ({theirs.idxmin():g})")
    if runs.empty:
        no_data(axes)
    else:
        axes.set_xlim(0, max(len(history) for history in runs["isr_history"]) - 1)
    axes.set(xlabel="epoch (the paper trains for 60)", ylabel="internal scale range (ISR)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def initialisations(runs: pd.DataFrame) -> Figure:
    """Table 3 as a picture: from each start (hollow) to the learned sigma and ISR; ours above, the paper's below.

    Parameters
    ----------
    runs : pandas.DataFrame
        Rows of Table 3, averaged over seeds here.
    """
    paper = reported.table("table3").rename(columns={"sigma_basis_mean": "sigma_basis", "isr_mean": "isr"})
    figure, rows = plt.subplots(2, 3, figsize=(11, 6), sharex=True, sharey=True)
    keys = ["distribution", "init_sigma_basis", "init_isr"]
    ours = runs.groupby(keys, as_index=False)[["sigma_basis", "isr"]].mean()
    seeds = f"ours ({_plural(runs['seed'].nunique(), 'seed')})"
    for panels, frame, title in zip(rows, (ours, paper), (seeds, "paper"), strict=True):
        for axes, name, colour in zip(panels, reported.DISTRIBUTIONS, DISTRIBUTION_COLOURS, strict=True):
            cells = frame[frame["distribution"] == name]
            for _, cell in cells.iterrows():
                start, end = (cell["init_sigma_basis"], cell["init_isr"]), (cell["sigma_basis"], cell["isr"])
                axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4})
                axes.plot(*start, "o", mfc="white", mec=colour)
                axes.plot(*end, alpha=0, marker=".")  # the axes must reach the arrow head
            factor_axis(axes, [1, 2, 4], "")
            axes.set_yscale("log", base=2)
            axes.set_yticks([1.5, 3, 6], ["1.5", "3", "6"])
            axes.set_title(f"{title}: {name}")
            if cells.empty:
                no_data(axes)
    for axes in rows[1]:
        axes.set_xlabel(r"$\sigma_{basis}$ (pixels)")
    for axes in rows[:, 0]:
        axes.set_ylabel("ISR")
    return figure


@styled
def parameterisations(runs: pd.DataFrame, names: Sequence[tuple[str, str]]) -> Figure:
    """Table 4 as a picture: the learned internal scales of each parameterisation, ours and the paper's.

    Parameters
    ----------
    runs : pandas.DataFrame
        Rows of Table 4.
    names : sequence of (str, str)
        (`scale_learning` of ours, `parameterisation` of the paper's) per line, from top to bottom.
    """
    paper = reported.table("table4")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.2), sharey=True)
    for axes, name in zip(panels, reported.DISTRIBUTIONS, strict=True):
        for height, (ours, theirs) in enumerate(reversed(names)):
            rows = runs[(runs["distribution"] == name) & (runs["scale_learning"] == ours)]
            for scales in rows["internal_scales"]:
                axes.plot(scales, [height + 0.12] * len(scales), "o", color=OURS, alpha=0.75)
            cell = paper[(paper["distribution"] == name) & (paper["parameterisation"] == theirs)].iloc[0]
            means = [cell[f"scale{i}_mean"] for i in (1, 2, 3)]
            spreads = [cell[f"scale{i}_std"] for i in (1, 2, 3)]
            axes.errorbar(means, [height - 0.12] * 3, xerr=spreads, fmt="s", color=PAPER, capsize=2)
        factor_axis(axes, [2, 3.46, 6, 8], "internal scales (pixels)")
        axes.set_title(name)
    panels[0].set_yticks(range(len(names)), [theirs for _, theirs in reversed(names)])
    panels[-1].plot([], [], "o", color=OURS, label="ours, one dot per seed")
    panels[-1].plot([], [], "s", color=PAPER, label="paper")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
