"""Tables 5 and 6 in rows: the paper's numbers, our columns, and how many runs stand behind each mean."""

import math

import numpy as np
import pandas as pd
import pytest

from scalestudy.paper import reported
from scalestudy.paper.baseline_tables import (
    TABLE6_VALUES,
    compare_baselines,
    paper_table5,
    paper_table6,
    with_table6_columns,
)
from scalestudy.paper.compare import MARGIN_ISR, MARGIN_SIGMA_BASIS, welch_interval


def test_table5_in_rows():
    printed, rows = reported.table("table5"), paper_table5()
    assert len(rows) == 22 and not rows.isna().any().any()
    assert not rows.duplicated(["model", "augmented"]).any()
    cells = rows.set_index(["model", "augmented"])
    for row in printed.itertuples(index=False):
        assert tuple(cells.loc[(row.model, False)]) == (row.mnist_scale_mean, row.mnist_scale_std)
        assert tuple(cells.loc[(row.model, True)]) == (row.mnist_scale_plus_mean, row.mnist_scale_plus_std)


def test_table6_has_the_names_of_table5():
    rows = paper_table6()
    assert set(rows["model"]) <= set(reported.table("table5")["model"])
    assert rows["model"].tolist()[:4] == [
        "SESN (Hermite)", "DISCO", "Ours (Learn ISR)", "Ours (Learn Spacings)",
    ]  # fmt: skip
    assert rows["scale1_std"].isna().tolist() == [True] * 2 + [False] * 6  # settings
    assert rows["augmented"].tolist() == [False] * 5 + [True] * 3


def test_margins_follow_from_that_of_the_isr():
    for i, value in enumerate(("scale2", "scale3", "scale4"), 1):
        slope = 1.5 * (i / 3) * 2 ** (i / 3 - 1)
        assert TABLE6_VALUES[value] == pytest.approx(slope * MARGIN_ISR, abs=0.006)
        numeric = (1.5 * (2 + 1e-6) ** (i / 3) - 1.5 * 2 ** (i / 3)) / 1e-6
        assert slope == pytest.approx(numeric, rel=1e-5)
    assert TABLE6_VALUES["scale1"] == MARGIN_SIGMA_BASIS


def test_columns_of_table6():
    runs = pd.DataFrame(
        {"model": ["a", "b", "c"], "internal_scales": [[1.0, 2.0, 3.0, 4.0], [], [1.5]]}, index=[5, 6, 9]
    )
    wide = with_table6_columns(runs)
    assert wide.loc[5, list(TABLE6_VALUES)].tolist() == [1, 2, 3, 4]
    assert wide.loc[[6, 9], list(TABLE6_VALUES)].isna().all().all()
    assert with_table6_columns(runs.iloc[:0])["scale1"].tolist() == []


def test_numbers_of_runs_behind_the_means():
    """Intervals by the formula itself: six runs of the copied baselines, five of the rows "Ours"."""
    values = [1.7, 1.8, 1.75]
    ours = pd.DataFrame(
        [(model, augmented, value) for model in ("SESN (Hermite)", "Ours (Learn ISR)") for augmented in (False, True)
         for value in values],
        columns=["model", "augmented", "test_error"],
    )  # fmt: skip
    paper = paper_table5()
    compared = compare_baselines(ours, paper, "test_error", 0.11, same_size=True)
    assert compared["model"].tolist() == paper["model"].tolist()
    assert compared["augmented"].tolist() == paper["augmented"].tolist()
    found = compared.set_index(["model", "augmented"])
    assert set(found["paper_n"][found.index.get_level_values(0).str.startswith("Ours")]) == {5}
    assert set(found["paper_n"][~found.index.get_level_values(0).str.startswith("Ours")]) == {6}
    side = (np.mean(values), np.std(values, ddof=1), 3)
    for model, mean, std, n in (("SESN (Hermite)", 1.68, 0.06, 6), ("Ours (Learn ISR)", 1.72, 0.05, 5)):
        low, high = welch_interval(side, (mean, std, n))
        text = found.loc[(model, False), "difference_with_interval"]
        assert text == f"{side[0] - mean:+.2f} [{low:+.2f}, {high:+.2f}]"
        other = welch_interval(side, (mean, std, 11 - n))
        assert not math.isclose(low, other[0], abs_tol=1e-4)
    assert found["ours"].eq("-").sum() == 18


@pytest.mark.parametrize("model", reported.table("table5")["model"])
def test_five_of_ours_six_of_the_others(model):
    assert reported.mnist_scale_runs(model) == (5 if "Ours" in model else 6)
