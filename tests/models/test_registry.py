"""The systems by name: all of Table 5, in its order."""

import json

import pytest
import torch
from reference_files import reference_file
from torch import nn

from scalestudy.models import SYSTEMS, MnistScaleNet, build
from scalestudy.models.frame import classifier

TABLE5 = [
    "cnn", "sicnn", "si_convnet", "sevf", "dss", "ss_cnn", "sesn", "disco", "ours_isr", "ours_spacings", "ours_direct",
]  # fmt: skip
BASELINES = ["cnn", "sicnn", "si_convnet", "sevf", "dss", "ss_cnn", "sevf_scalar", "dss_scalar"]
REFERENCE_NAMES = dict(
    zip(BASELINES, ["CNN", "SiCNN", "SI-ConvNet", "SEVF_vector", "DSS_vector", "SS-CNN", "SEVF_scalar", "DSS_scalar"],
        strict=True)
)  # fmt: skip


def test_table5_comes_first_and_in_its_order() -> None:
    assert list(SYSTEMS)[:11] == TABLE5
    assert [name for name, system in SYSTEMS.items() if system.in_table5] == TABLE5
    assert [SYSTEMS[name].title for name in BASELINES] == [
        "CNN", "SiCNN", "SI-ConvNet", "SEVF", "DSS", "SS-CNN", "SEVF (scalar)", "DSS (scalar)",
    ]  # fmt: skip
    assert len({system.title for system in SYSTEMS.values()}) == len(SYSTEMS)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_have_as_many_parameters_as_their_authors_code(name: str) -> None:
    listed = json.loads(reference_file("params.json").read_text())[REFERENCE_NAMES[name]]
    assert sum(parameter.numel() for parameter in build(name).parameters()) == listed["total_trainable"]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_map_images_to_logits_and_learn(name: str) -> None:
    torch.manual_seed(0)
    net = build(name)
    logits = net(torch.randn(2, 1, 28, 28))
    assert logits.shape == (2, 10)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(net.get_submodule(part).weight.grad.any() for part in ("head.0", "head.4"))
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in net.conv1.parameters())


@pytest.mark.parametrize("name", BASELINES)
def test_building_twice_from_one_seed_gives_one_network(name: str) -> None:
    states = []
    for augmented in (False, True):  # baselines have the same constants with and without augmentation
        torch.manual_seed(3)
        states.append(build(name, augmented=augmented).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"name must be one of cnn, sicnn, .*, got 'resnet'"):
        build("resnet")


@pytest.mark.parametrize("shape", [(2, 1, 27, 28), (2, 3, 28, 28), (28, 28)])
def test_bad_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"CNN takes images of shape \(B, 1, 28, 28\), got"):
        build("cnn")(torch.zeros(shape))


def test_frame_without_blocks() -> None:
    with pytest.raises(TypeError, match="MnistScaleNet does not say what its convolution blocks are"):
        MnistScaleNet().features(torch.zeros(1, 1, 56, 56))


@pytest.mark.parametrize("bias", [False, True])
def test_classifier(bias: bool) -> None:
    head = classifier(90, bias=bias)
    assert [type(part) for part in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert (head[0].in_features, head[0].out_features, head[0].bias is not None) == (360, 256, bias)
    assert (head[3].p, head[4].out_features, head[4].bias is not None) == (0.7, 10, True)
