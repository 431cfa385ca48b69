"""Dynamic Scale MNIST: splits, draws, statistics, batches and messages."""

import numpy as np
import pytest
import torch

from scalestudy.data import (
    DynamicScaleSplit,
    LogUniform,
    Uniform,
    draw_scales,
    dynamic,
    dynamic_scale_mnist,
    dynamic_scale_split,
    load_mnist,
    paper_test_scales,
    rescale,
    scale_test_batches,
)

WIDE = LogUniform(low=1, high=8)
COUNTS = (30, 10, 20)


@pytest.fixture(scope="module")
def splits() -> dict[str, DynamicScaleSplit]:
    """Small splits on a small canvas."""
    return dynamic_scale_mnist(0, WIDE, COUNTS, shrink=3)


def test_digits_are_the_first_of_the_published_split(splits: dict[str, DynamicScaleSplit]) -> None:
    mnist = load_mnist()
    positions = dynamic_scale_split(mnist.labels.numpy(), 0)
    assert list(splits) == ["train", "validation", "test"]
    for (name, split), count in zip(splits.items(), COUNTS, strict=True):
        chosen = torch.from_numpy(positions[name][:count])
        assert len(split) == count
        assert torch.equal(split.digits, mnist.images[chosen])
        assert torch.equal(split.labels, mnist.labels[chosen])
        assert np.array_equal(split.data_scales.numpy(), draw_scales(0, name, WIDE, count))


def test_draws_depend_on_seed_split_and_distribution_only() -> None:
    reference = draw_scales(0, "train", WIDE, 50)
    assert np.array_equal(draw_scales(0, "train", LogUniform(low=1, high=8), 10), reference[:10])
    share = np.log2(reference) / 3  # the uniform numbers behind the draws
    others = [
        np.log2(draw_scales(1, "train", WIDE, 50)) / 3,
        np.log2(draw_scales(0, "test", WIDE, 50)) / 3,
        np.log2(draw_scales(0, "train", LogUniform(low=1, high=4), 50)) / 2,
        draw_scales(0, "train", Uniform(low=1, high=8), 50) / 7 - 1 / 7,
    ]
    assert all(np.abs(other - share).max() > 0.1 for other in others)


def test_draws_are_pinned() -> None:
    """Records of runs rest on these numbers: a change must bump the recipe."""
    assert draw_scales(0, "train", WIDE, 3).tolist() == pytest.approx(PINNED, rel=1e-12)


PINNED = [4.6581501125670774, 6.956111489879502, 1.9491351163360393]


def test_statistics_are_those_of_all_pixels(
    splits: dict[str, DynamicScaleSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic, "_STATISTICS", {})
    monkeypatch.setattr(dynamic, "_STATISTICS_CHUNK", 7)
    split = splits["train"]
    images = rescale(split.digits, split.data_scales / 3, 56).numpy() / 255.0
    assert split.mean == pytest.approx(images.mean(), rel=1e-12)
    assert split.std == pytest.approx(images.std(), rel=1e-12)
    assert splits["test"].mean != split.mean, "each split has its own"


def test_statistics_are_remembered_by_content(
    splits: dict[str, DynamicScaleSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = splits["train"]
    expected = split.mean
    twin = dynamic_scale_mnist(0, WIDE, COUNTS, shrink=3)["train"]
    larger = DynamicScaleSplit(split.digits, split.labels, split.data_scales, 84, 2)
    other = DynamicScaleSplit(split.digits, split.labels, split.data_scales * 1.1, 56, 3)
    assert larger.mean != expected
    assert other.mean != expected
    monkeypatch.setattr(DynamicScaleSplit, "scaled", lambda *_: pytest.fail("computed again"))
    assert twin.mean == expected


def test_batches_are_normalised(splits: dict[str, DynamicScaleSplit]) -> None:
    split = splits["train"]
    images, labels = split.batch(slice(None))
    assert images.shape == (30, 1, 56, 56)
    assert images.dtype == torch.float32
    assert torch.equal(labels, split.labels)
    assert images.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    expected = (split.scaled([4])[0].double() / 255 - split.mean) / split.std
    assert torch.allclose(images[4, 0].double(), expected, atol=1e-5)


def test_positions_in_every_form(splits: dict[str, DynamicScaleSplit]) -> None:
    split = splits["test"]
    for positions in ([3, 4], torch.tensor([3, 4]), slice(3, 5), range(3, 5), np.array([3, 4])):
        assert torch.equal(split.scaled(positions), split.scaled(slice(None))[3:5])
    with pytest.raises(IndexError):
        split.batch([20])


def test_shuffled_batches_hold_every_digit_once(splits: dict[str, DynamicScaleSplit]) -> None:
    split = splits["train"]
    plain = list(split.batches(8))
    assert [len(labels) for _, labels in plain] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([images for images, _ in plain]), split.batch(slice(None))[0])
    orders = [
        torch.cat([labels for _, labels in split.batches(8, torch.Generator().manual_seed(seed))]) for seed in (1, 1, 2)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0].sort().values, split.labels.sort().values)
    assert not torch.equal(orders[0], split.labels)


def test_shrink_divides_every_length() -> None:
    full = dynamic_scale_mnist(0, WIDE, (3, 1, 1))["train"]
    assert full.canvas_size == 168
    for shrink in (2, 3, 4, 6):
        small = dynamic_scale_mnist(0, WIDE, (3, 1, 1), shrink=shrink)["train"]
        assert small.canvas_size == 168 // shrink
        assert torch.equal(small.data_scales, full.data_scales), "data scales stay in the paper's units"
        assert torch.equal(
            small.scaled([1]), rescale(small.digits[1:2], small.data_scales[1:2] / shrink, 168 // shrink)
        )
        assert small.mean == pytest.approx(full.mean, rel=0.1), "the digit fills the same share of the canvas"


def test_dtype_is_that_of_the_images() -> None:
    split = dynamic_scale_mnist(0, WIDE, (2, 1, 1), shrink=6, dtype=torch.float64)["train"]
    assert split.batch([0])[0].dtype == torch.float64


def test_paper_test_scales() -> None:
    scales = paper_test_scales()
    assert len(scales) == 45
    assert scales[0] == 0.5
    assert scales[-1] == pytest.approx(2**3.5)
    assert np.allclose(np.diff(np.log2(scales)), 4.5 / 44)


def test_scale_test_uses_the_statistics_of_the_split(splits: dict[str, DynamicScaleSplit]) -> None:
    split = splits["test"]
    seen = list(scale_test_batches(split, 12, (0.5, 8.0)))
    assert [(scale, len(labels)) for scale, _, labels in seen] == [(0.5, 12), (0.5, 8), (8.0, 12), (8.0, 8)]
    for scale, images, labels in (seen[0], seen[2]):
        grey = rescale(split.digits[:12], torch.full((12,), scale / 3, dtype=torch.float64), 56)
        expected = (grey.double() / 255 - split.mean) / split.std
        assert torch.allclose(images[:, 0].double(), expected, atol=1e-5)
        assert torch.equal(labels, split.labels[:12])
    assert seen[2][1].mean() > 0.2 > -0.2 > seen[0][1].mean(), "not normalised per scale"
    assert sum(1 for _ in scale_test_batches(split, 20)) == 45


def test_blank_images_are_refused() -> None:
    split = DynamicScaleSplit(
        torch.zeros(2, 28, 28, dtype=torch.uint8), torch.zeros(2).long(), torch.ones(2, dtype=torch.float64), 56, 3
    )
    with pytest.raises(
        ValueError, match=r"data_scales must leave something of the digits, got images that are all grey level 0"
    ):
        split.batch([0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be an integer in 0 .. 4294967295, got -1"),
        ({"distribution": "log-uniform [2, 1]"}, "low must be smaller than high, got low 2 and high 1"),
        ({"counts": (0, 1, 1)}, r"counts must be three integers, .* got \(0, 1, 1\)"),
        ({"counts": (10_001, 1, 1)}, r"counts must be .* from 1 to \(10000, 5000, 50000\), got \(10001, 1, 1\)"),
        ({"counts": (5, 5)}, r"counts must be three integers, .* got \(5, 5\)"),
        ({"shrink": 5}, r"shrink must be one of \(1, 2, 3, 4, 6\), got 5; 1 is the paper's size"),
        ({"shrink": True}, "shrink must be one of .* got True"),
        ({"canvas_size": 166, "shrink": 3}, "canvas_size must be an integer that shrink 3 divides, got 166"),
        ({"canvas_size": 84, "shrink": 6}, "canvas_size must after shrinking be at least the digit's 28 .* got 14"),
        ({"canvas_size": 99, "shrink": 3}, "canvas_size must after shrinking .* an even number, got 33"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    valid = {"seed": 0, "distribution": WIDE, "counts": (1, 1, 1)}
    with pytest.raises(ValueError, match=message):
        dynamic_scale_mnist(**(valid | arguments))


def test_methods_check_their_arguments(splits: dict[str, DynamicScaleSplit]) -> None:
    split = splits["train"]
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1, got 0"):
        next(split.batches(0))
    with pytest.raises(ValueError, match=r"data_scale must be greater than 0 and finite, got -2"):
        split.batch([0], data_scale=-2)
    with pytest.raises(ValueError, match=r"split must be one of .* got 'val'"):
        draw_scales(0, "val", WIDE, 1)


def test_a_split_checks_its_tensors(splits: dict[str, DynamicScaleSplit]) -> None:
    digits, labels, scales = splits["train"].digits, splits["train"].labels, splits["train"].data_scales
    with pytest.raises(ValueError, match=r"digits must be uint8 of shape .* at least 1, got"):
        DynamicScaleSplit(digits[:0], labels[:0], scales[:0])
    with pytest.raises(ValueError, match=r"labels must have shape \(30,\), one per digit, got \(29,\)"):
        DynamicScaleSplit(digits, labels[1:], scales)
    with pytest.raises(ValueError, match=r"data_scales must be greater than 0 and finite, got 0.0 at position 0"):
        DynamicScaleSplit(digits, labels, scales * 0)
