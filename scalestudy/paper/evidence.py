"""What the checks of claims look at: runs by how their scales were learned, and a word for those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper.effects import NOT_MEASURED, Effect, decided, paired_effect
from scalestudy.paper.reported import LEARNED, START
from scalestudy.tolerance import ToleranceFit

Start = tuple[float, float]  # initial sigma_basis (pixels) and ISR


class NotMeasured(Exception):
    """Raised inside a check when runs are missing; the message says which."""


def need(found: object, missing: str) -> None:
    """Leave a check that lacks something."""
    if not found:
        raise NotMeasured(missing)


@dataclass(frozen=True)
class Evidence:
    """Everything a check may look at."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    fit: ToleranceFit
    effect: Callable[[Sequence[float], Sequence[float]], Effect] = paired_effect  # of one side over the other

    def verdict(self, check: Callable[[Evidence], tuple[bool, bool, str]]) -> tuple[str, str]:
        """Of a check that tells whether a claim held, whether it did not, and what was measured: verdict, the last."""
        try:
            held, not_held, measured = check(self)
        except NotMeasured as missing:
            return NOT_MEASURED, f"missing: {missing}"
        return decided(held, not_held), measured

    def of_mode(self, on: str, mode: str) -> pd.DataFrame:
        """Runs of one way to learn scales on a distribution, not empty."""
        runs = self.runs[(self.runs["distribution"] == on) & (self.runs["mode"] == mode)]
        need(not runs.empty, f"no runs with scale_learning '{mode}' on {on}")
        return runs

    def values(self, column: str, on: str, mode: str = LEARNED, start: Start = START) -> pd.Series:
        """A column of those of one start, not empty, by seed."""
        runs = self.of_mode(on, mode)
        runs = runs[(runs["init_sigma"] == start[0]) & (runs["init_isr"] == start[1])]
        need(not runs.empty, f"no runs with scale_learning '{mode}' from ({start[0]:g}, {start[1]:g}) on {on}")
        return runs.set_index("seed")[column]

    def scales(self, on: str, mode: str) -> pd.DataFrame:
        """Learned internal scales in pixels, ascending from column to column; rows seed."""
        scales = self.values("internal_scales", on, mode)
        return pd.DataFrame(np.sort(scales.tolist(), axis=1), index=scales.index)

    def errors_by_isr(self, on: str) -> pd.DataFrame:
        """Test errors of fixed networks of the paper's smallest scale: a row a seed, a column an ISR, at least two."""
        runs = self.of_mode(on, "fixed").query("init_sigma == @START[0]")  # others would mix two questions
        need(runs["init_isr"].nunique() >= 2, f"fewer than 2 fixed ISRs with sigma_basis {START[0]:g} on {on}")
        return runs.pivot(index="seed", columns="init_isr", values="test_error")

    def best_isr(self, on: str) -> float:
        """The fixed ISR of the lowest mean test error."""
        return self.errors_by_isr(on).mean().idxmin()

    def starts(self, *on: str) -> list[Start]:
        """All (sigma_basis, ISR) from which the scales were learned, on each of these distributions, ascending."""
        learned = self.runs[self.runs["mode"] == LEARNED].groupby("distribution")[["init_sigma", "init_isr"]]
        there = {name: set(pairs.itertuples(index=False, name=None)) for name, pairs in learned}
        return sorted(set().union(*there.values()).intersection(*(there.get(name, ()) for name in on)))

    def at_common_seeds(self, column: str, on: str, starts: Sequence[Start]) -> pd.DataFrame:
        """Values, a column a start, at the seeds that all of these have (rows): a seed is no effect of a start."""
        return pd.DataFrame({start: self.values(column, on, start=start) for start in starts}).dropna()

    def system(self, column: str, name: str, augmented: bool) -> pd.Series:
        """A column of the runs of a system on MNIST-Scale, not empty, by realisation."""
        need(self.runs["augmented"].eq(True).any(), 'no runs with random rescaling ("+"), which this claim needs, too')
        rows = self.runs[(self.runs["model"] == name) & (self.runs["augmented"] == augmented)]
        need(not rows.empty, f"no runs of {SYSTEMS[name].title}{'+' * augmented}")
        return rows.set_index("seed")[column]
