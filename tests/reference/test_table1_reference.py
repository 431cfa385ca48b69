"""The Table 1 network against every case of the reference file `table1_net_vectors.npz`, whatever they are called."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference_files import arrays, deviation, or_skipped
from torch import Tensor
from torch.nn import functional

from scalestudy.layers import scales as parameterisations
from scalestudy.layers.scales import InternalScales
from scalestudy.models.table1 import Table1Net

FILE = "table1_net_vectors.npz"
LOGITS, LOSS, GRADIENT, VALUES = 1e-5, 1e-5, 1e-3, 1e-5  # of each tensor's largest value
LARGEST_DENSE = 25  # pixels; larger kernels take minutes on a CPU

SCALES = {
    "OFF": parameterisations.FixedScales,
    "DIRECT_SCALES": parameterisations.DirectScales,
    "RATIO_SQUARED": parameterisations.SpacingScales,
    "SINGLE_RATIO_SQUARED": parameterisations.StepRatioScales,
}
LAYERS = {"0": "conv", "3": "norm", "6": "linear"}
CHECKED = {
    "mode", "init_isr", "init_sigma", "scales", "kernel_size", "logits_eval", "logits_train", "loss_train", "loss_eval",
    "conv_mean", "conv_std", "conv_shape", "conv_pix", "conv_corner", "bn_running_mean_after", "bn_running_var_after",
}  # fmt: skip


def cases() -> list[str]:
    return sorted({key.partition("/")[0] for key in arrays(FILE)} - {"images", "labels"})


def runs() -> list[tuple[str, str]]:
    """All cases by both fast algorithms, those of small kernels by dense convolution too."""
    found = list(itertools.product(cases(), ["separable", "fourier"]))
    return found + [(name, "dense") for name in cases() if int(case_of(name)["kernel_size"]) <= LARGEST_DENSE]


def case_of(name: str) -> dict[str, np.ndarray]:
    return {key.partition("/")[2]: value for key, value in arrays(FILE).items() if key.partition("/")[0] == name}


def images_and_labels() -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays(FILE)["images"]), torch.from_numpy(arrays(FILE)["labels"])


def our_name(theirs: str, mode: str) -> str | None:
    """Our name of a parameter or buffer; None for what has no counterpart (checked apart)."""
    if theirs == "0.weight":
        return "conv.weight"
    if theirs == "0.scales_param":
        return "conv.scales.sigmas" if mode == "DIRECT_SCALES" else "conv.scales.gamma"
    if theirs == "0.basis_min_param":
        return None if mode == "DIRECT_SCALES" else "conv.scales.sigma_basis"  # frozen and unused there
    if theirs == "0.basis.basis":
        return None
    layer, _, parameter = theirs.partition(".")
    return f"{LAYERS[layer]}.{parameter}"


def scales_of(case: dict[str, np.ndarray], kind: type[InternalScales] | None = None) -> InternalScales:
    kind = kind or SCALES[str(case["mode"])]
    return kind(float(case["init_sigma"]), float(case["init_isr"]), len(case["scales"]))


def network(
    case: dict[str, np.ndarray], algorithm: str = "separable", scales: InternalScales | None = None, **options
) -> Table1Net:
    """The network of a case with its state loaded, every tensor of it."""
    size, (filters, _, functions) = images_and_labels()[0].shape[-1], case["state/0.weight"].shape
    pooled = math.isqrt(case["state/6.weight"].shape[1] // filters)
    net = Table1Net(
        scales_of(case) if scales is None else scales,
        image_size=size,
        pool_size=size // pooled,
        num_filters=filters,
        effective_size=math.isqrt(functions),
        num_classes=len(case["state/6.bias"]),
        algorithm=algorithm,
        **options,
    )
    state = {}
    for key, value in case.items():
        if key.startswith("state/") and (name := our_name(key.removeprefix("state/"), str(case["mode"]))):
            state[name] = torch.from_numpy(np.array(value)).reshape(net.state_dict()[name].shape)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"conv.scales.internal_scales"}
    return net


def eval_logits(net: Table1Net) -> Tensor:
    with torch.no_grad():
        return net.eval()(images_and_labels()[0])


def check_gradients(net: Table1Net, case: dict[str, np.ndarray], prefix: str) -> None:
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    for key in [key for key in case if key.startswith(prefix)]:
        name, expected = our_name(key.removeprefix(prefix), str(case["mode"])), case[key]
        if name is None:
            assert not expected.any(), f"{key}: a gradient where we have no parameter"
        else:
            assert deviation(gradients.pop(name).reshape(expected.shape), expected) < GRADIENT, key
    assert not gradients, f"{prefix}: the case lacks {sorted(gradients)}"


EVERY_CASE = pytest.mark.parametrize("name", or_skipped(cases))
EVERY_RUN = pytest.mark.parametrize("run", or_skipped(runs), ids=" ".join)


@EVERY_RUN
def test_logits_losses_gradients_and_statistics(run: tuple[str, str]) -> None:
    case, algorithm = case_of(run[0]), run[1]
    images, labels = images_and_labels()
    for mode in ("eval", "train"):
        net = network(case, algorithm).train(mode == "train")
        logits = net(images)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        assert deviation(logits, case[f"logits_{mode}"]) < LOGITS
        assert loss.item() == pytest.approx(float(case[f"loss_{mode}"]), rel=LOSS, abs=LOSS)
        check_gradients(net, case, "grad/" if mode == "train" else "grad_eval/")
    assert deviation(net.norm.running_mean, case["bn_running_mean_after"]) < VALUES
    assert deviation(net.norm.running_var, case["bn_running_var_after"]) < VALUES


@EVERY_RUN
def test_convolution(run: tuple[str, str]) -> None:
    case = case_of(run[0])
    with torch.no_grad():
        responses = network(case, run[1]).conv(images_and_labels()[0])
    assert list(responses.shape) == case["conv_shape"].tolist()
    assert deviation(responses.mean((0, 3, 4)), case["conv_mean"]) < VALUES
    assert deviation(responses.std((0, 3, 4)), case["conv_std"]) < VALUES
    assert deviation(responses[..., 84, 61], case["conv_pix"]) < VALUES
    assert deviation(responses[..., 0, 167], case["conv_corner"]) < VALUES


@EVERY_CASE
def test_scales_kernel_size_basis_and_keys(name: str) -> None:
    case = case_of(name)
    net = network(case)
    scales = net.conv.scales().detach()
    assert scales.tolist() == pytest.approx(case["scales"].tolist(), rel=1e-6)
    assert net.conv.kernel_size() == int(case["kernel_size"])
    if "state/0.basis.basis" in case:
        basis = net.conv.basis.sample(scales, net.conv.kernel_size()).dense()
        assert deviation(basis, case["state/0.basis.basis"]) < 1e-6
    has_grad = {our_name(key.removeprefix("has_grad/"), str(case["mode"])): value for key, value in case.items()
                if key.startswith("has_grad/")}  # fmt: skip
    assert all(bool(value) == (key is not None) for key, value in has_grad.items())
    rest = {key for key in case if not key.startswith(("state/", "grad/", "grad_eval/", "has_grad/"))}
    assert rest <= CHECKED, f"{name}: no check knows {sorted(rest - CHECKED)}: add one to this test"


@EVERY_CASE
def test_negative_controls(name: str) -> None:
    """Each slip must show in the logits, most of them far above the tolerance."""
    case = case_of(name)
    expected = case["logits_eval"]
    net = network(case, order="norm_relu")  # a fresh batch norm shifts nothing in evaluation: look at training too
    in_training = deviation(net.train()(images_and_labels()[0]), case["logits_train"])
    assert max(in_training, deviation(eval_logits(network(case, order="norm_relu")), expected)) > 1e-2
    for change in (2, -2):
        net = network(case)
        net.conv.fixed_size = net.conv.kernel_size() + change
        pixel = net.conv(images_and_labels()[0])[..., 84, 61]  # of every scale, winner or not
        seen = max(deviation(eval_logits(net), expected), deviation(pixel, case["conv_pix"]))
        assert seen > 10 * LOGITS, f"kernel size off by {change}"
    net = network(case)
    weight, side = net.conv.weight, net.conv.basis.effective_size
    swapped = weight.detach().unflatten(-1, (side, side)).mT.flatten(-2)
    basis = net.conv.basis
    parity = torch.tensor([(-1.0) ** (row + col) for row, col in zip(basis.rows, basis.cols, strict=True)])
    for slip in (swapped, weight.detach() * parity):  # row and column exchanged; kernel flipped
        if not torch.equal(slip, weight.detach()):
            net = network(case)
            net.conv.weight.data = slip
            assert deviation(eval_logits(net), expected) > 1e-2
    if str(case["mode"]) == "SINGLE_RATIO_SQUARED" and len(case["scales"]) > 2:  # Eq. 5 as printed: another range
        printed = scales_of(case, parameterisations.IsrScales)
        assert deviation(eval_logits(network(case, scales=printed)), expected) > 100 * LOGITS
