"""MNIST-Scale: splits, batches, other data scales, and the augmentation with Pillow's pixels."""

import pytest
import torch
from torch import Tensor

from scalestudy.data import DataError, MnistScaleSplit, mnist_scale, realisations
from scalestudy.data.realisations import random_factors


@pytest.fixture(scope="module")
def splits(mnist) -> dict[str, MnistScaleSplit]:
    return mnist_scale(0, counts=(600, 200, 300))


def levels(images: Tensor) -> Tensor:
    """Grey levels of normalised images."""
    return ((images[:, 0].double() * 0.2161 + 0.0607) * 255).round().to(torch.uint8)


def test_splits_are_scaled_digits(splits, mnist, pillow):
    assert {name: len(split) for name, split in splits.items()} == {"train": 600, "validation": 200, "test": 300}
    assert len(torch.cat([split.indices for split in splits.values()]).unique()) == 1_100
    for split in splits.values():
        assert torch.equal(split.labels, mnist.labels[split.indices])
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert (split.data_scales.dtype, split.indices.dtype) == (torch.float64, torch.int64)
        assert split.data_scales.min() >= 0.3 and split.data_scales.max() < 1
        assert torch.equal(split.images[:50], pillow(mnist.images[split.indices[:50]], split.data_scales[:50], 14.5))


def test_fewer_images_are_the_first_ones(splits):
    small = mnist_scale(0, counts=(7, 5, 3), dtype=torch.float64)
    for (name, split), count in zip(small.items(), (7, 5, 3), strict=True):
        assert len(split) == count
        for field in ("images", "labels", "data_scales", "indices"):
            assert torch.equal(getattr(split, field), getattr(splits[name], field)[:count])
        assert split.batch([0])[0].dtype == torch.float64


def test_a_whole_realisation_that_is_not_the_published_one_is_refused(mnist, monkeypatch):
    monkeypatch.setattr(realisations, "MNIST_SCALE_COUNTS", (3, 2, 2))
    with pytest.raises(DataError, match=r"realisation 2 of MNIST-Scale, .*SHA-256 .*, expected d10d0b0c.*use another"):
        mnist_scale(2, counts=(3, 2, 2))
    mnist_scale(2, counts=(3, 2, 1))


def test_digits_at_one_data_scale_are_pillows(splits, mnist, pillow):
    split, shown = splits["test"], slice(100, 130)
    digits = mnist.images[split.indices[shown]]
    for data_scale in (0.25, 0.5, 1.0, 1.7):
        expected = pillow(digits, torch.full((30,), data_scale, dtype=torch.float64), 14.5)
        images, labels = split.batch(shown, data_scale)
        assert torch.equal(levels(images), expected)
        assert torch.equal(labels, split.labels[shown])
    assert torch.equal(split.scaled(shown, 1.0), digits)
    with pytest.raises(ValueError, match=r"data_scales must be greater than 0 and finite, got 0.0"):
        split.scaled([0], 0.0)


def test_all_splits_are_normalised_with_the_published_constants(splits):
    assert {(split.mean, split.std) for split in splits.values()} == {(0.0607, 0.2161)}


def test_augmentation_is_pillows_rescaling_of_the_8_bit_image_afresh_in_each_epoch(splits, pillow):
    split, generator = splits["train"], torch.Generator().manual_seed(5)
    draws = torch.rand(1_200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for epoch in draws.split(600):
        found = levels(torch.cat([images for images, _ in split.batches(256, augmentation=generator)]))
        assert torch.equal(found, pillow(split.images, 0.5 + 1.5 * epoch, 14.5))
        assert not torch.equal(found, pillow(split.images, 0.5 + 1.5 * epoch, 14.0))
        assert not torch.equal(found, pillow(split.images, torch.exp2(2 * epoch - 1), 14.5)), "log-uniform"


def test_factors_in_one_call_are_those_of_several():
    """Drawn for a whole epoch at once they are what batches draw one by one, as in the released code."""
    at_once, one_by_one = (torch.Generator().manual_seed(4) for _ in range(2))
    parts = torch.cat([random_factors(count, one_by_one) for count in (128, 128, 16, 4, 2, 1, 17)])
    assert torch.equal(random_factors(len(parts), at_once), parts)
    assert parts.min() >= 0.5 and parts.max() < 2.0


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"seed must be one of the published realisations of .*, 0 \.\. 5, got -1"):
        mnist_scale(-1)
    with pytest.raises(ValueError, match=r"counts must be .*\(10000, 2000, 50000\), got \(1, 2001, 1\)"):
        mnist_scale(0, counts=(1, 2_001, 1))
