"""What a run is trained and tested on: one class per data set, with one interface for `scalestudy.training.train`."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalestudy.data import dynamic_scale_mnist, mnist_scale, paper_test_scales
from scalestudy.layers.equivariance import model_equivariance_error
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)
from scalestudy.models import Table1Net, build
from scalestudy.training.device import DTYPES
from scalestudy.training.spec import CANVAS_SIZE, ENLARGED_SIZE, EQUIVARIANCE_FACTORS, POOL_SIZE, RunSpec

DATA_SCALE_BINS = tuple(tenths / 10 for tenths in range(3, 10))
"""Lower edges of the bins of MNIST-Scale's data scales, each 0.1 wide: 0.3 .. 0.9 (not in the paper: our choice)."""

EQUIVARIANCE_BASE = 0.5
"""Data scale of the digits that the test for invariance enlarges by `EQUIVARIANCE_FACTORS`.

Not in the paper: our choice, because then they are shown at 0.25 .. 1, where every digit is whole."""

_SCALES = {
    "fixed": FixedScales,
    "isr": IsrScales,
    "step_ratio": StepRatioScales,
    "spacing": SpacingScales,
    "direct": DirectScales,
}
_EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Scores:
    """What a test says of a network: fields of `record.Metrics`, and milliseconds per test image."""

    test_error: float
    ms_per_image: float
    test_error_by_scale: dict[str, float] | None = None
    equivariance_error: dict[str, float] | None = None
    prediction_change: dict[str, float] | None = None


class Task(ABC):
    """Images to train on, and tests.

    Attributes
    ----------
    train_images : int
        Images of one epoch.
    shrink : int
        Internal scales of the network times this are those of the record.
    image_size : int
        Height and width of the images that the convolutions see, in the record's pixels: no internal scale may grow
        beyond it.
    generators : tuple of torch.Generator
        Random streams that training batches are drawn from; their states are part of the state of a run.
    """

    train_images: int
    shrink: int = 1
    image_size: int
    generators: tuple[torch.Generator, ...]

    @abstractmethod
    def training_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of shuffled images and labels; each call goes on with the same streams of random numbers."""

    @abstractmethod
    def validation_error(self, net: nn.Module) -> float:
        """Classification error of the validation images in percent; leaves the network in evaluation mode."""

    @abstractmethod
    def test(self, net: nn.Module) -> Scores:
        """Make all tests of the run; leaves the network in evaluation mode."""


def task_of(spec: RunSpec, device: torch.device) -> Task:
    """Build the task of a run: its data set, on the device."""
    return (DynamicScaleTask if spec.dataset == "dynamic_scale_mnist" else MnistScaleTask)(spec, device)


class DynamicScaleTask(Task):
    """Dynamic Scale MNIST (Sections 4.1 and 4.2), with the test at 45 data scales where the run has it."""

    image_size = CANVAS_SIZE

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data = spec.data
        self._splits = dynamic_scale_mnist(
            spec.seed,
            data.distribution,
            counts=(data.train_images, data.validation_images, data.test_images),
            shrink=data.shrink,
            device=device,
            dtype=DTYPES[spec.precision],
        )
        self.shrink, self.train_images = data.shrink, data.train_images
        self._scale_test_images = data.scale_test_images
        self.generators = (torch.Generator().manual_seed(spec.seed),)

    def training_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._splits["train"].batches(batch_size, *self.generators)

    def validation_error(self, net: nn.Module) -> float:
        return percent(wrong_predictions(net, self._batches("validation")))

    def test(self, net: nn.Module) -> Scores:
        wrong, milliseconds = _timed(net, self._batches("test"))
        by_scale = None
        if self._scale_test_images:
            by_scale = {
                f"{scale:.4f}": percent(wrong_predictions(net, self._batches("test", self._scale_test_images, scale)))
                for scale in paper_test_scales()
            }
        return Scores(percent(wrong), milliseconds, by_scale)

    def _batches(
        self, name: str, count: int | None = None, data_scale: float | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` images of a split in its order, at one data scale if it is given."""
        split = self._splits[name]
        count = len(split) if count is None else count
        for start in range(0, count, _EVALUATION_BATCH):
            yield split.batch(slice(start, min(start + _EVALUATION_BATCH, count)), data_scale)


class MnistScaleTask(Task):
    """One realisation of MNIST-Scale (Section 4.3), with the error by data scale and the test for invariance."""

    image_size = ENLARGED_SIZE

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data = spec.data
        counts = (data.train_images, data.validation_images, data.test_images)
        self._splits = mnist_scale(spec.seed, device, counts=counts, dtype=DTYPES[spec.precision])
        self.train_images = data.train_images
        self._equivariance_images = data.equivariance_images
        shuffle = torch.Generator().manual_seed(spec.seed)
        self.generators = (shuffle, random_stream("augmentation", spec.seed)) if data.augmented else (shuffle,)

    def training_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._splits["train"].batches(batch_size, *self.generators)

    def validation_error(self, net: nn.Module) -> float:
        return percent(wrong_predictions(net, self._splits["validation"].batches(_EVALUATION_BATCH)))

    def test(self, net: nn.Module) -> Scores:
        split = self._splits["test"]
        wrong, milliseconds = _timed(net, split.batches(_EVALUATION_BATCH))
        by_scale = error_by_data_scale(wrong, split.data_scales.cpu())
        if not self._equivariance_images:
            return Scores(percent(wrong), milliseconds, by_scale)
        changes = self._changes(net)
        return Scores(percent(wrong), milliseconds, by_scale, changes["relative_change"], changes["prediction_change"])

    def _changes(self, net: nn.Module) -> dict[str, dict[str, float]]:
        """Change of the outputs by factor, of the first test digits, rendered anew from MNIST at each factor."""
        net.eval()
        split, shown = self._splits["test"], slice(0, self._equivariance_images)
        frame = model_equivariance_error(
            lambda images: torch.cat([net(part) for part in images.split(_EVALUATION_BATCH)]),
            lambda factor: split.batch(shown, EQUIVARIANCE_BASE * factor)[0],
            EQUIVARIANCE_FACTORS,
        )
        keys = [f"{factor:.4f}" for factor in frame["factor"]]
        return {
            name: dict(zip(keys, frame[name].round(6).tolist(), strict=True))
            for name in ("relative_change", "prediction_change")
        }


def build_model(spec: RunSpec) -> nn.Module:
    """The network of a run, freshly initialised from its seed; lengths divided by the run's ``shrink``.

    Returns
    -------
    Table1Net or MnistScaleNet
        On the CPU, in the run's precision.  The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        net = _table1(spec) if spec.model == "table1" else build(spec.model, augmented=spec.data.augmented)
    return net.to(DTYPES[spec.precision])


def _table1(spec: RunSpec) -> Table1Net:
    shrink, start = spec.data.shrink, spec.scales
    scales = _SCALES[start.parameterisation](start.sigma_basis / shrink, start.isr, start.num_scales)
    return Table1Net(scales, image_size=CANVAS_SIZE // shrink, pool_size=POOL_SIZE // shrink, order=spec.order)


def internal_scales(net: nn.Module) -> InternalScales | None:
    """The internal scales that all layers of a network share, or None where it has none."""
    return net.conv.scales if isinstance(net, Table1Net) else net.scales


def random_stream(purpose: str, seed: int) -> torch.Generator:
    """A CPU generator for one purpose of a run.

    Initial weights and shuffling are seeded with `seed` itself, as in the released code; this stream is another one.
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


@torch.no_grad()
def wrong_predictions(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Which images the network, in evaluation mode from here on, does not classify: bool (n,), on the CPU.

    A GPU is read once, after the last batch.
    """
    net.eval()
    return torch.cat([net(images).argmax(1) != labels for images, labels in batches]).cpu()


def percent(wrong: Tensor) -> float:
    """Share of True in percent."""
    return round(100 * wrong.sum().item() / len(wrong), 6)


def error_by_data_scale(wrong: Tensor, data_scales: Tensor) -> dict[str, float]:
    """Error in percent by the images' own data scales: key is the lower edge of the bin, see `DATA_SCALE_BINS`.

    Empty bins are left out.

    Examples
    --------
    >>> error_by_data_scale(torch.tensor([True, False, True]), torch.tensor([0.31, 0.39, 0.99]).double())
    {'0.3000': 50.0, '0.9000': 100.0}
    """
    inner = torch.tensor(DATA_SCALE_BINS[1:], dtype=torch.float64)
    at = torch.bucketize(data_scales, inner, right=True)
    chosen = {f"{edge:.4f}": wrong[at == number] for number, edge in enumerate(DATA_SCALE_BINS)}
    return {edge: percent(part) for edge, part in chosen.items() if len(part)}


def _timed(net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
    """Wrong predictions, and milliseconds per image with making the batches; copying them to the CPU ends the work."""
    start = time.perf_counter()
    wrong = wrong_predictions(net, batches)
    return wrong, round(1000 * (time.perf_counter() - start) / len(wrong), 6)
