"""The separable algorithm against dense convolution in every shape; which scale wins; what it costs."""

import dataclasses

import pytest
import torch
from agreement import assert_same_as_dense, conv_of, images_for, in_chunks_of, layer_of, outcome, random
from torch.utils._python_dispatch import TorchDispatchMode

from scalestudy.layers.basis import VaryingOrderBasis, VaryingSigmaBasis, dynamic_size, dynamic_size_on_device
from scalestudy.layers.fast import folded, separable
from scalestudy.layers.fast.folded import Workspace
from scalestudy.layers.fast.fourier import chunks
from scalestudy.layers.fast.separable import (
    ScaleMaximum,
    SeparableLayer,
    correlate_separable,
    separable_cost,
    split_by_winner,
)
from scalestudy.layers.scales import DirectScales

BASES = {"varying order": VaryingOrderBasis(2), "varying sigma": VaryingSigmaBasis(3, max_order=2, mult=1.4)}


CASES = {
    "small image": ((1.0, 2.5, 3), (9, 9), (1, 2)),
    "non-square": ((0.9, 2.3, 2), (14, 7), (3, 2)),
    "kernel larger than image": ((1.6, 2.4, 3), (5, 8), (2, 3)),
    "kernel much larger than image": ((3.0, 3.0, 2), (4, 3), (2, 2)),
    "one row": ((0.8, 1.7, 2), (1, 12), (1, 1)),
    "one column": ((0.8, 1.7, 2), (11, 1), (2, 1)),
    "one pixel": ((0.8, 1.7, 2), (1, 1), (2, 2)),
    "even and odd": ((0.8, 1.7, 2), (10, 7), (1, 3)),
    "single scale": ((1.3, 1, 1), (8, 9), (2, 2)),
    "many scales": ((0.8, 3.1, 7), (8, 8), (1, 2)),
    "descending scales": (None, (8, 8), (2, 2)),
}


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("case", CASES)
def test_equals_dense(case, kind, basis, monkeypatch) -> None:
    """Three images: in one chunk, and in one of two and one of one."""
    values, size, channels = CASES[case]
    scales = DirectScales(*(values or (1.0, 2.0, 3)))
    if values is None:
        scales.sigmas.data = torch.tensor([2.1, 1.4, 0.9])
    layer = layer_of(kind, scales, channels, BASES[basis], bias=True)
    x = images_for(layer, size, batch=3)
    assert_same_as_dense(layer, x)
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(2, 1))
    assert_same_as_dense(layer, x)


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


def test_scale_maximum_and_its_gradient_by_hand() -> None:
    """Three scales at five pixels; the gradient of a tie goes to the earlier one."""
    responses = [[1.0, 5.0, 2.0, 0.0, 3.0], [2.0, 4.0, 2.0, 1.0, 3.0], [0.0, 5.0, 2.0, 1.0, 4.0]]
    first, *others = (torch.tensor(response) for response in responses)
    space = Workspace(torch.float32, torch.device("cpu"))
    maximum = ScaleMaximum(first.clone(), True, space)
    for response in others:
        maximum.add(response)
    assert maximum.values.tolist() == [2.0, 5.0, 2.0, 1.0, 4.0]
    assert [won.tolist() for won in maximum.wins] == [[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    parts = [part.tolist() for part in split_by_winner(gradient, maximum.wins, space)]
    assert parts == [[0.0, 0.0, 0.0, 0.0, 5.0], [1.0, 0.0, 0.0, 4.0, 0.0]]
    assert gradient.tolist() == [0.0, 2.0, 3.0, 0.0, 0.0]


def test_half_widths_end_where_the_planes_do() -> None:
    basis = VaryingOrderBasis(2).sample(torch.tensor([1.0, 2.0, 3.0]), 25)
    assert (basis.half_widths((40, 30)), basis.half_widths((7, 10))) == ((4, 8, 12), (4, 8, 9))


@pytest.mark.parametrize("size", [(8, 6), (5, 9)], ids=str)
def test_supports_need_not_be_known(size) -> None:
    """As on devices that are not asked for values: a wide window, in which the functions end somewhere."""
    scales = torch.tensor([0.8, 1.3], dtype=torch.float64)
    known = VaryingOrderBasis(2).sample(scales, dynamic_size(scales.tolist()))
    unknown = VaryingOrderBasis(2).sample_on_device(scales, dynamic_size_on_device(scales), 14)
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
            self.count += left.numel() * right.shape[-1]
        assert "conv" not in name and name not in ("einsum", "mv", "dot", "matmul", "linear"), name
        return function(*args, **(kwargs or {}))


def counted(basis, channels: tuple[int, int], size: tuple[int, int], step: str) -> list[int]:
    """Multiplications by scale of one image's step: "forward", or backward to "weights", or to those and "scales"."""
    weight = torch.zeros(channels[1], channels[0], len(basis.rows), dtype=torch.float64)
    layer = SeparableLayer(weight, basis.detached(), size, derivatives=step == "scales")
    layer.begin_gradients()
    planes, gradient = (folded.fold(torch.zeros(1, count, *size, dtype=torch.float64)) for count in channels)
    counts = []
    for scale in range(basis.functions.shape[1]):
        with CountMultiplications() as counter:
            projected = layer.project(planes, scale)
            layer.respond(projected, scale) if step == "forward" else layer.accumulate(projected, gradient, scale)
        counts.append(counter.count)
    return counts


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("channels", [(1, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("size", [(8, 12), (10, 6), (2, 2)], ids=str)
def test_cost_is_what_is_done(basis, channels, size) -> None:
    """Forward; as much again on the way back to the weights; to the scales with two more horizontal functions.

    (Sub-sigmas with few functions need not both.)
    """
    sampled = BASES[basis].sample(torch.tensor([0.9, 2.4], dtype=torch.float64), 21)
    expected = [separable_cost(sampled, *channels, size, half_width) for half_width in sampled.supports]
    assert counted(sampled, channels, size, "forward") == counted(sampled, channels, size, "weights") == expected
    own = tuple(zip(sampled.rows, sampled.cols, strict=True))
    pairs = separable._derivatives(own, sampled.orders, torch.device("cpu")).pairs
    assert len({col for _, col in pairs}) - len(set(sampled.cols)) == {"varying order": 2, "varying sigma": 3}[basis]
    more = dataclasses.replace(sampled, rows=[row for row, _ in pairs], cols=[col for _, col in pairs])
    expected = [separable_cost(more, *channels, size, half_width) for half_width in sampled.supports]
    assert counted(sampled, channels, size, "scales") == expected


def test_cost_hardly_depends_on_the_scales() -> None:
    """At most twice as many frequencies, while a dense kernel costs K^2."""
    basis = VaryingOrderBasis(5)
    costs = [separable_cost(basis, 1, 16, (168, 168), half_width) for half_width in (4, 24, 167, 500)]
    assert costs == sorted(costs)
    assert costs[2] == costs[3] < 2 * costs[0]
