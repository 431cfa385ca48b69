"""Section 4.3 in tables for people: Tables 5 and 6 beside the paper's, and what the paper does not print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd
import torch

from scalestudy.models import SYSTEMS, build
from scalestudy.paper import reported
from scalestudy.paper.baseline_tables import (
    TABLE5_VALUES,
    TABLE6_VALUES,
    compare_baselines,
    paper_table5,
    paper_table6,
    with_table6_columns,
)
from scalestudy.paper.compare import format_mean_std
from scalestudy.paper.tables import is_paper_size
from scalestudy.training.tasks import DATA_SCALE_BINS

ABSENT = "-"
"""What a cell says where there is nothing to say."""

VERDICTS_FROM_WORST = (
    "setting", "not measured", "not comparable", "different", "inconclusive", "trivially different", "reproduced",
)  # fmt: skip
"""Order in which the verdict of a row of Table 6 is chosen from those of its four scales (our choice)."""

MARKS = {False: "", True: "+"}
"""How names and columns say whether runs were trained with random rescaling."""


@cache
def parameters(name: str) -> int:
    """Trainable parameters of a system, counted on the network itself; the global random state is left as it was.

    Parameters
    ----------
    name : str
        One of `scalestudy.models.SYSTEMS`.

    Examples
    --------
    >>> parameters("cnn")
    494549
    """
    with torch.random.fork_rng(devices=[]):
        return sum(one.numel() for one in build(name).parameters() if one.requires_grad)


def run_sizes(runs: pd.DataFrame) -> str:
    """Images, epochs and realisations of runs on MNIST-Scale, in words; several sizes are all named.

    Examples
    --------
    >>> run_sizes(pd.DataFrame({"train_images": [400, 400], "epochs": [2, 2], "seed": [0, 1]}))
    '400 images, 2 epochs, 2 realisations'
    """
    images, epochs = (" or ".join(map(str, sorted(set(runs[name])))) for name in ("train_images", "epochs"))
    seeds = runs["seed"].nunique()
    return f"{images} images, {epochs} epoch{'s' * (epochs != '1')}, {seeds} realisation{'s' * (seeds != 1)}"


def shown_systems(runs: pd.DataFrame) -> list[str]:
    """Names of the eleven systems of Table 5, in its order, then of the variants that there are runs of."""
    there = set(runs["name"])
    return [name for name, system in SYSTEMS.items() if system.in_table5 or name in there]


def table5(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 5: parameters and test error (percent) of every system, without and with random rescaling ("+").

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_frame`.

    Returns
    -------
    pandas.DataFrame
        A row per system of `shown_systems`: model, parameters (counted) and the paper's, and for each of plain and "+"
        ours, the paper's, their difference with a 95 % interval, and a verdict (see `compare`).  Systems
        that no table of the paper has are shown without a comparison.
    """
    compared = compare_baselines(
        runs, paper_table5(), "test_error", TABLE5_VALUES["test_error"], is_paper_size(runs)
    ).set_index(["model", "augmented"])
    printed = reported.table("table5").set_index("model")["parameters_thousands"]
    rows = []
    for name in shown_systems(runs):
        title, in_paper = SYSTEMS[name].title, SYSTEMS[name].in_table5
        row = {
            "model": title,
            "parameters, ours": f"{parameters(name):,}",
            "parameters, paper": f"{printed[title]:.0f}k" if in_paper else ABSENT,
        }
        for augmented, mark in MARKS.items():
            if in_paper:
                cells = _compared_cells(compared.loc[(title, augmented)])
            else:
                cells = (_mean(_of(runs, name, augmented)["test_error"]), ABSENT, ABSENT, ABSENT)
            titles = (f"test error{mark}, ours", f"test error{mark}, paper", f"difference{mark}", f"verdict{mark}")
            row |= dict(zip(titles, cells, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _compared_cells(row: pd.Series) -> tuple[str, str, str, str]:
    difference = ABSENT if row["verdict"] == "not comparable" else row["difference_with_interval"]
    return row["ours"], row["paper"], difference, row["verdict"]


def table6(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 6: internal scales (pixels of the enlarged images) of SESN, DISCO and the networks that learn theirs.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `scalestudy.paper.frames.baseline_frame`.

    Returns
    -------
    pandas.DataFrame
        Rows without, then with "+", in the order of Table 5: those of the paper's Table 6, and those of our runs that
        have internal scales and that it does not print.  Columns: model; scale 1 .. 4 and the largest over the
        smallest, ours and the paper's (there: of the printed means); verdict, the least favourable of the four scales
        by `VERDICTS_FROM_WORST` (the scorecard has each).
    """
    paper, wide = paper_table6(), with_table6_columns(runs)
    same_size = is_paper_size(runs)
    compared = {
        value: compare_baselines(wide, paper, value, margin, same_size).set_index(["model", "augmented"])
        for value, margin in TABLE6_VALUES.items()
    }
    ratios = paper.set_index(["model", "augmented"]).eval("scale4_mean / scale1_mean")
    rows = []
    for name, augmented, own in _groups(runs):
        key, scales = (SYSTEMS[name].title, augmented), [list(one) for one in own["internal_scales"] if len(one)]
        if not scales and key not in ratios.index:
            continue
        printed = [frame.loc[key] for frame in compared.values()] if key in ratios.index else []
        row = {"model": key[0] + MARKS[augmented]}
        for index in range(len(TABLE6_VALUES)):
            values = pd.Series([one[index] for one in scales if index < len(one)], dtype=float)
            row[f"scale {index + 1}, ours"] = _mean(values)
            row[f"scale {index + 1}, paper"] = printed[index]["paper"] if printed else ABSENT
        row["largest / smallest, ours"] = _mean(own["isr"])
        row["largest / smallest, paper"] = f"{ratios[key]:.2f}" if printed else ABSENT
        verdicts = [one["verdict"] for one in printed]
        row["verdict"] = min(verdicts, key=VERDICTS_FROM_WORST.index) if printed else ABSENT
        rows.append(row)
    return pd.DataFrame(rows)


def systems_table(runs: pd.DataFrame, by_scale: pd.DataFrame, by_factor: pd.DataFrame) -> pd.DataFrame:
    """What the paper does not print: each system's error, invariance, error by data scale, time and size in one row.

    Not in the paper: our choice, because a test error alone does not say whether a system is equivariant, or at what
    price.

    Parameters
    ----------
    runs, by_scale, by_factor : pandas.DataFrame
        As from `baseline_frame`, `baseline_scale_frame` and `equivariance_frame` of `scalestudy.paper.frames`.

    Returns
    -------
    pandas.DataFrame
        A row per system that there are runs of, without, then with "+", in the order of Table 5.  Errors and changed
        predictions in percent.  "change of logits" is relative, no unit: the mean over the factors other than 1, and
        that at 0.5 and at 2, where a scale-invariant network has 0; spreads are over the runs.  Milliseconds per image
        are medians over the runs on the machine that made most of them, see "timed on".  "-" where it was not measured.
    """
    changed = by_factor[~np.isclose(by_factor["factor"].astype(float), 1.0)]
    rows = []
    for name, augmented, own in _groups(runs):
        if own.empty:
            continue
        edges, factors = _of(by_scale, name, augmented), _of(changed, name, augmented)
        per_run = factors.groupby("seed")[["relative_change", "prediction_change"]].mean()
        row = {
            "model": SYSTEMS[name].title + MARKS[augmented],
            "parameters": f"{parameters(name):,}",
            "test error": _mean(own["test_error"], counted=False),
            "change of logits": _mean(per_run["relative_change"], counted=False),
            "at 0.5": _mean(_at(factors, "factor", 0.5)["relative_change"], counted=False),
            "at 2": _mean(_at(factors, "factor", 2.0)["relative_change"], counted=False),
            "changed predictions": _mean(per_run["prediction_change"], 1, counted=False),
        }
        for edge in (DATA_SCALE_BINS[0], DATA_SCALE_BINS[-1]):
            errors = _at(edges, "data_scale", edge)["test_error"]
            row[f"error at data scale {edge:.1f}-{edge + 0.1:.1f}"] = _mean(errors, 1, counted=False)
        machine = timed_on(own).mode()[0]
        timed = own[timed_on(own) == machine]
        row |= {
            "training, ms per image": _median(timed["train_ms_per_image"]),
            "inference, ms per image": _median(timed["inference_ms_per_image"]),
            "timed on": machine,
            "internal scales": _mean_scales(own["internal_scales"]),
            "size": run_sizes(own),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def timed_on(runs: pd.DataFrame) -> pd.Series:
    """Device and number of threads of each run, in words.

    Examples
    --------
    >>> timed_on(pd.DataFrame({"device": ["cpu (x86_64)"], "threads": [2]})).tolist()
    ['cpu (x86_64), 2 threads']
    """
    return pd.Series(
        [
            f"{row.device}, {row.threads} thread{'s' * (row.threads != 1)}"
            for row in runs[["device", "threads"]].itertuples(index=False)
        ],
        index=runs.index,
        dtype=object,
    )


def _groups(runs: pd.DataFrame) -> Iterator[tuple[str, bool, pd.DataFrame]]:
    """Every system without, then every system with "+", and its runs, which may be none."""
    return ((name, augmented, _of(runs, name, augmented)) for augmented in MARKS for name in SYSTEMS)


def _of(frame: pd.DataFrame, name: str, augmented: bool) -> pd.DataFrame:
    return frame[(frame["name"] == name) & (frame["augmented"] == augmented)]


def _at(frame: pd.DataFrame, column: str, value: float) -> pd.DataFrame:
    return frame[np.isclose(frame[column].astype(float), value)]


def _mean(values: pd.Series, digits: int = 2, counted: bool = True) -> str:
    """Mean and spread of the values that are there, for people, with their number if `counted`."""
    there = values.astype(float).dropna()
    text = format_mean_std(there.mean(), there.std(), len(there), digits)
    return text if counted else text.split(" (n=")[0]


def _median(values: pd.Series) -> str:
    there = values.astype(float).dropna()
    return f"{there.median():.3g}" if len(there) else ABSENT


def _mean_scales(scales: Sequence[Sequence[float]]) -> str:
    """Means over the runs of each internal scale, in pixels."""
    there = [list(one) for one in scales if len(one)]
    return ", ".join(f"{value:.2f}" for value in np.mean(there, axis=0)) if there else ABSENT
