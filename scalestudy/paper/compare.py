"""Our numbers beside the paper's: differences with intervals, and a verdict against margins fixed before any run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

MARGIN_TEST_ERROR = 0.11
"""Margin for a test error, percentage points.

The paper reports one configuration (sigma_basis 2, ISR 3) twice, as independent runs: 2.291, 2.510, 2.872 in Table 2
and 2.368, 2.527, 2.921 in Table 3.  The root mean square of the three differences is 0.054: that is one standard
deviation of the difference between two honest repetitions, so about 95 % of repetitions by the authors themselves
differ by less than twice that, 0.11.  No reproduction can be asked to come closer.  `noise_margin` computes it; a test
holds the two together.
"""
MARGIN_ISR = 0.31
"""Margin for a learned ISR, from the same rows: 3.390, 3.321, 4.196 against 3.635, 3.309, 4.095."""
MARGIN_SIGMA_BASIS = 0.06
"""Margin for a learned sigma_basis, pixels, from the same rows: 1.960, 2.001, 1.943 against 1.973, 1.975, 1.982."""

VERDICTS = ("reproduced", "different", "trivially different", "inconclusive", "not comparable", "not measured")
"""All verdicts of `compare_means`."""

_KEY_RTOL = 5e-3  # keys are printed with three digits: an ISR of 2.381 is the paper's 2.38


def noise_margin(first: Sequence[float], second: Sequence[float]) -> float:
    """Twice the root mean square difference between two reports of the same configurations.

    Not in the paper: our choice, see `MARGIN_TEST_ERROR`.

    Parameters
    ----------
    first, second : sequence of float
        Means of the same configurations, in the same order and unit; at least one.

    Returns
    -------
    float
        Margin in the unit of the means.

    Raises
    ------
    ValueError
        If the sequences are empty or differ in length.

    Examples
    --------
    >>> round(noise_margin([2.291, 2.510, 2.872], [2.368, 2.527, 2.921]), 2)
    0.11
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"first has {len(first)} values, second {len(second)}: give the same number of means, at least 1."
        )
    return float(2.0 * np.sqrt(np.mean(np.square(np.subtract(first, second)))))


def welch_interval(
    first: tuple[float, float, int], second: tuple[float, float, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Welch confidence interval of the difference of two means (first - second), unequal variances allowed.

    Not in the paper, which prints no intervals: our choice, because the seeds are few and the spreads differ.

    Parameters
    ----------
    first, second : (mean, standard deviation with ddof 1, number of values)
    confidence : float
        In (0, 1).

    Returns
    -------
    (float, float)
        Limits; (NaN, NaN) where a side has fewer than two values or no standard deviation.

    Raises
    ------
    ValueError
        If `confidence` is outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} is outside the allowed range (0, 1): use for example 0.95.")
    (mean_1, std_1, n_1), (mean_2, std_2, n_2) = first, second
    difference = mean_1 - mean_2
    if n_1 < 2 or n_2 < 2 or not np.isfinite([difference, std_1, std_2]).all():
        return (float("nan"), float("nan"))
    part_1, part_2 = std_1**2 / n_1, std_2**2 / n_2
    variance = part_1 + part_2
    if variance == 0:
        return (difference, difference)
    freedom = variance**2 / (part_1**2 / (n_1 - 1) + part_2**2 / (n_2 - 1))
    half_width = float(stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance))
    return (difference - half_width, difference + half_width)


def format_mean_std(mean: float, std: float, n: int, digits: int = 2) -> str:
    """Write a mean for people.

    Examples
    --------
    >>> format_mean_std(2.291, 0.067, 3)
    '2.29 ± 0.07 (n=3)'
    >>> format_mean_std(2.291, float("nan"), 1)
    '2.29 (n=1)'
    >>> format_mean_std(float("nan"), float("nan"), 0)
    '-'
    """
    if not np.isfinite(mean):
        return "-"
    spread = f" ± {std:.{digits}f}" if np.isfinite(std) else ""
    return f"{mean:.{digits}f}{spread} (n={n})"


@dataclass(frozen=True)
class Comparison:
    """Our runs beside one number of the paper; all numbers in the unit of the compared value, NaN where unknown.

    Attributes
    ----------
    ours_mean, ours_std, ours_n : our seeds; std with ddof 1, NaN for a single seed.
    paper_mean, paper_std, paper_n : as printed.
    difference : ours - paper.
    low_95, high_95 : Welch 95 % interval of the difference.
    low_90, high_90 : Welch 90 % interval (two one-sided tests at 5 %).
    margin : differences below it do not matter; fixed before running.
    verdict : one of `VERDICTS`.
    """

    ours_mean: float
    ours_std: float
    ours_n: int
    paper_mean: float
    paper_std: float
    paper_n: int
    difference: float
    low_95: float
    high_95: float
    low_90: float
    high_90: float
    margin: float
    verdict: str

    @property
    def ours_text(self) -> str:
        """Ours for people, such as `2.29 ± 0.07 (n=3)`."""
        return format_mean_std(self.ours_mean, self.ours_std, self.ours_n)

    @property
    def paper_text(self) -> str:
        """The paper's for people."""
        return format_mean_std(self.paper_mean, self.paper_std, self.paper_n)

    @property
    def difference_text(self) -> str:
        """Difference with its 95 % interval for people, such as `+0.05 [-0.10, +0.20]`."""
        if not np.isfinite(self.difference):
            return "-"
        interval = f" [{self.low_95:+.2f}, {self.high_95:+.2f}]" if np.isfinite(self.low_95) else " [no interval]"
        return f"{self.difference:+.2f}{interval}"


def compare_means(
    ours: Sequence[float], paper_mean: float, paper_std: float, paper_n: int, margin: float, same_size: bool = True
) -> Comparison:
    """Compare our seeds with a printed mean and standard deviation.

    Not in the paper: our choice.  The first verdict that applies counts: `not measured` (no values of ours); `not
    comparable` (a smaller run than the paper's); `reproduced` (90 % interval inside the margin); `different` (95 %
    interval excludes 0, difference beyond the margin); `trivially different` (excludes 0, difference within the
    margin); else `inconclusive`. Without two seeds on each side there is no interval, hence `inconclusive`.

    Parameters
    ----------
    ours : sequence of float
        One finite value per seed, any number.
    paper_mean, paper_std : float
        As printed, standard deviation >= 0 or NaN where none is printed (taken with ddof 1).
    paper_n : int
        Seeds behind the printed mean, >= 1.
    margin : float
        > 0, in the unit of the values, such as `MARGIN_TEST_ERROR`.
    same_size : bool
        Whether our runs have the paper's images and epochs; if not, the numbers cannot be held against each other.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If a value is not finite, the margin not positive, the std negative, or `paper_n` below 1.

    Examples
    --------
    >>> compare_means([2.30, 2.31, 2.29, 2.30], 2.30, 0.01, 3, margin=0.11).verdict
    'reproduced'
    >>> compare_means([2.30], 2.30, 0.01, 3, margin=0.11).verdict
    'inconclusive'
    """
    values = np.asarray(ours, dtype=float)
    _check_comparison(values, paper_mean, paper_std, paper_n, margin)
    mean = float(values.mean()) if values.size else float("nan")
    std = float(values.std(ddof=1)) if values.size > 1 else float("nan")
    sides = ((mean, std, values.size), (paper_mean, paper_std, paper_n))
    low_95, high_95 = welch_interval(*sides, confidence=0.95)
    low_90, high_90 = welch_interval(*sides, confidence=0.90)
    difference = mean - paper_mean
    if not values.size:
        verdict = "not measured"
    elif not same_size:
        verdict = "not comparable"
    elif np.isnan(low_95):
        verdict = "inconclusive"
    elif -margin < low_90 and high_90 < margin:
        verdict = "reproduced"
    elif low_95 <= 0 <= high_95:
        verdict = "inconclusive"
    else:
        verdict = "different" if abs(difference) > margin else "trivially different"
    return Comparison(
        mean, std, int(values.size), float(paper_mean), float(paper_std), int(paper_n),
        difference, low_95, high_95, low_90, high_90, float(margin), verdict,
    )  # fmt: skip


def compare_table(
    ours_frame: pd.DataFrame,
    reported_frame: pd.DataFrame,
    keys: Sequence[str],
    value: str,
    margin: float,
    paper_n: int = 3,
    same_size: bool = True,
) -> pd.DataFrame:
    """Set our runs beside every row of a reported table.

    Parameters
    ----------
    ours_frame : pandas.DataFrame
        One row per run with the columns `keys` and `value`; runs whose value is missing do not count.
    reported_frame : pandas.DataFrame
        One row per configuration with `keys`, `<value>_mean`, `<value>_std`, as from `scalestudy.paper.reported.table`.
    keys : sequence of str
        Columns that name a configuration; numbers match within 0.5 %, because the paper prints three digits.
    value : str
        Compared quantity, such as `test_error`.
    margin, paper_n, same_size
        As in `compare_means`.

    Returns
    -------
    pandas.DataFrame
        A row per reported row, in its order: `keys`, the fields of `Comparison`, and for people `ours`, `paper`,
        `difference_with_interval`.

    Raises
    ------
    ValueError
        If a frame lacks a column.
    """
    for name, frame, wanted in (
        ("ours_frame", ours_frame, [*keys, value]),
        ("reported_frame", reported_frame, [*keys, f"{value}_mean", f"{value}_std"]),
    ):
        missing = [column for column in wanted if column not in frame.columns]
        if missing:
            raise ValueError(f"{name} lacks the columns {missing}: it has {list(frame.columns)}; rename or add them.")
    rows = []
    for _, reported in reported_frame.iterrows():
        chosen = np.ones(len(ours_frame), dtype=bool)
        for key in keys:
            chosen &= _matches(ours_frame[key], reported[key])
        values = ours_frame.loc[chosen, value].astype(float).dropna().tolist()
        comparison = compare_means(
            values, reported[f"{value}_mean"], reported[f"{value}_std"], paper_n, margin, same_size
        )
        texts = {
            "ours": comparison.ours_text,
            "paper": comparison.paper_text,
            "difference_with_interval": comparison.difference_text,
        }
        rows.append({key: reported[key] for key in keys} | texts | vars(comparison))
    columns = [*keys, "ours", "paper", "difference_with_interval", *Comparison.__dataclass_fields__]
    return pd.DataFrame(rows, columns=columns)


def _matches(column: pd.Series, wanted: object) -> np.ndarray:
    """Whether each entry equals the wanted key; numbers within the printed digits."""
    if isinstance(wanted, (int, float, np.number)) and not isinstance(wanted, (bool, np.bool_)):
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        return np.isclose(numbers, float(wanted), rtol=_KEY_RTOL, atol=0.0, equal_nan=True)
    return (column == wanted).to_numpy(dtype=bool)


def _check_comparison(values: np.ndarray, paper_mean: float, paper_std: float, paper_n: int, margin: float) -> None:
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"ours={values.tolist()!r} must be one finite value per seed: leave out runs without a result."
        )
    if not np.isfinite(paper_mean):
        raise ValueError(f"paper_mean={paper_mean!r} must be finite: leave out rows that the paper does not report.")
    if paper_std < 0 or np.isinf(paper_std):
        raise ValueError(f"paper_std={paper_std!r} must be >= 0, or NaN where the paper prints none.")
    if paper_n < 1:
        raise ValueError(f"paper_n={paper_n!r} must be >= 1: give the number of seeds behind the printed mean.")
    if not (np.isfinite(margin) and margin > 0):
        raise ValueError(f"margin={margin!r} must be finite and > 0: use for example MARGIN_TEST_ERROR.")
