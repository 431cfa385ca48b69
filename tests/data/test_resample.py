"""Rescaling: Pillow's pixels, both methods, borders, and messages."""

import math

import pytest
import torch
from torch import Tensor

from scalestudy.data import resample
from scalestudy.data.resample import rescale, rescale_unchecked

GENERATOR = torch.Generator().manual_seed(11)
DIGITS = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8, generator=GENERATOR)
SCALES = torch.exp2(torch.rand(40, dtype=torch.float64, generator=GENERATOR) * 4.5 - 1.0)  # [0.5, 11.3]


CANVASES = [(168, 84.0), (84, 42.0), (42, 21.0), (30, 15.0), (28, 14.0), (28, 14.5)]


@pytest.mark.parametrize(("canvas", "centre"), CANVASES)
@pytest.mark.parametrize("method", ["exact", "matmul"])
def test_pixels_are_those_of_pillow(pillow, canvas: int, centre: float, method: str) -> None:
    scales = SCALES * canvas / 168
    expected = pillow(DIGITS, scales, centre, canvas)
    assert torch.equal(rescale(DIGITS, scales, canvas, centre=centre, method=method), expected)


@pytest.mark.parametrize("scale", [0.01, 0.25, 0.5, 1.0, 2.0, 4.0, 100.0])
def test_exact_is_pillow_at_special_scales(pillow, scale: float) -> None:
    scales = torch.full((5,), scale, dtype=torch.float64)
    assert torch.equal(rescale(DIGITS[:5], scales, 56, method="exact"), pillow(DIGITS[:5], scales, 28.0, 56))


@pytest.mark.parametrize("method", ["exact", "matmul"])
def test_another_keys_parameter_gives_other_pixels(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a = -1/2, the usual cubic convolution, is not what Pillow computes."""

    def half(distance: Tensor) -> Tensor:
        t = distance
        near, far = (1.5 * t - 2.5) * t * t + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
        return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))

    def half_cubic(taps: list[Tensor], d: Tensor) -> Tensor:
        return sum(tap * half((d - k).abs()) for k, tap in zip((-1, 0, 1, 2), taps, strict=True))

    right = rescale(DIGITS, SCALES, 168, method=method)
    monkeypatch.setattr(resample, "keys_kernel", half)
    monkeypatch.setattr(resample, "_cubic", half_cubic)
    assert (rescale(DIGITS, SCALES, 168, method=method) != right).double().mean() > 0.05


def test_the_centre_matters_and_defaults_to_the_middle() -> None:
    assert torch.equal(rescale(DIGITS, SCALES, 56), rescale(DIGITS, SCALES, 56, centre=28.0))
    assert not torch.equal(rescale(DIGITS, SCALES, 56), rescale(DIGITS, SCALES, 56, centre=28.5))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rescale(DIGITS, SCALES, 84)
    monkeypatch.setitem(resample._CHUNK_BYTES, "cpu", 8 * 84 * 84 * 7)
    assert torch.equal(rescale(DIGITS, SCALES, 84), whole)


@pytest.mark.parametrize("canvas", [168, 56, 28])
def test_one_data_scale_for_all_gives_the_same_pixels(canvas: int) -> None:
    for scale in (0.3, 1.0, 2.3, 5.0):
        one = torch.tensor([scale], dtype=torch.float64)
        expected = rescale(DIGITS, one.expand(40), canvas)
        assert torch.equal(rescale_unchecked(DIGITS, one, canvas), expected)
        assert not torch.equal(rescale_unchecked(DIGITS, 1.1 * one, canvas), expected)


def test_autocast_changes_no_pixel() -> None:
    with torch.autocast("cpu"):
        lowered = rescale(DIGITS, SCALES, 56)
    assert torch.equal(rescale(DIGITS, SCALES, 56), lowered)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_scales": torch.tensor([1.0, 0.0]).double()}, "greater than 0 and finite, got 0.0; 1 leaves"),
        ({"data_scales": torch.tensor([1.0, math.nan]).double()}, "greater than 0 and finite, got nan; 1 leaves"),
        ({"data_scales": torch.tensor([math.inf, 1.0]).double()}, "greater than 0 and finite, got inf; 1 leaves"),
        ({"data_scales": torch.ones(2)}, r"data_scales must be a float64 tensor of shape \(2,\).*torch.float32 \(2,\)"),
        ({"data_scales": torch.ones(3).double()}, r"data_scales must be .* got torch.float64 \(3,\); convert"),
        ({"digits": DIGITS[:2].float()}, "digits must be uint8 .* got torch.float32"),
        ({"digits": DIGITS[0]}, r"digits must be uint8 of shape \(B, h, h\) .* \(28, 28\)"),
        ({"digits": DIGITS[:2, :20]}, r"got torch.uint8 \(2, 20, 28\)"),
        ({"canvas_size": 27}, "h <= canvas_size .* canvas_size 27; pad"),
        ({"canvas_size": 57}, "canvas_size - h even, .* canvas_size 57"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rescale(**({"digits": DIGITS[:2], "data_scales": SCALES[:2], "canvas_size": 56} | arguments))
