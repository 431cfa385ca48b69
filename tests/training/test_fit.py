"""The study's training for a network and a data set of one's own."""

import pytest
import torch
from torch import nn

import scalestudy
from scalestudy.layers.conv import LiftingConv, ScaleProjection
from scalestudy.layers.scales import IsrScales
from scalestudy.models import build
from scalestudy.training.fit import fit
from scalestudy.training.train import TrainingDiverged

LABELS = torch.arange(40) % 4


def images(size: int = 16, channels: int = 2) -> torch.Tensor:
    """A bright square at another place for each class, and noise."""
    pictures = torch.randn(40, channels, size, size, generator=torch.Generator().manual_seed(0)) / 4
    for picture, label in zip(pictures, LABELS.tolist(), strict=True):
        picture[:, 4 * label : 4 * label + 3, 2:7] += 1
    return pictures


def network() -> nn.Module:
    torch.manual_seed(0)
    conv, flat = LiftingConv(2, 4, IsrScales(0.8, 2.0, 2), 3), [nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()]
    return nn.Sequential(conv, ScaleProjection(), nn.BatchNorm2d(4), *flat, nn.Dropout(0.2), nn.Linear(64, 4))


def test_loss_falls_scales_are_learned_and_the_seed_decides() -> None:
    seen, nets = [], [network() for _ in range(3)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (
        fit(net, images(), LABELS, epochs=6, batch_size=8, seed=seed, scale_warmup_epochs=0, on_step=seen.append)
        for net, seed in zip(nets, (0, 0, 1), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again != other
    assert len(first) == 6 and first[-1] < 0.3 * first[0]
    assert first[0] == pytest.approx(torch.stack(seen[:5]).mean().item(), rel=1e-5)
    assert nets[0][0].scales.values() != network()[0].scales.values()
    assert not nets[0].training and (nets[0](images()).argmax(1) == LABELS).double().mean() > 0.9


def test_a_system_on_images_of_its_own_in_double_precision() -> None:
    net = build("cnn", in_channels=2, num_classes=4, image_size=16).double()
    losses = scalestudy.fit(net, images(), LABELS, epochs=3, batch_size=20, learning_rate=0.001)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("pictures", "labels", "options", "message"),
    [
        (images().to(torch.uint8), LABELS, {}, r"floating point tensor of shape \(n, C, H, W\).* torch.uint8 \(40, 2,"),
        (images()[:, 0], LABELS, {}, r"got torch.float32 \(40, 16, 16\) and \(40,\); convert"),
        (images().numpy(), LABELS, {}, r"got float32 \(40, 2, 16, 16\)"),
        (images(), LABELS, {"batch_size": 0}, "batch_size\n.*greater than or equal to"),
        (images(), LABELS[:39], {}, "one label for each image"),
        (
            images(),
            LABELS.float(),
            {},
            r"labels must be classes as torch.int64, got torch.float32",
        ),
        (images(), LABELS, {"batch_size": 13}, "a last batch of one image, .* got 13 with 40 images"),
        (images(), LABELS, {"learning_rat": 1}, "learning_rat\n.*not permitted"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(pictures, labels, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit(network(), pictures, labels, **options)


def test_scales_that_leave_the_images_end_it() -> None:
    with pytest.raises(TrainingDiverged, match=r"fit: diverged in epoch 1 of 2 .* fit on images of 32 pixels"):
        fit(network(), images(), LABELS, epochs=2, scale_learning_rate=100, scale_warmup_epochs=0)
