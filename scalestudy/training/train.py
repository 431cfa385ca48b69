"""One training run: spec in, record out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import InternalScales
from scalestudy.training.checkpoint import Checkpoint, CheckpointFile, MadeBy
from scalestudy.training.device import deterministic_convolutions, float32_products, require_precision
from scalestudy.training.provenance import device_name, provenance
from scalestudy.training.record import Metrics, Record
from scalestudy.training.run_state import History, RunState
from scalestudy.training.source import source_digest
from scalestudy.training.spec import RunSpec, TrainingSpec
from scalestudy.training.tasks import Task, build_model, internal_scales, random_stream, task_of

__all__ = [
    "TrainingDiverged",
    "build_model",
    "learning_rates",
    "make_optimiser",
    "set_learning_rates",
    "train",
    "train_step",
]

_READ_AT_EACH_STEP = ("cpu",)
"""Types of devices that a step may read numbers from; the others would be waited for, and are read once an epoch."""


class TrainingDiverged(RuntimeError):
    """The loss or an internal scale left the numbers that mean anything; there is no result to record."""


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
    checkpoint: CheckpointFile | None = None,
) -> Record:
    """Train and test one network.

    Adam and cross-entropy; the checkpoint of the first epoch with the lowest validation error is tested, and
    its scales are the learned ones (released code; the paper does not say).  Deterministic for a given
    spec, device and number of threads; on a GPU as far as its kernels are (the gradient of bilinear resizing is not,
    which the first layer of SEVF has).

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
        already, it goes on from there, with the same result as without the interruption, bit for bit where the device
        computes the same each time.

    Returns
    -------
    Record
        The validated result.

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
    device = torch.device(device)
    require_precision(spec.precision, device)
    task = task_of(spec, device)
    net = build_model(spec).to(device)
    with _reproducible(spec, device):
        history = History([_paper_pixels(internal_scales(net), task.shrink)])
        state = RunState(net, make_optimiser(net), task, device, history, began)
        _go_on(state, spec, checkpoint)
        _fit(state, spec, progress, checkpoint)
        history = state.history
        selected = min(range(spec.training.epochs), key=lambda epoch: history.validation_error[epoch])
        net.load_state_dict(history.best_state)
        tested = task.test(net)
    metrics = Metrics(
        test_error=tested.test_error,
        validation_error=history.validation_error[selected],
        selected_epoch=selected + 1,
        internal_scales=history.scales[selected + 1],
        train_loss_history=tuple(history.train_loss),
        validation_error_history=tuple(history.validation_error),
        internal_scales_history=tuple(history.scales),
        test_error_by_scale=tested.test_error_by_scale,
        equivariance_error=tested.equivariance_error,
        prediction_change=tested.prediction_change,
    )
    train_ms = round(1000 * history.train_seconds / (spec.training.epochs * task.train_images), 6)
    made = provenance(device, state.seconds, train_ms, tested.ms_per_image, history.resumed or None)
    return Record.of(spec, metrics, made)


@contextmanager
def _reproducible(spec: RunSpec, device: torch.device) -> Iterator[None]:
    """Compute in the precision of the spec, on a GPU with deterministic convolutions; put everything back afterwards.

    The global generators, which dropout draws from, are seeded.
    """
    seed = random_stream("dropout", spec.seed).initial_seed()
    with ExitStack() as stack:
        stack.enter_context(float32_products(spec.precision))
        stack.enter_context(deterministic_convolutions())
        indices = []
        if device.type == "cuda":
            indices = [torch.cuda.current_device() if device.index is None else device.index]
            stack.enter_context(torch.cuda.device(indices[0]))
        stack.enter_context(torch.random.fork_rng(devices=indices))
        torch.default_generator.manual_seed(seed)
        if indices:
            torch.cuda.manual_seed(seed)
        yield


def _fit(
    state: RunState,
    spec: RunSpec,
    progress: Callable[[int, int], None] | None,
    checkpoint: CheckpointFile | None,
) -> None:
    """Make the epochs that are missing; whatever `progress` raises, the run is kept as it is then."""
    net, task, history, epochs = state.net, state.task, state.history, spec.training.epochs
    scales = internal_scales(net)
    for epoch in range(history.epochs, epochs):
        began = time.perf_counter()
        mean_loss = _train_epoch(net, spec, task, state.optimiser, epoch)
        history.train_seconds += time.perf_counter() - began
        values = _paper_pixels(scales, task.shrink)
        if not (math.isfinite(mean_loss) and all(math.isfinite(value) and value > 0 for value in values)):
            raise TrainingDiverged(
                f"{spec.label}: diverged in epoch {epoch + 1} of {epochs} "
                f"(mean loss {mean_loss:g}, internal scales {values}); nothing is recorded"
            )
        history.add(net, mean_loss, task.validation_error(net), values)
        try:
            if progress is not None:
                progress(epoch + 1, epochs)
        except BaseException:
            _keep(state, spec, checkpoint)
            raise
        if checkpoint is not None and checkpoint.due:
            _keep(state, spec, checkpoint)


def _go_on(state: RunState, spec: RunSpec, checkpoint: CheckpointFile | None) -> None:
    """Go to where the run was left, if it was kept and can be continued here."""
    kept = None if checkpoint is None else checkpoint.read(spec.key, _made_by(state.device))
    if kept is not None:
        try:
            state.restore(kept.state)
        except Exception as error:
            checkpoint.refuse(f"cannot be read ({error})")


def _keep(state: RunState, spec: RunSpec, checkpoint: CheckpointFile | None) -> None:
    if checkpoint is not None:
        epochs = (state.history.epochs, spec.training.epochs)
        checkpoint.write(Checkpoint(spec.key, *epochs, _made_by(state.device), state.to_bytes()))


def _made_by(device: torch.device) -> MadeBy:
    """What decides how a run is rounded, as far as it can be told."""
    return {
        "code": source_digest(),
        "torch": torch.__version__,
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _train_epoch(net: nn.Module, spec: RunSpec, task: Task, optimiser: torch.optim.Adam, epoch: int) -> float:
    """Mean loss of the epoch.  A GPU is waited for here only: to read that, and whether a scale left its bounds."""
    total, strayed = _train_steps(net, spec, task, optimiser, epoch)
    if strayed:
        raise TrainingDiverged(
            f"{spec.label}: diverged in epoch {epoch + 1} of {spec.training.epochs} "
            f"(internal scales {_paper_pixels(internal_scales(net), task.shrink)}, which must at every step be above 0 "
            f"and fit on images of {task.image_size} pixels); nothing is recorded"
        )
    return total.item() / task.train_images


def _train_steps(
    net: nn.Module, spec: RunSpec, task: Task, optimiser: torch.optim.Adam, epoch: int
) -> tuple[Tensor, Tensor]:
    """Make the steps of an epoch without reading anything back from a GPU.

    Returns
    -------
    total : Tensor
        float64, shape (): sum of the loss over the images.
    strayed : Tensor
        bool, shape (): whether a scale left its bounds.  On the CPU, where reading is free, that ends the epoch.
    """
    training, scales = spec.training, internal_scales(net)
    learned = scales is not None and next(scales.parameters(), None) is not None
    steps_per_epoch = math.ceil(task.train_images / training.batch_size)
    net.train()
    device = next(net.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    strayed = torch.zeros((), dtype=torch.bool, device=device)
    for step, (images, labels) in enumerate(task.training_batches(training.batch_size), epoch * steps_per_epoch):
        set_learning_rates(optimiser, learning_rates(training, step, steps_per_epoch), task.shrink)
        total += train_step(net, optimiser, images, labels) * len(labels)
        if learned:
            strayed |= _out_of_bounds(scales, task)
        if device.type in _READ_AT_EACH_STEP and strayed:
            break  # before a huge scale fills the memory
    return total, strayed


def train_step(net: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Make one step of the optimiser on the cross-entropy of a batch; nothing is read back from the device.

    Parameters
    ----------
    net : nn.Module
        (B, 1, H, H) -> logits (B, 10).
    optimiser : torch.optim.Optimizer
        Of the network's parameters.
    images, labels : Tensor
        (B, 1, H, H) and int64 (B,), on the device of the network.

    Returns
    -------
    Tensor
        Mean loss of the batch before the step, shape (), on the device, without gradient.
    """
    optimiser.zero_grad()
    loss = functional.cross_entropy(net(images), labels)
    loss.backward()
    optimiser.step()
    return loss.detach()


def make_optimiser(net: nn.Module) -> torch.optim.Adam:
    """Adam with groups for weights, unitless scale parameters and scale parameters in pixels, without learning rates.

    Fused: one kernel per group on a GPU, and less overhead on the CPU.  `set_learning_rates` goes before each step.
    """
    scales = internal_scales(net)
    lengths = [] if scales is None else scales.parameters_in_pixels()
    is_length = {id(parameter) for parameter in lengths}
    learned = [] if scales is None else scales.parameters()
    unitless = [parameter for parameter in learned if id(parameter) not in is_length]
    is_scale = is_length | {id(parameter) for parameter in unitless}
    weights = [parameter for parameter in net.parameters() if id(parameter) not in is_scale]
    groups = [{"params": weights}, {"params": unitless}, {"params": lengths}]
    return torch.optim.Adam(groups, fused=weights[0].device.type in ("cpu", "cuda"))


def set_learning_rates(optimiser: torch.optim.Adam, rates: tuple[float, float], shrink: int) -> None:
    """Set the rates of the groups of `make_optimiser`.

    Adam moves a parameter by about its learning rate, in the parameter's unit.  Where all lengths are shrunk, the rate
    of lengths must shrink with them, or sigmas would learn faster than at the paper's size.

    Parameters
    ----------
    optimiser : torch.optim.Adam
        From `make_optimiser`.
    rates : tuple of float
        Of the weights and of the scales, see `learning_rates`.
    shrink : int
        Divisor of all lengths, see `Task`.
    """
    rate, scale_rate = rates
    for group, group_rate in zip(optimiser.param_groups, (rate, scale_rate, scale_rate / shrink), strict=True):
        group["lr"] = group_rate


@torch.no_grad()
def _out_of_bounds(scales: InternalScales, task: Task) -> Tensor:
    """Whether an internal scale, as the record would have it, is NaN, not positive or larger than the images."""
    pixels = (scales().double() * task.shrink).round(decimals=6)
    return ~((pixels > 0) & (pixels <= task.image_size)).all()


def _paper_pixels(scales: InternalScales | None, shrink: int) -> tuple[float, ...]:
    """Internal scales in pixels of the paper's canvas; none where the network has none."""
    return () if scales is None else tuple(round(value * shrink, 6) for value in scales.values())
