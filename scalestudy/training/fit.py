"""The study's training for a network and a data set of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scalestudy.data.splits import batch_positions
from scalestudy.training.device import reproducible
from scalestudy.training.spec import TrainingSpec
from scalestudy.training.tasks import Batches, Task, random_stream
from scalestudy.training.train import Loop


def fit(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 60,
    batch_size: int = 128,
    seed: int = 0,
    on_step: Callable[[Tensor], object] | None = None,
    **recipe: Any,
) -> list[float]:
    """Train a network as the study trains its own: Adam, with a schedule of their own for internal scales.

    Parameters
    ----------
    net : nn.Module
        Any network; changed in place, and left in evaluation mode.  All internal scales in it that can be learned are.
    images : Tensor
        Normalised, floating point, shape (n, C, H, W); batches are moved to the device and the type of the network.
    labels : Tensor
        int64, shape (n,).
    epochs, batch_size : int
        The paper's schedule is stretched to so many epochs; batch norm refuses a last batch of one image.
    seed : int
        Of the order of the images and of dropout.  What else is drawn goes on undisturbed.
    on_step : callable, optional
        Called with the loss of each step, a tensor () on the device.
    **recipe
        Other fields of `scalestudy.training.spec.TrainingSpec`, such as ``learning_rate=0.001``; none of those that
        are about a part of the images, or measure or drop scales.

    Returns
    -------
    list of float
        Mean loss of each epoch.

    Raises
    ------
    ValueError
        If images and labels do not fit each other, or a field of the recipe is out of its range.
    TrainingDiverged
        If the loss is not finite, or an internal scale is not finite, not positive or larger than twice the images.
    """
    count, plain = len(labels), isinstance(images, Tensor) and images.is_floating_point()
    if not plain or images.dim() != 4 or labels.shape != images.shape[:1] or count < 2:
        raise ValueError(
            "images must be a floating point tensor of shape (n, C, H, W) and labels one of shape (n,), n >= 2, got "
            f"{images.dtype} {tuple(images.shape)} and {tuple(labels.shape)}; convert them, one label for each image"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be classes as torch.int64, got {labels.dtype}; call labels.long()")
    if refused := {"held_out", "drop_below", "slopes_at"} & recipe.keys():
        raise ValueError(f"{', '.join(sorted(refused))} must be left out, these are for runs of the study")
    training = TrainingSpec(**{**TrainingSpec.paper_shaped(epochs, batch_size).model_dump(), **recipe})
    if count % batch_size == 1:
        raise ValueError(
            "batch_size must not leave a last batch of one image, which batch norm refuses, got "
            f"{batch_size} with {count} images; change it by 1"
        )
    weight = next(net.parameters())
    loop = Loop(net, _Given(images, labels, weight, seed), training, on_step)
    with reproducible("float32", random_stream("dropout", seed).initial_seed(), weight.device):
        losses = [loop.epoch(epoch) for epoch in range(epochs)]
    net.eval()
    return losses


class _Given(Task):
    """Images and labels as tensors, to train on only; systems of Table 5 convolve images of twice the size."""

    def __init__(self, images: Tensor, labels: Tensor, like: Tensor, seed: int) -> None:
        super().__init__("fit", {"train": labels}, (torch.Generator().manual_seed(seed),))
        self.images, self.labels, self.like = images, labels.to(images.device), like
        self.image_size = 2 * max(images.shape[-2:])

    def training_batches(self, batch_size: int, part: slice = slice(None), shuffled: bool = True) -> Batches:
        for positions in batch_positions(len(self.labels), batch_size, *self.generators, self.labels.device):
            yield self.images[positions].to(self.like), self.labels[positions].to(self.like.device)
