"""What people do with modules of torch: transform, differentiate twice, compile, export, convert, move, save."""

import copy
import io
import os
import pickle

import pytest
import torch
from agreement import (
    BY_HAND,
    EVERY,
    EVERY_KIND,
    PARAMETERISATIONS,
    assert_same,
    by_dense,
    images_for,
    layer_of,
    outcome,
    random,
)
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, linearize, stack_module_state, vmap
from torch.nn.utils import prune

from scalestudy.layers.basis import SampledBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv, ScaleProjection
from scalestudy.layers.scales import (
    FixedScales,
    InternalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)

TORCH_WARNS = pytest.mark.filterwarnings("ignore")  # of its own ways
LIFT_AND_GROUP = pytest.mark.parametrize("kind", ["lift", "group"])
FIXED = FixedScales.from_values([0.9, 1.4, 2.07])


def loss_of(layer):
    def loss(parameters, x):
        y = functional_call(layer, parameters, (x,))
        return (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)).square().sum()

    return loss


def forward_mode(layer, parameters, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(layer(forward_ad.make_dual(x, x.cos()))).tangent


def many_at_once(layer, parameters, x):
    y, eye = layer(x), torch.eye(3, dtype=x.dtype)
    directions = torch.stack([y.detach() * row for row in eye[:, 0].tolist()] + [y.detach().cos()])
    return torch.autograd.grad(y, [*layer.parameters()], directions, is_grads_batched=True)


def meta_gradient(layer, parameters, x):
    """Of the loss after a step on it, as MAML has it."""
    loss = loss_of(layer)
    steps = torch.autograd.grad(loss(parameters, x), [*parameters.values()], create_graph=True)
    moved = {name: value - 1e-4 * step for (name, value), step in zip(parameters.items(), steps, strict=True)}
    return torch.autograd.grad(loss(moved, x.flip(0)), [*parameters.values()])


TRANSFORMS = {
    "grad": lambda layer, parameters, x: grad(loss_of(layer))(parameters, x),
    "gradients of each image": lambda layer, parameters, x: vmap(grad(loss_of(layer)), (None, 0))(
        parameters, x[:, None]
    ),
    "jvp": lambda layer, parameters, x: jvp(layer, (x,), (x.cos(),)),
    "linearize": lambda layer, parameters, x: linearize(layer, x)[1](x.cos()),
    "jacrev": lambda layer, parameters, x: jacrev(lambda x: layer(x).sum((-1, -2)))(x),
    "jacfwd": lambda layer, parameters, x: jacfwd(lambda p: functional_call(layer, p, (x,)))(parameters),
    "jacobian": lambda layer, parameters, x: torch.autograd.functional.jacobian(lambda x: layer(x).sum((-1, -2)), x),
    "hessian": lambda layer, parameters, x: torch.autograd.functional.hessian(
        lambda x: layer(x[..., :2, :]).exp().sum(), x
    ),
    "forward mode": forward_mode,
    "many at once": many_at_once,
    "meta-gradient": meta_gradient,
}


@TORCH_WARNS
@pytest.mark.parametrize("transform", TRANSFORMS)
@BY_HAND
@EVERY_KIND
def test_transforms(kind, algorithm, transform) -> None:
    """The same as of dense kernels and modules one by one, which torch transforms itself."""
    layer = layer_of(kind, channels=(1, 2), algorithm=algorithm).eval()
    x, found = images_for(layer, (4, 4)), []
    for one in (layer, by_dense(layer)):
        made = TRANSFORMS[transform](one, dict(one.named_parameters()), x)
        found.append({str(name): part for name, part in enumerate(torch.utils._pytree.tree_leaves(made))})
    assert any(part.abs().max() > 1e-3 for part in found[1].values())
    assert_same(*found)


@BY_HAND
@pytest.mark.parametrize("kind", [FixedScales, IsrScales])
def test_many_layers_at_once(kind, algorithm) -> None:
    """Of different scales, which nobody can ask for their values there."""
    layers = [LiftingConv(1, 2, kind(1.0 + number, 2.0, 3), 2, algorithm=algorithm).double() for number in range(2)]
    parameters, x = stack_module_state(layers), torch.randn(2, 1, 12, 12, dtype=torch.float64)
    found = vmap(lambda *state: functional_call(layers[0], state, (x,)))(*parameters)
    torch.testing.assert_close(found, torch.stack([layer(x) for layer in layers]))


def stack(algorithm: str, scales: InternalScales = FIXED) -> nn.Sequential:
    torch.manual_seed(0)
    lift = LiftingConv(1, 2, scales, 2, algorithm=algorithm)
    group = GroupConv(2, 2, scales, 2, algorithm=algorithm, stride=2, bias=True)
    return nn.Sequential(lift, nn.ReLU(), group, ScaleProjection())


def compiled(net: nn.Module, x: torch.Tensor) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(net, backend=os.environ.get("SCALESTUDY_BACKEND", "aot_eager"), fullgraph=True)


CONVERSIONS = {
    "export": lambda net, x: torch.export.export(net, (x,), strict=False).module(),
    "compile": compiled,
    "trace": lambda net, x: torch.jit.trace(net, x, check_trace=False),
    "layer.export": lambda net, x: nn.Sequential(net[0].export(), net[1], net[2].export(), net[3]),
    "trace of layer.export": lambda net, x: torch.jit.trace(CONVERSIONS["layer.export"](net, x), x, check_trace=False),
    "script of layer.export": lambda net, x: torch.jit.script(CONVERSIONS["layer.export"](net, x)),
}


@TORCH_WARNS
@pytest.mark.parametrize("conversion", CONVERSIONS)
@EVERY
def test_conversions_of_fixed_scales(algorithm, conversion) -> None:
    """Also after they were rounded, and others loaded; caches serve eager steps as before."""
    net, x = stack(algorithm), random(2, 1, 9, 12, dtype=torch.float32)
    net[0].scales.load_state_dict(FixedScales(0.8, 2.0, 3).float().state_dict())
    expected = net(x)
    torch.testing.assert_close(CONVERSIONS[conversion](net, x)(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(net(x), expected)


def assert_follows(converted: nn.Module, net: nn.Sequential, x: torch.Tensor) -> None:
    """Outputs and gradients of what was made of a net, while its scales change the kernel size."""
    sizes, parameters = set(), [*net.parameters()]
    for _ in range(3):
        found, expected = converted(x), net(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        gradients = [torch.autograd.grad(y.square().sum(), parameters) for y in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
        sizes.add(net[0].kernel_size())
        net[0].scales.sigma_basis.data.mul_(1.15)
    assert len(sizes) == 3


@TORCH_WARNS
@pytest.mark.parametrize("conversion", ["compile", "export", "trace"])
@EVERY
def test_one_graph_serves_learned_scales(algorithm, conversion) -> None:
    net, x = stack(algorithm, IsrScales(0.9, 2.3, 3)), random(2, 1, 9, 12, dtype=torch.float32)
    converted = CONVERSIONS[conversion](net, x)
    converted(x)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_follows(converted, net, x)
    if (conversion, algorithm) == ("compile", "fourier"):  # of another size: a graph of symbols would take minutes
        torch.testing.assert_close(converted(x[..., 1:]), net(x[..., 1:]), rtol=1e-4, atol=1e-5)
    net[0].scales.sigma_basis.data.fill_(0.2)
    assert converted(x).isnan().all()


OPTIONS = {
    "none": {},
    "stride": {"stride": 3, "bias": True},
    "groups": {"groups": 2, "bias": True},
    "no padding": {"padding": "valid"},
    "all": {"groups": 2, "padding": "valid", "stride": 2, "bias": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@EVERY
@LIFT_AND_GROUP
def test_arguments_of_conv2d(kind, algorithm, options) -> None:
    """By `conv2d` with the layer's kernels; so does what the layer exports."""
    layer = layer_of(kind, IsrScales(0.9, 1.5, 2), (2, 4), VaryingSigmaBasis(2), algorithm, **options)
    if layer.bias is not None:
        layer.bias.data = torch.linspace(-1, 1, 4, dtype=torch.float64)
    x, kernels = images_for(layer, (15, 17)), layer.kernels()
    padding = 0 if layer.padding == "valid" else kernels.shape[-1] // 2
    planes = x.unbind(2) if kind == "group" else [x] * 2
    pairs = zip(planes, kernels.unbind(2), strict=True)
    same = {"stride": layer.stride, "padding": padding, "groups": layer.groups}
    expected = torch.stack([nn.functional.conv2d(plane, kernel, layer.bias, **same) for plane, kernel in pairs], 2)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.export()(x), expected)
    if kind == "lift":
        torch.testing.assert_close(layer.project(x), expected.amax(2))
        torch.testing.assert_close(nn.Sequential(layer, ScaleProjection())(x), expected.amax(2))
    assert_same(outcome(layer, x), outcome(by_dense(layer), x))


@EVERY
@LIFT_AND_GROUP
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_one_rule_for_types(kind, algorithm, dtype) -> None:
    """That of `nn.Conv2d`: images have the type of the weights."""
    layer = layer_of(kind, algorithm=algorithm).float()
    x = images_for(layer)
    with pytest.raises(ValueError, match=rf"takes real tensors of the type of its weights, torch.float32, got {dtype}"):
        layer(x.to(dtype))
    layer.weight.data = layer.weight.data.to(torch.complex64)
    with pytest.raises(ValueError, match="takes real tensors"):
        layer(x.to(torch.complex64))


@EVERY
@LIFT_AND_GROUP
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(kind, algorithm, dtype) -> None:
    """Rounds inputs, weights and outputs only: functions of order 11 and their norms would not fit."""
    layer = layer_of(kind, FixedScales(2.0, 2.0, 2), basis=VaryingOrderBasis(12), algorithm=algorithm).to(dtype)
    x = images_for(layer).to(dtype)
    exact = by_dense(layer).double()
    exact.scales = layer.scales
    expected = exact(x.double())
    assert layer(x).dtype == dtype
    assert (layer(x) - expected).norm() < torch.finfo(dtype).eps * expected.norm()
    full = exact.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert full(x.float()).dtype == full.kernels().dtype == torch.float32


@EVERY
@EVERY_KIND
def test_outputs_are_ordinary_tensors(kind, algorithm) -> None:
    layer = layer_of(kind, channels=(2, 3), algorithm=algorithm)
    x = images_for(layer)
    y = layer(x)
    assert y.is_contiguous() and torch.equal(nn.ReLU(inplace=True)(layer(x)), y.relu())
    with torch.inference_mode(), torch.enable_grad():
        torch.testing.assert_close(layer.eval()(x.clone()), by_dense(layer)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize("scales_too", [True, False])
def test_from_meta_to_a_loaded_state(scales_too, kind) -> None:
    with torch.device("meta" if scales_too else "cpu"):
        empty = nn.Sequential(LiftingConv(1, 2, kind(2.0, 3.0, 3), 2, bias=True, device="meta"))
    assert ("3 internal scales without values" in repr(empty)) == scales_too
    saved, x = nn.Sequential(LiftingConv(1, 2, kind(1.2, 2.0, 3), 2, bias=True)), torch.randn(1, 1, 9, 9)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    layer = empty.to_empty(device="cpu")
    layer.load_state_dict(torch.load(file))
    assert layer[0].scales.values() == saved[0].scales.values()
    for same in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), saved(x))


def test_a_sampled_basis_is_no_parameter_and_not_lost_on_meta() -> None:
    pictures = random(4, 2, 5, 5)
    with torch.device("meta"):
        layer = LiftingConv(1, 2, FixedScales(1.0, 2.0, 2), basis=SampledBasis(pictures), kernel_size=5)
    assert set(layer.state_dict()) == {"weight", "scales.internal_scales"}
    layer = layer.to("meta").to_empty(device="cpu").float()
    assert torch.equal(layer.basis.functions, pictures.float())


def test_weights_of_a_device_and_type() -> None:
    """Uniform up to 1 / sqrt(fan in), fan in = channels in x functions; no bias unless asked for."""
    layer = nn.utils.skip_init(LiftingConv, 4, 200, FIXED, 5, bias=True, dtype=torch.float64)
    layer.weight.data.fill_(torch.nan), layer.bias.data.fill_(torch.nan)
    for seed, same in ((0, layer), (0, LiftingConv(4, 200, FIXED, 5, dtype=torch.float64))):
        torch.manual_seed(seed)
        same.reset_parameters()
        torch.manual_seed(seed)
        expected = torch.empty(200, 4, 25, dtype=torch.float64).uniform_(-0.1, 0.1)
        torch.testing.assert_close(same.weight.data, expected)
    assert not layer.bias.any() and same.bias is None
    assert LiftingConv(1, 2, FIXED, 2, device="meta").weight.is_meta


def lifting(scales=FIXED, size: int | None = 3, **options) -> LiftingConv:
    return LiftingConv(1, 2, scales, size, **options)


ISR, STEP, SPACING = (kind(2.0, 3.0, 3) for kind in (IsrScales, StepRatioScales, SpacingScales))
SIGMA = {"size": None, "basis": VaryingSigmaBasis(3)}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("saved", "other", "message"),
    [
        (ISR, IsrScales(2.0, 3.0, 4), "saved from IsrScales of 3 scales and .* not fit IsrScales of 4"),
        (STEP, StepRatioScales(2.0, 3.0, 4), "of 3 scales and does not fit Step.* of 4 scales"),
        (STEP, ISR, "saved from StepRatioScales .* does not fit IsrScales"),
        (SPACING, STEP, "saved from SpacingScales .* fit StepRatioScales"),
        (lifting(), lifting(**SIGMA), "with VaryingOrderBasis.* does not fit .*VaryingSigmaB"),
        (lifting(), lifting(extent=3.0), "and extent 4 and does not fit .* and extent 3"),
        (lifting(), lifting(kernel_size=9), "does not fit .* and kernels of 9 pixels"),
        (lifting(IsrScales(1.0, 2.0, 3)), lifting(StepRatioScales(1.0, 2.0, 3)), "scales was saved from IsrScales"),
    ],
)
def test_states_that_do_not_fit(saved, other, message, strict) -> None:
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(RuntimeError, match=message):
        other.load_state_dict(copy.deepcopy(saved.state_dict()), strict=strict)
    scales = [name for name in before if "weight" not in name]
    assert all(torch.equal(other.state_dict()[name], before[name]) for name in scales)


def test_a_state_without_metadata_that_is_seen_not_to_fit() -> None:
    state = {name: value.clone() for name, value in StepRatioScales(2.0, 3.0, 3).state_dict().items()}
    with pytest.raises(RuntimeError, match="saved from a list where this has a number and does not fit IsrScales"):
        IsrScales(2.0, 3.0, 3).load_state_dict(state)
    StepRatioScales(1.0, 2.0, 3).load_state_dict(state)


def test_hooks_see_every_use() -> None:
    """Of `without_bias` and `project`, too: tools that change weights hang on the call."""
    layer, x, seen = lifting(bias=True), torch.randn(1, 1, 9, 9), []
    prune.l1_unstructured(layer, "weight", 0.5)
    layer.register_forward_hook(lambda *_: seen.append("hook"))
    for use in (layer, layer.without_bias, layer.project):
        before = use(x)
        layer.weight_orig.data.mul_(2)
        torch.testing.assert_close(use(x), 2 * before)
    assert len(seen) == 6
    with pytest.raises(ValueError, match=r"export\(\) must find parameters, got what a hook"):
        layer.export()
    prune.remove(layer, "weight")
    torch.testing.assert_close(layer.export()(x), layer(x))
