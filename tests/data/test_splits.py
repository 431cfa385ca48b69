"""The splits: sizes, class balance, streams. The published indices are compared in tests/reference."""

import numpy as np
import pytest
import torch

from scalestudy.data import LogUniform, dynamic_scale_mnist, mnist_scale, splits
from scalestudy.data.splits import SPLIT_NAMES, Split, check_counts, mnist_scale_draws, stratified_split

LABELS = np.random.RandomState(7).choice(10, size=70_000, p=np.arange(1, 11) / 55)


@pytest.mark.parametrize("name", ["dynamic_scale", "mnist_scale"])
def test_splits_are_disjoint_stratified_and_of_a_seed(name: str) -> None:
    split, counts = getattr(splits, f"{name}_split"), (10_000, 5_000 if name == "dynamic_scale" else 2_000, 50_000)
    parts = split(LABELS, 3)
    assert tuple(parts) == SPLIT_NAMES == ("train", "validation", "test")
    assert tuple(len(part) for part in parts.values()) == counts
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together)
    share = np.bincount(LABELS) / len(LABELS)
    for part in parts.values():
        assert np.abs(np.bincount(LABELS[part]) - share * len(part)).max() < 2
    assert np.array_equal(split(LABELS, 3)["train"], parts["train"])
    assert not np.array_equal(split(LABELS, 4)["train"], parts["train"])


def test_ties_are_drawn_from_the_stream() -> None:
    labels = np.repeat(np.arange(4), 3)  # three of each: part 1 of size 6 takes 1.5 of each, two classes get 2
    parts = [stratified_split(labels, (6, 6), np.random.RandomState(seed))[0] for seed in range(30)]
    winners = {tuple(np.bincount(labels[part])) for part in parts}
    assert all(sorted(winner) == [1, 1, 2, 2] for winner in winners)
    assert len(winners) > 1


def test_draws_have_range_and_order() -> None:
    draws = mnist_scale_draws(2)
    assert [len(draws[name]) for name in SPLIT_NAMES] == [10_000, 2_000, 50_000]
    stream = np.random.RandomState([2]).random_sample(124_000)
    assert draws["train"][0] == 0.3 + 0.7 * stream[1]
    assert draws["test"][0] == 0.3 + 0.7 * stream[20_001], "the test scales follow the training scales"
    assert all(scales.min() >= 0.3 and scales.max() < 1.0 for scales in draws.values())


@pytest.mark.parametrize("counts", [(0, 1, 1), (10_001, 1, 1), (1, 2_001, 1), (1, 1)])
def test_counts_are_checked(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"counts must be .* from 1 to \(10000, 2000, 50000\), got \(.*; lower them"):
        check_counts(counts, (10_000, 2_000, 50_000))


@pytest.fixture(scope="module", params=["Dynamic Scale MNIST", "MNIST-Scale"])
def split(request, mnist) -> Split:
    if request.param == "MNIST-Scale":
        return mnist_scale(0, counts=(30, 1, 1))["train"]
    return dynamic_scale_mnist(0, LogUniform(low=1, high=8), (30, 1, 1), shrink=3)["train"]


@pytest.mark.parametrize("data_scale", [None, 0.5, 8.0])
def test_images_are_normalised_with_the_statistics_of_the_split(split, data_scale) -> None:
    images, labels = split.batch([4, 1], data_scale)
    expected = (split.scaled([4, 1], data_scale).double() / 255 - split.mean) / split.std
    assert images.dtype == torch.float32
    assert torch.allclose(images.double(), expected[:, None], atol=1e-5)
    assert torch.equal(labels, split.labels[[4, 1]])


def test_batches_show_every_image_once(split) -> None:
    """In order, or in one that a generator draws."""
    orders = {seed: torch.randperm(30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)}
    for seed, order in {None: torch.arange(30), **orders}.items():
        batches = list(split.batches(8, None if seed is None else torch.Generator().manual_seed(seed)))
        assert [len(labels) for _, labels in batches] == [8, 8, 8, 6]
        for found, expected in zip(zip(*batches, strict=True), split.batch(order), strict=True):
            assert torch.equal(torch.cat(found), expected)
