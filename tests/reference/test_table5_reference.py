"""The systems of Table 5 against their authors' code: every state file, every number, every parameter count.

The state files (2 MB each) are not kept with the tests, see `reference_files`.  A file whose name no mapping knows
fails; so does an entry that no mapping uses.
"""

import functools
import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from reference_files import arrays, deviation, or_skipped, reference_file, reference_paths
from table5_mapping import REFERENCES
from torch import nn

STATE_FILES = "table5_state_*.npz"
VECTORS = "table5_vectors.npz"
PARAMETERS = "params.json"

EVAL_ATOL = 1e-5  # of the largest logit
TRAIN_ATOL = 5e-5  # batch norm over two images amplifies rounding: float64 is up to 3e-5 away from the authors' float32
LOSS_RTOL = 1e-5
GRADIENT_ATOL = 1e-3  # of the largest gradient of the tensor


def in_double_precision(net: nn.Module) -> nn.Module:
    """Weights and maps in float64, learned scales in float32, as they decide on the size of the kernels.

    Gradients of scales are sums that nearly cancel, taken through batch norm over two images: any two float32
    computations of them differ by up to 2e-3, the authors' own is 1e-3 from what float64 gives.
    """
    net.double()
    net.scales.float()
    return net


def state_names() -> list:
    """Names of all networks that have a state file; one skipped stand-in where there is none."""
    names = [path.stem.removeprefix("table5_state_") for path in reference_paths(STATE_FILES)]
    return names or or_skipped(lambda: [reference_file(STATE_FILES)])


@functools.lru_cache
def parameter_lists() -> dict:
    """By the names of all networks of Table 5."""
    listed = json.loads(reference_file(PARAMETERS).read_text())
    return {name: value for name, value in listed.items() if not name.startswith("Table1_")}


EVERY_STATE = pytest.mark.parametrize("name", state_names())


def loaded(name: str) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Our network with the authors' state, without dropout; and what else the state file holds."""
    state = dict(arrays(f"table5_state_{name}.npz"))
    extra = {key: state.pop(key) for key in list(state) if key.startswith("__")}
    net = REFERENCES[name].make()
    REFERENCES[name].load(net, state)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net, extra


@functools.lru_cache
def after_backward(name: str, double: bool = False) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network with gradients, logits and loss in training mode on the images of the vectors."""
    net, _ = loaded(name)
    net = in_double_precision(net) if double else net
    images = torch.from_numpy(arrays(VECTORS)["images"]).to(next(net.head.parameters()).dtype)
    logits = net.train()(images)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(arrays(VECTORS)["labels"]))
    loss.backward()
    return net, logits, loss


def with_gradients(name: str) -> nn.Module:
    """The network whose gradients are compared."""
    net, _, _ = after_backward(name)
    learns_scales = net.scales is not None and any(True for _ in net.scales.parameters())
    return after_backward(name, double=True)[0] if learns_scales else net


def expected_of(name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays(VECTORS).items() if key.startswith(f"{name}/")}


@EVERY_STATE
def test_evaluation_mode(name: str) -> None:
    net, extra = loaded(name)
    assert set(extra) == {"__images__", "__logits_eval__"}, f"no check knows all of {sorted(extra)}: add one"
    net.eval()
    with torch.no_grad():
        assert deviation(net(torch.from_numpy(extra["__images__"])), extra["__logits_eval__"]) < EVAL_ATOL
        if expected := expected_of(name):
            assert deviation(net(torch.from_numpy(arrays(VECTORS)["images"])), expected["logits_eval"]) < EVAL_ATOL


@EVERY_STATE
def test_training_mode(name: str) -> None:
    _, logits, loss = after_backward(name)
    expected = expected_of(name)
    if not expected:
        pytest.skip(f"{VECTORS} has nothing on {name}")
    assert deviation(logits, expected.pop("logits_train_nodropout")) < TRAIN_ATOL
    assert loss.item() == pytest.approx(float(expected.pop("loss_train_nodropout")), rel=LOSS_RTOL)
    net = with_gradients(name)
    parameters = dict(net.named_parameters())
    for key in [key for key in expected if key.startswith("grad/")]:
        theirs = key.removeprefix("grad/")
        gradient = REFERENCES[name].part(theirs, parameters[REFERENCES[name].ours(theirs)].grad)
        assert deviation(gradient, expected.pop(key)) < GRADIENT_ATOL
    if "scales" in expected:
        assert net.scales.values() == pytest.approx(expected.pop("scales").tolist(), rel=1e-6)
    assert set(expected) == {"logits_eval"}, f"{name}: no check knows all of {sorted(expected)}: add one"


@EVERY_STATE
def test_gradient_norms(name: str) -> None:
    """The norm of every gradient that is not rounding noise; parameters that get none in the released code get none."""
    net = with_gradients(name)
    listed, reference = parameter_lists()[name], REFERENCES[name]
    norms, parameters = listed["grad_norms_train_nodropout"], dict(net.named_parameters())
    for layer in listed["layers"]:
        gradient = parameters[reference.ours(layer["name"])].grad
        if layer["name"] not in norms:
            assert gradient is None, f"{layer['name']} is unused in the released code"
        elif norms[layer["name"]] > 1e-3:
            gradient = reference.part(layer["name"], gradient)
            assert gradient.norm().item() == pytest.approx(norms[layer["name"]], rel=1e-3), layer["name"]


@pytest.mark.parametrize("name", or_skipped(lambda: list(parameter_lists())))
def test_parameters_layer_by_layer(name: str) -> None:
    reference, listed = REFERENCES[name], parameter_lists()[name]
    ours = {key: parameter.numel() for key, parameter in reference.make().named_parameters()}
    theirs: Counter[str] = Counter()
    for layer in listed["layers"]:
        theirs[reference.ours(layer["name"])] += layer["numel"]
    assert theirs == ours
    assert sum(ours.values()) == listed["total_trainable"]
    frozen = {layer["name"] for layer in listed["frozen"]}
    assert all(any(re.fullmatch(pattern, key) for pattern in reference.frozen) for key in frozen)
    assert bool(frozen) == bool(reference.frozen)


def test_negative_controls() -> None:
    """A state that is not used up, or does not fill the network, or differs from what we compute, must not pass."""
    reference = REFERENCES["DSS_vector"]
    listed = parameter_lists()["DSS_vector"]
    net = reference.make()
    shapes = {entry["name"]: entry["shape"] for entry in (*listed["layers"], *listed["buffers"])}
    state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if "kernel" not in name}
    reference.load(net, state)
    with pytest.raises(KeyError):
        reference.load(net, state | {"1.main.3.weight": np.zeros(1, np.float32)})
    with pytest.raises(AssertionError, match=r"not filled: \['norm3\.bias'\]"):
        reference.load(net, {name: value for name, value in state.items() if name != "1.main.12.bias"})
    with pytest.raises(AssertionError, match="not close"):
        reference.load(net, state | {"1.main.0.kernelx_0": np.full((1, 1, 1, 9), 1 / 9, np.float32)})
