"""Our numbers beside the paper's: one long table with a verdict each, the paper's tables cut from it, the scorecard.

The first verdict that applies counts: "not measured" (no run of ours); "not comparable" (runs of another size);
"reproduced" (90 % Welch interval of the difference inside the margin); "inconclusive" (95 % interval holds 0, or there
is none without two seeds on each side); "different" (beyond the margin); "trivially different" (within it).  Not in the
paper: our choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper import claims, reported
from scalestudy.paper.effects import format_mean_std, welch_interval
from scalestudy.paper.reported import DISTRIBUTIONS, KEYS, LEARNED, RANGES, TAU
from scalestudy.paper.systems import MARKS, parameters
from scalestudy.paper.table import best_fixed, curves, runs
from scalestudy.tolerance import ToleranceFit, fit_tolerance
from scalestudy.training.record import Record

if TYPE_CHECKING:
    from scalestudy.paper.study import Study

VERDICTS_FROM_WORST = (
    "setting", "not measured", "not comparable", "different", "inconclusive", "trivially different", "reproduced",
)  # fmt: skip
"""Order in which the verdict of a row of Table 6 is chosen from those of its four scales (our choice)."""

_SCALES = ["scale1", "scale2", "scale3", "scale4"]
_GROUPS = [
    ("Figure 3", "figure3"), ("Table 2", "table2"), ("Table 2", "eq5_as_printed"), ("Table 3", "table3"),
    ("Table 4", "table4"), ("Table 5", "table5"), ("Table 6", "table5"),
]  # fmt: skip
"""Items and their groups of `Study`; Table 2 has the best of Figure 3's runs, too."""

_UNPRINTED = {"Table 5": ["test_error"], "Table 6": [*_SCALES, "isr"]}  # shown of systems that the paper does not have
_CALLED = {
    "Table 2": {
        LEARNED: "learned: step ratio (released code)",
        "isr": "learned: Eq. 5 as printed",
        "fixed": "best fixed",
    },
    "Table 4": {"direct": "direct", "spacing": "spacing", LEARNED: "isr"},
}
"""Rows of tables by the mode of learning."""

_INDEX = {
    "Figure 3": {"init_isr": "isr"},
    "Table 2": {"called": "scale learning"},
    "Table 3": {"init_sigma": "init_sigma_basis", "init_isr": "init_isr"},
    "Table 4": {"called": "parameterisation"},
}
"""Columns that name a row of a table beside the distribution, and how they are called there."""


def beside(study: Study, records: Iterable[Record]) -> pd.DataFrame:
    """Every printed number, and what the runs of a study say to it; records of other studies do not count.

    Columns of `reported.numbers`, mean, std and n of both sides ("mean_paper", "mean_ours"); difference; low, high
    (95 % interval); verdict; texts ours, paper and told (the difference).  Besides what is printed: the learned rows of
    Table 2 by Eq. 5 (mode "isr"), the ratio of Table 6's scales ("isr"), systems that the paper's tables do not have
    (verdict "-").
    """
    ours, printed, keys = _ours(study, list(records)), _printed(), ["item", *KEYS, "quantity"]
    shown = [ours[(ours["item"] == item) & ours["quantity"].isin(names)][keys] for item, names in _UNPRINTED.items()]
    printed = pd.concat([printed, *shown], ignore_index=True).drop_duplicates(keys)
    both = judged(printed.merge(ours, how="left", on=keys, suffixes=("_paper", "_ours")))
    for side in ("ours", "paper"):
        both[side] = list(map(format_mean_std, *(both[f"{name}_{side}"] for name in ("mean", "std", "n"))))
    interval = [
        " [no interval]" if np.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
        for low, high in both[["low", "high"]].to_numpy()
    ]
    silent = both["verdict"].isin(["-", *VERDICTS_FROM_WORST[:3]])
    both["told"] = (both["difference"].map("{:+.2f}".format) + interval).mask(silent, "-")
    return both


def _ours(study: Study, records: list[Record]) -> pd.DataFrame:
    """Mean, spread and number of our runs, per item, configuration and quantity."""
    frame, groups = runs(records), study.groups()
    for place, name in enumerate(_SCALES):
        frame[name] = [scales[place] if place < len(scales) else np.nan for scales in frame["internal_scales"]]
    parts = [(item, frame[frame["key"].isin([spec.key for spec in groups[group]])]) for item, group in _GROUPS]
    parts.append(("Table 2", best_fixed(parts[0][1]).assign(init_isr=np.nan)))
    long = pd.concat([part.assign(item=item) for item, part in parts], ignore_index=True)
    long["init_isr"] = long["init_isr"].round(2)  # as the paper prints it
    long = long.melt(["item", *KEYS, "paper_size"], ["test_error", "sigma_basis", "isr", *_SCALES], "quantity")
    cells = long.dropna(subset="value").groupby(["item", *KEYS, "quantity"], dropna=False)
    value = cells["value"]
    return pd.DataFrame(
        {"mean": value.mean(), "std": value.std(), "n": value.size(), "paper_size": cells["paper_size"].all()}
    ).reset_index()


def _printed() -> pd.DataFrame:
    """`reported.numbers`, Table 2's learned rows for Eq. 5, too, and the ratios of Table 6's scales."""
    numbers = reported.numbers()
    learned = numbers[(numbers["item"] == "Table 2") & (numbers["mode"] == LEARNED)].assign(mode="isr")
    smallest, largest = (numbers[(numbers["item"] == "Table 6") & (numbers["quantity"] == _SCALES[i])] for i in (0, 3))
    ratio = largest["mean"].to_numpy() / smallest["mean"].to_numpy()
    ratio = largest[["item", *KEYS]].assign(quantity="isr", mean=ratio)
    return pd.concat([numbers, learned, ratio], ignore_index=True)


def judged(both: pd.DataFrame) -> pd.DataFrame:
    """With difference, interval and verdict."""
    sides = [tuple(both[f"{name}_{side}"] for name in ("mean", "std", "n")) for side in ("ours", "paper")]
    low, high = welch_interval(*sides)
    low_90, high_90 = welch_interval(*sides, confidence=0.90)
    difference, margin = both["mean_ours"] - both["mean_paper"], both["margin"]
    tests = {
        "-": both["mean_paper"].isna(),
        "setting": margin.isna(),
        "not measured": both["mean_ours"].isna(),
        "not comparable": ~both["paper_size"].eq(True),
        "reproduced": (-margin < low_90) & (high_90 < margin),
        "inconclusive": np.isnan(low) | ((low <= 0) & (high >= 0)),
        "different": difference.abs() > margin,
    }
    verdict = np.select(list(tests.values()), list(tests), "trivially different")
    return both.assign(difference=difference, low=low, high=high, verdict=verdict)


def table(item: str, both: pd.DataFrame) -> pd.DataFrame:
    """One of "Table 2" to "Table 6", or the numbers behind "Figure 3": ours beside the paper's, cut from `beside`.

    A row per configuration: ours and the paper's of each quantity, differences with a 95 % interval and verdicts of
    test errors.  Table 5 counts the parameters.  Table 6 has the least favourable verdict of the four scales
    (`VERDICTS_FROM_WORST`).
    """
    rows = both[both["item"] == item]
    if item in _UNPRINTED:
        return _table5(rows) if item == "Table 5" else _table6(rows)
    if item in _CALLED:
        rows = rows.assign(called=rows["mode"].map(_CALLED[item]))
        order = {name: place for place, name in enumerate([*DISTRIBUTIONS, *_CALLED[item].values()])}
        rows = rows.sort_values(["distribution", "called"], key=lambda names: names.map(order), kind="stable")
    titles = {name: name.replace("_", " ") for name in rows["quantity"]}
    wide = _wide(rows.rename(columns=_INDEX[item]), ["distribution", *_INDEX[item].values()], titles)
    return wide.rename(columns={"test error, told": "difference", "test error, verdict": "verdict"}).reset_index()


def _wide(rows: pd.DataFrame, index: list[str], titles: dict[str, str]) -> pd.DataFrame:
    """Columns "title, ours" and "title, paper" per quantity, of test errors "title, told" and "title, verdict", too."""
    parts = []
    for quantity, title in titles.items():
        cells = rows[rows["quantity"] == quantity].set_index(index)
        cells = cells[["ours", "paper", *(["told", "verdict"] if quantity == "test_error" else [])]]
        parts.append(cells.add_prefix(f"{title}, "))
    return pd.concat(parts, axis=1)


def _table5(rows: pd.DataFrame) -> pd.DataFrame:
    errors = rows[rows["quantity"] == "test_error"]
    printed = rows[rows["quantity"] == "parameters_thousands"].set_index("model")["mean_paper"]
    names = [name for name in SYSTEMS if name in set(errors["model"])]
    table = pd.DataFrame({"model": [SYSTEMS[name].title for name in names]})
    table["parameters, ours"] = [f"{parameters(name):,}" for name in names]
    table["parameters, paper"] = [f"{printed[name]:.0f}k" if name in printed else "-" for name in names]
    titles = {
        "ours": "test error{}, ours",
        "paper": "test error{}, paper",
        "told": "difference{}",
        "verdict": "verdict{}",
    }
    for augmented, mark in MARKS.items():
        cells = errors[errors["augmented"] == augmented].set_index("model").reindex(names)[list(titles)].fillna("-")
        for column, title in titles.items():
            table[title.format(mark)] = cells[column].to_numpy()
    return table


def _table6(rows: pd.DataFrame) -> pd.DataFrame:
    titles = {name: f"scale {place}" for place, name in enumerate(_SCALES, 1)} | {"isr": "largest / smallest"}
    table = _wide(rows, ["augmented", "model"], titles).fillna("-")
    scales = rows[rows["quantity"].isin(_SCALES)].groupby(["augmented", "model"])
    table["verdict"] = scales["verdict"].agg(lambda given: min(given, key=["-", *VERDICTS_FROM_WORST].index))
    table = table.loc[[(mark, name) for mark in MARKS for name in SYSTEMS if (mark, name) in table.index]]
    table.insert(0, "model", [SYSTEMS[name].title + MARKS[augmented] for augmented, name in table.index])
    return table.reset_index(drop=True)


@dataclass(frozen=True)
class Scorecard:
    """Verdicts on numbers (item, configuration, quantity, ours, paper, difference, verdict) and on claims (`judge`)."""

    numbers: pd.DataFrame
    claims: pd.DataFrame

    def counts(self) -> pd.DataFrame:
        """How often each verdict was given: columns kind, verdict, count."""
        kinds = {"number": self.numbers, "claim": self.claims}
        counted = [(kind, *pair) for kind, frame in kinds.items() for pair in frame["verdict"].value_counts().items()]
        return pd.DataFrame(counted, columns=["kind", "verdict", "count"])

    def text(self) -> str:
        """A summary for a terminal: each claim with its verdict, then how often numbers got which."""
        width = max(map(len, self.claims["verdict"]))
        claims = [f"  {row.verdict:<{width}}  {row.item}: {row.claim}" for row in self.claims.itertuples(index=False)]
        numbers = [f"  {count:4d} {verdict}" for verdict, count in self.numbers["verdict"].value_counts().items()]
        return "\n".join(["Claims of the paper:", *claims, "Numbers of the paper:", *numbers])


def scorecard(study: Study, records: Iterable[Record], fit: ToleranceFit | None = None) -> Scorecard:
    """Judge everything that the records of a study allow; what is missing is "not measured"."""
    records = study.records(records)
    fit = fit or fit_tolerance(RANGES)
    return Scorecard(_numbers(beside(study, records), fit.tau), claims.judge(runs(records), curves(records), fit))


def _numbers(both: pd.DataFrame, tau: float) -> pd.DataFrame:
    """What is printed and no setting, for people; tau has no noise, so it is reproduced if it rounds to the same."""
    rows = both[both["margin"].notna() & ((both["item"] != "Table 2") | (both["mode"] != "isr"))]
    rows = rows.assign(
        configuration=[_configuration(row) for row in rows.itertuples()],
        quantity=rows["quantity"].str.replace("_", " "),
        difference=rows["told"],
    )
    columns = ["item", "configuration", "quantity", "ours", "paper", "difference", "verdict"]
    verdict = "reproduced" if round(tau, 3) == TAU else "different"
    row = ("Section 4.1", "joint tolerance fit", "tau", f"{tau:.3f}", f"{TAU:.3f}", f"{tau - TAU:+.4f}", verdict)
    return pd.concat([rows[columns], pd.DataFrame([row], columns=columns)], ignore_index=True)


def _configuration(row: tuple) -> str:
    if row.model in SYSTEMS:
        return SYSTEMS[row.model].title + ", with random rescaling (+)" * row.augmented
    told = {
        "Figure 3": f"isr {row.init_isr:g}",
        "Table 2": "learned" if row.mode == LEARNED else "fixed",
        "Table 3": f"init sigma basis {row.init_sigma:g}, init isr {row.init_isr:g}",
        "Table 4": _CALLED["Table 4"].get(row.mode),
    }
    return f"{row.distribution}, {told[row.item]}"
