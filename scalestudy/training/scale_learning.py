"""Ways to learn internal scales that are not in the paper; `TrainingSpec` has their settings.

From images that the weights do not see, until some epoch; fewer than at the start; and what the loss says about them.
"""

from __future__ import annotations

import copy
from itertools import chain, repeat

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import InternalScales, KeptScales
from scalestudy.models.table1 import Table1Net
from scalestudy.training.spec import TrainingSpec
from scalestudy.training.tasks import Batches, Task, internal_scales

_HELD_OUT_EVERY = 2  # steps of the weights for one of the scales on held-out images
_IMAGES_TO_WIN = 500  # training images that scales must win maxima on
_AT_ONCE = 32  # of them, for the sake of memory


def scale_modules(net: nn.Module) -> list[InternalScales]:
    """All internal scales of a network; layers may share some."""
    return [module for module in net.modules() if isinstance(module, InternalScales)]


def scale_parameters(net: nn.Module) -> list[nn.Parameter]:
    """What internal scales are learned through, in the order of `scale_modules`."""
    return [one for scales in scale_modules(net) for one in scales.parameters(recurse=False)]


class ScaleLearning:
    """What happens to the internal scales of a network between the steps of its weights."""

    def __init__(self, net: nn.Module, task: Task, training: TrainingSpec) -> None:
        self.net, self.task, self.training, self._parameters = net, task, training, scale_parameters(net)
        self._seen = task.train_images - round(training.held_out * task.train_images)  # the first images of the split
        self._held_out: Batches | None = None

    def begin(self, epoch: int) -> slice:
        """Prepare an epoch; the training images that the weights see in it."""
        until, held_out = self.training.scales_until, self._batches() if self.training.held_out else None
        learning = until is None or epoch < until
        self._steps, self._held_out = 0, held_out if learning else None
        for one in self._parameters:
            one.requires_grad_(learning and held_out is None)
        return slice(None) if self._held_out is None else slice(self._seen)

    def before_step(self) -> None:
        """Let the scales follow held-out images, at every second step of the weights."""
        self._steps += 1
        if self._held_out is not None and self._parameters and self._steps % _HELD_OUT_EVERY == 0:
            for one, gradient in zip(self._parameters, scale_gradients(self.net, *next(self._held_out)), strict=True):
                one.grad = gradient

    def end(self, epoch: int) -> dict[str, tuple[float, ...]]:
        """Drop scales that win too little; slopes of the loss, as `record.Metrics` has them, if they are due."""
        slopes = self._slopes() if epoch + 1 in self.training.slopes_at else {}
        scales = internal_scales(self.net)
        if isinstance(scales, KeptScales):
            images, _ = next(self.task.training_batches(_IMAGES_TO_WIN, slice(_IMAGES_TO_WIN), shuffled=False))
            won = maxima_won(self.net, images)
            scales.drop((won < self.training.drop_below) & (won < won.max()))
        return {f"{epoch + 1} {name}": values for name, values in slopes.items()}

    def _batches(self) -> Batches:
        part = self.training.batch_size, slice(self._seen, None)
        return chain.from_iterable(self.task.training_batches(*part) for _ in repeat(None))

    def _slopes(self) -> dict[str, tuple[float, ...]]:
        net, found = copy.deepcopy(self.net), {}  # batch norm of the copy sees these batches
        held_out = self.task.train_images - self._seen
        for name, part in (("seen", slice(held_out)), ("held out", slice(self._seen, None))):
            batches = self.task.training_batches(self.training.batch_size, part, shuffled=False)
            slopes = torch.stack([torch.stack(scale_gradients(net, *batch)) for batch in batches]).double()
            error = slopes.std(0) / len(slopes) ** 0.5
            found[name] = tuple(round(value, 6) for value in [*slopes.mean(0).tolist(), *error.tolist()])
        return found


def scale_gradients(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the cross-entropy of a batch along the parameters of the internal scales, whether frozen or not."""
    parameters = scale_parameters(net)
    before = [one.requires_grad for one in parameters]
    for one in parameters:
        one.requires_grad_(True)
    gradients = torch.autograd.grad(functional.cross_entropy(net(images), labels), parameters)
    for one, was in zip(parameters, before, strict=True):
        one.requires_grad_(was)
    return gradients


@torch.no_grad()
def maxima_won(net: Table1Net, images: Tensor) -> Tensor:
    """Share of each internal scale (S,) of the maxima, over scales and pooling windows, that are positive."""
    scales = net.conv.num_scales
    won = torch.zeros(scales, dtype=torch.int64, device=images.device)
    for part in images.split(_AT_ONCE):
        best = net.pool(net.conv(part).relu().flatten(1, 2)).unflatten(1, (-1, scales)).max(2)
        won += torch.bincount(best.indices[best.values > 0], minlength=scales)
    return won / won.sum()
