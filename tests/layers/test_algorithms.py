"""What holds for every layer and algorithm: the same numbers, right derivatives, all that autograd may ask for."""

import copy

import pytest
import torch
from agreement import (
    BASES,
    BY_HAND,
    EVERY,
    EVERY_KIND,
    PARAMETERISATIONS,
    assert_any_set_of_gradients,
    assert_right_derivatives,
    assert_same,
    assert_same_as_dense,
    by_dense,
    conv_of,
    images_for,
    in_chunks_of,
    layer_of,
    outcome,
)

from scalestudy.layers.fast import correlation, fourier, pooled, separable
from scalestudy.layers.fast.separable import SeparableLayer
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales

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


@BY_HAND
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("case", CASES)
def test_equals_dense(case, kind, basis, algorithm, monkeypatch) -> None:
    """Three images: in one chunk, and in several chunks and blocks."""
    values, size, channels = CASES[case]
    scales = DirectScales(*(values or (1.0, 2.0, 3)))
    if values is None:
        scales.sigmas.data = torch.tensor([2.1, 1.4, 0.9])
    layer = layer_of(kind, scales, channels, BASES[basis], algorithm, bias=True)
    x = images_for(layer, size, batch=3)
    assert_same_as_dense(layer, x)
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(2, 1))
    for limits in (fourier._CHUNK_BYTES, fourier._BLOCK_BYTES):
        monkeypatch.setitem(limits, "cpu", 1)
    assert_same_as_dense(layer, x)


@EVERY_KIND
@pytest.mark.parametrize("scales", PARAMETERISATIONS)
def test_derivatives_of_every_parameterisation(kind, scales, monkeypatch) -> None:
    """Scales away from the steps of their supports: 0.7, 1.014, 1.47 at extent 2 (kernel size 7)."""
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 1)  # a chunk per image
    layer = layer_of(kind, scales(0.7, 2.1, 3), extent=2.0, bias=kind != "pool")
    assert_right_derivatives(layer, images_for(layer, (4, 8)), fast_mode=True)


@EVERY
@EVERY_KIND
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_derivatives_of_every_algorithm(second, kind, algorithm, training) -> None:
    basis = BASES["varying sigma"]
    layer = layer_of(kind, IsrScales(0.7, 2.1, 3), (2, 2), basis, algorithm, extent=2.0).train(training)
    assert_right_derivatives(layer, images_for(layer, (4, 4)), second, fast_mode=True)


@BY_HAND
@EVERY_KIND
def test_what_autograd_may_ask_for(kind, algorithm) -> None:
    layer = layer_of(kind, channels=(1, 2), algorithm=algorithm)
    x = images_for(layer, (8, 4))
    assert_any_set_of_gradients(layer, x)


@BY_HAND
@EVERY_KIND
def test_results_are_not_overwritten_by_the_next_call(kind, algorithm) -> None:
    """Neither outputs nor what is kept lie in a workspace; a backward pass may come late, and twice."""
    layer = layer_of(kind, algorithm=algorithm)
    x, other = images_for(layer).requires_grad_(), images_for(layer, batch=3)
    y, tensors = layer(x), [x, *layer.parameters()]
    kept = y.detach().clone()
    first = torch.autograd.grad(y.square().sum(), tensors, retain_graph=True)
    layer(other).sum().backward()
    assert torch.equal(y, kept)
    second = torch.autograd.grad(y.square().sum(), tensors, retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@BY_HAND
@EVERY_KIND
def test_without_gradients(kind, algorithm, mode) -> None:
    """The same output and statistics; what is cached then still serves for training."""
    tables = (correlation.shares, correlation._places, pooled._first_places, separable._derivatives)
    for table in (*tables, fourier.plan_for):
        table.__wrapped__.cache_clear()
    layer = layer_of(kind, algorithm=algorithm)
    x, fresh = images_for(layer), copy.deepcopy(layer)
    with mode():
        y = layer(x)
    found = outcome(fresh, x)
    assert y.grad_fn is None
    torch.testing.assert_close(y, found["output"], rtol=1e-13, atol=1e-13)  # with gradients, more functions are at hand
    for name, value in layer.named_buffers():
        torch.testing.assert_close(value, found[name], rtol=1e-13, atol=1e-13)


@EVERY_KIND
@pytest.mark.parametrize("lengths", [(1, 1, 1, 1, 1), (2, 2, 1), (1, 4), (5,)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_chunks_change_nothing(kind, lengths, training, monkeypatch) -> None:
    """The statistics of a norm are those of the whole batch."""
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(*lengths))
    layer = layer_of(kind).train(training)
    assert_same_as_dense(layer, images_for(layer, batch=5))


@EVERY_KIND
def test_what_no_pixel_sees_is_not_made(kind) -> None:
    """Pictures of these kernels, of 8,001 pixels, would fill the memory."""
    layer = layer_of(kind, IsrScales(1.0, 1000.0, 2))
    expected = outcome(layer, images_for(layer))
    for algorithm in ("fourier", "dense"):
        conv_of(layer).algorithm = algorithm
        assert_same(outcome(layer, images_for(layer)), expected)


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded"])
@BY_HAND
@EVERY_KIND
def test_any_memory_layout(kind, algorithm, layout) -> None:
    layer = layer_of(kind, algorithm=algorithm).eval()
    x = images_for(layer, batch=3)
    sliced, expanded = x.repeat_interleave(2, -1)[..., ::2], x[:1].expand(x.shape)
    laid_out = {"transposed": x.mT.contiguous().mT, "sliced": sliced, "expanded": expanded}[layout]
    assert not laid_out.is_contiguous()
    y = layer(laid_out)
    assert torch.equal(y, layer(laid_out.contiguous()))
    weight = conv_of(layer).weight
    ones = torch.ones((), dtype=y.dtype).expand(y.shape)
    found, expected = (torch.autograd.grad(y, weight, g, retain_graph=True)[0] for g in (ones, ones.contiguous()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@EVERY
@EVERY_KIND
def test_single_precision(kind, algorithm) -> None:
    layer = layer_of(kind, algorithm=algorithm)
    x = images_for(layer)
    exact = outcome(by_dense(layer), x)
    expected = {name: value.float() if value.is_floating_point() else value for name, value in exact.items()}
    found = outcome(layer.float(), x.float())
    torch.testing.assert_close(found["output"], expected["output"], rtol=0, atol=5e-6)
    assert_same(found, expected, 1e-4)


@BY_HAND
@EVERY_KIND
def test_autocast_changes_nothing(kind, algorithm) -> None:
    """Filters and sums stay in the layer's precision, forward and backward."""
    layer = layer_of(kind, algorithm=algorithm).float()
    x = images_for(layer).float()
    expected = outcome(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(outcome(layer, x), expected, 0)
        narrow = layer.eval()(x.bfloat16())
    assert narrow.dtype == torch.float32  # inputs that come in half precision are widened


@EVERY
@EVERY_KIND
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_images(kind, algorithm, training) -> None:
    """An empty batch gives an empty result and gradients of 0, and leaves the statistics of a norm as torch does."""
    layer = layer_of(kind, algorithm=algorithm).train(training)
    one_by_one = copy.deepcopy(layer[:] if kind == "pool" else layer)
    y = layer(images_for(layer, batch=0))
    assert y.shape == (0, *layer(images_for(layer)).shape[1:])
    layer = layer_of(kind, algorithm=algorithm).train(training)
    layer(images_for(layer, batch=0)).sum().backward()
    assert not any(parameter.grad.any() for parameter in layer.parameters())
    one_by_one(images_for(layer, batch=0))
    assert_same(dict(layer.named_buffers()), dict(one_by_one.named_buffers()), 0)
    assert layer.eval()(images_for(layer)).isfinite().all()


@EVERY_KIND
def test_nan_scales_show(kind) -> None:
    """A diverged network runs on, and nobody takes its output for a number."""
    layer = layer_of(kind, DirectScales(1.0, 2.0, 2))
    conv_of(layer).scales.sigmas.data.fill_(torch.nan)
    found = outcome(layer, images_for(layer))
    assert all(value.isnan().all() for name, value in found.items() if name in ("output", "norm.running_mean"))
    assert all(value.isnan().all() for name, value in found.items() if name.endswith("conv.weight"))


@pytest.mark.parametrize(("scales", "size"), [(FixedScales, None), (IsrScales, None), (IsrScales, 9)])
@EVERY
@EVERY_KIND
def test_no_device_is_asked_for_values(kind, algorithm, scales, size) -> None:
    """A meta tensor has none; on a GPU each question would stop the device."""
    layer = layer_of(kind, scales(0.9, 2.3, 3), algorithm=algorithm, kernel_size=size)
    x = images_for(layer)
    expected = outcome(layer, x)
    layer = layer.to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        conv_of(layer).scales().max().item()
    found = outcome(layer, x.to("meta"))
    assert [tensor.shape for tensor in found.values()] == [tensor.shape for tensor in expected.values()]


@EVERY_KIND
def test_a_shorter_circle_shows(kind, monkeypatch) -> None:
    """Negative control of the comparisons with dense convolution."""
    layer = layer_of(kind)
    assert_same_as_dense(layer, images_for(layer))
    monkeypatch.setattr(correlation, "circle", lambda height, half_width: height)
    with pytest.raises(AssertionError, match="output"):
        assert_same_as_dense(layer, images_for(layer), 1e-2)
