"""SESN, DISCO and the networks with learned scales: what they share, and what sets them apart."""

import pytest
import torch
from torch import Tensor, nn

from scalestudy.layers.basis import SampledBasis, VaryingSigmaBasis
from scalestudy.layers.disco import disco_basis
from scalestudy.layers.fast import fourier
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, StepRatioScales
from scalestudy.models import blocks, build, sicnn, strongest
from scalestudy.models.sesn import ScaleAxisNet, disco, learned, sesn

NAMES = (
    "sesn",
    "disco",
    "ours_isr",
    "ours_spacings",
    "ours_direct",
    "ours_isr_like_sesn",
    "single_scale",
    "interval_scales",
)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def made(name: str, augmented: bool = False) -> ScaleAxisNet:
    torch.manual_seed(0)
    return build(name, augmented=augmented)


@pytest.mark.parametrize(
    ("name", "augmented", "scales", "kernel_size", "relu", "pooling", "mult"),
    [
        ("sesn", False, [1.5, 1.89, 2.38, 3.0], 15, True, "max", 1.4),
        ("sesn", True, [1.7, 2.14, 2.7, 3.4], 15, True, "max", 1.5),
        ("disco", False, [1.9, 2.394, 3.021, 3.8], 15, True, "average", None),
        ("disco", True, [1.9, 2.394, 3.021, 3.8], 15, True, "average", None),
        ("ours_isr", False, [1.5, 1.89, 2.381, 3.0], 27, False, "max", 1.4),
        ("ours_isr", True, [1.5, 1.89, 2.381, 3.0], 27, False, "max", 1.4),
        ("ours_spacings", False, [1.5, 1.89, 2.381, 3.0], 27, False, "max", 1.4),
        ("ours_direct", False, [1.5, 1.89, 2.381, 3.0], 25, False, "max", 1.4),
        ("ours_isr_like_sesn", False, [1.5, 1.89, 2.381, 3.0], 15, True, "max", 1.4),
        ("ours_isr_like_sesn", True, [1.7, 2.142, 2.699, 3.4], 15, True, "max", 1.5),
        ("single_scale", False, [1.5], 13, False, "max", 1.4),
        ("interval_scales", False, [1.5, 1.89, 2.381, 3.0], 25, False, "max", 1.4),
    ],
)
def test_constants(name, augmented, scales, kernel_size, relu, pooling, mult) -> None:
    net = made(name, augmented)
    if mult is not None:
        assert net.conv1.basis._multipliers[:2] == (1.0, mult)
    assert net.scales.values() == pytest.approx(scales, abs=6e-4)
    assert {conv.kernel_size() for conv in (net.conv1, net.conv2, net.conv3)} == {kernel_size}
    assert (net.relu, net.pooling) == (relu, pooling)


@pytest.mark.parametrize(
    ("name", "extra"), [("sesn", 0), ("disco", 0), ("ours_isr", 2), ("ours_spacings", 4), ("ours_direct", 4),
                        ("ours_isr_like_sesn", 2), ("single_scale", 1), ("interval_scales", 4)],
)  # fmt: skip
def test_number_of_parameters(name: str, extra: int) -> None:
    assert sum(parameter.numel() for parameter in made(name).parameters()) == 494_549 + extra


def step_by_step(net: ScaleAxisNet, x: Tensor) -> Tensor:
    """The network as its authors write it: every layer by itself, in their order, with dense kernels."""
    for conv in (net.conv1, net.conv2, net.conv3):
        conv.algorithm = "dense"
    pool = nn.MaxPool3d((1, 2, 2)) if net.pooling == "max" else nn.AvgPool3d((1, 2, 2))
    x = nn.Upsample(scale_factor=2, mode="nearest")(x)
    for conv, norm in ((net.conv1, net.norm1), (net.conv2, net.norm2)):
        x = conv(x)
        x = pool(x.relu() if net.relu else x)
        mean, var = x.mean((0, 2, 3, 4), keepdim=True), x.var((0, 2, 3, 4), correction=0, keepdim=True)
        shape = (1, -1, 1, 1, 1)
        x = (x - mean) / (var + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)
    x = net.conv3(x).max(2).values.relu()
    if net.pooling == "max":
        x = nn.MaxPool2d(8, padding=2)(x)
    else:
        x = nn.AvgPool2d(2, stride=4)(nn.MaxPool2d(7, stride=1)(x))
    return net.head(net.norm3(x).flatten(1))


@pytest.mark.parametrize("name", ["sesn", "disco", "ours_spacings", "single_scale", "interval_scales"])
def test_fast_and_step_by_step_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalestudy.models.sesn.CHANNELS", (3, 4, 5))  # dense kernels of 27 pixels take their time
    net = made(name).double()
    net.head[3].p = 0.0
    for part in (net.conv1, net.conv2, net.conv3, net.norm1, net.norm2, net.norm3):
        part.bias.data.uniform_(-0.5, 0.5)
    batch = images().double()
    results = []
    for run in (net, lambda x: step_by_step(net, x)):
        net.zero_grad()
        logits = run(batch)
        nn.functional.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
        results.append([logits.detach(), *(parameter.grad.clone() for parameter in net.parameters())])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-8 * max(1.0, slow.abs().max().item()))


def test_like_sesn_starts_as_sesn() -> None:
    """It differs in nothing but learning: with SESN's weights it computes SESN's logits (whose scales are rounded)."""
    fixed, free = made("sesn").eval(), made("ours_isr_like_sesn").eval()
    state = {name: value for name, value in fixed.state_dict().items() if "scales" not in name}
    missing, unexpected = free.load_state_dict(state, strict=False)
    assert not unexpected and all("scales" in name for name in missing)
    fixed.scales.internal_scales = free.scales().detach().double()
    torch.testing.assert_close(free(images()), fixed(images()), rtol=1e-5, atol=1e-5)
    released = made("ours_isr").eval()
    released.load_state_dict(state, strict=False)
    assert (released(images()) - fixed(images())).abs().max() > 1e-2


def test_scales_are_shared_and_learned() -> None:
    net = made("ours_isr")
    assert net.conv1.scales is net.conv2.scales is net.conv3.scales is net.scales
    nn.functional.cross_entropy(net(images()), torch.tensor([1, 2, 3])).backward()
    for parameter in net.scales.parameters():
        assert parameter.grad.abs().max() > 0
    assert not list(made("sesn").scales.parameters())


def test_kernel_follows_the_scales_as_released_only() -> None:
    released, like_sesn = made("ours_isr"), made("ours_isr_like_sesn")
    for net in (released, like_sesn):
        net.scales.sigma_basis.data *= 1.5
    assert (released.conv2.kernel_size(), like_sesn.conv2.kernel_size()) == (39, 15)


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_message(name: str) -> None:
    net = made(name).eval()
    assert net(images(2)).shape == (2, 10)
    for shape in ((2, 1, 56, 56), (2, 3, 28, 28), (1, 28, 28)):
        with pytest.raises(ValueError, match=r"takes images of shape \(B, 1, 28, 28\), got "):
            net(torch.zeros(shape))


def test_disco_takes_another_basis() -> None:
    torch.manual_seed(0)
    basis = disco_basis(mult=1.5)
    first, second = disco(), disco(basis=basis.float())
    torch.testing.assert_close(first.conv1.basis.functions.float(), second.conv1.basis.functions)
    with pytest.raises(
        ValueError, match=r"made for 4 scales and kernels of 11 pixels, got 4 scales and kernel_size 15"
    ):
        disco(basis=basis[:, :, 2:-2, 2:-2])


def test_other_combinations() -> None:
    """Any scales and basis may be put in, such as Eq. 5 as printed."""
    net = learned(IsrScales(1.5, 2.0, 4), like_sesn=True).eval()
    assert net(images(1)).shape == (1, 10)
    with pytest.raises(ValueError, match="pooling must be 'max' or 'average', got 'mean'"):
        ScaleAxisNet(FixedScales(1.5, 2.0, 4), VaryingSigmaBasis(7), pooling="mean")
    with pytest.raises(ValueError, match="algorithm must be one of"):
        sesn(algorithm="fast")
    functions = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    small = ScaleAxisNet(FixedScales(1.0, 2.0, 2), SampledBasis(functions), kernel_size=5)
    assert small.eval()(images(1)).shape == (1, 10)
    assert learned(DirectScales(1.5, 2.0, 4)).scales.num_scales == 4
    assert learned(StepRatioScales(1.5, 2.0, 4), True).conv1.basis._multipliers[1] == pytest.approx(1.4)


@pytest.mark.parametrize(("augmented", "mult"), [(False, 1.5), (True, 1.9)])
def test_disco_has_the_basis_of_its_configuration(augmented: bool, mult: float) -> None:
    assert torch.equal(build("disco", augmented=augmented).conv1.basis.functions, disco_basis(mult=mult))


@pytest.mark.parametrize("name", ["ours_isr", "sicnn", "cnn", "ss_cnn"])
def test_training_after_inference_mode(name: str) -> None:
    """Plans that were made and kept in inference mode serve training, too."""
    for cache in (fourier._cached_plan, sicnn._plan, sicnn.enlarging, strongest._undivided_plan, blocks.plain_plan):
        cache.cache_clear()
    net = made(name)
    with torch.inference_mode():
        net.eval()(images(2))
    net.train()(images(2)).square().sum().backward()
    assert next(net.conv1.parameters()).grad.abs().max() > 0


def test_no_images_and_wrong_type() -> None:
    net = made("sesn")
    assert net(images(0)).shape == (0, 10)
    with pytest.raises(ValueError, match=r"normalised images of a floating point type, got torch\.uint8"):
        net(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
