"""The file that keeps a run under way, so that a run that was stopped or killed goes on instead of starting again."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalestudy.files import write_whole
from scalestudy.training.source import source_digest

__all__ = ["CHECKPOINT_SUFFIX", "Checkpoint", "CheckpointFile", "MadeBy", "Progress"]

CHECKPOINT_SUFFIX = ".checkpoint"

_LOG = logging.getLogger(__name__)

_INTERVAL_SECONDS = 60.0
"""Our choice: at most a minute and an epoch are lost to a kill, and short runs write nothing."""

_MAX_HEADER_BYTES = 4096


MadeBy = dict[str, str | int]


@dataclass(frozen=True)
class Progress:
    """How far a run is by the first line of its checkpoint: as `Checkpoint`, without the state."""

    epochs_done: int
    epochs: int
    made_by: MadeBy

    @property
    def is_of_this_code(self) -> bool:
        """Whether this version of the package can go on; whether this machine can, a run finds out when it is made."""
        return self.made_by.get("code") == source_digest()


@dataclass(frozen=True)
class Checkpoint:
    """A run between two epochs.

    Attributes
    ----------
    key : str
        Of the run, see `RunSpec.key`.
    epochs_done, epochs : int
        How far it is, and how far it goes.
    made_by : dict
        Name and value of everything that must be the same to go on: else the rest would be rounded differently, and the
        record could not say by what it was made.  "code" is `scalestudy.training.source.source_digest`.
    state : bytes
        Everything that the rest follows from, see `scalestudy.training.run_state.RunState`.
    """

    key: str
    epochs_done: int
    epochs: int
    made_by: MadeBy
    state: bytes


class CheckpointFile:
    """One file for the last `Checkpoint` of one run; it goes when the run is stored.

    A line of JSON for people and for `progress`, then the state; a checksum covers both.

    Parameters
    ----------
    path : Path
    interval : float
        Seconds from the making of this object, and from one checkpoint, until the next one is `due`.

    Examples
    --------
    >>> import tempfile
    >>> here, elsewhere = {"device": "cpu"}, {"device": "cuda"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = CheckpointFile(Path(folder) / "k.checkpoint")
    ...     file.write(Checkpoint("k", 3, 60, here, b"state"))
    ...     print(file.progress().epochs_done, file.read("k", here).state, file.read("k", elsewhere))
    ...     file.remove()
    ...     print(file.progress())
    3 b'state' None
    None
    """

    def __init__(self, path: Path, interval: float = _INTERVAL_SECONDS) -> None:
        self.path, self.interval = Path(path), interval
        self._next = time.monotonic() + interval
        self._warned = False

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for a new one."""
        return time.monotonic() >= self._next

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint.  Where it cannot be written the run goes on, and a warning is logged once."""
        header = {name: value for name, value in vars(checkpoint).items() if name != "state"}
        header["checksum"] = _checksum(header, checkpoint.state)
        try:
            write_whole(self.path, json.dumps(header, sort_keys=True).encode() + b"\n" + checkpoint.state)
        except OSError as error:
            if not self._warned:
                _LOG.warning(
                    "run %s goes on, but cannot be kept in %s (%s): if it is stopped, what it does from now on is lost",
                    checkpoint.key,
                    self.path,
                    error.strerror or error,
                )
            self._warned = True
        self._next = time.monotonic() + self.interval

    def read(self, key: str, made_by: MadeBy) -> Checkpoint | None:
        """Return the checkpoint of this run that `made_by` can continue, or None where there is none.

        One that is damaged, of another run or made by something else is not used; a warning says so and why, and the
        next one replaces it.
        """
        try:
            line, newline, state = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            return self.refuse(f"cannot be read ({error.strerror or error})")
        header = _header(line)
        if not newline or header is None or header.pop("checksum", None) != _checksum(header, state):
            return self.refuse("is damaged")
        if header["key"] != key:
            return self.refuse(f"is of run {header['key']}, not of {key}")
        theirs = header["made_by"]
        if differing := [name for name in {**theirs, **made_by} if theirs.get(name) != made_by.get(name)]:
            what = "; ".join(f"{name} {theirs.get(name)}, here {made_by.get(name)}" for name in differing)
            return self.refuse(f"was made by something else ({what})")
        return Checkpoint(**header, state=state)

    def progress(self) -> Progress | None:
        """How far the run is, by the first line alone; None where there is no checkpoint, or something else."""
        try:
            with self.path.open("rb") as file:
                header = _header(file.readline(_MAX_HEADER_BYTES))
        except OSError:
            return None
        return None if header is None else Progress(header["epochs_done"], header["epochs"], header["made_by"])

    def remove(self) -> None:
        """Remove the file; no error where there is none, or where it cannot be."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.debug("cannot remove %s (%s); it does no harm", self.path, error)

    def refuse(self, reason: str) -> None:
        """Say in a warning why the checkpoint is not used."""
        _LOG.warning("the checkpoint %s %s; it is not used, and the run starts again", self.path, reason)


def _header(line: bytes) -> dict[str, Any] | None:
    """The fields of a first line; None where it is not one of ours."""
    fields = Checkpoint.__dataclass_fields__.keys() - {"state"} | {"checksum"}
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.keys() != fields or not isinstance(header["made_by"], dict):
        return None
    counts = (header["epochs_done"], header["epochs"])
    return header if all(isinstance(count, int) for count in counts) and 0 < counts[0] <= counts[1] else None


def _checksum(header: dict[str, Any], state: bytes) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
    digest.update(state)
    return digest.hexdigest()
