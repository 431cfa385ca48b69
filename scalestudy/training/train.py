"""One training run: spec in, record out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.training.device import machine, reproducible, require_precision
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.spec import RunSpec, TrainingSpec
from scalestudy.training.state import CheckpointFile, History, RunState, source_digest
from scalestudy.training.tasks import (
    Task,
    build_model,
    internal_scales,
    network_pixels,
    paper_pixels,
    random_stream,
    task_of,
)

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

    Parameters
    ----------
    spec : RunSpec
        What to compute.
    device : str or torch.device
        Where.
    progress : callable, optional
        Called as ``progress(epochs_done, epochs)`` after each epoch.  It may raise to end the run there.
    checkpoint : CheckpointFile, optional
        Where the run is kept after an epoch, when that is due and when `progress` raises.  If the file holds this run
        already, it goes on from there, with the same result bit for bit where the device computes the same each time.
    on_step : callable, optional
        Called as ``on_step(loss)`` after each step, with the loss of its batch before it: a tensor () on the device.

    Returns
    -------
    Record

    Raises
    ------
    ValueError
        If the device does not have the precision of the run; before anything is loaded.
    TrainingDiverged
        If the loss is not finite, or an internal scale is not finite, not positive or larger than the images.
    scalestudy.data.DataError
        If MNIST cannot be had.
    """
    began = time.perf_counter()
    device, epochs = torch.device(device), spec.training.epochs
    require_precision(spec.precision, device)
    task, net = task_of(spec, device), build_model(spec).to(device)
    made_by = {"run": spec.key, "code": source_digest(), **machine(device)}
    with reproducible(spec.precision, random_stream("dropout", spec.seed).initial_seed(), device) as generators:
        start, streams = History([_recorded_scales(net, task)]), [*task.generators, *generators]
        run = RunState(net, make_optimiser(net), streams, start, epochs, made_by, began)
        if checkpoint is not None:
            run.go_on(checkpoint)
        history = run.history
        for epoch in range(len(history.train_loss), epochs):
            clock = time.perf_counter()
            mean_loss = _train_epoch(net, spec, task, run.optimiser, epoch, on_step)
            history.train_seconds += time.perf_counter() - clock
            history.add(net, mean_loss, task.validation_error(net), _recorded_scales(net, task))
            stopped = True
            try:
                if progress is not None:
                    progress(epoch + 1, epochs)
                stopped = False
            finally:
                if checkpoint is not None and (stopped or checkpoint.due):
                    run.keep(checkpoint)
        net.load_state_dict(history.best)
        tested, test_ms = task.test(net)
    train_ms = round(1000 * history.train_seconds / (epochs * task.train_images), 6)
    cost = {"train_ms_per_image": train_ms, "inference_ms_per_image": test_ms, "resumed": history.resumed or None}
    return Record.of(spec, _metrics(history, tested), Provenance.of(made_by, run.seconds, **cost))


def _train_epoch(
    net: nn.Module,
    spec: RunSpec,
    task: Task,
    optimiser: torch.optim.Adam,
    epoch: int,
    on_step: Callable[[Tensor], object] | None = None,
) -> float:
    """Mean loss of the epoch.  A GPU is waited for here only: to read that, and whether a scale left its bounds."""
    total, strayed, shown = _train_steps(net, spec, task, optimiser, epoch, on_step)
    mean_loss = total.item() / shown
    if strayed or not math.isfinite(mean_loss):
        raise TrainingDiverged(
            f"{spec.label}: diverged in epoch {epoch + 1} of {spec.training.epochs} (mean loss {mean_loss:g}; internal "
            f"scales {_recorded_scales(net, task)}, which must at every step be above 0 and fit on images of "
            f"{task.image_size} pixels); nothing is recorded"
        )
    return mean_loss


def _train_steps(
    net: nn.Module,
    spec: RunSpec,
    task: Task,
    optimiser: torch.optim.Adam,
    epoch: int,
    on_step: Callable[[Tensor], object] | None = None,
) -> tuple[Tensor, Tensor, int]:
    """Make the steps of an epoch without reading anything back from a GPU; on the CPU a scale out of bounds ends it.

    The sum of the loss over the images, float64 (), whether a scale left its bounds, bool (), and the number of images.
    """
    training, scales, device = spec.training, internal_scales(net), next(net.parameters()).device
    learned = scales is not None and list(scales.parameters())
    steps_per_epoch = math.ceil(task.train_images / training.batch_size)
    net.train()
    total, strayed = (torch.zeros((), dtype=dtype, device=device) for dtype in (torch.float64, torch.bool))
    shown = 0
    for step, (images, labels) in enumerate(task.training_batches(training.batch_size), epoch * steps_per_epoch):
        set_learning_rates(optimiser, learning_rates(training, step, steps_per_epoch), task.shrink)
        loss = train_step(net, optimiser, images, labels)
        if on_step is not None:
            on_step(loss)
        total += loss * len(labels)
        shown += len(labels)
        if learned:
            strayed |= _out_of_bounds(net, task)
        if device.type in _READ_AT_EACH_STEP and strayed:
            break  # before a huge scale fills the memory
    return total, strayed, shown


def train_step(net: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Make one step on the cross-entropy of a batch; its mean before the step, which stays on the device."""
    optimiser.zero_grad()
    loss = functional.cross_entropy(net(images), labels)
    loss.backward()
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
    scales, of_scales, lengths = internal_scales(net), set(), []
    if scales is not None:
        of_scales, lengths = set(scales.parameters()), scales.parameters_in_pixels()
    unitless = [one for one in net.parameters() if one in of_scales - {*lengths}]
    weights = [one for one in net.parameters() if one not in of_scales]
    groups = [{"params": group} for group in (weights, unitless, lengths)]
    return torch.optim.Adam(groups, fused=weights[0].device.type in ("cpu", "cuda"))


def set_learning_rates(optimiser: torch.optim.Adam, rates: tuple[float, float], shrink: int) -> None:
    """Set the rates of the groups of `make_optimiser`; that of lengths is a length, by which Adam moves them."""
    for group, rate in zip(optimiser.param_groups, (*rates, network_pixels(rates[1], shrink)), strict=True):
        group["lr"] = rate


@torch.no_grad()
def _out_of_bounds(net: nn.Module, task: Task) -> Tensor:
    """Whether an internal scale, as the record would have it, is NaN, not positive or larger than the images."""
    pixels = paper_pixels(internal_scales(net)().double(), task.shrink).round(decimals=6)
    return ~((pixels > 0) & (pixels <= task.image_size)).all()


def _recorded_scales(net: nn.Module, task: Task) -> tuple[float, ...]:
    """Internal scales in the paper's pixels; none where the network has none."""
    scales = internal_scales(net)
    return () if scales is None else tuple(round(paper_pixels(value, task.shrink), 6) for value in scales.values())


def _metrics(history: History, tested: dict[str, Any]) -> Metrics:
    selected = history.validation_error.index(min(history.validation_error))
    return Metrics(
        validation_error=history.validation_error[selected],
        selected_epoch=selected + 1,
        internal_scales=history.scales[selected + 1],
        train_loss_history=tuple(history.train_loss),
        validation_error_history=tuple(history.validation_error),
        internal_scales_history=tuple(history.scales),
        **tested,
    )
