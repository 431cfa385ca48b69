"""Evidence for the claim checks: selecting runs, and effects set against the spread over seeds.

Not in the paper, which says "significantly" without a test: all criteria are our choice and were fixed before any run.
Three rules were made stricter after the first runs: the majority rule became symmetric, the checks of Table 3 compare
starts at common seeds only, and published ISRs never stand in for ours.

An effect counts where it is larger than the spread: the standard deviation (ddof 1) of one seed, pooled over the
compared groups.  With three seeds that is a weak test, so most findings also state the Welch 95 % interval.

"Unclear" means that the runs do not decide by the criterion: the effect lies within the spread over seeds, there are
too few seeds for a spread, or the value lies between the criterion's two thresholds (held and did not hold).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scalestudy.paper.compare import MARGIN_TEST_ERROR, format_mean_std, welch_interval
from scalestudy.paper.reported import DISTRIBUTIONS
from scalestudy.tolerance import ToleranceFit

HELD, NOT_HELD, UNCLEAR, NOT_MEASURED = "held", "did not hold", "unclear", "not measured"


class NotMeasured(Exception):
    """Raised inside a check when runs are missing; the message says which."""


@dataclass(frozen=True)
class Finding:
    """What a check found: a verdict and a sentence with the numbers.

    The verdict is `held`, `did not hold` or `unclear` (the runs do not decide by the criterion, see the module).
    """

    verdict: str
    measured: str


@dataclass(frozen=True)
class ClaimSettings:
    """Which runs stand for the paper's.

    The default of `learned` is the method as the paper prints it; the scorecard sets `step_ratio`, because the paper's
    numbers come from the released code.  The other defaults are the paper's.

    Parameters
    ----------
    distributions : labels of the data scale distributions, from narrow to wide; at least two.
    learned : `scale_learning` of the runs that stand for "our method" (`isr`: Eq. 5 as printed; `step_ratio`: released
    code). default_init : initial sigma_basis (pixels) and ISR of Tables 2 and 4 and Fig. 6.
    margin : test errors that differ by less count as equal, percentage points.

    Raises
    ------
    ValueError
        If there are fewer than two distributions or the margin is not positive.
    """

    distributions: tuple[str, ...] = DISTRIBUTIONS
    learned: str = "isr"
    default_init: tuple[float, float] = (2.0, 3.0)
    margin: float = MARGIN_TEST_ERROR

    def __post_init__(self) -> None:
        if len(self.distributions) < 2:
            raise ValueError(f"distributions={self.distributions!r} needs at least 2 labels, from narrow to wide.")
        if not self.margin > 0:
            raise ValueError(f"margin={self.margin!r} must be > 0: use for example MARGIN_TEST_ERROR.")

    @property
    def narrowest(self) -> str:
        """Label of the narrowest distribution."""
        return self.distributions[0]

    @property
    def widest(self) -> str:
        """Label of the widest distribution."""
        return self.distributions[-1]


@dataclass(frozen=True)
class Effect:
    """Difference of two means (first - second) beside the spread over seeds."""

    difference: float
    spread: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """+1 or -1 where the difference is larger than the spread, else 0; 0 where the spread is unknown."""
        return int(np.sign(self.difference)) if abs(self.difference) > self.spread else 0

    def __str__(self) -> str:
        spread = f"{self.spread:.2f}" if np.isfinite(self.spread) else "unknown"
        interval = f"[{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.low) else "none"
        return f"{self.difference:+.2f} (seed spread {spread}, 95 % interval {interval})"


def effect(first: Sequence[float], second: Sequence[float]) -> Effect:
    """Effect of `first` over `second`; values per seed, not empty.  A side with one seed borrows the other's spread."""
    groups = [np.asarray(first, dtype=float), np.asarray(second, dtype=float)]
    freedom = sum(group.size - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    spread = float(np.sqrt(squares / freedom)) if freedom else float("nan")
    low, high = welch_interval(summary(groups[0]), summary(groups[1]))
    return Effect(float(groups[0].mean() - groups[1].mean()), spread, low, high)


def summary(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard deviation (ddof 1, NaN for one value), number."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else float("nan"), int(array.size)


def text(values: Sequence[float]) -> str:
    """`2.29 ± 0.07 (n=3)`."""
    return format_mean_std(*summary(values))


def all_positive(effects: Iterable[Effect]) -> str:
    """Held if every effect is resolved upwards, did not hold if one is resolved downwards, else unclear."""
    signs = [one.sign for one in effects]
    if all(sign > 0 for sign in signs):
        return HELD
    return NOT_HELD if any(sign < 0 for sign in signs) else UNCLEAR


def majority_positive(effects: Sequence[Effect]) -> str:
    """Held if more than half of all effects are resolved upwards, did not hold if more than half are resolved
    downwards, else unclear.

    Effects within the spread or without one count in the whole, so that a few resolved ones never decide for the rest.
    """
    up, down = (sum(one.sign == sign for one in effects) for sign in (1, -1))
    if up > len(effects) / 2:
        return HELD
    return NOT_HELD if down > len(effects) / 2 else UNCLEAR


def all_similar(effects: Iterable[Effect], margin: float) -> str:
    """Held if all differences are within the margin, did not hold if one is beyond it and the spread, else unclear."""
    effects = list(effects)
    if all(abs(one.difference) <= margin for one in effects):
        return HELD
    return NOT_HELD if any(abs(one.difference) > margin and one.sign for one in effects) else UNCLEAR


@dataclass(frozen=True)
class Evidence:
    """Everything a check may look at; frames as described in `scalestudy.paper.claims.claim_verdicts`."""

    runs: pd.DataFrame
    scale_test: pd.DataFrame
    baselines: pd.DataFrame
    tolerance_fit: ToleranceFit | None = None
    settings: ClaimSettings = field(default_factory=ClaimSettings)

    def fixed_errors(self, distribution: str) -> pd.DataFrame:
        """Test errors of fixed networks, rows seed, columns ISR (ascending); at least two ISRs."""
        runs = self._select(distribution, "fixed")
        # Fixed networks of other smallest scales would mix two questions.
        sigma, isr = (
            runs[f"init_{name}"].astype(float).fillna(runs[name].astype(float)) for name in ("sigma_basis", "isr")
        )
        runs = runs.assign(isr=isr.round(2), test_error=runs["test_error"].astype(float))
        runs = runs[np.isclose(sigma, self.settings.default_init[0], rtol=0.01)]
        table = runs.pivot_table(values="test_error", index="seed", columns="isr")
        if table.shape[1] < 2:
            raise NotMeasured(
                f"fewer than 2 fixed ISRs with sigma_basis {self.settings.default_init[0]:g} on {distribution}"
            )
        return table

    def best_fixed(self, distribution: str) -> tuple[float, np.ndarray]:
        """ISR of the lowest mean test error of fixed networks, and its errors per seed."""
        table = self.fixed_errors(distribution)
        isr = float(table.mean().idxmin())
        return isr, table[isr].dropna().to_numpy()

    def learned(self, distribution: str, mode: str, init: tuple[float, float] | None = None) -> pd.DataFrame:
        """Runs of one learning mode and one start (the default start if None), not empty."""
        sigma, isr = init or self.settings.default_init
        runs = self._select(distribution, mode)
        same_sigma = np.isclose(runs["init_sigma_basis"].astype(float), sigma, rtol=0.01)
        runs = runs[same_sigma & np.isclose(runs["init_isr"].astype(float), isr, rtol=0.01)]
        if runs.empty:
            raise NotMeasured(f"no runs with scale_learning '{mode}' from ({sigma:g}, {isr:g}) on {distribution}")
        return runs

    def starts(self) -> list[tuple[float, float]]:
        """All (sigma_basis, ISR) from which the scales were learned on the given distributions, ascending."""
        runs = self.runs[self.runs["scale_learning"] == self.settings.learned]
        runs = runs[runs["distribution"].isin(self.settings.distributions)]
        pairs = runs[["init_sigma_basis", "init_isr"]].astype(float).round(3).drop_duplicates()
        return sorted(pairs.itertuples(index=False, name=None))

    def _select(self, distribution: str, mode: str) -> pd.DataFrame:
        runs = self.runs[(self.runs["distribution"] == distribution) & (self.runs["scale_learning"] == mode)]
        if runs.empty:
            raise NotMeasured(f"no runs with scale_learning '{mode}' on {distribution}")
        return runs
