"""Effects beside the spread over seeds, intervals, and what lists of effects say."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scalestudy.paper import effects
from scalestudy.paper.effects import HELD, NOT_HELD, UNCLEAR, Effect, effect, paired_effect, welch_interval

NAN = float("nan")


def test_welch_interval_agrees_with_scipy():
    first, second = np.array([2.1, 2.4, 2.3]), np.array([1.9, 2.6, 2.2, 2.0])
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    sides = (first.mean(), first.std(ddof=1), 3), (second.mean(), second.std(ddof=1), 4)
    np.testing.assert_allclose(welch_interval(*sides), expected)
    many = welch_interval(*(tuple(np.repeat(value, 2) for value in side) for side in sides))
    np.testing.assert_allclose(many, np.transpose([expected, expected]))


def test_welch_interval_needs_two_values_a_side():
    for first, second in (((1, NAN, 1), (2, 0.1, 3)), ((1, 0.1, 1), (2, 0.1, 3)), ((1, 0.1, 3), (2, NAN, 3))):
        assert np.isnan(welch_interval(first, second)).all()
    assert welch_interval((1.0, 0.0, 3), (2.0, 0.0, 3)) == (-1.0, -1.0)


def test_effect_is_set_against_the_pooled_spread():
    one = effect([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert (one.difference, one.spread, one.sign) == (-4.0, 1.0, -1)
    assert effect([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]).sign == 0
    assert effect([1.0], [5.0]).sign == 0 and "unknown" in str(effect([1.0], [5.0]))
    assert effect([1.0, 1.2], [5.0]).sign == -1


def some_effects(up, down, within=0, unknown=0):
    kinds = (1.0, 0.5, 0.0, 2.0), (-1.0, 0.5, -2.0, 0.0), (-0.1, 0.5, -1.0, 1.0), (-1.0, NAN, NAN, NAN)
    return [Effect(*kind) for kind, count in zip(kinds, (up, down, within, unknown), strict=True) for _ in range(count)]


@pytest.mark.parametrize(
    ("rule", "cases"),
    [
        (effects.all_positive, {(2, 0): HELD, (2, 1): NOT_HELD, (2, 0, 1): UNCLEAR, (2, 0, 0, 1): UNCLEAR}),
        (
            effects.majority_positive,
            {
                (5, 4): HELD, (4, 5): NOT_HELD, (2, 2): UNCLEAR, (1, 0, 0, 8): UNCLEAR, (0, 1, 0, 8): UNCLEAR,
                (0, 4, 5): UNCLEAR, (0, 5, 4): NOT_HELD, (5, 0, 0, 4): HELD,
            },
        ),
        (partial(effects.all_similar, margin=1.0), {(1, 1): HELD}),
        (partial(effects.all_similar, margin=0.9), {(1, 1): NOT_HELD, (0, 0, 0, 1): UNCLEAR}),
        (partial(effects.all_similar, margin=0.05), {(0, 0, 2): UNCLEAR}),
    ],
)  # fmt: skip
def test_what_lists_of_effects_say(rule, cases):
    """By the number of effects up, down, within their spread, and of unknown spread; the majority is one of all."""
    assert {counts: effects.decided(*rule(some_effects(*counts))) for counts in cases} == cases


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
