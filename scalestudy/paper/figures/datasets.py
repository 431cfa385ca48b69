"""Notebook 01: what the networks see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from scalestudy.data import DynamicScaleSplit, ScaleDistribution
from scalestudy.paper.figures.style import DISTRIBUTION_COLOURS, bare, factor_axis, styled


@styled
def digit_samples(splits: Mapping[str, DynamicScaleSplit], count: int = 8) -> Figure:
    """The first digits of each split, in the order of their data scales.

    Parameters
    ----------
    splits : mapping of DynamicScaleSplit
        Row title -> split.
    count : int
        Digits per row; places of a smaller split stay empty.
    """
    figure, rows = plt.subplots(len(splits), count, figsize=(1.25 * count, 1.45 * len(splits)), squeeze=False)
    for panels, (title, split) in zip(rows, splits.items(), strict=True):
        shown = np.argsort(split.data_scales[:count].cpu().numpy())
        images = split.scaled(shown.tolist()).cpu().numpy()
        for axes, image, index in zip(panels, images, shown, strict=False):
            axes.imshow(image, vmin=0, vmax=255)
            axes.set_title(f"×{float(split.data_scales[index]):.2f}", fontsize=8, fontweight="normal", loc="center")
        for axes in panels:
            bare(axes)
        panels[0].set_ylabel(title.replace("log-uniform ", ""), fontsize=10)
    return figure


@styled
def scale_densities(distributions: Sequence[ScaleDistribution], drawn: Mapping[str, np.ndarray]) -> Figure:
    """Density of each data scale distribution per octave, over the histogram of the drawn scales.

    Parameters
    ----------
    distributions : sequence of distributions
        Continuous ones.
    drawn : mapping
        Label -> data scales drawn for the training split, shape (n,).
    """
    figure, panels = plt.subplots(
        1, len(distributions), figsize=(3.6 * len(distributions), 2.6), sharey=True, squeeze=False
    )
    octaves = np.linspace(-0.5, 3.5, 801)
    for axes, distribution, colour in zip(panels[0], distributions, DISTRIBUTION_COLOURS, strict=False):
        scales = drawn[distribution.label]
        heights, edges = np.histogram(np.log2(scales), bins=np.arange(-0.5, 3.5001, 0.125), density=True)
        axes.stairs(heights, 2.0**edges, fill=True, color=colour, alpha=0.25)
        axes.plot(2.0**octaves, distribution.log2_density(octaves), color=colour)
        factor_axis(axes, [1, 2, 4, 8], "data scale")
        axes.set_title(distribution.label)
    panels[0, 0].set_ylabel("density per octave")
    return figure
