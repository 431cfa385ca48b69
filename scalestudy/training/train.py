"""One training run: spec in, record out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import InternalScales
from scalestudy.training.device import machine, reproducible, require_precision
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.scale_learning import ScaleLearning, scale_modules
from scalestudy.training.spec import RunSpec, TrainingSpec
from scalestudy.training.state import CheckpointFile, History, Progress, source_digest
from scalestudy.training.tasks import Task, build_model, internal_scales, random_stream, task_of

_READ_AT_EACH_STEP = ("cpu",)  # devices that a step may read from; the others would be waited for: once an epoch


class TrainingDiverged(RuntimeError):
    """The loss or an internal scale left the numbers that mean anything; there is no result to record."""


def train(
    spec: RunSpec,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
    checkpoint: CheckpointFile | None = None,
    on_step: Callable[[Tensor], object] | None = None,
) -> Record:
    """Train and test one network.

    The network after the first epoch with the lowest validation error is tested, and its scales are the learned ones
    (released code; the paper does not say).  Deterministic for a given spec, device and number of threads; on a GPU as
    far as its kernels are (the gradient of bilinear resizing is not, which the first layer of SEVF has).

    ``progress(epochs_done, epochs)`` is called after each epoch.  In `checkpoint` the run is kept after an epoch when
    that is due; one that holds this run already is gone on from, with the same result bit for bit where the device
    computes the same each time.  ``on_step(loss)`` is called after each step, with the loss of its batch before it: a
    tensor () on the device.

    ValueError where the device does not have the precision of the run, before anything is loaded; `TrainingDiverged`;
    `scalestudy.data.DataError` where MNIST cannot be had.
    """
    began = time.perf_counter()
    device, epochs = torch.device(device), spec.training.epochs
    require_precision(spec.precision, device)
    task, net = task_of(spec, device), build_model(spec).to(device)
    made_by = {"run": spec.key, "code": source_digest(), **machine(device)}
    with reproducible(spec.precision, random_stream("dropout", spec.seed).initial_seed(), device) as generators:
        loop, history = Loop(net, task, spec.training, on_step), History([recorded_scales(net, task)])
        parts = net, loop.optimiser, [*task.generators, *generators]
        if checkpoint is not None and (kept := checkpoint.read(made_by)):
            history = _go_on(kept, *parts)
        for epoch in range(len(history.train_loss), epochs):
            clock = time.perf_counter()
            mean_loss = loop.epoch(epoch)
            history.train_seconds += time.perf_counter() - clock
            history.slopes |= loop.scale_learning.end(epoch)
            history.add(net, mean_loss, task.validation_error(net), recorded_scales(net, task))
            if checkpoint is not None and checkpoint.due:
                seconds = history.seconds + time.perf_counter() - began
                checkpoint.write(Progress(epoch + 1, epochs, made_by), _state(history, seconds, *parts))
            if progress is not None:
                progress(epoch + 1, epochs)
        net.load_state_dict(history.best)
        tested, test_ms = task.test(net)
    seconds = history.seconds + time.perf_counter() - began  # without what was lost after a checkpoint
    train_ms = round(1000 * history.train_seconds / (epochs * task.train_images), 6)
    cost = {"train_ms_per_image": train_ms, "inference_ms_per_image": test_ms, "resumed": history.resumed or None}
    return Record.of(spec, _metrics(history, tested), Provenance.of(made_by, seconds, **cost))


@dataclass
class Loop:
    """The steps by which networks learn here, epoch by epoch."""

    net: nn.Module
    task: Task
    training: TrainingSpec
    on_step: Callable[[Tensor], object] | None = None

    def __post_init__(self) -> None:
        self.optimiser = make_optimiser(self.net)
        self.scale_learning = ScaleLearning(self.net, self.task, self.training)
        self._learned = [scales for scales in scale_modules(self.net) if list(scales.parameters())]

    def epoch(self, number: int) -> float:
        """Mean loss of the epoch.  A GPU is waited for here only: to read that, and whether a scale left its bounds."""
        total, strayed, shown = self.steps(number)
        mean_loss = total.item() / shown
        if strayed or not math.isfinite(mean_loss):
            raise TrainingDiverged(
                f"{self.task.label}: diverged in epoch {number + 1} of {self.training.epochs} (mean loss "
                f"{mean_loss:g}; internal scales {recorded_scales(self.net, self.task)}, which must at every step be "
                f"above 0 and fit on images of {self.task.image_size} pixels)"
            )
        return mean_loss

    def steps(self, epoch: int) -> tuple[Tensor, Tensor, int]:
        """Make the steps of an epoch; nothing is read back from a GPU, on the CPU a scale out of bounds ends it.

        The sum of the loss over the images, float64 (), whether a scale left its bounds, bool (), the number of images.
        """
        training, task, device = self.training, self.task, next(self.net.parameters()).device
        steps_per_epoch = math.ceil(task.train_images / training.batch_size)
        self.net.train()
        total, strayed = (torch.zeros((), dtype=dtype, device=device) for dtype in (torch.float64, torch.bool))
        shown = 0
        batches = task.training_batches(training.batch_size, self.scale_learning.begin(epoch))
        for step, (images, labels) in enumerate(batches, epoch * steps_per_epoch):
            set_learning_rates(self.optimiser, learning_rates(training, step, steps_per_epoch), task.shrink)
            loss = train_step(self.net, self.optimiser, images, labels, self.scale_learning.before_step)
            if self.on_step is not None:
                self.on_step(loss)
            total += loss * len(labels)
            shown += len(labels)
            for scales in self._learned:
                strayed |= out_of_bounds(scales, task)
            if device.type in _READ_AT_EACH_STEP and strayed:
                break  # before a huge scale fills the memory
        return total, strayed, shown


def train_step(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Make one step on the cross-entropy of a batch; its mean before the step, which stays on the device."""
    optimiser.zero_grad()
    loss = functional.cross_entropy(net(images), labels)
    loss.backward()
    before_step()
    optimiser.step()
    return loss.detach()


def learning_rates(training: TrainingSpec, step: int, steps_per_epoch: int) -> tuple[float, float]:
    """Learning rates of the weights and of the scales before optimisation step `step` (0-based).

    Released code: both are multiplied by their decay at each milestone; the scales' rate rises linearly from 0 over the
    warm-up, so their first step moves nothing.
    """
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in training.milestones)
    warmup = round(training.scale_warmup_epochs * steps_per_epoch)
    rise = min(1.0, step / warmup) if warmup else 1.0
    rate, scale_rate = training.learning_rate, training.scale_learning_rate
    return rate * training.decay**passed, scale_rate * training.scale_decay**passed * rise


def make_optimiser(net: nn.Module) -> torch.optim.Adam:
    """Adam with groups for weights, unitless scale parameters and scale parameters in pixels, without learning rates.

    Fused: one kernel per group on a GPU, and less overhead on the CPU.  `set_learning_rates` goes before each step.
    """
    owners = scale_modules(net)
    of_scales = {one for scales in owners for one in scales.parameters()}
    lengths = [one for scales in owners for one in scales.parameters_in_pixels()]
    unitless = [one for one in net.parameters() if one in of_scales - {*lengths}]
    weights = [one for one in net.parameters() if one not in of_scales]
    groups = [{"params": group} for group in (weights, unitless, lengths)]
    return torch.optim.Adam(groups, fused=weights[0].device.type in ("cpu", "cuda"))


def set_learning_rates(optimiser: torch.optim.Adam, rates: tuple[float, float], shrink: int) -> None:
    """Set the rates of the groups of `make_optimiser`; that of lengths is a length, by which Adam moves them."""
    for group, rate in zip(optimiser.param_groups, (*rates, rates[1] / shrink), strict=True):
        group["lr"] = rate


@torch.no_grad()
def out_of_bounds(scales: InternalScales, task: Task) -> Tensor:
    """Whether an internal scale, as the record would have it, is NaN, not positive or larger than the images."""
    pixels = (scales().double() * task.shrink).round(decimals=6)
    return ~((pixels > 0) & (pixels <= task.image_size)).all()


def recorded_scales(net: nn.Module, task: Task) -> tuple[float, ...]:
    """Internal scales in the paper's pixels; none where the network has none."""
    scales = internal_scales(net)
    return () if scales is None else tuple(round(value * task.shrink, 6) for value in scales.values())


def _state(
    history: History, seconds: float, net: nn.Module, optimiser: torch.optim.Optimizer, streams: list[torch.Generator]
) -> dict[str, Any]:
    """Everything that the rest of a run follows from, so that `_go_on` brings it back bit for bit."""
    return {
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generators": [generator.get_state() for generator in streams],
        "history": vars(history) | {"seconds": seconds},
    }


def _go_on(
    kept: dict[str, Any], net: nn.Module, optimiser: torch.optim.Optimizer, streams: list[torch.Generator]
) -> History:
    net.load_state_dict(kept["net"])
    optimiser.load_state_dict(kept["optimiser"])
    for generator, state in zip(streams, kept["generators"], strict=True):
        generator.set_state(state)
    history = History(**kept["history"])
    history.resumed += 1
    return history


def _metrics(history: History, tested: dict[str, Any]) -> Metrics:
    selected = history.validation_error.index(min(history.validation_error))
    return Metrics(
        validation_error=history.validation_error[selected],
        selected_epoch=selected + 1,
        internal_scales=history.scales[selected + 1],
        train_loss_history=tuple(history.train_loss),
        validation_error_history=tuple(history.validation_error),
        internal_scales_history=tuple(history.scales),
        scale_slopes=history.slopes or None,
        **tested,
    )
