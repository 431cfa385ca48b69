"""What a run is trained and tested on: one class per data set, with one interface for `scalestudy.training.train`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from scalestudy.data import dynamic_scale_mnist, mnist_scale, paper_test_scales
from scalestudy.layers import scales
from scalestudy.layers.equivariance import model_equivariance_error
from scalestudy.models import build
from scalestudy.models.table1 import Table1Net
from scalestudy.training.spec import CANVAS_SIZE, ENLARGED_SIZE, EQUIVARIANCE_FACTORS, POOL_SIZE, RunSpec

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float64": torch.float64}  # by `RunSpec.precision`
# Lower edges of the bins of MNIST-Scale's data scales, each 0.1 wide (not in the paper: our choice).
DATA_SCALE_BINS = tuple(tenths / 10 for tenths in range(3, 10))
# Data scales of the digits that the test for invariance enlarges, of the two data sets (our choice: all stay whole).
EQUIVARIANCE_BASES = (2.0, 0.5)
_SCALES = {
    "fixed": scales.FixedScales, "isr": scales.IsrScales, "step_ratio": scales.StepRatioScales,
    "spacing": scales.SpacingScales, "direct": scales.DirectScales, "log": scales.LogScales,
}  # fmt: skip
_EVALUATION_BATCH = 250

Batches = Iterator[tuple[Tensor, Tensor]]  # images (B, 1, H, H) and labels, int64 (B,)


class Task:
    """Images to train on, and tests; training batches are drawn from `generators`, part of the state of a run.

    `shrink` divides lengths of the paper, such as internal scales, before a network gets them.
    """

    image_size: int  # of the images that convolutions see, in the paper's pixels; internal scales fit on it
    shrink = 1

    def __init__(self, label: str, splits: dict[str, Any], generators: tuple[torch.Generator, ...]) -> None:
        self.label, self.splits, self.generators = label, splits, generators

    @property
    def train_images(self) -> int:
        return len(self.splits["train"])

    def training_batches(self, batch_size: int, part: slice = slice(None), shuffled: bool = True) -> Batches:
        """One epoch of the training images, or a part of them; each call goes on with the same streams of shuffling."""
        split = self.splits["train"] if part == slice(None) else self.splits["train"].part(part)
        return split.batches(batch_size, *(self.generators if shuffled else ()))

    def validation_error(self, net: nn.Module) -> float:
        """In percent; leaves the network in evaluation mode."""
        return percent(wrong_predictions(net, self.splits["validation"].batches(_EVALUATION_BATCH)))

    def test(self, net: nn.Module) -> tuple[dict[str, Any], float]:
        """Results of all tests, fields of `record.Metrics`, and milliseconds per test image."""
        start = time.perf_counter()
        wrong = wrong_predictions(net, self.splits["test"].batches(_EVALUATION_BATCH))  # on the CPU: all work is done
        milliseconds = round(1000 * (time.perf_counter() - start) / len(wrong), 6)
        return {"test_error": percent(wrong), **self.further_tests(net, wrong)}, milliseconds

    def further_tests(self, net: nn.Module, wrong: Tensor) -> dict[str, dict[str, float]]:
        """Tests of one data set only, here of none; `wrong` says which test images were not classified."""
        return {}

    def invariance(self, net: nn.Module, count: int, base: float) -> dict[str, dict[str, float]]:
        """Change of the outputs for the first test images, rendered anew at each factor from the data scale `base`."""
        if not count:
            return {}
        changes = model_equivariance_error(
            lambda images: torch.cat([net(part) for part in images.split(_EVALUATION_BATCH)]),
            lambda factor: self.splits["test"].batch(slice(0, count), base * factor)[0],
            EQUIVARIANCE_FACTORS,
        ).round(6)
        changes.index = [f"{factor:.4f}" for factor in EQUIVARIANCE_FACTORS]
        names = {"relative_change": "equivariance_error", "prediction_change": "prediction_change"}
        return {name: changes[column].to_dict() for column, name in names.items()}


class DynamicScaleTask(Task):
    """Dynamic Scale MNIST (Sections 4.1 and 4.2), with the test at 45 data scales where the run has it."""

    image_size = CANVAS_SIZE

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data, dtype = spec.data, DTYPES[spec.precision]
        counts = (data.train_images, data.validation_images, data.test_images)
        splits = dynamic_scale_mnist(spec.seed, data.distribution, counts, data.shrink, device, dtype, data.images)
        super().__init__(spec.label, splits, (torch.Generator().manual_seed(spec.seed),))
        self.shrink, self._shown, self._enlarged = data.shrink, data.scale_test_images, data.equivariance_images

    def further_tests(self, net: nn.Module, wrong: Tensor) -> dict[str, dict[str, float]]:
        found, split = self.invariance(net, self._enlarged, EQUIVARIANCE_BASES[0]), self.splits["test"]
        if not self._shown:
            return found
        parts = torch.arange(self._shown, device=split.labels.device).split(_EVALUATION_BATCH)
        errors = {}
        for scale in paper_test_scales():
            errors[f"{scale:.4f}"] = percent(wrong_predictions(net, (split.batch(part, scale) for part in parts)))
        return found | {"test_error_by_scale": errors}


class MnistScaleTask(Task):
    """One realisation of MNIST-Scale (Section 4.3), with the error by data scale and the test for invariance."""

    image_size = ENLARGED_SIZE

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data = spec.data
        counts = (data.train_images, data.validation_images, data.test_images)
        splits = mnist_scale(spec.seed, device, counts, DTYPES[spec.precision])
        augmentation = [random_stream("augmentation", spec.seed)] if data.augmented else []
        super().__init__(spec.label, splits, (torch.Generator().manual_seed(spec.seed), *augmentation))
        self._shown = data.equivariance_images

    def further_tests(self, net: nn.Module, wrong: Tensor) -> dict[str, dict[str, float]]:
        found = {"test_error_by_scale": error_by_data_scale(wrong, self.splits["test"].data_scales.cpu())}
        return found | self.invariance(net, self._shown, EQUIVARIANCE_BASES[1])


def task_of(spec: RunSpec, device: torch.device) -> Task:
    """Build the task of a run: its data set, on the device."""
    return (DynamicScaleTask if spec.dataset == "dynamic_scale_mnist" else MnistScaleTask)(spec, device)


def build_model(spec: RunSpec) -> nn.Module:
    """The network of a run, initialised from its seed, on the CPU; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        net = _table1(spec) if spec.model == "table1" else build(spec.model, augmented=spec.data.augmented)
    return net.to(DTYPES[spec.precision])


def _table1(spec: RunSpec) -> Table1Net:
    start, shrink = spec.scales, spec.data.shrink
    isr = start.isr if start.num_scales > 1 else 1.0
    sigmas = _SCALES[start.parameterisation](start.sigma_basis / shrink, isr, start.num_scales)
    if spec.training.drop_below:
        sigmas = scales.KeptScales(sigmas)
    return Table1Net(sigmas, image_size=CANVAS_SIZE // shrink, pool_size=POOL_SIZE // shrink, order=spec.order)


def internal_scales(net: nn.Module) -> scales.InternalScales | None:
    """The internal scales that all layers of a network share, or None where it has none."""
    found = net.conv.scales if isinstance(net, Table1Net) else getattr(net, "scales", None)
    return found if isinstance(found, scales.InternalScales) else None


def random_stream(purpose: str, seed: int) -> torch.Generator:
    """A CPU generator for one purpose of a run, other than weights and shuffling, which `seed` itself seeds."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


@torch.no_grad()
def wrong_predictions(net: nn.Module, batches: Batches) -> Tensor:
    """Which images the network, in evaluation mode from here on, does not classify: bool (n,), read after the last."""
    net.eval()
    return torch.cat([net(images).argmax(1) != labels for images, labels in batches]).cpu()


def percent(wrong: Tensor) -> float:
    """Share of True in percent."""
    return round(100 * wrong.sum().item() / len(wrong), 6)


def error_by_data_scale(wrong: Tensor, data_scales: Tensor) -> dict[str, float]:
    """Error in percent by the images' own data scales, keyed by the lower edges of bins that are not empty."""
    at = torch.bucketize(data_scales, torch.tensor(DATA_SCALE_BINS[1:], dtype=torch.float64), right=True)
    chosen = {f"{edge:.4f}": wrong[at == number] for number, edge in enumerate(DATA_SCALE_BINS)}
    return {edge: percent(part) for edge, part in chosen.items() if len(part)}
