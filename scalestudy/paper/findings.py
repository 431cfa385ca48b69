"""What was found, in a few sentences and one small table, made from the numbers: for README, overview and report."""

from __future__ import annotations

import pandas as pd

from scalestudy.paper import reported
from scalestudy.paper.compare import PAPER_SIZE, Comparison
from scalestudy.paper.effects import HELD, NOT_HELD, NOT_MEASURED, UNCLEAR, text
from scalestudy.paper.reported import LEARNED, START
from scalestudy.paper.systems import run_sizes
from scalestudy.paper.table import best_fixed, runs

_NO_RUNS = "(no runs)"
_SAID = {HELD: HELD, NOT_HELD: NOT_HELD, UNCLEAR: "are unclear", NOT_MEASURED: "were not measured"}


def sentences(comparison: Comparison) -> list[str]:
    """The verdicts in numbers; best, fitted and learned ISR beside the paper's; what runs of the paper's size say."""
    name, (study, records) = comparison.main, comparison.levels[comparison.main]
    found, verdicts = runs(records), comparison.claims()[name].replace("", NOT_MEASURED).value_counts()
    counted = _listed(f"{verdicts.get(verdict, 0)} {said}" for verdict, said in _SAID.items())
    told = [f"Of the paper's {verdicts.sum()} claims in words, at the size {name}, {counted}."]
    labels = [one.label for one in study.distributions if one.label in set(found["distribution"])]
    if len(fixed := best_fixed(found)):
        ours = fixed.groupby("distribution")["init_isr"].first()
        labels = [label for label in labels if label in ours]
        printed = reported.numbers("Figure 3").set_index("init_isr").groupby("distribution")["mean"].idxmin()[labels]
        told.append(
            f"Fixed scales ({run_sizes(found[found['mode'] == 'fixed'])}): the test error is lowest at an ISR of "
            f"{_listed(ours[labels].map('{:g}'.format))} on {_listed(labels)}; in the paper at "
            f"{_listed(printed.map('{:g}'.format))}. The tolerance model, with tau = {comparison.fit.tau:.3f} octaves, "
            f"predicts {_listed(f'{isr:.2f}' for isr in comparison.fit.isrs)} for the paper's three distributions."
        )
    if len(_learned(found)):
        theirs = reported.numbers("Table 2").query("mode == @LEARNED and quantity == 'isr'").set_index("distribution")
        told.append(
            f"Learned from sigma_basis 2 and ISR 3, the ISR ends at {_listed(_ends(found, labels))} on the same; in "
            f"the paper at {_listed(theirs['mean'][labels].map('{:.2f}'.format))}."
        )
    if PAPER_SIZE in comparison.levels:
        large = runs(comparison.levels[PAPER_SIZE][1])
        ends = dict(zip(labels, _ends(large, labels), strict=True))
        told_ends = [f"{end} on {label}" for label, end in ends.items() if end != _NO_RUNS]
        learned = f" Learned ISR at that size: {_listed(told_ends)}." if told_ends else ""
        told.append(comparison.counted() + learned)
    return told


def by_item(comparison: Comparison) -> pd.DataFrame:
    """A row per figure and table of the paper: how many of its claims got which verdict, at each size."""
    claims = comparison.claims()
    rows = []
    for item, own in claims.groupby("item", sort=False):
        counts = {name: own.loc[own[name] != "", name].value_counts().items() for name in comparison.levels}
        told = {name: ", ".join(f"{count} {verdict}" for verdict, count in counts[name]) for name in counts}
        rows.append({"paper": item, "claims": len(own)} | told)
    return pd.DataFrame(rows)


def _learned(found: pd.DataFrame) -> pd.DataFrame:
    start = (found["init_sigma"] == START[0]) & (found["init_isr"] == START[1])
    return found[(found["mode"] == LEARNED) & start]


def _ends(found: pd.DataFrame, labels: list[str]) -> list[str]:
    learned = _learned(found)
    return [text(learned.loc[learned["distribution"] == label, "isr"]) or _NO_RUNS for label in labels]


def _listed(parts: object) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
