"""Comparison of our seeds with printed means."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scalestudy.paper import compare, reported
from scalestudy.paper.compare import compare_means, compare_table, format_mean_std, noise_margin, welch_interval

NAN = float("nan")


def test_margins_follow_from_the_paper_repeating_itself():
    first = reported.table("table2").query("scale_learning == 'learned'")
    second = reported.table("table3").query("init_sigma_basis == 2 and init_isr == 3")
    for column, margin in (
        ("test_error", compare.MARGIN_TEST_ERROR),
        ("isr", compare.MARGIN_ISR),
        ("sigma_basis", compare.MARGIN_SIGMA_BASIS),
    ):
        assert noise_margin(first[f"{column}_mean"].tolist(), second[f"{column}_mean"].tolist()) == pytest.approx(
            margin, abs=0.005
        )


def test_welch_interval_agrees_with_scipy():
    first, second = np.array([2.1, 2.4, 2.3]), np.array([1.9, 2.6, 2.2, 2.0])
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    got = welch_interval((first.mean(), first.std(ddof=1), 3), (second.mean(), second.std(ddof=1), 4))
    np.testing.assert_allclose(got, expected)


def test_welch_interval_needs_two_values_a_side():
    assert np.isnan(welch_interval((1.0, NAN, 1), (2.0, 0.1, 3))).all()
    assert np.isnan(welch_interval((1.0, 0.1, 3), (2.0, NAN, 3))).all()
    assert welch_interval((1.0, 0.0, 3), (2.0, 0.0, 3)) == (-1.0, -1.0)


@pytest.mark.parametrize(
    ("ours", "paper", "verdict"),
    [
        ([2.30, 2.31, 2.29], (2.30, 0.01, 3), "reproduced"),
        ([2.80, 2.81, 2.79], (2.30, 0.01, 3), "different"),
        ([2.35, 2.39, 2.43, 2.35, 2.39, 2.43], (2.30, 0.03, 6), "trivially different"),
        ([2.1, 2.5, 2.3], (2.30, 0.2, 3), "inconclusive"),
        ([2.9, 2.1, 2.8], (2.30, 0.2, 3), "inconclusive"),
        ([2.30], (2.30, 0.01, 3), "inconclusive"),
        ([2.30, 2.31, 2.29], (2.30, NAN, 1), "inconclusive"),
        ([], (2.30, 0.01, 3), "not measured"),
    ],
)
def test_verdicts(ours, paper, verdict):
    comparison = compare_means(ours, *paper, margin=0.11)
    assert comparison.verdict == verdict in compare.VERDICTS
    assert comparison.ours_n == len(ours)


def test_smaller_runs_are_not_comparable_but_keep_their_numbers():
    comparison = compare_means([2.30, 2.31, 2.29], 2.30, 0.01, 3, margin=0.11, same_size=False)
    assert comparison.verdict == "not comparable"
    assert comparison.difference == pytest.approx(0.0) and np.isfinite(comparison.low_95)
    assert compare_means([], 2.30, 0.01, 3, margin=0.11, same_size=False).verdict == "not measured"


def test_numbers_of_a_comparison():
    comparison = compare_means([1.0, 2.0, 3.0], 1.5, 0.5, 3, margin=0.11)
    assert (comparison.ours_mean, comparison.ours_std, comparison.difference) == (2.0, 1.0, 0.5)
    assert comparison.low_95 < comparison.low_90 < 0.5 < comparison.high_90 < comparison.high_95
    assert comparison.ours_text == "2.00 ± 1.00 (n=3)"
    assert comparison.paper_text == "1.50 ± 0.50 (n=3)"
    assert comparison.difference_text.startswith("+0.50 [")
    assert compare_means([1.0], 1.5, 0.5, 3, margin=0.11).difference_text == "-0.50 [no interval]"
    assert compare_means([], 1.5, 0.5, 3, margin=0.11).difference_text == "-"


def test_format():
    assert format_mean_std(2.291, 0.067, 3) == "2.29 ± 0.07 (n=3)"
    assert format_mean_std(2.291, NAN, 1, digits=1) == "2.3 (n=1)"
    assert format_mean_std(NAN, NAN, 0) == "-"


def test_table_matches_keys_within_the_printed_digits():
    ours = pd.DataFrame(
        {
            "distribution": ["log-uniform [1, 8]"] * 4,
            "isr": [1.5 * 2 ** (11 / 6)] * 3 + [6.0],
            "test_error": [2.80, 2.81, 2.82, NAN],
        }
    )
    frame = compare_table(
        ours, reported.table("fig3"), ["distribution", "isr"], "test_error", compare.MARGIN_TEST_ERROR
    )
    assert len(frame) == 45
    measured = frame[frame["verdict"] != "not measured"]
    assert measured["isr"].tolist() == [5.35]
    assert measured["ours"].tolist() == ["2.81 ± 0.01 (n=3)"]
    assert measured["paper"].tolist() == ["2.81 ± 0.03 (n=3)"]
    assert measured["verdict"].tolist() == ["reproduced"]


def test_table_without_any_run():
    ours = pd.DataFrame({"distribution": [], "isr": [], "test_error": []})
    frame = compare_table(ours, reported.table("fig3"), ["distribution", "isr"], "test_error", 0.11, same_size=False)
    assert set(frame["verdict"]) == {"not measured"}


def test_table_matches_flags_and_missing_keys():
    ours = pd.DataFrame({"model": ["A", "A"], "plus": [True, False], "scale": [NAN, 1.0], "error": [1.0, 2.0]})
    paper = pd.DataFrame({"model": ["A"], "plus": [True], "scale": [NAN], "error_mean": [1.0], "error_std": [0.1]})
    frame = compare_table(ours, paper, ["model", "plus", "scale"], "error", 0.11)
    assert frame["ours_n"].tolist() == [1] and frame["ours_mean"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_means([NAN], 1.0, 0.1, 3, 0.1), "ours=.*one finite value per seed"),
        (lambda: compare_means([1.0], NAN, 0.1, 3, 0.1), "paper_mean=nan"),
        (lambda: compare_means([1.0], 1.0, -0.1, 3, 0.1), r"paper_std=-0\.1"),
        (lambda: compare_means([1.0], 1.0, 0.1, 0, 0.1), "paper_n=0"),
        (lambda: compare_means([1.0], 1.0, 0.1, 3, 0.0), r"margin=0\.0"),
        (lambda: welch_interval((1.0, 1.0, 3), (1.0, 1.0, 3), 1.0), r"confidence=1\.0"),
        (lambda: noise_margin([], []), "at least 1"),
        (lambda: noise_margin([1.0], [1.0, 2.0]), "same number"),
        (lambda: compare_table(pd.DataFrame(), reported.table("fig3"), ["isr"], "test_error", 0.1), "ours_frame lacks"),
        (
            lambda: compare_table(pd.DataFrame({"isr": [], "x": []}), reported.table("fig3"), ["isr"], "x", 0.1),
            "reported_frame lacks",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
