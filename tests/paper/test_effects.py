"""Effects beside the spread over seeds, intervals, and what lists of effects say."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scalestudy.paper.effects import (
    Effect,
    all_positive,
    all_similar,
    effect,
    majority_positive,
    paired_effect,
    welch_interval,
)

NAN = float("nan")


def test_welch_interval_agrees_with_scipy():
    first, second = np.array([2.1, 2.4, 2.3]), np.array([1.9, 2.6, 2.2, 2.0])
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    sides = (first.mean(), first.std(ddof=1), 3), (second.mean(), second.std(ddof=1), 4)
    np.testing.assert_allclose(welch_interval(*sides), expected)
    many = welch_interval(*(tuple(np.repeat(value, 2) for value in side) for side in sides))
    np.testing.assert_allclose(many, np.transpose([expected, expected]))


def test_welch_interval_needs_two_values_a_side():
    assert np.isnan(welch_interval((1.0, NAN, 1), (2.0, 0.1, 3))).all()
    assert np.isnan(welch_interval((1.0, 0.1, 1), (2.0, 0.1, 3))).all()
    assert np.isnan(welch_interval((1.0, 0.1, 3), (2.0, NAN, 3))).all()
    assert welch_interval((1.0, 0.0, 3), (2.0, 0.0, 3)) == (-1.0, -1.0)


def test_effect_is_set_against_the_pooled_spread():
    one = effect([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert (one.difference, one.spread, one.sign) == (-4.0, 1.0, -1)
    assert effect([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]).sign == 0
    assert effect([1.0], [5.0]).sign == 0 and "unknown" in str(effect([1.0], [5.0]))
    assert effect([1.0, 1.2], [5.0]).sign == -1


def some_effects(up, down, within=0, unknown=0):
    return [
        *[Effect(1.0, 0.5, 0.0, 2.0)] * up,
        *[Effect(-1.0, 0.5, -2.0, 0.0)] * down,
        *[Effect(-0.1, 0.5, -1.0, 1.0)] * within,
        *[Effect(-1.0, NAN, NAN, NAN)] * unknown,
    ]


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((5, 4), "held"), ((4, 5), "did not hold"), ((2, 2), "unclear"), ((1, 0, 0, 8), "unclear"),
        ((0, 1, 0, 8), "unclear"), ((0, 4, 5, 0), "unclear"), ((0, 5, 4, 0), "did not hold"), ((5, 0, 0, 4), "held"),
    ],
)  # fmt: skip
def test_majority_is_symmetric_and_counts_all_effects(counts, verdict):
    assert majority_positive(some_effects(*counts)) == verdict


@pytest.mark.parametrize(
    ("counts", "margin", "verdict"),
    [
        ((1, 1), 1.0, "held"), ((1, 1), 0.9, "did not hold"), ((0, 0, 2), 0.05, "unclear"),
        ((0, 0, 0, 1), 0.9, "unclear"),
    ],
)  # fmt: skip
def test_similar_within_a_margin(counts, margin, verdict):
    assert all_similar(some_effects(*counts), margin) == verdict


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [((2, 0), "held"), ((2, 1), "did not hold"), ((2, 0, 1), "unclear"), ((2, 0, 0, 1), "unclear")],
)
def test_all_positive(counts, verdict):
    assert all_positive(some_effects(*counts)) == verdict


def test_pairs_of_seeds_take_out_what_a_seed_does_to_both_sides():
    first, second = pd.Series([1.0, 5.0, 9.0], [0, 1, 2]), pd.Series([8.7, 4.9, 0.8], [2, 1, 0])
    pairs = paired_effect(first, second)
    assert pairs.paired and pairs.difference == pytest.approx(0.2)
    assert pairs.spread == pytest.approx(0.1 / np.sqrt(2)) and pairs.sign == 1 and effect(first, second).sign == 0
    expected = stats.ttest_rel(first, second.sort_index()).confidence_interval()
    assert (pairs.low, pairs.high) == pytest.approx(tuple(expected))
    assert str(pairs).startswith("+0.20 (paired seed spread 0.07")
    for other in ([1.0, 2.0], pd.Series([4.0, 2.0], [2, 1])):  # no seeds, two in common
        assert paired_effect(first, other) == effect(first, other)
