"""The separable algorithm: chunks, which scale wins, functions that end somewhere, what it costs."""

import dataclasses

import pytest
import torch
from agreement import BASES, conv_of, images_for, layer_of, outcome, random
from torch.utils._python_dispatch import TorchDispatchMode

from scalestudy.layers.basis import VaryingOrderBasis, dynamic_size, dynamic_size_on_device
from scalestudy.layers.fast import separable
from scalestudy.layers.fast.correlation import turn
from scalestudy.layers.fast.fourier import chunks
from scalestudy.layers.fast.separable import (
    SeparableLayer,
    correlate_separable,
    separable_cost,
)
from scalestudy.layers.scales import DirectScales


def test_chunks_fit_the_device() -> None:
    """Of images with 10 numbers each; a chunk is at least one image, and unknown devices count as GPUs."""
    for limits, dtype, expected in (
        ({"cpu": 160, "cuda": 0}, torch.float64, [(0, 2), (2, 4), (4, 5)]),
        ({"cpu": 239, "cuda": 0}, torch.float64, [(0, 2), (2, 4), (4, 5)]),
        ({"cpu": 160, "cuda": 0}, torch.float32, [(0, 4), (4, 5)]),
        ({"cpu": 1, "cuda": 0}, torch.float64, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        ({"cuda": 1 << 30}, torch.float64, [(0, 5)]),
    ):
        found = chunks(torch.zeros(5, 2, dtype=dtype), 10, limits)
        assert [(chunk.start, chunk.stop) for chunk in found] == expected


@pytest.mark.parametrize("size", [(8, 10), (9, 7)], ids=str)
def test_of_equal_scales_the_earlier_one_gets_the_gradient(size) -> None:
    layer = layer_of("project", DirectScales(0.8, 1.75, 3))
    conv_of(layer).scales.sigmas.data = torch.tensor([0.8, 1.4, 1.4], dtype=torch.float64)
    found = outcome(layer, images_for(layer, size))["gradient in conv.scales.sigmas"]
    assert not found[2]
    assert (found[:2].abs() > 0.1).all()


def test_half_widths_end_where_the_planes_do() -> None:
    basis = VaryingOrderBasis(2).sample(torch.tensor([1.0, 2.0, 3.0]), 25)
    assert (basis.half_widths((40, 30)), basis.half_widths((7, 10))) == ((4, 8, 12), (4, 8, 9))


@pytest.mark.parametrize("size", [(8, 6), (5, 9)], ids=str)
def test_supports_need_not_be_known(size) -> None:
    """As on devices that are not asked for values: a wide window, in which the functions end somewhere."""
    scales = torch.tensor([0.8, 1.3], dtype=torch.float64)
    known = VaryingOrderBasis(2).sample(scales, dynamic_size(scales.tolist()))
    unknown = VaryingOrderBasis(2).sample(scales, dynamic_size_on_device(scales), 14)
    assert unknown.supports is None
    assert unknown.half_widths(size) == (max(size) - 1,) * 2
    x, weight = random(2, 2, *size), random(3, 2, 4, seed=1)
    expected = correlate_separable(x, weight, known)
    torch.testing.assert_close(correlate_separable(x, weight, unknown), expected, rtol=1e-12, atol=1e-12)


class CountMultiplications(TorchDispatchMode):
    """Counts those of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm", "baddbmm_"):
            left, right = args[-2:]
            self.count += left.numel() * right.shape[-1] * (4 if left.is_complex() else 1)
        assert "conv" not in name and name not in ("einsum", "mv", "dot", "matmul", "linear"), name
        return function(*args, **(kwargs or {}))


def counted(basis, channels: tuple[int, int], size: tuple[int, int], step: str) -> list[int]:
    """Multiplications by scale of one image's step: "forward", or backward to "weights", or to those and "scales"."""
    weight = torch.zeros(channels[1], channels[0], len(basis.rows), dtype=torch.float64)
    layer, counts = SeparableLayer(weight, basis.detached(), size, derivatives=step == "scales"), []
    planes, gradient = (turn(torch.zeros(1, count, *size, dtype=torch.float64)) for count in channels)
    for correlation in layer.correlations:
        total = correlation.zero_total()
        with CountMultiplications() as counter:
            projected, columns = correlation.project(planes), planes.shape[1:3]
            if step == "forward":
                correlation.respond(projected, *columns)
            else:
                correlation.accumulate(total, projected, gradient)
        counts.append(counter.count)
    return counts


@pytest.mark.parametrize("basis", ["varying order", "varying sigma"])
@pytest.mark.parametrize("channels", [(1, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("size", [(8, 12), (10, 6), (2, 2)], ids=str)
def test_cost_is_what_is_done(basis, channels, size) -> None:
    """Beside Fourier transforms, forward; as much again back to the weights; to the scales with two more functions.

    (Sub-sigmas with few functions need not both.)
    """
    sampled = BASES[basis].sample(torch.tensor([0.9, 2.4], dtype=torch.float64), 21)
    expected = [separable_cost(sampled, *channels, size, half_width)[0] for half_width in sampled.supports]
    assert counted(sampled, channels, size, "forward") == counted(sampled, channels, size, "weights") == expected
    own = tuple(zip(sampled.rows, sampled.cols, strict=True))
    pairs, _ = separable._derivatives(own, sampled.orders, torch.device("cpu"))
    assert len({col for _, col in pairs}) - len(set(sampled.cols)) == {"varying order": 2, "varying sigma": 3}[basis]
    more = dataclasses.replace(sampled, rows=[row for row, _ in pairs], cols=[col for _, col in pairs])
    expected = [separable_cost(more, *channels, size, half_width)[0] for half_width in sampled.supports]
    assert counted(sampled, channels, size, "scales") == expected


def test_cost_grows_slowly_with_the_scales() -> None:
    """Wider bands and more frequencies, as far as the image goes; a dense kernel's cost grows as K^2."""
    basis = VaryingOrderBasis(5)
    costs = [separable_cost(basis, 1, 16, (168, 168), half_width) for half_width in (4, 24, 167, 500)]
    assert costs == sorted(costs) and costs[2] == costs[3]
    assert sum(costs[1]) < 2 * sum(costs[0]) and sum(costs[2]) < 6 * sum(costs[0])
