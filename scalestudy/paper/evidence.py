"""What the checks of claims look at: runs by how their scales were learned, and a word for those that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper.effects import Effect, effect, paired_effect
from scalestudy.paper.reported import LEARNED, START
from scalestudy.tolerance import ToleranceFit

Start = tuple[float, float]  # initial sigma_basis (pixels) and ISR


class NotMeasured(Exception):
    """Raised inside a check when runs are missing; the message says which."""


def need(found: object, missing: str) -> None:
    """Leave a check that lacks something."""
    if not found:
        raise NotMeasured(missing)


def lowest(errors: Mapping[Any, pd.Series]) -> Any:
    """The key of the lowest mean."""
    return min(errors, key=lambda one: errors[one].mean())


@dataclass(frozen=True)
class Evidence:
    """Everything a check may look at."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    fit: ToleranceFit
    paired: bool = True

    def effect(self, first: Sequence[float], second: Sequence[float]) -> Effect:
        """Effect of `first` over `second`; values by seed are paired, unless this is about the unpaired verdict."""
        return (paired_effect if self.paired else effect)(first, second)

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

    def errors_by_isr(self, on: str) -> dict[float, pd.Series]:
        """Test errors, by seed, of fixed networks of the paper's smallest scale, ascending: at least two ISRs."""
        runs = self.of_mode(on, "fixed")
        runs = runs[runs["init_sigma"] == START[0]]  # others would mix two questions
        need(runs["init_isr"].nunique() >= 2, f"fewer than 2 fixed ISRs with sigma_basis {START[0]:g} on {on}")
        return dict(list(runs.set_index("seed").groupby("init_isr")["test_error"]))

    def best_isr(self, on: str) -> float:
        """The fixed ISR of the lowest mean test error."""
        return lowest(self.errors_by_isr(on))

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
