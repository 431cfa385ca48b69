"""Tables 5 and 6 as one row per configuration: the paper's numbers, our runs in their columns, margins, comparison."""

from __future__ import annotations

import pandas as pd

from scalestudy.paper import reported
from scalestudy.paper.compare import MARGIN_SIGMA_BASIS, MARGIN_TEST_ERROR, compare_table

KEYS = ("model", "augmented")
"""Columns that name a configuration of Tables 5 and 6."""

TABLE5_VALUES = {"test_error": MARGIN_TEST_ERROR}
"""Quantity of Table 5 with its margin.

Our choice: that of the tables of Sections 4.1 and 4.2, because the paper prints no error on MNIST-Scale twice, and its
errors (1.4 to 2.1 %) and their spreads (0.03 to 0.14) are of the same size there (2.3 to 2.9 %, 0.04 to 0.16).
"""

TABLE6_VALUES = {"scale1": MARGIN_SIGMA_BASIS, "scale2": 0.10, "scale3": 0.25, "scale4": 0.47}
"""Internal scales of Table 6 with their margins in pixels.

Our choice: `MARGIN_SIGMA_BASIS` for the first.  Scale i + 1 is sigma_basis * ISR^(i / 3), so at the start of learning,
(1.5, 2), a margin of `MARGIN_ISR` = 0.31 in the ISR is 1.5 * (i / 3) * 2^(i / 3 - 1) * 0.31 there.  The paper prints
these scales once, so its own repetitions cannot give a margin.
"""

SETTING = "setting"
"""Verdict on internal scales that nobody learned."""

TABLE6_NAMES = {"SESN": "SESN (Hermite)", "Ours (Learn Spacing)": "Ours (Learn Spacings)"}
"""Names in Table 6 that Table 5 writes otherwise."""


def paper_table5() -> pd.DataFrame:
    """Table 5 as printed, a row per model and augmentation: `KEYS`, test_error_mean, test_error_std (percent)."""
    printed = reported.table("table5")
    parts = [
        pd.DataFrame(
            {
                "model": printed["model"],
                "augmented": augmented,
                "test_error_mean": printed[f"{column}_mean"],
                "test_error_std": printed[f"{column}_std"],
            }
        )
        for augmented, column in ((False, "mnist_scale"), (True, "mnist_scale_plus"))
    ]
    return pd.concat(parts, ignore_index=True)


def paper_table6() -> pd.DataFrame:
    """Table 6 as printed, with the names of Table 5: `KEYS`, scale1_mean, scale1_std .. scale4_std (pixels).

    The scales of SESN and DISCO are settings, for which the paper prints no standard deviation: NaN.
    """
    return reported.table("table6").replace({"model": TABLE6_NAMES})


def with_table6_columns(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of `scalestudy.paper.frames.baseline_frame` with the columns of Table 6; NaN without four scales."""
    scales = pd.DataFrame(
        [one if len(one) == len(TABLE6_VALUES) else [float("nan")] * 4 for one in runs["internal_scales"]],
        index=runs.index,
        columns=list(TABLE6_VALUES),
        dtype=float,
    )
    return pd.concat([runs, scales], axis=1)


def compare_baselines(
    ours: pd.DataFrame, paper: pd.DataFrame, value: str, margin: float, same_size: bool
) -> pd.DataFrame:
    """`scalestudy.paper.compare.compare_table` for Tables 5 and 6, whose rows rest on different numbers of runs.

    Parameters
    ----------
    ours : pandas.DataFrame
        One row per run, with `KEYS` and `value`.
    paper : pandas.DataFrame
        `paper_table5` or `paper_table6`.
    value, margin, same_size
        As in `compare_table`.

    Returns
    -------
    pandas.DataFrame
        A row per row of `paper`, in its order.  Rows without a printed standard deviation are settings, not
        measurements: their verdict is `SETTING`, and no difference is told.
    """
    runs_behind = paper["model"].map(reported.mnist_scale_runs)
    parts = [
        compare_table(ours, rows, KEYS, value, margin, paper_n=int(count), same_size=same_size).set_index(rows.index)
        for count, rows in paper.groupby(runs_behind, sort=False)
    ]
    compared = pd.concat(parts).sort_index()
    settings = paper[f"{value}_std"].isna()
    compared.loc[settings, "verdict"] = SETTING
    compared.loc[settings, "difference_with_interval"] = "-"
    for side in ("ours", "paper"):
        compared.loc[settings, side] = [
            "-" if pd.isna(mean) else f"{mean:.2f}" for mean in compared.loc[settings, f"{side}_mean"]
        ]
    return compared
