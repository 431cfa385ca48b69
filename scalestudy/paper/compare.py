"""Our numbers beside the paper's: one long table, the paper's tables cut from it, and all claims; by size of the runs.

Only runs of the paper's own size can reproduce a number; these alone get a verdict, the first that applies: "one run"
(no spread, so nothing more to say); "reproduced" (90 % Welch interval of the difference inside the margin);
"inconclusive" (95 % interval holds 0); "different" (beyond the margin); "trivially different" (within it).  Not in the
paper: our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper import claims, reported
from scalestudy.paper.effects import NOT_MEASURED, format_mean_std, welch_interval
from scalestudy.paper.reported import DISTRIBUTIONS, KEYS, LEARNED, RANGES, TAU
from scalestudy.paper.study import Study
from scalestudy.paper.systems import MARKS, parameters
from scalestudy.paper.table import best_fixed, curves, runs
from scalestudy.tolerance import ToleranceFit, fit_tolerance
from scalestudy.training.record import Record

PAPER_SIZE = "paper size"  # how runs of the profile `paper` are called beside the paper's own numbers
TELLING_IMAGES = 1000  # our choice: trained on fewer, systems on MNIST-Scale show no more than that they train

# The verdict of a row of Table 6 is the first of these that one of its four scales has (our choice).
_FROM_WORST = ("", "one run", "different", "inconclusive", "trivially different", "reproduced")
_SCALES = ["scale1", "scale2", "scale3", "scale4"]
_GROUPS = {
    "Figure 3": ["figure3"], "Table 2": ["table2", "eq5_as_printed"], "Table 3": ["table3"], "Table 4": ["table4"],
    "Table 5": ["table5"], "Table 6": ["table5"],
}  # fmt: skip
"""Items and their groups of `Study`; Table 2 has the best of Figure 3's runs, too."""

_UNPRINTED = {"Table 5": ["test_error"], "Table 6": [*_SCALES, "isr"]}  # shown of systems that the paper does not have
_CALLED = {
    "Table 2": {LEARNED: "learned: ISR as released", "isr": "learned: ISR as printed (Eq. 5)", "fixed": "best fixed"},
    "Table 4": {"direct": "direct", "spacing": "spacing", LEARNED: "isr"},
}
"""Rows of tables by the mode of learning, in their order."""

_INDEX = {
    "Figure 3": {"distribution": "distribution", "init_isr": "isr"},
    "Table 2": {"distribution": "distribution", "mode": "scale learning"},
    "Table 3": {"distribution": "distribution", "init_sigma": "init_sigma_basis", "init_isr": "init_isr"},
    "Table 4": {"distribution": "distribution", "mode": "parameterisation"},
    "Table 5": {"model": "model"},
    "Table 6": {"augmented": "augmented", "model": "model"},
}
"""Columns that name a row of a table, and how they are called there."""


class Comparison:
    """What runs of one size or several say, each beside the paper.

    `levels` are studies and their records by the name of their size, from small to large; `main` is the one that this
    is about (the first).
    """

    def __init__(self, levels: Mapping[str, tuple[Study, list[Record]]], main: str = "") -> None:
        self.levels, self.main = dict(levels), main or next(iter(levels))

    @classmethod
    def of(cls, study: Study) -> Comparison:
        """A study, and beside it whatever there is of the profiles `overnight` and `paper`."""
        called, larger = {"paper": PAPER_SIZE}, ("overnight", "paper")
        names = [*([study.profile] if study.profile not in larger else []), *larger]
        studies = {name: study if name == study.profile else Study.open(name) for name in names}
        levels = {called.get(name, name): (one, one.stored()) for name, one in studies.items()}
        levels = {name: level for name, level in levels.items() if level[1] or level[0] is study}
        return cls(levels, called.get(study.profile, study.profile))

    @cached_property
    def fit(self) -> ToleranceFit:
        """The joint fit of the tolerance model to the paper's distributions."""
        return fit_tolerance(RANGES)

    @cached_property
    def both(self) -> pd.DataFrame:
        """Every number that is printed, or that we have of systems that the paper's tables do not have.

        Columns of `reported.numbers` ("_paper"), a text per size and for the paper; mean, std and n of the runs of the
        paper's size ("_ours"), and those of `judged`.
        """
        ours, keys = {name: _ours(*level) for name, level in self.levels.items()}, ["item", *KEYS, "quantity"]
        shown = [
            cells.loc[(cells["item"] == item) & cells["quantity"].isin(names), keys]
            for cells in ours.values()
            for item, names in _UNPRINTED.items()
        ]
        both = pd.concat([_printed(), *shown], ignore_index=True).drop_duplicates(keys)
        both["paper"] = list(map(format_mean_std, both["mean"], both["std"], both["n"]))
        for name, cells in ours.items():
            both = both.merge(cells[[*keys, "told"]].rename(columns={"told": name}), how="left", on=keys)
        both = both.fillna(dict.fromkeys(ours, ""))
        cells = ours.get(PAPER_SIZE, next(iter(ours.values()))[:0])[[*keys, "mean", "std", "n"]]
        return judged(both.merge(cells, how="left", on=keys, suffixes=("_paper", "_ours")))

    def table(self, item: str) -> pd.DataFrame:
        """One of "Table 2" to "Table 6", or the numbers behind "Figure 3"; what there is nothing of is left out.

        A row per configuration: each quantity at each size and in the paper; difference and verdict of test errors, in
        Table 6 the least favourable verdict of the four scales.
        """
        index, names = list(_INDEX[item]), [*DISTRIBUTIONS, *_CALLED.get(item, ()), *SYSTEMS]
        order = {name: place for place, name in enumerate(names)}
        rows = self.both[(self.both["item"] == item) & (self.both["quantity"] != "parameters_thousands")]
        rows = rows.sort_values(index, key=lambda names: names.map(lambda name: order.get(name, name)))
        titles = rows["quantity"].str.replace("_", " ")
        titles = titles + rows["augmented"].map(MARKS) if item == "Table 5" else titles
        parts = []
        for title, cells in rows.groupby(titles, sort=False):
            called = {name: f"{title}, {name}" for name in (*self.levels, "paper")}
            if title.startswith("test error"):
                mark = title.removeprefix("test error")
                called |= {"told": f"difference{mark}", "verdict": f"verdict{mark}"}
            parts.append(cells.set_index(index)[list(called)].rename(columns=called))
        if item == "Table 6":
            verdicts = rows[rows["quantity"].isin(_SCALES)].groupby(index)["verdict"]
            parts.append(verdicts.agg(lambda given: min(given, key=_FROM_WORST.index)))
        table = _named(item, pd.concat(parts, axis=1).fillna("").reset_index())
        return table.loc[:, ~table.eq("").all()]

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """What is printed and no setting: item, configuration, quantity, a column a size, paper, difference, verdict.

        tau has no noise, so it is reproduced if it rounds to the same, at any size.
        """
        rows = self.both.dropna(subset=["mean_paper", "margin"])
        rows = rows[rows["mode"] != "isr"]  # which stands beside the released numbers once more
        rows = rows.assign(
            configuration=[_configuration(row) for row in rows.itertuples()],
            quantity=rows["quantity"].str.replace("_", " "),
            difference=rows["told"],
        )
        columns = ["item", "configuration", "quantity", *self.levels, "paper", "difference", "verdict"]
        tau, verdict = self.fit.tau, "reproduced" if round(self.fit.tau, 3) == TAU else "different"
        ours = [f"{tau:.3f}"] * len(self.levels)
        row = ("Section 4.1", "joint tolerance fit", "tau", *ours, f"{TAU:.3f}", f"{tau - TAU:+.4f}", verdict)
        return pd.concat([rows[columns], pd.DataFrame([row], columns=columns)], ignore_index=True)

    @cached_property
    def judgements(self) -> dict[str, pd.DataFrame]:
        """`claims.judge` by size."""
        records = {name: level[1] for name, level in self.levels.items()}
        return {name: claims.judge(runs(given), curves(given), self.fit) for name, given in records.items()}

    def claims(self, notebook: str = "") -> pd.DataFrame:
        """All claims, or those of a notebook ("04"): item, claim, a verdict a size ("" where it was not measured).

        Then for the main size: unpaired, the verdict without pairing of seeds, and measured, a sentence with numbers.
        """
        main = self.judgements[self.main]
        verdicts = {name: judgement["verdict"] for name, judgement in self.judgements.items()}
        table = main[["id", "item", "claim"]].assign(**verdicts, unpaired=main["unpaired"], measured=main["measured"])
        table = table.replace(NOT_MEASURED, "")
        return table[table["item"].map(claims.NOTEBOOKS).str.startswith(notebook)].reset_index(drop=True)

    def counted(self) -> str:
        """One line: how many numbers have runs of the paper's size, and what these say."""
        verdicts = self.numbers["verdict"].iloc[:-1]
        told, there = tally(verdicts.replace("one run", "by a single run")), (verdicts != "").sum()
        return f"Of {len(verdicts)} printed means {there} have runs of the paper's size{': ' * bool(told)}{told}."

    def text(self) -> str:
        """For a terminal: each claim with its verdict at each size, then `counted`."""
        table = self.claims()
        cells = table[[*self.levels]].replace("", "-").assign(said=table["item"] + ": " + table["claim"]).to_numpy()
        lines = [[*self.levels, ""], *cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        told = ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join(["Claims of the paper, by size of our runs:", *told, self.counted()])


def tally(verdicts: pd.Series) -> str:
    """How often there is which verdict, the most frequent one first."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts[verdicts != ""].value_counts().items())


def _ours(study: Study, records: list[Record]) -> pd.DataFrame:
    """Mean, spread and number of our runs, per item, configuration and quantity; told in words."""
    frame, groups = runs(records), study.groups()
    for place, name in enumerate(_SCALES):
        frame[name] = [scales[place] if place < len(scales) else np.nan for scales in frame["internal_scales"]]
    keys = {item: [spec.key for name in names for spec in groups[name]] for item, names in _GROUPS.items()}
    parts = [frame[frame["key"].isin(own)].assign(item=item) for item, own in keys.items()]
    fixed = parts[0]
    whole = fixed.groupby("distribution")["init_isr"].transform("nunique") == len(study.isrs)  # else there is no best
    parts.append(best_fixed(fixed[whole]).assign(item="Table 2", init_isr=np.nan))
    long = pd.concat(parts, ignore_index=True).round({"init_isr": 2})  # as the paper prints it
    long = long.melt(["item", *KEYS], ["test_error", "sigma_basis", "isr", *_SCALES], "quantity")
    cells = long.dropna(subset="value").groupby(["item", *KEYS, "quantity"], dropna=False)["value"]
    cells = cells.agg(["mean", "std", "size"]).rename(columns={"size": "n"}).reset_index()
    told = map(format_mean_std, cells["mean"], cells["std"], cells["n"])
    cells["told"] = pd.Series(told, dtype=object)  # also where there are none
    small = frame[(frame["dataset"] == "mnist_scale") & (frame["train_images"] < TELLING_IMAGES)]
    losses = small.groupby(["model", "augmented"])[["train_loss_first", "train_loss_last"]].mean()
    for (model, augmented), first, last in losses.itertuples():
        its = (cells["item"] == "Table 5") & (cells["model"] == model) & (cells["augmented"] == augmented)
        told = f"trains: loss {'falls' if last < first else 'does not fall'} from {first:.2f} to {last:.2f}"
        cells.loc[its & (cells["quantity"] == "test_error"), "told"] = told
    return cells


def _printed() -> pd.DataFrame:
    """`reported.numbers`, Table 2's learned rows for Eq. 5, too, and the ratios of Table 6's scales."""
    numbers = reported.numbers()
    learned = numbers[(numbers["item"] == "Table 2") & (numbers["mode"] == LEARNED)].assign(mode="isr")
    smallest, largest = (numbers[(numbers["item"] == "Table 6") & (numbers["quantity"] == _SCALES[i])] for i in (0, 3))
    ratio = largest["mean"].to_numpy() / smallest["mean"].to_numpy()
    ratio = largest[["item", *KEYS]].assign(quantity="isr", mean=ratio)
    return pd.concat([numbers, learned, ratio], ignore_index=True)


def judged(both: pd.DataFrame) -> pd.DataFrame:
    """With the difference from the paper, its 95 % interval (low, high; in words: told) and verdict, "" if none."""
    sides = [tuple(both[f"{name}_{side}"] for name in ("mean", "std", "n")) for side in ("ours", "paper")]
    low, high = welch_interval(*sides)
    low_90, high_90 = welch_interval(*sides, confidence=0.90)
    difference, margin = both["mean_ours"] - both["mean_paper"], both["margin"]
    tests = {
        "": difference.isna() | margin.isna(),
        "one run": np.isnan(low),
        "reproduced": (-margin < low_90) & (high_90 < margin),
        "inconclusive": (low <= 0) & (high >= 0),
        "different": difference.abs() > margin,
    }
    verdict = np.select(list(tests.values()), list(tests), "trivially different")
    interval = ["" if np.isnan(one) else f" [{one:+.2f}, {two:+.2f}]" for one, two in zip(low, high, strict=True)]
    told = (difference.map("{:+.2f}".format) + interval).where(verdict != "", "")
    return both.assign(difference=difference, low=low, high=high, verdict=verdict, told=told)


def _named(item: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table with its rows named for people."""
    titles = {name: system.title for name, system in SYSTEMS.items()}
    if item in _CALLED:
        table["mode"] = table["mode"].map(_CALLED[item])
    elif item == "Table 5":
        thousands = reported.numbers(item).query("quantity == 'parameters_thousands'").set_index("model")["mean"]
        table.insert(1, "parameters, ours", [f"{parameters(name):,}" for name in table["model"]])
        table.insert(2, "parameters, paper", table["model"].map(thousands.map("{:.0f}k".format)).fillna(""))
        table["model"] = table["model"].map(titles)
    elif item == "Table 6":
        table["model"] = table["model"].map(titles) + table.pop("augmented").map(MARKS)
        table.columns = table.columns.str.replace("scale", "scale ").str.replace("isr", "largest / smallest")
    return table.rename(columns=_INDEX[item])


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
