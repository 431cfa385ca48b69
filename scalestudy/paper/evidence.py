"""What the checks of claims look at: runs by how their scales were learned, and a word for those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper.effects import Effect, effect, paired_effect
from scalestudy.paper.reported import DISTRIBUTIONS, LEARNED, START
from scalestudy.paper.table import best_fixed
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
    fit: ToleranceFit | None
    paired: bool = True

    def effect(self, first: Sequence[float], second: Sequence[float]) -> Effect:
        """Effect of `first` over `second`; values by seed are paired, unless this is about the unpaired verdict."""
        return (paired_effect if self.paired else effect)(first, second)

    def tolerance(self) -> ToleranceFit:
        """The joint fit."""
        need(self.fit is not None, "no fit of the tolerance model")
        return self.fit

    def of_mode(self, on: str, mode: str) -> pd.DataFrame:
        """Runs of one way to learn scales on a distribution, not empty."""
        runs = self.runs[(self.runs["distribution"] == on) & (self.runs["mode"] == mode)]
        need(not runs.empty, f"no runs with scale_learning '{mode}' on {on}")
        return runs

    def learned(self, on: str, mode: str = LEARNED, start: Start = START) -> pd.DataFrame:
        """Those of one start."""
        runs = self.of_mode(on, mode)
        runs = runs[np.isclose(runs[["init_sigma", "init_isr"]].to_numpy(float), start, rtol=0.01).all(axis=1)]
        need(not runs.empty, f"no runs with scale_learning '{mode}' from ({start[0]:g}, {start[1]:g}) on {on}")
        return runs

    def values(self, column: str, on: str, mode: str = LEARNED, start: Start = START) -> pd.Series:
        """One column of `learned`, by seed."""
        return self.learned(on, mode, start).set_index("seed")[column].astype(float)

    def scales(self, on: str, mode: str) -> pd.DataFrame:
        """Learned internal scales in pixels, ascending from column to column; rows seed."""
        scales = self.learned(on, mode).set_index("seed")["internal_scales"]
        return pd.DataFrame(np.sort(np.array(scales.tolist(), dtype=float), axis=1), index=scales.index)

    def fixed(self, on: str) -> pd.DataFrame:
        """Fixed networks of the paper's smallest scale, others would mix two questions; at least two ISRs."""
        runs = self.of_mode(on, "fixed")
        runs = runs[np.isclose(runs["init_sigma"], START[0], rtol=0.01)]
        need(runs["init_isr"].round(2).nunique() >= 2, f"fewer than 2 fixed ISRs with sigma_basis {START[0]:g} on {on}")
        return runs.assign(init_isr=runs["init_isr"].round(2))

    def errors_by_isr(self, on: str) -> pd.DataFrame:
        """Test errors of `fixed`, rows seed, columns ISR (ascending)."""
        return self.fixed(on).pivot_table(values="test_error", index="seed", columns="init_isr")

    def best_isr(self, on: str) -> float:
        """The fixed ISR of the lowest mean test error."""
        return float(best_fixed(self.fixed(on))["init_isr"].iloc[0])

    def starts(self) -> list[Start]:
        """All (sigma_basis, ISR) from which the scales were learned, ascending."""
        runs = self.runs[(self.runs["mode"] == LEARNED) & self.runs["distribution"].isin(DISTRIBUTIONS)]
        pairs = runs[["init_sigma", "init_isr"]].round(3).drop_duplicates()
        return sorted(pairs.itertuples(index=False, name=None))

    def at_common_seeds(self, column: str, on: str, starts: Sequence[Start]) -> dict[Start, pd.Series]:
        """Values of the starts with runs there, at the seeds that all of these have: a seed is no effect of a start."""
        series = {}
        for start in starts:
            with suppress(NotMeasured):
                series[start] = self.learned(on, start=start).groupby("seed")[column].mean()
        common = sorted(set.intersection(*(set(values.index) for values in series.values()))) if series else []
        return {start: values.loc[common] for start, values in series.items()}

    def system(self, column: str, name: str, augmented: bool) -> pd.Series:
        """A column of the runs of a system on MNIST-Scale, not empty, by realisation."""
        need(self.runs["augmented"].eq(True).any(), 'no runs with random rescaling ("+"), which this claim needs, too')
        rows = self.runs[(self.runs["model"] == name) & (self.runs["augmented"] == augmented)]
        need(not rows.empty, f"no runs of {SYSTEMS[name].title}{'+' * augmented}")
        return rows.set_index("seed")[column].astype(float)
