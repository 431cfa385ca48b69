"""MNIST-Scale: splits, batches, other data scales, and the augmentation with Pillow's pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scalestudy.data import MnistScaleSplit, load_mnist, mnist_scale
from scalestudy.data.batching import batch_positions
from scalestudy.data.mnist_scale import random_factors


@pytest.fixture(scope="module")
def splits(mnist) -> dict[str, MnistScaleSplit]:
    return mnist_scale(0)


def pillow(images: Tensor, factors: Tensor, centre: float) -> Tensor:
    """Pillow's own affine bicubic transform about a centre, image by image."""
    image_module = pytest.importorskip("PIL.Image")
    affine, bicubic = image_module.Transform.AFFINE, image_module.Resampling.BICUBIC
    made = []
    for image, factor in zip(images.numpy(), factors.tolist(), strict=True):
        m = 1.0 / factor
        b = centre - m * centre
        made.append(np.asarray(image_module.fromarray(image).transform((28, 28), affine, (m, 0, b, 0, m, b), bicubic)))
    return torch.from_numpy(np.stack(made))


def levels(images: Tensor) -> Tensor:
    """Grey levels of normalised images."""
    return ((images[:, 0].double() * 0.2161 + 0.0607) * 255).round().to(torch.uint8)


def test_splits(splits):
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 10_000, "validation": 2_000, "test": 50_000,
    }  # fmt: skip
    labels = load_mnist().labels
    seen = torch.cat([split.indices for split in splits.values()])
    assert len(seen.unique()) == 62_000
    for split in splits.values():
        assert torch.equal(split.labels, labels[split.indices])
        assert (split.images.dtype, split.labels.dtype, split.data_scales.dtype) == (
            torch.uint8, torch.int64, torch.float64,
        )  # fmt: skip
        assert split.data_scales.min() >= 0.3 and split.data_scales.max() < 1


def test_fewer_images_are_the_first_ones(splits):
    small = mnist_scale(0, counts=(7, 5, 3), dtype=torch.float64)
    for (name, split), count in zip(small.items(), (7, 5, 3), strict=True):
        assert len(split) == count
        for field in ("images", "labels", "data_scales", "indices"):
            assert torch.equal(getattr(split, field), getattr(splits[name], field)[:count])
        assert split.batch([0])[0].dtype == torch.float64


def test_batch_is_normalised_with_the_published_constants(splits):
    images, labels = splits["test"].batch([3, 1])
    assert (images.shape, images.dtype) == ((2, 1, 28, 28), torch.float32)
    assert torch.equal(labels, splits["test"].labels[[3, 1]])
    expected = (splits["test"].images[[3, 1]].double() / 255 - 0.0607) / 0.2161
    assert torch.allclose(images[:, 0].double(), expected, atol=1e-6)


def test_digits_at_their_own_data_scale_are_the_images(splits):
    """Independent second computation of the data set, digit by digit."""
    split = splits["test"]
    for position in (0, 17, 49_999):
        again = split.scaled([position], split.data_scales[position].item())
        assert torch.equal(again[0], split.images[position])
        assert not torch.equal(split.scaled([position], 1.01 * split.data_scales[position].item()), again)


def test_digits_at_one_data_scale_are_pillows(splits):
    split, shown = splits["test"], slice(100, 130)
    digits = load_mnist().images[split.indices[shown]]
    for data_scale in (0.25, 0.5, 1.0, 1.7):
        expected = pillow(digits, torch.full((30,), data_scale, dtype=torch.float64), 14.5)
        assert torch.equal(split.scaled(shown, data_scale), expected)
        images, labels = split.batch(shown, data_scale)
        assert torch.equal(levels(images), expected)
        assert torch.equal(labels, split.labels[shown])
    assert torch.equal(split.scaled(shown, 1.0), digits)


def test_augmentation_is_pillows_rescaling_of_the_8_bit_image(splits):
    split, positions = splits["train"], torch.arange(200)
    images, labels = split.batch(positions, augmentation=torch.Generator().manual_seed(5))
    draws = torch.rand(200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    factors = 0.5 + 1.5 * draws
    assert torch.equal(levels(images), pillow(split.images[positions], factors, 14.5))
    assert torch.equal(labels, split.labels[positions])
    assert not torch.equal(levels(images), pillow(split.images[positions], factors, 14.0))
    other = np.exp2(2 * draws.numpy() - 1)  # negative control: log-uniform
    assert not torch.equal(levels(images), pillow(split.images[positions], torch.from_numpy(other), 14.5))


def test_augmentation_is_fresh_at_every_access_and_repeatable(splits):
    split, generator = splits["train"], torch.Generator().manual_seed(5)
    first, second = (split.batch([0, 1], augmentation=generator)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, split.batch([0, 1])[0])
    again = torch.Generator().manual_seed(5)
    assert torch.equal(split.batch([0, 1], augmentation=again)[0], first)
    assert torch.equal(split.batch([0, 1], augmentation=again)[0], second)


def test_batches_show_every_image_once(splits):
    split = splits["validation"]
    order = list(batch_positions(2_000, 300, torch.Generator().manual_seed(1), torch.device("cpu")))
    batches = list(split.batches(300, torch.Generator().manual_seed(1)))
    assert [len(labels) for _, labels in batches] == [300] * 6 + [200]
    for positions, (images, labels) in zip(order, batches, strict=True):
        assert torch.equal(labels, split.labels[positions])
        assert torch.equal(levels(images), split.images[positions])


def test_batches_are_augmented_one_after_the_other(splits):
    split = mnist_scale(0, counts=(10, 1, 1))["train"]
    generator = torch.Generator().manual_seed(2)
    expected = [split.batch(part, augmentation=generator)[0] for part in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])]
    found = [images for images, _ in split.batches(4, augmentation=torch.Generator().manual_seed(2))]
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_factors_in_one_call_are_those_of_several():
    """Drawn for a whole epoch at once they are what batches draw one by one, as in the released code."""
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    for counts in ((128, 128, 16), (4, 4, 2), (1, 17)):
        parts = torch.cat([random_factors(count, generators[0]) for count in counts])
        assert torch.equal(random_factors(sum(counts), generators[1]), parts)
        assert parts.min() >= 0.5 and parts.max() < 2.0


@pytest.mark.parametrize("counts", [(0, 1, 1), (10_001, 1, 1), (1, 2_001, 1), (1, 1), (1, 1, 1.0), (True, 1, 1)])
def test_counts_are_checked(counts):
    with pytest.raises(ValueError, match=r"counts must be three integers.* \(10000, 2000, 50000\), got \("):
        mnist_scale(0, counts=counts)


@pytest.mark.parametrize("data_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_data_scales_are_checked(splits, data_scale):
    with pytest.raises(ValueError, match=f"data_scales must be greater than 0 and finite, got {data_scale}"):
        splits["test"].scaled([0], data_scale)


def test_seeds_are_checked():
    with pytest.raises(ValueError, match=r"one of the published realisations of MNIST-Scale, 0 \.\. 5, got -1"):
        mnist_scale(-1)
