"""Dynamic Scale MNIST: splits, draws, statistics, batches and messages."""

import numpy as np
import pytest
import torch

from scalestudy.data import DynamicScaleSplit, LogUniform, dynamic, dynamic_scale_mnist, paper_test_scales, rescale
from scalestudy.data.dynamic import draw_scales
from scalestudy.data.splits import dynamic_scale_split

WIDE = LogUniform(low=1, high=8)
COUNTS = (30, 10, 20)


@pytest.fixture(scope="module")
def splits(mnist) -> dict[str, DynamicScaleSplit]:
    """Small splits on a small canvas."""
    return dynamic_scale_mnist(0, WIDE, COUNTS, shrink=3)


def test_digits_are_the_first_of_the_published_split(splits, mnist) -> None:
    positions = dynamic_scale_split(mnist.labels.numpy(), 0)
    assert list(splits) == ["train", "validation", "test"]
    for (name, split), count in zip(splits.items(), COUNTS, strict=True):
        chosen = torch.from_numpy(positions[name][:count])
        assert len(split) == count
        assert torch.equal(split.digits, mnist.images[chosen])
        assert torch.equal(split.labels, mnist.labels[chosen])
        assert np.array_equal(split.data_scales.numpy(), draw_scales(0, name, WIDE, count))


def test_draws_are_pinned_and_depend_on_seed_split_and_distribution_only() -> None:
    """Records of runs rest on these numbers: a change must bump the recipe."""
    reference = draw_scales(0, "train", WIDE, 50)
    pinned = [4.6581501125670774, 6.956111489879502, 1.9491351163360393]
    assert reference[:3].tolist() == pytest.approx(pinned, rel=1e-12)
    assert np.array_equal(draw_scales(0, "train", LogUniform(low=1, high=8), 10), reference[:10])
    share = np.log2(reference) / 3  # the uniform numbers behind the draws
    for seed, split, octaves in ((1, "train", 3), (0, "test", 3), (0, "train", 2)):
        other = np.log2(draw_scales(seed, split, LogUniform(low=1, high=2.0**octaves), 50)) / octaves
        assert np.abs(other - share).max() > 0.1


def test_statistics_are_those_of_all_pixels_and_computed_once(splits, monkeypatch) -> None:
    monkeypatch.setattr(dynamic, "_STATISTICS_CHUNK", 7)
    split = dynamic_scale_mnist(0, WIDE, COUNTS, shrink=3)["train"]
    images = rescale(split.digits, split.data_scales / 3, 56).numpy() / 255.0
    assert (split.mean, split.std) == pytest.approx((images.mean(), images.std()), rel=1e-12)
    assert splits["test"].mean != split.mean == splits["train"].mean, "each split has its own"
    monkeypatch.setattr(DynamicScaleSplit, "scaled", lambda *_: pytest.fail("computed again"))
    assert split.mean == splits["train"].mean


def test_pixels_of_a_split_have_mean_0_and_deviation_1(splits) -> None:
    images, _ = splits["train"].batch(slice(None))
    assert images.shape == (30, 1, 56, 56)
    assert (images.mean().item(), images.std(correction=0).item()) == pytest.approx((0, 1), abs=1e-5)


def test_digits_at_one_data_scale(splits) -> None:
    split = splits["test"]
    for data_scale in (0.5, 8.0):
        grey = rescale(split.digits[:12], torch.full((12,), data_scale / 3, dtype=torch.float64), 56)
        assert torch.equal(split.scaled(slice(0, 12), data_scale), grey)
    assert split.batch(slice(None), 8.0)[0].mean() > 0.2 > -0.2 > split.batch(slice(None), 0.5)[0].mean()


def test_shrink_divides_every_length_and_dtype_is_that_of_the_images(mnist) -> None:
    full = dynamic_scale_mnist(0, WIDE, (3, 1, 1), dtype=torch.float64)["train"]
    assert full.batch([0])[0].dtype == torch.float64
    assert full.canvas_size == 168
    for shrink in (2, 3, 4, 6):
        small = dynamic_scale_mnist(0, WIDE, (3, 1, 1), shrink=shrink)["train"]
        assert torch.equal(small.data_scales, full.data_scales), "data scales stay in the paper's units"
        expected = rescale(small.digits[1:2], small.data_scales[1:2] / shrink, 168 // shrink)
        assert torch.equal(small.scaled([1]), expected)
        assert small.mean == pytest.approx(full.mean, rel=0.1), "the digit fills the same share of the canvas"


def test_paper_test_scales() -> None:
    scales = paper_test_scales()
    assert (len(scales), scales[0], scales[-1]) == (45, 0.5, pytest.approx(2**3.5))
    assert np.allclose(np.diff(np.log2(scales)), 4.5 / 44)


def test_arguments_are_checked(splits) -> None:
    with pytest.raises(ValueError, match=r"shrink must be one of \(1, 2, 3, 4, 6\), got 5; 1 is the paper's size"):
        dynamic_scale_mnist(0, WIDE, shrink=5)
    with pytest.raises(ValueError, match=r"counts must be .* to \(10000, 5000, 50000\), got \(10001, 1, 1\)"):
        dynamic_scale_mnist(0, WIDE, (10_001, 1, 1))
    split = splits["train"]
    with pytest.raises(ValueError, match=r"data_scales must be greater than 0 and finite, got 0.0"):
        DynamicScaleSplit(split.digits, split.labels, split.data_scales * 0)
