"""The paper's numbers and claims."""

import re

import pandas as pd
import pytest

from scalestudy.paper import reported

ROWS = {"fig3": 45, "table2": 6, "table3": 27, "table4": 9, "table5": 11, "table6": 8}


@pytest.mark.parametrize("name", reported.names())
def test_tables_are_complete_and_typed(name):
    frame = reported.table(name)
    assert len(frame) == ROWS[name]
    for column in frame.columns:
        if column in ("distribution", "scale_learning", "parameterisation", "model"):
            assert all(isinstance(value, str) for value in frame[column])
        elif column == "augmented":
            assert frame[column].dtype == bool
        else:
            assert frame[column].dtype == "float64"
            assert (frame[column].dropna() >= 0).all()
    assert reported.source(name)


def test_some_printed_numbers():
    table2 = reported.table("table2").set_index(["distribution", "scale_learning"])
    assert table2.loc[("log-uniform [1, 8]", "learned"), "test_error_mean"] == 2.872
    assert pd.isna(table2.loc[("log-uniform [1, 8]", "fixed"), "isr_std"])
    assert reported.table("table6")["augmented"].sum() == 3
    assert "notebook" in reported.source("fig3")


@pytest.mark.parametrize("name", ["fig3", "table2", "table3", "table4"])
def test_distributions_are_the_three_of_the_paper(name):
    assert tuple(reported.table(name)["distribution"].unique()) == reported.DISTRIBUTIONS


def test_callers_cannot_change_the_stored_table():
    mine = reported.table("table2")
    mine["test_error_mean"] = 0.0
    assert (reported.table("table2")["test_error_mean"] > 0).all()


def test_best_fixed_of_fig3_is_table2_apart_from_the_misprint():
    fig3 = reported.table("fig3")
    best = fig3.loc[fig3.groupby("distribution")["test_error_mean"].idxmin()].set_index("distribution")
    table2 = reported.table("table2").query("scale_learning == 'fixed'").set_index("distribution")
    pd.testing.assert_series_equal(best["test_error_mean"], table2["test_error_mean"])
    assert best["isr"].tolist() == [2.38, 4.76, 5.35]
    assert table2["isr_mean"].tolist() == [2.34, 4.76, 5.35]


@pytest.mark.parametrize("call", [reported.table, reported.source])
def test_unknown_name_lists_what_there_is(call):
    with pytest.raises(ValueError, match=r"name='table7' .*fig3, table2, table3, table4, table5, table6"):
        call("table7")


def test_damaged_file_is_refused(monkeypatch):
    monkeypatch.setattr(reported, "_read", lambda name: pd.DataFrame({"distribution": ["x"]}))
    with pytest.raises(ValueError, match=r"table2.csv has the columns \['distribution'\]"):
        reported.table("table2")


def test_claims_have_stable_ids_and_a_notebook():
    claims = reported.claims()
    assert claims["id"].is_unique
    assert all(re.fullmatch(r"[a-z0-9_]+", claim) for claim in claims["id"])
    assert set(claims["section"]) == {"4.1", "4.2", "4.3"}
    assert all(re.fullmatch(r"0\d_[a-z_]+", notebook) for notebook in claims["notebook"])
    assert not claims.isin(["nan", ""]).any().any()


def test_misprints_say_what_is_printed_and_why():
    misprints = reported.misprints()
    assert set(misprints["kind"]) == {"misprint", "inconsistent"}
    assert not misprints.isin(["nan", ""]).any().any()
    printed = " ".join(misprints["printed"])
    for number in ("7.65", "2.34", "3.47", "2^0.5"):
        assert number in printed
