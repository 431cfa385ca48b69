"""One training run of Sections 4.1 and 4.2: spec in, record out."""

from __future__ import annotations

import copy
import math
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy import __version__
from scalestudy.data import DynamicScaleSplit, dynamic_scale_mnist, paper_test_scales
from scalestudy.models import Table1Net
from scalestudy.record import Metrics, Provenance, Record
from scalestudy.scales import DirectScales, FixedScales, InternalScales, IsrScales, SpacingScales, StepRatioScales
from scalestudy.spec import CANVAS_SIZE, POOL_SIZE, RunSpec, TrainingSpec

_SCALES = {
    "fixed": FixedScales,
    "isr": IsrScales,
    "step_ratio": StepRatioScales,
    "spacing": SpacingScales,
    "direct": DirectScales,
}
_EVALUATION_BATCH = 250
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TrainingDiverged(RuntimeError):
    """The loss or an internal scale left the numbers that mean anything; there is no result to record."""


def build_model(spec: RunSpec) -> Table1Net:
    """The network of a run, freshly initialised from its seed; lengths divided by ``spec.data.shrink``.

    Returns
    -------
    Table1Net
        On the CPU, in the run's precision.  The global random state is left as it was.
    """
    shrink = spec.data.shrink
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        scales = _SCALES[spec.scales.parameterisation](
            spec.scales.sigma_basis / shrink, spec.scales.isr, spec.scales.num_scales
        )
        net = Table1Net(scales, image_size=CANVAS_SIZE // shrink, pool_size=POOL_SIZE // shrink, order=spec.order)
    return net.to(_DTYPES[spec.precision])


def learning_rates(training: TrainingSpec, step: int, steps_per_epoch: int) -> tuple[float, float]:
    """Learning rates of the weights and of the scales before optimisation step `step` (0-based).

    Released code: both are multiplied by their decay at each milestone; the scales' rate rises linearly
    from 0 over the warm-up, so their first step moves nothing.

    Examples
    --------
    >>> learning_rates(TrainingSpec(), 79, 79), learning_rates(TrainingSpec(), 1580, 79)
    ((0.01, 0.002), (0.001, 0.0075))
    """
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in training.milestones)
    warmup = round(training.scale_warmup_epochs * steps_per_epoch)
    rise = min(1.0, step / warmup) if warmup else 1.0
    return (
        training.learning_rate * training.decay**passed,
        training.scale_learning_rate * training.scale_decay**passed * rise,
    )


def train(
    spec: RunSpec,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Train and test one network.

    Adam and cross-entropy; the checkpoint of the first epoch with the lowest validation error is tested, and
    its scales are the learned ones (released code; the paper does not say).  Deterministic for a given
    spec, device and number of threads.

    Parameters
    ----------
    spec : RunSpec
        What to compute.
    device : str or torch.device
        Where.
    progress : callable, optional
        Called as ``progress(epochs_done, epochs)`` after each epoch.

    Returns
    -------
    Record
        The validated result.

    Raises
    ------
    TrainingDiverged
        If the loss is not finite, or an internal scale is not finite, not positive or larger than the canvas.
    scalestudy.data.DataError
        If MNIST cannot be had.
    """
    start = time.perf_counter()
    device = torch.device(device)
    data = spec.data
    splits = dynamic_scale_mnist(
        spec.seed,
        data.distribution,
        counts=(data.train_images, data.validation_images, data.test_images),
        shrink=data.shrink,
        device=device,
        dtype=_DTYPES[spec.precision],
    )
    net = build_model(spec).to(device)
    history = _fit(net, spec, splits["train"], splits["validation"], progress)
    selected = min(range(spec.training.epochs), key=lambda epoch: history.validation_error[epoch])
    net.load_state_dict(history.best_state)
    by_scale = None
    if data.scale_test_images:
        by_scale = {
            f"{scale:.4f}": _error(net, splits["test"], data.scale_test_images, float(scale))
            for scale in paper_test_scales()
        }
    metrics = Metrics(
        test_error=_error(net, splits["test"]),
        validation_error=history.validation_error[selected],
        selected_epoch=selected + 1,
        internal_scales=history.scales[selected + 1],
        train_loss_history=tuple(history.train_loss),
        validation_error_history=tuple(history.validation_error),
        internal_scales_history=tuple(history.scales),
        test_error_by_scale=by_scale,
    )
    return Record.of(spec, metrics, provenance(device, time.perf_counter() - start))


class _History:
    """What a run leaves behind, epoch by epoch."""

    def __init__(self, initial_scales: tuple[float, ...]) -> None:
        self.train_loss: list[float] = []
        self.validation_error: list[float] = []
        self.scales: list[tuple[float, ...]] = [initial_scales]
        self.best_state: dict[str, Tensor] = {}

    def add(self, net: nn.Module, train_loss: float, validation_error: float, scales: tuple[float, ...]) -> None:
        if validation_error < min(self.validation_error, default=math.inf):
            self.best_state = copy.deepcopy(net.state_dict())
        self.train_loss.append(round(train_loss, 6))
        self.validation_error.append(validation_error)
        self.scales.append(scales)


def _fit(
    net: Table1Net,
    spec: RunSpec,
    train_split: DynamicScaleSplit,
    validation: DynamicScaleSplit,
    progress: Callable[[int, int], None] | None,
) -> _History:
    training = spec.training
    optimiser = _optimiser(net)
    shuffle = torch.Generator().manual_seed(spec.seed)
    steps_per_epoch = math.ceil(len(train_split) / training.batch_size)
    history = _History(_paper_pixels(net.conv.scales, spec.data.shrink))
    step = 0
    for epoch in range(training.epochs):
        net.train()
        total = torch.zeros((), dtype=torch.float64, device=train_split.device)
        for images, labels in train_split.batches(training.batch_size, shuffle):
            rate, scale_rate = learning_rates(training, step, steps_per_epoch)
            rates = (rate, scale_rate, scale_rate / spec.data.shrink)
            for group, group_rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = group_rate
            optimiser.zero_grad()
            loss = functional.cross_entropy(net(images), labels)
            loss.backward()
            optimiser.step()
            _require_bounded(net.conv.scales, spec, epoch)
            total += loss.detach() * len(labels)
            step += 1
        scales = _paper_pixels(net.conv.scales, spec.data.shrink)
        mean_loss = total.item() / len(train_split)
        if not (math.isfinite(mean_loss) and all(math.isfinite(scale) and scale > 0 for scale in scales)):
            raise TrainingDiverged(
                f"{spec.label}: diverged in epoch {epoch + 1} of {training.epochs} "
                f"(mean loss {mean_loss:g}, internal scales {scales}); nothing is recorded"
            )
        history.add(net, mean_loss, _error(net, validation), scales)
        if progress is not None:
            progress(epoch + 1, training.epochs)
    return history


def _optimiser(net: Table1Net) -> torch.optim.Adam:
    """Adam with groups for weights, unitless scale parameters and scale parameters in pixels.

    Adam moves a parameter by about its learning rate, in the parameter's unit.  Where all lengths are shrunk, the rate
    of lengths must shrink with them, or sigmas would learn faster than at the paper's size.
    """
    lengths = net.conv.scales.parameters_in_pixels()
    is_length = {id(parameter) for parameter in lengths}
    unitless = [parameter for parameter in net.conv.scales.parameters() if id(parameter) not in is_length]
    is_scale = is_length | {id(parameter) for parameter in unitless}
    weights = [parameter for parameter in net.parameters() if id(parameter) not in is_scale]
    return torch.optim.Adam([{"params": weights}, {"params": unitless}, {"params": lengths}])


def _require_bounded(scales: InternalScales, spec: RunSpec, epoch: int) -> None:
    """Stop at the step that diverged, before a huge scale fills the memory: kernels grow with the scales (Eq. 6)."""
    values = _paper_pixels(scales, spec.data.shrink)
    if not all(0 < value <= CANVAS_SIZE for value in values):
        raise TrainingDiverged(
            f"{spec.label}: diverged in epoch {epoch + 1} of {spec.training.epochs} "
            f"(internal scales {values} on a canvas of {CANVAS_SIZE} pixels); nothing is recorded"
        )


def _paper_pixels(scales: InternalScales, shrink: int) -> tuple[float, ...]:
    """Internal scales in pixels of the paper's canvas."""
    return tuple(round(value * shrink, 6) for value in scales.values())


@torch.no_grad()
def _error(
    net: nn.Module, split: DynamicScaleSplit, count: int | None = None, data_scale: float | None = None
) -> float:
    """Classification error in percent on the first `count` images, at one data scale if it is given."""
    net.eval()
    count = len(split) if count is None else count
    wrong = torch.zeros((), dtype=torch.int64, device=split.device)
    for start in range(0, count, _EVALUATION_BATCH):
        images, labels = split.batch(slice(start, min(start + _EVALUATION_BATCH, count)), data_scale)
        wrong += (net(images).argmax(1) != labels).sum()
    return round(100 * wrong.item() / count, 6)


def provenance(device: torch.device, seconds: float) -> Provenance:
    """Where and with what a run was computed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return Provenance(
        scalestudy=__version__,
        commit=_commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        device=f"{device.type} ({name})",
        threads=torch.get_num_threads(),
        seconds=round(seconds, 2),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _commit() -> str | None:
    """Commit of the checkout that holds the package, if it is one; "-dirty" where the package itself was changed."""
    package = str(Path(__file__).parent)
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", package) else commit or None


def _git(folder: str, *arguments: str) -> str:
    """What git prints, or nothing where there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
