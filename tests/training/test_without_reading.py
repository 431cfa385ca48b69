"""Training without a word from the device to the host at each step, proved without a GPU.

On the "meta" device tensors have no numbers, so whatever reads one on the host raises: `.item()`, `.tolist()`, a copy
to the CPU, a condition, indexing by a mask.  What runs there runs on a GPU without waiting for it.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import scalestudy.training.train as training
from scalestudy.data import DynamicScaleSplit, MnistScaleSplit
from scalestudy.data.distributions import LogUniform
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, SpacingScales, StepRatioScales
from scalestudy.models.table1 import Table1Net
from scalestudy.training import tasks
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.train import Loop, TrainingDiverged, out_of_bounds

CPU, META = torch.device("cpu"), torch.device("meta")
SPEC = RunSpec(
    scales=ScalesSpec(parameterisation="isr"),
    data=DataSpec(distribution=LogUniform(low=1, high=4), train_images=40, shrink=3),
    training=TrainingSpec(epochs=2, batch_size=16),
)


class Gain(nn.Module):
    """Averages of 8 x 8 pixels, with the mean of the scales as a gain, batch norm, a linear layer."""

    def __init__(self, scales=None):
        super().__init__()
        self.scales = scales or IsrScales(2.0, 3.0, 3)
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(49, 10)

    def forward(self, images):
        gain = self.scales().mean().to(images)
        return self.linear(self.norm(nn.functional.avg_pool2d(images, 8)).flatten(1) * gain)


class Reads(Gain):
    """Negative control: a network that asks for a number at each step."""

    def forward(self, images):
        return super().forward(images) * self.scales()[0].item()


def dynamic_split():
    """Random digits with their statistics known, as they are from the first batch of a run on."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8, generator=generator)
    scales = 1 + torch.rand(40, dtype=torch.float64, generator=generator)
    split = DynamicScaleSplit(digits, torch.arange(40) % 10, scales, 56, 3)
    assert split.std > 0
    return split


DYNAMIC = dynamic_split()
MNIST_SCALE = MnistScaleSplit(DYNAMIC.digits, DYNAMIC.labels, DYNAMIC.data_scales, torch.arange(40))


def on_meta(split):
    """The same split with all its tensors on the meta device."""
    twin = copy.copy(split)
    for name, value in vars(split).items():
        if isinstance(value, Tensor):
            object.__setattr__(twin, name, value.to(META))
    return twin


class Batches(tasks.DynamicScaleTask):
    """The batches of a split, without MNIST and without tests."""

    def __init__(self, split):
        tasks.Task.__init__(self, "run", {"train": split}, (torch.Generator().manual_seed(0),))
        self.shrink = 3


def epoch_on(device, net):
    net = net.to(device)
    split = DYNAMIC if device == CPU else on_meta(DYNAMIC)
    return Loop(net, Batches(split), SPEC.training).steps(0)


@pytest.mark.parametrize("kind", [FixedScales, IsrScales, StepRatioScales, SpacingScales, DirectScales])
def test_an_epoch_of_table_1_reads_nothing(kind):
    """Batches, learning rates, loss, gradients, optimiser and the bounds of the scales, for all steps of an epoch.

    Kernels follow the scales (Eq. 6), and yet nobody asks how large they are.
    """
    total, strayed, shown = epoch_on(META, Table1Net(kind(2.0 / 3, 3.0, 3), image_size=56, pool_size=14))
    assert (total.device, total.dtype, total.shape) == (META, torch.float64, ())
    assert (strayed.device, strayed.dtype, strayed.shape) == (META, torch.bool, ())
    assert shown == 40


def test_a_network_that_reads_is_found():
    epoch_on(CPU, Reads())
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta"):
        epoch_on(META, Reads())


@pytest.mark.parametrize("split", [DYNAMIC, MNIST_SCALE], ids=["dynamic", "mnist_scale"])
def test_batches_are_made_without_reading(split):
    there = on_meta(split)
    at_one_scale = [there.batch(slice(0, 16), 2.0)] if split is DYNAMIC else []
    for images, labels in [*there.batches(16, torch.Generator().manual_seed(0)), *there.batches(16), *at_one_scale]:
        assert (images.device, labels.device) == (META, META)
        assert images.shape[1:] == split.batch([0])[0].shape[1:]


def test_random_factors_cross_once_an_epoch(monkeypatch):
    """The augmentation's draws are made on the CPU; a copy to the device at each step would wait for it."""
    there, copies, original = on_meta(MNIST_SCALE), [], Tensor.to

    def spy(tensor, *arguments):
        if tensor.device == CPU:
            copies.append(len(tensor))
        return original(tensor, *arguments)

    monkeypatch.setattr(Tensor, "to", spy)
    generators = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    assert [len(labels) for _, labels in there.batches(16, *generators)] == [16, 16, 8]
    assert copies == [40, 40]  # the order and the factors of all images


def test_evaluation_reads_after_the_last_batch_only():
    batches = on_meta(DYNAMIC).batches(16)
    with pytest.raises(NotImplementedError, match="meta"):  # the one copy to the CPU
        tasks.wrong_predictions(Gain().to(META), batches)
    assert next(batches, None) is None


@pytest.mark.parametrize("value", [0.0, -0.1, 56.01, float("nan"), float("inf")])
def test_scales_out_of_bounds(value):
    """The flag that is kept on a GPU says what the record's numbers say: 168 pixels of the paper are 56 here."""
    task, scales = Batches(DYNAMIC), DirectScales(2.0, 3.0, 3)
    assert not out_of_bounds(scales, task)
    scales.sigmas.data[2] = 56.0
    assert not out_of_bounds(scales, task)
    scales.sigmas.data[2] = value
    assert out_of_bounds(scales, task)


@pytest.mark.parametrize(
    ("read", "steps", "scales"), [(("cpu",), 1, r"120\.0, 207\.8\d*, 360\.0"), ((), 3, r"6\.0, 10\.39\d*, 18\.0")]
)
def test_a_scale_that_strayed_and_came_back_is_found(read, steps, scales, monkeypatch):
    """On the CPU at the step that diverged; after the epoch where the CPU is read like a GPU."""
    made = []

    def leaps_and_returns(net, *_):
        net.scales.sigmas.data.mul_((20, 0.05, 1)[len(made)])
        made.append(None)
        return torch.zeros(())

    monkeypatch.setattr(training, "train_step", leaps_and_returns)
    monkeypatch.setattr(training, "_READ_AT_EACH_STEP", read)
    net = Gain(DirectScales(2.0, 3.0, 3))
    message = rf"internal scales \({scales}\), which must at every step .* 168 pixels"
    with pytest.raises(TrainingDiverged, match=message):
        Loop(net, Batches(DYNAMIC), SPEC.training).epoch(0)
    assert len(made) == steps
