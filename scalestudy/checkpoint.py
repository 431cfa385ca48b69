"""The file that keeps a run under way, so that a run that was stopped or killed goes on instead of starting again."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from scalestudy.whole_files import write_whole

__all__ = ["CHECKPOINT_SUFFIX", "Checkpoint", "CheckpointFile"]

CHECKPOINT_SUFFIX = ".checkpoint"

_LOG = logging.getLogger(__name__)

_INTERVAL_SECONDS = 60.0
"""Our choice: at most a minute, or an epoch where that lasts longer, is lost to a kill; short runs write nothing."""

_MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A run between two epochs.

    Attributes
    ----------
    key : str
        Of the run, see `RunSpec.key`.
    epochs_done, epochs : int
        How far it is, and how far it goes.
    made_by : str
        What it may be continued by: code, torch, device, threads.  Elsewhere the rest would be rounded differently,
        and the record could not say by what it was made.
    state : bytes
        Everything that the rest follows from, see `scalestudy.run_state.RunState`.
    """

    key: str
    epochs_done: int
    epochs: int
    made_by: str
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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = CheckpointFile(Path(folder) / "k.checkpoint")
    ...     file.write(Checkpoint("k", 3, 60, "this machine", b"state"))
    ...     print(file.progress(), file.read("k", "this machine").state, file.read("k", "another machine"))
    ...     file.remove()
    ...     print(file.progress())
    (3, 60) b'state' None
    None
    """

    def __init__(self, path: Path, interval: float = _INTERVAL_SECONDS) -> None:
        self.path, self.interval = Path(path), interval
        self._next = time.monotonic() + interval

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for a new one."""
        return time.monotonic() >= self._next

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint.  Where it cannot be written the run goes on without, and a warning is logged."""
        header = {name: value for name, value in vars(checkpoint).items() if name != "state"}
        header["checksum"] = _checksum(header, checkpoint.state)
        try:
            write_whole(self.path, json.dumps(header, sort_keys=True).encode() + b"\n" + checkpoint.state)
        except OSError as error:
            _LOG.warning(
                "run %s goes on, but cannot be kept in %s (%s); if it is stopped now it starts again",
                checkpoint.key,
                self.path,
                error.strerror or error,
            )
        self._next = time.monotonic() + self.interval

    def read(self, key: str, made_by: str) -> Checkpoint | None:
        """Return the checkpoint of this run that `made_by` can continue, or None where there is none.

        One that is damaged, of another run or made by something else is not used; a warning says so and why, and the
        next one replaces it.
        """
        try:
            line, newline, state = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._refuse(f"cannot be read ({error.strerror or error})")
        header = _header(line)
        if not newline or header is None or header.pop("checksum", None) != _checksum(header, state):
            return self._refuse("is damaged")
        if header["key"] != key:
            return self._refuse(f"is of run {header['key']}, not of {key}")
        if header["made_by"] != made_by:
            return self._refuse(f"was made by {header['made_by']}, and this is {made_by}")
        return Checkpoint(**header, state=state)

    def progress(self) -> tuple[int, int] | None:
        """Epochs done and epochs of the run, by the first line alone; None where there is no usable one."""
        try:
            with self.path.open("rb") as file:
                header = _header(file.readline(_MAX_HEADER_BYTES))
        except OSError:
            return None
        return None if header is None else (header["epochs_done"], header["epochs"])

    def remove(self) -> None:
        """Remove the file; no error where there is none, or where it cannot be."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.debug("cannot remove %s (%s); it does no harm", self.path, error)

    def _refuse(self, reason: str) -> None:
        _LOG.warning("the checkpoint %s %s; it is not used, and the run starts again", self.path, reason)


def _header(line: bytes) -> dict[str, str | int] | None:
    """The fields of a first line; None where it is not one of ours."""
    fields = Checkpoint.__dataclass_fields__.keys() - {"state"} | {"checksum"}
    try:
        header = json.loads(line)
    except ValueError:
        return None
    if not isinstance(header, dict) or header.keys() != fields:
        return None
    counts = (header["epochs_done"], header["epochs"])
    return header if all(isinstance(count, int) for count in counts) and 0 < counts[0] <= counts[1] else None


def _checksum(header: dict[str, str | int], state: bytes) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
    digest.update(state)
    return digest.hexdigest()
