"""The paper's numbers: complete, of the right kinds, in agreement with each other, and with their margins."""

import numpy as np
import pytest

from scalestudy.models.systems import SYSTEMS
from scalestudy.paper import reported
from scalestudy.paper.reported import DISTRIBUTIONS, KEYS, MARGIN, numbers

SCALES = {"Table 4": ["scale1", "scale2", "scale3"], "Table 6": ["scale1", "scale2", "scale3", "scale4"]}


def one(item, quantity, column="mean", **keys):
    rows = numbers(item)
    for key, value in {"quantity": quantity, **keys}.items():
        rows = rows[rows[key] == value]
    return rows[column].tolist()


def test_schema():
    mine = numbers()
    mine["mean"] = 0.0  # a copy
    table = numbers()
    assert list(table.columns) == ["item", *KEYS, "quantity", "mean", "std", "n", "margin"]
    assert table["augmented"].dtype == bool
    assert (table.dtypes[["init_sigma", "init_isr", "mean", "std", "n", "margin"]] == "float64").all()
    assert not table.drop(columns=["init_sigma", "init_isr", "std", "n", "margin"]).isna().any().any()
    assert (table["mean"] > 0).all() and (table["std"].dropna() >= 0).all() and (table["margin"].dropna() > 0).all()
    assert set(table["model"]) <= {"table1", *SYSTEMS} and set(table["distribution"]) == {"", *DISTRIBUTIONS}
    assert set(table["mode"]) == {"", "fixed", "step_ratio", "spacing", "direct"}
    assert not table.duplicated(["item", *KEYS, "quantity"]).any()
    assert table["margin"].notna().sum() == 226, "with tau, the 227 numbers of the paper"


def test_table_5_is_in_the_order_of_the_systems():
    eleven = [name for name, system in SYSTEMS.items() if system.in_table5]
    assert one("Table 5", "test_error", "model") == eleven * 2
    assert one("Table 5", "parameters_thousands", "model") == eleven


def test_margins_follow_from_the_paper_repeating_itself():
    """Twice the root mean square difference between the two reports of (2, 3)."""
    for quantity in ("test_error", "isr", "sigma_basis"):
        first = one("Table 2", quantity, mode="step_ratio")
        second = one("Table 3", quantity, init_sigma=2, init_isr=3)
        margin = 2 * np.sqrt(np.mean(np.subtract(first, second) ** 2))
        told = {m for item in ("Figure 3", "Table 2", "Table 3", "Table 5") for m in one(item, quantity, "margin")}
        assert len(told) == 1 and told.pop() == pytest.approx(margin, abs=0.005)
    assert {*one("Table 4", "test_error", "margin"), MARGIN} == {MARGIN}


@pytest.mark.parametrize(("item", "sigma", "isr"), [("Table 4", 2.0, 3.0), ("Table 6", 1.5, 2.0)])
def test_margins_of_internal_scales_follow_from_those_of_sigma_and_isr(item, sigma, isr):
    """Error propagation at the start: scale i of n is sigma * isr ** (i / (n - 1))."""
    of_isr, of_sigma = one("Table 2", "isr", "margin")[0], one("Table 2", "sigma_basis", "margin")[0]
    for i, quantity in enumerate(SCALES[item]):
        power = i / (len(SCALES[item]) - 1)
        expected = sigma * power * isr ** (power - 1) * of_isr if i else of_sigma
        (margin,) = {value for value in one(item, quantity, "margin") if np.isfinite(value)}
        assert margin == pytest.approx(expected, abs=0.006)


def test_best_fixed_of_figure_3_is_table_2_apart_from_the_misprint():
    table = numbers("Figure 3")
    best = table.loc[table.groupby("distribution")["mean"].idxmin()]
    assert best["mean"].tolist() == one("Table 2", "test_error", mode="fixed")
    assert best["init_isr"].tolist() == [2.38, 4.76, 5.35]
    assert one("Table 2", "isr", mode="fixed") == [2.34, 4.76, 5.35]


def test_misprints_say_what_is_printed_and_why():
    misprints = reported.misprints()
    assert set(misprints["kind"]) == {"misprint", "inconsistent"}
    assert not misprints.isin(["nan", ""]).any().any()
    for number in ("7.65", "2.34", "3.47", "2^0.5"):
        assert number in " ".join(misprints["printed"])
