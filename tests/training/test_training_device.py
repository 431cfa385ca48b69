"""Training without a word from the device to the host at each step, proved without a GPU.

On the "meta" device tensors have no numbers, so whatever reads one on the host raises: `.item()`, `.tolist()`, a copy
to the CPU, a condition, indexing by a mask.  What runs there runs on a GPU without waiting for it.
"""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import scalestudy.training.train as training
from scalestudy.data import LogUniform, dynamic, rescale
from scalestudy.data.dynamic import DynamicScaleSplit
from scalestudy.data.realisations import MnistScaleSplit
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)
from scalestudy.models import Table1Net
from scalestudy.training import tasks
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.train import TrainingDiverged, train_step

META = torch.device("meta")
SPEC = RunSpec(
    scales=ScalesSpec(parameterisation="isr"),
    data=DataSpec(distribution=LogUniform(low=1, high=4), train_images=40, shrink=3),
    training=TrainingSpec(epochs=2, batch_size=16),
)


class Gain(nn.Module):
    """Averages of 8 x 8 pixels, with the mean of the scales as a gain, batch norm, a linear layer."""

    def __init__(self, scales: InternalScales, pixels: int = 49) -> None:
        super().__init__()
        self.scales = scales
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(pixels, 10)

    def forward(self, images: Tensor) -> Tensor:
        gain = self.scales().mean().to(images)
        return self.linear(self.norm(nn.functional.avg_pool2d(images, 8)).flatten(1) * gain)


class Reads(Gain):
    """Negative control: a network that asks for a number at each step."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scales()[0].item()


class Asks(Gain):
    """Negative control: a network that decides by a number."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if self.scales().max() < 50 else images


def dynamic_split(count: int = 40) -> DynamicScaleSplit:
    """Random digits with their statistics known, as they are from the first batch of a run on."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    scales = 1 + torch.rand(count, dtype=torch.float64, generator=generator)
    split = DynamicScaleSplit(digits, torch.arange(count) % 10, scales, 56, 3)
    assert split.std > 0
    return split


def mnist_scale_split(count: int = 40) -> MnistScaleSplit:
    split = dynamic_split(count)
    return MnistScaleSplit(split.digits, split.labels, split.data_scales, torch.arange(count))


def on_meta(split: DynamicScaleSplit | MnistScaleSplit) -> DynamicScaleSplit | MnistScaleSplit:
    """The same split with all its tensors on the meta device."""
    twin = copy.copy(split)
    for name, value in vars(split).items():
        if isinstance(value, Tensor):
            object.__setattr__(twin, name, value.to(META))
    return twin


class Batches(tasks.DynamicScaleTask):
    """The batches of a split, without MNIST and without tests."""

    def __init__(self, split: DynamicScaleSplit) -> None:
        self.shrink, self.train_images = 3, len(split)
        self._splits = {"train": split, "validation": split}
        self.generators = (torch.Generator().manual_seed(0),)


def epoch_on(device: torch.device, net: nn.Module) -> tuple[Tensor, Tensor]:
    net = net.to(device)
    split = dynamic_split() if device.type == "cpu" else on_meta(dynamic_split())
    return training._train_steps(net, SPEC, Batches(split), training.make_optimiser(net), 0)


@pytest.mark.parametrize("kind", [FixedScales, IsrScales, StepRatioScales, SpacingScales, DirectScales])
def test_an_epoch_reads_nothing(kind: type) -> None:
    """Batches, learning rates, loss, gradients, optimiser and the bounds of the scales, for all steps of an epoch."""
    total, strayed = epoch_on(META, Gain(kind(2.0, 3.0, 3)))
    assert (total.device, strayed.device) == (META, META)
    assert (total.dtype, strayed.dtype, total.shape, strayed.shape) == (torch.float64, torch.bool, (), ())


@pytest.mark.parametrize("kind", [FixedScales, IsrScales, StepRatioScales, SpacingScales, DirectScales])
def test_an_epoch_of_table_1_reads_nothing(kind: type) -> None:
    """The network of the paper: its kernels follow the scales (Eq. 6), and yet nobody asks how large they are."""
    net = Table1Net(kind(2.0 / 3, 3.0, 3), image_size=56, pool_size=14)
    net.scales = net.conv.scales
    assert epoch_on(META, net)[0].device == META


def test_table_1_with_an_algorithm_that_reads() -> None:
    """Negative control: dense kernels have the size that Eq. 6 says."""
    net = Table1Net(FixedScales(2.0 / 3, 3.0, 3), image_size=56, pool_size=14, algorithm="dense")
    net.scales = net.conv.scales
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        epoch_on(META, net)


@pytest.mark.parametrize(("kind", "message"), [(Reads, r"item\(\) cannot be called on meta"), (Asks, "meta")])
def test_a_network_that_reads_is_found(kind: type, message: str) -> None:
    epoch_on(torch.device("cpu"), kind(IsrScales(2.0, 3.0, 3)))
    with pytest.raises((RuntimeError, NotImplementedError), match=message):
        epoch_on(META, kind(IsrScales(2.0, 3.0, 3)))


def test_one_step() -> None:
    net = Gain(IsrScales(2.0, 3.0, 3)).to(META)
    optimiser = training.make_optimiser(net)
    loss = train_step(net, optimiser, torch.empty(4, 1, 56, 56, device=META), torch.empty(4, device=META).long())
    assert (loss.device, loss.shape, loss.requires_grad) == (META, (), False)


def test_a_step_moves_the_network_and_returns_the_loss_before_it() -> None:
    net = Gain(IsrScales(2.0, 3.0, 3))
    images, labels = dynamic_split().batch(slice(0, 16))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    expected = nn.functional.cross_entropy(net(images), labels).item()
    before = net.linear.weight.detach().clone()
    assert train_step(net, optimiser, images, labels).item() == expected
    assert (net.linear.weight - before).abs().max().item() == pytest.approx(0.01, rel=1e-3)
    assert train_step(net, optimiser, images, labels).item() < expected


@pytest.mark.parametrize("split", [dynamic_split(), mnist_scale_split()], ids=["dynamic", "mnist_scale"])
def test_batches_are_made_without_reading(split: DynamicScaleSplit | MnistScaleSplit) -> None:
    there, shuffle = on_meta(split), torch.Generator().manual_seed(0)
    for images, labels in [*there.batches(16, shuffle), *there.batches(16), there.batch(slice(8, 24))]:
        assert (images.device, labels.device) == (META, META)
        assert images.shape[1:] == split.batch([0])[0].shape[1:]
    with pytest.raises(NotImplementedError, match="meta"):  # negative control
        there.labels[there.labels == 3]


def test_the_tests_at_one_data_scale_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = on_meta(dynamic_split())
    images, _ = split.batch(slice(0, 16), 2.0)
    assert (images.device, images.shape) == (META, (16, 1, 56, 56))
    monkeypatch.setattr(dynamic, "rescale_unchecked", rescale)  # negative control: it looks at its data scales
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        split.batch(slice(0, 1), 2.0)


def test_random_factors_cross_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The augmentation's draws are made on the CPU; a copy to the device at each step would wait for it."""
    there, copies, original = on_meta(mnist_scale_split()), [], Tensor.to

    def spy(tensor: Tensor, *arguments: object) -> Tensor:
        if tensor.device.type == "cpu":
            copies.append(len(tensor))
        return original(tensor, *arguments)

    monkeypatch.setattr(Tensor, "to", spy)
    generators = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    assert [len(labels) for _, labels in there.batches(16, *generators)] == [16, 16, 8]
    assert copies == [40, 40]  # the order and the factors of all images


def test_evaluation_reads_after_the_last_batch_only() -> None:
    split, seen = on_meta(dynamic_split()), []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in split.batches(16):
            seen.append(len(labels))
            yield images, labels

    net = Gain(IsrScales(2.0, 3.0, 3)).to(META)
    with pytest.raises(NotImplementedError, match="meta"):  # the one copy to the CPU
        tasks.wrong_predictions(net, batches())
    assert seen == [16, 16, 8]


@pytest.mark.parametrize("value", [0.0, -0.1, 56.01, float("nan"), float("inf")])
def test_scales_out_of_bounds(value: float) -> None:
    """The flag that is kept on a GPU says what the record's numbers say: 168 pixels of the paper are 56 here."""
    task, scales = Batches(dynamic_split()), DirectScales(2.0, 3.0, 3)
    assert not training._out_of_bounds(scales, task)
    scales.sigmas.data[2] = 56.0
    assert not training._out_of_bounds(scales, task)
    scales.sigmas.data[2] = value
    assert training._out_of_bounds(scales, task)


def test_the_cpu_stops_at_the_step_that_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def leaps(net: Gain, *_: object) -> Tensor:
        steps.append(net.scales.sigmas.data.mul_(20))
        return torch.zeros(())

    monkeypatch.setattr(training, "train_step", leaps)
    net = Gain(DirectScales(2.0, 3.0, 3))
    with pytest.raises(
        TrainingDiverged, match=r"scales \(120.0, 207.8\d*, 360.0\), which must at every step .* 168 pix"
    ):
        training._train_epoch(net, SPEC, Batches(dynamic_split()), training.make_optimiser(net), 0)
    assert len(steps) == 1  # of three


def test_a_device_that_is_read_once_an_epoch_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that strayed and came back is found after the epoch; here the CPU is read like a GPU."""
    steps = []

    def leaps_and_returns(net: Gain, *_: object) -> Tensor:
        net.scales.sigmas.data.mul_(20 if not steps else 0.05 if len(steps) == 1 else 1)
        steps.append(net.scales.sigmas.tolist())
        return torch.zeros(())

    monkeypatch.setattr(training, "train_step", leaps_and_returns)
    monkeypatch.setattr(training, "_READ_AT_EACH_STEP", ())
    net = Gain(DirectScales(2.0, 3.0, 3))
    with pytest.raises(TrainingDiverged, match=r"internal scales \(6.0, 10.39\d*, 18.0\), which must at every step"):
        training._train_epoch(net, SPEC, Batches(dynamic_split()), training.make_optimiser(net), 0)
    assert len(steps) == 3
