"""A run between two epochs: everything that the rest of it follows from, as bytes and back."""

from __future__ import annotations

import copy
import io
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scalestudy.training.tasks import Task


@dataclass
class History:
    """What a run leaves behind.

    Attributes
    ----------
    train_loss, validation_error : list of float
        One per epoch.
    scales : list of tuple of float
        Internal scales, before the first epoch and after each, in pixels of the paper.
    best_state : dict
        The network after the first epoch with the lowest validation error.
    train_seconds : float
        Of the epochs' training parts.
    seconds_before : float
        Of earlier parts of the run, up to the epoch from which it went on.
    resumed : int
        From how many checkpoints it went on.
    """

    scales: list[tuple[float, ...]]
    train_loss: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    seconds_before: float = 0.0
    resumed: int = 0

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.train_loss)

    def add(self, net: nn.Module, train_loss: float, validation_error: float, scales: tuple[float, ...]) -> None:
        """Add an epoch."""
        if validation_error < min(self.validation_error, default=math.inf):
            self.best_state = copy.deepcopy(net.state_dict())
        self.train_loss.append(round(train_loss, 6))
        self.validation_error.append(validation_error)
        self.scales.append(scales)


@dataclass
class RunState:
    """The parts of a run that change, on one device.

    The global generators are part of it (dropout draws from them); while it lives they are the run's.

    Attributes
    ----------
    net, optimiser, task, device
        As they are at the beginning of the run.
    history : History
    began : float
        ``time.perf_counter()`` at the beginning of this part of the run.
    """

    net: nn.Module
    optimiser: torch.optim.Optimizer
    task: Task
    device: torch.device
    history: History
    began: float

    @property
    def seconds(self) -> float:
        """Of the whole run up to now; what was done after a checkpoint and lost is not counted."""
        return self.history.seconds_before + time.perf_counter() - self.began

    def to_bytes(self) -> bytes:
        """Everything, so that `restore` brings it back bit for bit."""
        content = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generators": [generator.get_state() for generator in self._generators()],
            "history": {**vars(self.history), "seconds_before": self.seconds},
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def restore(self, content: bytes) -> None:
        """Go back to where `to_bytes` was called, perhaps in another process; that is counted in the history.

        Raises
        ------
        Exception
            What torch raises where it cannot read the content; then nothing is changed.
        """
        # No code in it: only tensors, numbers and containers are read
        found: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        self.net.load_state_dict(found["net"])
        self.optimiser.load_state_dict(found["optimiser"])
        for generator, state in zip(self._generators(), found["generators"], strict=True):
            generator.set_state(state)
        self.history = History(**found["history"])
        self.history.resumed += 1

    def _generators(self) -> list[torch.Generator]:
        """The task's, and the global ones of the CPU and of the GPU."""
        generators = [*self.task.generators, torch.default_generator]
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            generators.append(torch.cuda.default_generators[index])
        return generators
