"""The splits: sizes, class balance, streams, messages. The published indices are compared in tests/reference."""

import numpy as np
import pytest

from scalestudy.data.splits import (
    SPLIT_NAMES,
    dynamic_scale_split,
    mnist_scale_draws,
    mnist_scale_split,
    stratified_split,
)

LABELS = np.random.RandomState(7).choice(10, size=70_000, p=np.arange(1, 11) / 55)


@pytest.mark.parametrize(
    ("split", "counts"), [(dynamic_scale_split, (10_000, 5_000, 50_000)), (mnist_scale_split, (10_000, 2_000, 50_000))]
)
def test_splits_are_disjoint_and_stratified(split: object, counts: tuple[int, ...]) -> None:
    parts = split(LABELS, 3)
    assert tuple(parts) == SPLIT_NAMES == ("train", "validation", "test")
    assert tuple(len(part) for part in parts.values()) == counts
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together)
    share = np.bincount(LABELS) / len(LABELS)
    for part in parts.values():
        assert np.abs(np.bincount(LABELS[part]) - share * len(part)).max() < 2


def test_the_seed_matters_and_repeats() -> None:
    first, again, other = (dynamic_scale_split(LABELS, seed)["train"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_ties_are_drawn_from_the_stream() -> None:
    labels = np.repeat(np.arange(4), 3)  # three of each: part 1 of size 6 takes 1.5 of each, two classes get 2
    winners = {
        tuple(np.bincount(labels[stratified_split(labels, (6, 6), np.random.RandomState(s))[0]])) for s in range(30)
    }
    assert all(sorted(winner) == [1, 1, 2, 2] for winner in winners)
    assert len(winners) > 1


def test_gaps_between_classes_do_not_matter() -> None:
    near = stratified_split(LABELS, (100, 200), np.random.RandomState(0))
    far = stratified_split(LABELS * 5 + 2, (100, 200), np.random.RandomState(0))
    assert all(np.array_equal(a, b) for a, b in zip(near, far, strict=True))


def test_draws_have_range_and_order() -> None:
    draws = mnist_scale_draws(2)
    assert {name: len(scales) for name, scales in draws.items()} == {
        "train": 10_000,
        "validation": 2_000,
        "test": 50_000,
    }
    stream = np.random.RandomState([2]).random_sample(124_000)
    assert draws["train"][0] == 0.3 + 0.7 * stream[1]
    assert draws["test"][0] == 0.3 + 0.7 * stream[20_001], "the test scales follow the training scales"
    assert all(scales.min() >= 0.3 and scales.max() < 1.0 for scales in draws.values())


@pytest.mark.parametrize("sizes", [(0, 5), (6, 7), (3, -1), (3,)])
def test_sizes_are_checked(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sizes must be two counts .* at most the 12 labels, got .*ask for smaller"):
        stratified_split(np.zeros(12, dtype=int), sizes, np.random.RandomState(0))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "0"])
def test_seed_is_checked(seed: object) -> None:
    for function in (lambda: dynamic_scale_split(LABELS, seed), lambda: mnist_scale_draws(seed)):
        with pytest.raises(ValueError, match=r"seed must be an integer in 0 .. 4294967295, got"):
            function()


@pytest.mark.parametrize("labels", [np.zeros((2, 3), int), np.zeros(9), np.array([-1, 2])])
def test_labels_are_checked(labels: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"labels must be a one-dimensional array of integers of at least 0, got shape"
    ):
        mnist_scale_split(labels, 0)
