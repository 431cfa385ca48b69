"""What was found, in a few sentences and one small table, made from the numbers: for README, overview and report."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from scalestudy.paper.compare import PAPER_SIZE, Comparison, tally
from scalestudy.paper.effects import HELD, NOT_HELD, NOT_MEASURED, UNCLEAR
from scalestudy.paper.reported import DISTRIBUTIONS, LEARNED, best_isrs
from scalestudy.paper.systems import run_sizes
from scalestudy.paper.table import best_fixed, runs

_SAID = {HELD: HELD, NOT_HELD: NOT_HELD, UNCLEAR: "are unclear", NOT_MEASURED: "were not measured"}


def sentences(comparison: Comparison) -> list[str]:
    """The verdicts in numbers; best, fitted and learned ISR beside the paper's; what runs of the paper's size say."""
    name, found = comparison.main, runs(comparison.levels[comparison.main][1])
    found = found[found["distribution"].isin(DISTRIBUTIONS)]
    verdicts = comparison.claims()[name].replace("", NOT_MEASURED).value_counts()
    counted = _listed(f"{verdicts.get(verdict, 0)} {said}" for verdict, said in _SAID.items())
    told = [f"Of the paper's {verdicts.sum()} claims in words, at the size {name}, {counted}."]
    labels = [label for label in DISTRIBUTIONS if label in set(found["distribution"])]
    if len(fixed := best_fixed(found)):
        ours = fixed.groupby("distribution")["init_isr"].first()
        labels = [label for label in labels if label in ours]
        told.append(
            f"Fixed scales ({run_sizes(found[found['mode'] == 'fixed'])}): the test error is lowest at an ISR of "
            f"{_listed(ours[labels].map('{:g}'.format))} on {_listed(labels)}; in the paper at "
            f"{_listed(best_isrs()[labels].map('{:g}'.format))}. The tolerance model, with tau = "
            f"{comparison.fit.tau:.3f} octaves, predicts {_listed(f'{isr:.2f}' for isr in comparison.fit.isrs)} for "
            "the paper's three distributions."
        )
    both = comparison.both[comparison.both["item"] == "Table 2"]
    learned = both[(both["mode"] == LEARNED) & (both["quantity"] == "isr")].set_index("distribution")
    if learned[name].any():
        told.append(
            f"Learned from sigma_basis 2 and ISR 3, the ISR ends at "
            f"{_listed(learned[name][labels].replace('', '(no runs)'))} on the same; in the paper at "
            f"{_listed(learned['mean_paper'][labels].map('{:.2f}'.format))}."
        )
    if PAPER_SIZE in comparison.levels:
        ends = [f"{end} on {label}" for label, end in learned[PAPER_SIZE][labels].items() if end]
        told.append(comparison.counted() + (f" Learned ISR at that size: {_listed(ends)}." if ends else ""))
    return told


def by_item(comparison: Comparison) -> pd.DataFrame:
    """A row per figure and table of the paper: how many of its claims got which verdict, at each size."""
    claims = comparison.claims().groupby("item", sort=False)
    table = claims[list(comparison.levels)].agg(tally)
    table.insert(0, "claims", claims.size())
    return table.rename_axis("paper").reset_index()


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
