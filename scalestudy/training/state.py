"""What a run leaves behind epoch by epoch, and the file that keeps it, so that one that was killed goes on."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalestudy.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT_SUFFIX = ".checkpoint"
MadeBy = dict[str, str | int]  # what must be the same to go on, by name: else the rest would be rounded differently

_LOG = logging.getLogger(__name__)
_INTERVAL_SECONDS = 60.0  # our choice: at most a minute and an epoch are lost, and short runs write nothing
_SOURCE = (".py", ".csv", ".mplstyle")


@cache
def source_digest() -> str:
    """16 hex digits of the hash of the code and data in this package, as they were when first asked for."""
    digest, folder = sha256(), Path(__file__).resolve().parents[1]
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SOURCE and path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Progress:
    """How far a run is, as the first line of its checkpoint has it."""

    epochs_done: int
    epochs: int
    made_by: MadeBy

    @property
    def is_of_this_code(self) -> bool:
        """Whether this version of the package can go on; whether this machine can, a run finds out."""
        return self.made_by.get("code") == source_digest()


class CheckpointFile:
    """The last state of one run: a checksum and a `Progress` as JSON in the first line, then what torch saved.

    One is `due` a minute after this object was made, and after each writing.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._level = path, logging.WARNING
        self._next = time.monotonic() + _INTERVAL_SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def write(self, progress: Progress, state: dict[str, Any]) -> None:
        """Replace the checkpoint; where it cannot be written the run goes on, and a warning is logged once."""
        import torch

        torch.save(state, saved := io.BytesIO())
        content = json.dumps(asdict(progress), sort_keys=True).encode() + b"\n" + saved.getvalue()
        try:
            write_whole(self.path, f"{sha256(content).hexdigest()} ".encode() + content)
        except OSError as error:
            lost = "if it is stopped, what it does from now on is lost"
            _LOG.log(self._level, "the run goes on, but cannot be kept in %s (%s): %s", self.path, error, lost)
            self._level = logging.DEBUG
        self._next = time.monotonic() + _INTERVAL_SECONDS

    def read(self, made_by: MadeBy) -> dict[str, Any] | None:
        """The state that `made_by` can go on from; None where there is none, with a warning where it is another one."""
        import torch

        try:
            checksum, _, content = self.path.read_bytes().partition(b" ")
            if checksum != sha256(content).hexdigest().encode():
                return self._refuse("is damaged")
            line, _, state = content.partition(b"\n")
            theirs = Progress(**json.loads(line)).made_by
            if differing := [name for name in {**theirs, **made_by} if theirs.get(name) != made_by.get(name)]:
                what = "; ".join(f"{name} {theirs.get(name)}, here {made_by.get(name)}" for name in differing)
                return self._refuse(f"was made by something else ({what})")
            # no code in it: only tensors, numbers and containers are read
            return torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:
            return self._refuse(f"cannot be read ({error})")

    def progress(self) -> Progress | None:
        """How far the run is, by the first line alone; None where there is no checkpoint, or something else."""
        try:
            with self.path.open("rb") as file:
                return Progress(**json.loads(file.readline(4096).partition(b" ")[2]))
        except (OSError, ValueError, TypeError):
            return None

    def _refuse(self, reason: str) -> None:
        _LOG.warning("the checkpoint %s %s; it is not used, and the run starts again", self.path, reason)


@dataclass
class History:
    """What a run leaves behind: an entry per epoch."""

    scales: list[tuple[float, ...]]  # in the paper's pixels; those of the start are in front
    train_loss: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # after the first epoch with the lowest validation error
    slopes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    train_seconds: float = 0.0
    seconds: float = 0.0  # up to the last checkpoint
    resumed: int = 0

    def add(self, net: nn.Module, train_loss: float, validation_error: float, scales: tuple[float, ...]) -> None:
        if validation_error < min(self.validation_error, default=math.inf):
            self.best = copy.deepcopy(net.state_dict())
        self.train_loss.append(round(train_loss, 6))
        self.validation_error.append(validation_error)
        self.scales.append(scales)
