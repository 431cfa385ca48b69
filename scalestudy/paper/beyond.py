"""Runs for questions that the paper leaves open, at the sizes of a study; ``docs/beyond.md`` has their criteria."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Protocol

import numpy as np

from scalestudy.data.distributions import Bimodal, LogNormal, ScaleDistribution
from scalestudy.paper.reported import LEARNED, START
from scalestudy.tolerance import JOINT_GRID, TAIL_OCTAVES, best_isr, fit_tolerance
from scalestudy.training.spec import RunSpec

CORNERS = ((1.0, 1.5), (1.0, 6.0), (4.0, 1.5), (4.0, 6.0))  # of Table 3's starts: sigma_basis in pixels, ISR
BEST_ISRS = (3.0, 4.76)  # of the fixed ones, on the narrowest and the widest data, by Fig. 3 at the size `overnight`
NORMAL = LogNormal(mean=1.5, std=0.5, low=1, high=8)
BIMODAL = Bimodal(low=1.2, high=6.8, width=0.5)  # modes of half an octave, two octaves apart
MANY = 6  # internal scales to start from
PAPERS = "the paper's"  # way to learn scales
LEARNING = ("logarithms", "own rate", "held out", "together")
"""Ways to learn scales beside the paper's, see `learning`."""


class Study(Protocol):
    """What is asked of a `scalestudy.paper.study.Study`, which imports this module."""

    epochs: int
    scale_test_images: int
    isrs: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]
    distributions: tuple[ScaleDistribution, ...]
    beyond_seeds: tuple[int, ...]
    runs: Callable[..., list[RunSpec]]


def learning(way: str, epochs: int) -> tuple[str, dict[str, Any]]:
    """Parameterisation and fields of `TrainingSpec` of one of `LEARNING`.

    An own rate is three times the usual one, without decay, until the scales are frozen after 70 % of the epochs; held
    out is the last fifth of the training images, until then.
    """
    until = {"scales_until": round(0.7 * epochs)}
    own_rate, held_out = until | {"scale_learning_rate": 0.03, "scale_decay": 1.0}, until | {"held_out": 0.2}
    return {
        "logarithms": ("log", {}),
        "own rate": (LEARNED, own_rate),
        "held out": (LEARNED, held_out),
        "together": ("log", own_rate | held_out),
    }[way]


def slopes(study: Study) -> list[RunSpec]:
    """Fixed scales, with the slopes of the loss along their logarithms on images that weights see and do not see."""
    at = sorted({max(1, round(epoch * study.epochs / 20)) for epoch in (1, 2, 4, 7, 10, 15, 20)})
    training = {"scale_learning_rate": 0.0, "held_out": 0.2, "slopes_at": tuple(at)}
    starts = [(START[0], isr) for isr in (1.5, 3.0, 6.0)]
    return study.runs("log", study.beyond_seeds[:1], starts, narrow_and_wide(study), training=training)


def ways(study: Study, starts: Iterable[tuple[float, float]] = (START, *CORNERS)) -> dict[str, list[RunSpec]]:
    """Runs that learn scales from these starts, one seed, on narrow and wide data: the paper's way, and `LEARNING`."""
    seeds, on, starts = study.beyond_seeds[:1], narrow_and_wide(study), list(starts)
    given = {way: learning(way, study.epochs) for way in LEARNING}
    return {
        PAPERS: study.runs(LEARNED, seeds, starts, on),
        **{way: study.runs(mode, seeds, starts, on, training=training) for way, (mode, training) in given.items()},
    }


def starts(study: Study) -> list[RunSpec]:
    """`LEARNING` from the usual start and four corners, the paper's way from the tolerance model's ISR, and `fewer`."""
    seeds, specs = study.beyond_seeds[:1], [spec for way, own in ways(study).items() if way != PAPERS for spec in own]
    for distribution, isr in zip(study.distributions, _joint_fit(study.ranges).isrs, strict=True):
        if distribution in narrow_and_wide(study):
            specs += study.runs(LEARNED, seeds, [(START[0], round(isr, 2))], [distribution])
    return [*specs, *(spec for spec in fewer(study) if spec.seed in seeds)]


def numbers(study: Study) -> list[RunSpec]:
    """One to six internal scales, fixed and learned, with the test for invariance."""
    specs, data = [], {"equivariance_images": study.scale_test_images}
    for distribution, best in zip(narrow_and_wide(study), BEST_ISRS, strict=True):
        for count in (1, 2, 3, 4, MANY):
            for mode, isr in (("fixed", best), (LEARNED if count > 1 else "direct", START[1])):
                start = [(START[0], isr)]
                specs += study.runs(mode, study.beyond_seeds[:2], start, [distribution], data=data, num_scales=count)
    return sorted(specs, key=lambda spec: spec.seed)


def fewer(study: Study) -> list[RunSpec]:
    """Many fixed scales, of which those that win less than a hundredth of the maxima are dropped."""
    start, training = (START[0], max(study.isrs)), {"drop_below": 0.01}
    return study.runs("fixed", study.beyond_seeds, [start], narrow_and_wide(study), training=training, num_scales=MANY)


def distributions(study: Study) -> list[RunSpec]:
    """A normal and a bimodal distribution: fixed ISRs, that of the tolerance model, and learned scales."""
    specs, seeds = [], study.beyond_seeds[:2]
    for distribution in (NORMAL, BIMODAL):
        fixed = [(START[0], isr) for isr in sorted({1.5, 3.0, 4.76, 7.56, fitted_isr(study, distribution)})]
        for mode, those in (("fixed", fixed), (LEARNED, [START]), ("direct", [START])):
            specs += study.runs(mode, seeds, those, [distribution])
    return sorted(specs, key=lambda spec: spec.seed)


def fashion(study: Study) -> list[RunSpec]:
    """Fashion-MNIST in the place of digits: four fixed ISRs and learned scales."""
    fixed, data, seeds = (
        [(START[0], isr) for isr in (1.5, 3.0, 4.76, 7.56)],
        {"images": "fashion_mnist"},
        study.beyond_seeds[:2],
    )
    shown = {"scale_test_images": study.scale_test_images}
    specs = study.runs("fixed", seeds, fixed, narrow_and_wide(study), data=data | shown)
    return sorted(
        [*specs, *study.runs(LEARNED, seeds, [START], narrow_and_wide(study), data=data)], key=lambda s: s.seed
    )


def narrow_and_wide(study: Study) -> list[ScaleDistribution]:
    """The narrowest and the widest of the paper's distributions."""
    return [study.distributions[0], study.distributions[-1]]


def fitted_isr(study: Study, distribution: ScaleDistribution) -> float:
    """The tolerance model's ISR for a distribution, with the tau of the joint fit."""
    return round(best_isr(density_with_tails(distribution), _joint_fit(study.ranges).tau), 2)


def density_with_tails(distribution: ScaleDistribution) -> np.ndarray:
    """Data for the tolerance model, on `JOINT_GRID`, sum 1: each point of the density with a half-normal tail.

    For a log-uniform distribution that is the paper's plateau with its tails; for others our choice.
    """
    at, inside = JOINT_GRID.octaves, np.linspace(np.log2(distribution.low), np.log2(distribution.high), 601)
    tails = np.exp(-((at[:, None] - inside) ** 2) / (2 * TAIL_OCTAVES**2))
    density = (tails * distribution.log2_density(inside)).max(axis=1)
    return density / density.sum()


@cache
def _joint_fit(ranges: tuple[tuple[float, float], ...]) -> Any:
    return fit_tolerance(ranges)


BEYOND: dict[str, Callable[[Study], list[RunSpec]]] = {
    "beyond_slopes": slopes,
    "beyond_starts": starts,
    "beyond_numbers": numbers,
    "beyond_fewer": fewer,
    "beyond_distributions": distributions,
    "beyond_fashion": fashion,
}
