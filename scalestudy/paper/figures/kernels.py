"""Fig. 1 and notebook 02: how scales become kernels, and how equivariant the result is."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalestudy.layers.conv import LiftingConv
from scalestudy.paper.figures.style import bare, factor_axis, styled

_SHOWN_FUNCTIONS = ((0, 0), (1, 0), (2, 1), (3, 3))


@styled
@torch.no_grad()
def kernel_pipeline(layer: LiftingConv, out_channel: int = 0) -> Figure:
    """Fig. 1: internal scales -> dynamic filter basis -> weights -> multi-scale kernel, for one filter.

    Parameters
    ----------
    layer : LiftingConv
        With the varying-order basis.
    out_channel : int
        The filter to show.
    """
    scales = layer.scales.values()
    basis = layer.basis.sample(layer.scales(), layer.kernel_size()).dense()
    order = layer.basis.effective_size
    shown = [(row, col) for row, col in _SHOWN_FUNCTIONS if max(row, col) < order]
    kernels = layer.kernels()[out_channel, 0]
    figure, panels = plt.subplots(
        len(scales),
        len(shown) + 3,
        figsize=(1.45 * (len(shown) + 3), 1.55 * len(scales)),
        width_ratios=[1.1] + [1] * len(shown) + [1.2, 1.2],
    )
    for index, sigma in enumerate(scales):
        _gaussian_width(panels[index, 0], sigma, max(scales))
        for axes, (row, col) in zip(panels[index, 1:], shown, strict=False):
            _signed(axes, basis[col * order + row, index], rf"$g_{row}\,g_{col}$" if index == 0 else "")
        axes = panels[index, len(shown) + 1]
        if index == len(scales) // 2:
            _signed(axes, layer.weight[out_channel, 0].view(order, order).T, "× weights")
        else:
            axes.axis("off")
        _signed(panels[index, -1], kernels[index], "= kernel" if index == 0 else "")
        panels[index, 0].set_ylabel(f"$s_{index + 1}$ = {sigma:.2f} px", fontsize=9)
    panels[0, 0].set_title("scale", loc="center", fontweight="normal")
    return figure


def _gaussian_width(axes: Axes, sigma: float, largest: float) -> None:
    x = np.linspace(-4 * largest, 4 * largest, 201)
    axes.plot(x, np.exp(-(x**2) / (2 * sigma**2)), lw=1.4)
    axes.set(yticks=[], xticks=[])
    axes.grid(visible=False)


def _signed(axes: Axes, picture: torch.Tensor, title: str) -> None:
    limit = float(picture.abs().max())
    axes.imshow(picture.cpu().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    bare(axes)
    axes.set_title(title, loc="center", fontweight="normal")


@styled
def kernel_sizes(frame: pd.DataFrame) -> Figure:
    """Kernel size (Eq. 6) and support of each scale against the ISR.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns isr, and one per curve, in pixels.
    """
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name in frame.columns.drop("isr"):
        axes.plot(frame["isr"], frame[name], drawstyle="steps-mid", label=name)
    factor_axis(axes, [1.5, 2, 3, 4, 6, 8], "internal scale range (ISR)")
    axes.set(ylabel="pixels", ylim=(0, None))
    axes.legend()
    return figure


@styled
def equivariance_errors(frame: pd.DataFrame, ticks: Sequence[float]) -> Figure:
    """Equivariance error against resolution, one line per layer.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns layer, resolution (pixels per unit of length), error (relative, no unit).
    ticks : sequence of float
        Resolutions to mark.
    """
    figure, axes = plt.subplots(figsize=(6.5, 4))
    for name, rows in frame.groupby("layer", sort=False):
        axes.plot(rows["resolution"], rows["error"], marker="o", label=name)
    factor_axis(axes, ticks, "smallest internal scale in pixels")
    axes.set_yscale("log")
    axes.set_ylabel("relative equivariance error")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
