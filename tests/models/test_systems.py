"""All systems of Table 5 and their variants: names, parameters, steps, constants, messages."""

import copy
import functools

import pytest
import torch
from released import as_released
from torch import Tensor, nn

from scalestudy.layers.basis import SampledBasis, VaryingSigmaBasis
from scalestudy.layers.conv import LiftingConv
from scalestudy.layers.disco import disco_basis
from scalestudy.models import SYSTEMS, build, sesn, sevf
from scalestudy.models.cnn import CNN
from scalestudy.models.frame import BlockNet, MnistScaleNet
from scalestudy.models.sesn import ScaleAxisNet, disco
from scalestudy.models.sevf import SEVF
from scalestudy.models.sicnn import SiCNN
from scalestudy.models.ss_cnn import SSCNN

MORE_PARAMETERS = {"ours_isr_like_sesn": 2, "single_scale": 1, "interval_scales": 4}  # than SESN


def images(count: int = 3, channels: int = 1, size: int = 28) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def made(name: str, augmented: bool = False) -> MnistScaleNet:
    torch.manual_seed(0)
    return build(name, augmented=augmented)


def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that are as deep, but not as wide: dense kernels of 27 pixels take their time."""
    for owner, name in ((BlockNet, "channels"), (SSCNN, "channels"), (sesn, "CHANNELS"), (sevf, "VECTOR_CHANNELS")):
        monkeypatch.setattr(owner, name, (3, 4, 5))


def learn(net: nn.Module, batch: Tensor) -> Tensor:
    """Logits, after a backward pass."""
    net.zero_grad()
    logits = net(batch)
    nn.functional.cross_entropy(logits, torch.arange(len(batch))).backward()
    return logits.detach()


def test_names_and_titles() -> None:
    first = "cnn, sicnn, si_convnet, sevf, dss, ss_cnn, sesn, disco, ours_isr, ours_spacings, ours_direct"
    assert ", ".join(SYSTEMS).startswith(first)
    assert ", ".join(name for name, system in SYSTEMS.items() if system.in_table5) == first
    assert len({system.title for system in SYSTEMS.values()}) == len(SYSTEMS) == 16


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameters_logits_and_gradients(name: str) -> None:
    """The same ones from one seed, and all learn but those that the authors' code does not use."""
    net = made(name)
    if name in MORE_PARAMETERS:  # tests/reference counts those of the authors' networks
        assert sum(parameter.numel() for parameter in net.parameters()) == 494_549 + MORE_PARAMETERS[name]
    again = made(name).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())
    assert (type(net.head[1]), type(net.head[2]), net.head[3].p) == (nn.BatchNorm1d, nn.ReLU, 0.7)
    assert learn(net, images(2)).shape == (2, 10)
    unused = {key for key, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert unused == {key for key, parameter in net.named_parameters() if not parameter.requires_grad}  # DDP wants it
    assert unused == {
        "ss_cnn": {f"conv{i}.const_real" for i in (1, 2, 3)} | {"unused_norm.weight", "unused_norm.bias"},
        "sevf": {"norm1.weight", "norm2.weight"},
    }.get(name, set())


@pytest.mark.parametrize("name", ["cnn", "sicnn", "dss", "ss_cnn", "sesn", "disco", "ours_isr"])
def test_initial_weights_are_those_of_the_released_code(name: str) -> None:
    """From one seed, the first convolution's weights are the first numbers drawn, in their authors' order."""
    net = made(name)
    weight = net.conv1.weight.detach().flatten(2)
    torch.manual_seed(0)
    if name == "ss_cnn":
        bound = (2 / (9 * 30)) ** 0.5
        parts = [torch.empty(3, 30, 1, 9).uniform_(-bound, bound) for _ in ("mult_real", "mult_imag")]
        expected = torch.cat([part.permute(1, 2, 0, 3).flatten(2) for part in parts], 2)
    elif name == "dss":
        expected = nn.init.normal_(torch.empty(32, 1, 49), std=(2 / 49) ** 0.5)
    else:
        expected = torch.empty(32, 1, 49).uniform_(-1 / 7, 1 / 7)
    torch.testing.assert_close(weight, expected)


def step_by_step(net: MnistScaleNet, x: Tensor) -> Tensor:
    """The network as its authors write it: every layer by itself, in their order, with their algorithms."""
    net = as_released(net)
    x = nn.Upsample(scale_factor=2, mode="nearest")(x)
    if isinstance(net, SEVF):
        return net.head(net.features(x).flatten(1))
    kernel = (1, 2, 2) if isinstance(net, ScaleAxisNet) or net.norm is nn.BatchNorm3d else 2
    average = getattr(net, "pooling", "max") == "average"
    pool = {(1, 2, 2): nn.AvgPool3d if average else nn.MaxPool3d, 2: nn.MaxPool2d}[kernel](kernel)
    for conv, norm in ((net.conv1, net.norm1), (net.conv2, net.norm2)):
        x = conv(x)
        x = pool(x.relu() if getattr(net, "relu", True) else x)
        if isinstance(net, ScaleAxisNet):
            norm = functools.partial(nn.functional.batch_norm, running_mean=None, running_var=None, training=True,
                                     weight=norm.weight, bias=norm.bias)  # fmt: skip
        x = norm(x)
    x = net.conv3(x)
    if isinstance(net, ScaleAxisNet):
        x = x.max(2).values
    last = nn.MaxPool3d((1, 8, 8), padding=(0, 2, 2)) if x.dim() == 5 else nn.MaxPool2d(8, padding=2)
    x = net.norm3((nn.Sequential(nn.MaxPool2d(7, stride=1), nn.AvgPool2d(2, stride=4)) if average else last)(x.relu()))
    if isinstance(net, SiCNN):
        x = x.unflatten(1, (7, -1)).max(1).values
    return net.head((x.max(2).values if x.dim() == 5 else x).flatten(1))


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in ("ours_isr", "ours_direct")])
def test_fast_and_step_by_step_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few_channels(monkeypatch)
    net = made(name).double()
    net.head[3].p = 0.0
    for key, parameter in net.named_parameters():
        if key.endswith("bias"):
            parameter.data.uniform_(-0.5, 0.5)
    slow, batch, results = copy.deepcopy(net), images().double(), []
    for one, run in ((net, net), (slow, functools.partial(step_by_step, slow))):
        logits = run(batch)
        nn.functional.cross_entropy(logits, torch.arange(3)).backward()
        results.append([logits.detach(), *(p.grad for p in one.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8 * max(1.0, theirs.abs().max().item()))


@pytest.mark.parametrize("name", ["cnn", "dss_scalar", "si_convnet", "sevf_scalar"])
def test_second_derivatives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hessian times a vector, against differences of gradients."""
    few_channels(monkeypatch)
    net, batch, step = made(name).double().eval(), images().double(), 1e-6
    weight = net.conv2.weight
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradient(create_graph: bool = False) -> Tensor:
        loss = nn.functional.cross_entropy(net(batch), torch.arange(3))
        return torch.autograd.grad(loss, weight, create_graph=create_graph)[0]

    (product,) = torch.autograd.grad((gradient(create_graph=True) * direction).sum(), weight)
    weight.data += step * direction
    difference = gradient()
    weight.data -= 2 * step * direction
    difference = (difference - gradient()) / (2 * step)
    torch.testing.assert_close(product, difference, rtol=1e-3, atol=1e-4 * product.abs().max().item())


@pytest.mark.parametrize("name", SYSTEMS)
def test_other_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels, classes and size of the images are arguments; of a new size, nothing is kept from other tests.

    What is made and kept in inference mode serves training, too.
    """
    few_channels(monkeypatch)
    torch.manual_seed(0)
    net, batch = build(name, in_channels=3, num_classes=100, image_size=36), images(2, 3, 36)
    with torch.inference_mode():
        assert net.eval()(batch).shape == (2, 100)
    learn(net.train(), batch)
    assert next(net.conv1.parameters()).grad.any()
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 3, 36, 36\), got \(3, 1, 28, 28\)"):
        net(images())
    assert build(name, image_size=16)(images(2, 1, 16)).isfinite().all()


@pytest.mark.filterwarnings("ignore")  # of torch, of its own ways
@pytest.mark.parametrize("name", ["dss", "sicnn", "si_convnet", "sevf"])
def test_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few_channels(monkeypatch)
    torch._dynamo.reset()
    net = made(name).eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), net(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sesn", "disco", "ours_isr", "cnn"])
def test_layers_that_somebody_listens_to_are_called(name: str) -> None:
    """And nothing changes but rounding; a layer that is computed another way than by its call would be passed by."""
    net, seen = made(name).eval(), []
    expected = net(images())
    for part in (net.conv1, net.conv2, net.conv3):
        part.register_forward_hook(lambda layer, given, response: seen.append(response))
    torch.testing.assert_close(net(images()), expected, rtol=1e-5, atol=1e-5)
    assert len(seen) == 3
    torch.testing.assert_close(seen[0], net.conv1(nn.Upsample(scale_factor=2)(images())))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CNN()(torch.zeros(2, 1, 27, 28)), r"CNN takes images of shape \(B, 1, 28, 28\), got \(2, 1, 27, 28\)"),
        (lambda: CNN()(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)), r"floating point type, got torch\.uint8"),
        (lambda: build("cnn", image_size=27), "image_size must be even and at least 16 pixels, got 27"),
        (lambda: build("sesn", image_size=14), "image_size must be even and at least 16 pixels, got 14"),
        (lambda: build("sevf", image_size=28.0), r"image_size must be an integer >= 1, got 28\.0"),
        (lambda: build("dss", in_channels=0), "in_channels must be an integer >= 1, got 0"),
        (lambda: build("disco", num_classes=0), "num_classes must be an integer >= 1, got 0"),
        (
            lambda: build("resnet"),
            "name must be one of cnn, sicnn, .*, got 'resnet'; .* another one in SCALESTUDY_IMPORT",
        ),
        (lambda: build(["cnn"]), r"name must be one of .*, got \['cnn'\]"),
        (lambda: sesn.sesn(pooling="mean"), "pooling must be 'max' or 'average', got 'mean'"),
        (lambda: disco(basis=torch.ones(49, 4, 11, 11)), "kernels of 11 pixels, got 4 scales and kernel_"),
    ],
)
def test_messages(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_no_images(name: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No logits, gradients of 0 where images give any, and the statistics of norms as they were."""
    few_channels(monkeypatch)
    net = made(name).train(training)
    before, logits = copy.deepcopy(net.state_dict()), net(images(0))
    assert logits.shape == (0, 10)
    logits.sum().backward()
    assert all(not conv.grad.any() for conv in net.conv2.parameters() if conv.grad is not None)
    assert next(net.conv1.parameters()).grad is not None
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if "tracked" not in key)


@pytest.mark.parametrize(
    ("name", "augmented", "scales", "kernel_size", "relu", "pooling", "mult"),
    [
        ("sesn", False, [1.5, 1.89, 2.38, 3.0], 15, True, "max", 1.4),
        ("sesn", True, [1.7, 2.14, 2.7, 3.4], 15, True, "max", 1.5),
        ("disco", False, [1.9, 2.394, 3.021, 3.8], 15, True, "average", 1.5),
        ("disco", True, [1.9, 2.394, 3.021, 3.8], 15, True, "average", 1.9),
        ("ours_isr", False, [1.5, 1.89, 2.381, 3.0], 27, False, "max", 1.4),
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
    assert net.scales.values() == pytest.approx(scales, abs=6e-4)
    assert net.conv1.scales is net.conv2.scales is net.conv3.scales is net.scales
    assert {conv.kernel_size() for conv in (net.conv1, net.conv2, net.conv3)} == {kernel_size}
    assert (net.relu, net.pooling) == (relu, pooling)
    basis = SampledBasis(disco_basis(mult=mult)) if name == "disco" else VaryingSigmaBasis(7, mult=mult)
    conv = LiftingConv(1, 32, net.scales, basis=basis, kernel_size=kernel_size)
    conv.weight = net.conv1.weight
    assert torch.equal(conv.kernels(), net.conv1.kernels())


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


@pytest.mark.parametrize(("name", "size"), [("ours_isr", 39), ("ours_isr_like_sesn", 15)])
def test_kernel_follows_the_scales_as_released_only(name: str, size: int) -> None:
    net = made(name)
    net.scales.sigma_basis.data *= 1.5
    assert net.conv2.kernel_size() == size


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_network_made_on_meta_computes_what_its_state_was_saved_from(name):
    """What is no parameter is not left behind."""
    saved, images = build(name).eval(), torch.rand(2, 1, 28, 28)
    with torch.device("meta"):
        empty = build(name)
    empty = empty.to_empty(device="cpu").eval()
    empty.load_state_dict(saved.state_dict())
    assert torch.equal(empty(images), saved(images))
