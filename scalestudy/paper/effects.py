"""Differences of means beside the spread over seeds, and what a list of them says.

An effect counts where it is larger than the spread: the standard deviation (ddof 1) of one seed, pooled over the
compared groups.  With three seeds that is a weak test, so most findings also state the Welch 95 % interval.

Paired, which is the criterion for comparisons of our own runs: runs of one seed share digits, quantiles of the data
scales, order of batches and initial weights, so what a seed does to both sides says nothing about their difference.
With three common seeds or more, the effect is the mean of their differences, the spread of one seed their standard
deviation (ddof 1) / sqrt(2), as if the sides had nothing in common, and the interval that of a paired t-test.  Written
down when the unpaired verdicts on about half of the records of the profile `overnight` had been seen, and no paired
one; the unpaired verdict stays beside it.  Two common seeds were enough at first; a verdict that hung on two showed
that they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

HELD, NOT_HELD, UNCLEAR, NOT_MEASURED = "held", "did not hold", "unclear", "not measured"


def welch_interval(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Welch confidence interval of a difference of means (first - second), NaN where a side has no spread.

    A side is mean, standard deviation (ddof 1) and number of values; numbers, or arrays for many comparisons at once.
    Not in the paper, which prints no intervals: our choice, because the seeds are few and the spreads differ.
    """
    (mean_1, std_1, n_1), (mean_2, std_2, n_2) = (np.asarray(side, dtype=float) for side in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        part_1, part_2 = std_1**2 / n_1, std_2**2 / n_2
        variance = part_1 + part_2
        freedom = variance**2 / (part_1**2 / (n_1 - 1) + part_2**2 / (n_2 - 1))
        half_width = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
    half_width = np.where(variance == 0, 0.0, half_width)
    return mean_1 - mean_2 - half_width, mean_1 - mean_2 + half_width


def format_mean_std(mean: float, std: float, n: float, digits: int = 2) -> str:
    """Write a mean for people; a number without runs behind it stands alone.

    >>> format_mean_std(2.291, 0.067, 3), format_mean_std(2.291, float("nan"), 1), format_mean_std(2, 0, float("nan"))
    ('2.29 ± 0.07 (n=3)', '2.29 (n=1)', '2.00')
    """
    if not np.isfinite(mean):
        return ""
    if not np.isfinite(n):
        return f"{mean:.{digits}f}"
    spread = f" ± {std:.{digits}f}" if np.isfinite(std) else ""
    return f"{mean:.{digits}f}{spread} (n={n:.0f})"


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, standard deviation (ddof 1, NaN for fewer than two) and number of the values that are not NaN."""
    values = pd.Series(values, dtype=float)
    return values.mean(), values.std(), values.count()


def text(values: Sequence[float], digits: int = 2) -> str:
    """`2.29 ± 0.07 (n=3)`."""
    return format_mean_std(*summary(values), digits)


@dataclass(frozen=True)
class Effect:
    """Difference of two means (first - second) beside the spread over seeds."""

    difference: float
    spread: float
    low: float
    high: float
    paired: bool = False

    @property
    def sign(self) -> int:
        """+1 or -1 where the difference is larger than the spread, beyond rounding, else 0; 0 where it is unknown."""
        return int(np.sign(self.difference)) if abs(self.difference) > self.spread * (1 + 1e-9) else 0

    def __str__(self) -> str:
        spread = f"{self.spread:.2f}" if np.isfinite(self.spread) else "unknown"
        interval = f"[{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.low) else "none"
        return f"{self.difference:+.2f} ({'paired ' * self.paired}seed spread {spread}, 95 % interval {interval})"


def effect(first: Sequence[float], second: Sequence[float]) -> Effect:
    """Effect of `first` over `second`; values per seed, not empty.  A side with one seed borrows the other's spread."""
    sides = summary(first), summary(second)
    freedom = sum(n - 1 for *_, n in sides)
    squares = sum((n - 1) * std**2 for _, std, n in sides if n > 1)
    spread = float(np.sqrt(squares / freedom)) if freedom else float("nan")
    low, high = map(float, welch_interval(*sides))
    return Effect(sides[0][0] - sides[1][0], spread, low, high)


def paired_effect(first: Sequence[float], second: Sequence[float]) -> Effect:
    """Effect of `first` over `second`, values by seed (the index), over the seeds of both; else `effect`."""
    differences = (pd.Series(first) - pd.Series(second)).dropna()
    if len(differences) < 3:  # which have no spread that says anything
        return effect(first, second)
    mean, spread, count = summary(differences)
    half_width = float(stats.t.ppf(0.975, count - 1)) * spread / np.sqrt(count)
    return Effect(mean, spread / np.sqrt(2), mean - half_width, mean + half_width, paired=True)


def decided(held: bool, not_held: bool) -> str:
    """The verdict where one of the two is clear, else unclear."""
    return HELD if held else NOT_HELD if not_held else UNCLEAR


def all_positive(effects: Iterable[Effect]) -> tuple[bool, bool]:
    """Held if every effect is resolved upwards, did not hold if one is resolved downwards."""
    signs = [one.sign for one in effects]
    return all(sign > 0 for sign in signs), any(sign < 0 for sign in signs)


def majority_positive(effects: Sequence[Effect]) -> tuple[bool, bool]:
    """Held if more than half of all effects, resolved or not, are resolved upwards, did not hold if downwards."""
    signs, half = [one.sign for one in effects], len(effects) / 2
    return signs.count(1) > half, signs.count(-1) > half


def all_similar(effects: Iterable[Effect], margin: float) -> tuple[bool, bool]:
    """Held if all differences are within the margin, did not hold if one is beyond it and the spread."""
    beyond = [one for one in effects if abs(one.difference) > margin]
    return not beyond, any(one.sign for one in beyond)
