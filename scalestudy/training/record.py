"""The result of one training run: what was asked, what came out, and how it was made."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from scalestudy import __version__
from scalestudy.training.spec import Part, RunSpec

_LOG = logging.getLogger(__name__)


class Metrics(Part):
    """Results of a run.  Errors in percent; scales in pixels of the paper's canvas (MNIST-Scale: of 56 x 56 images).

    `internal_scales`, `test_error` and `validation_error` belong to the selected epoch: the first one with the lowest
    validation error.  Histories have one entry per epoch; `internal_scales_history` has the initial scales in front.
    A system without internal scales has empty ones.

    `test_error_by_scale` is keyed by the data scale: on Dynamic Scale MNIST that at which all digits are shown, on
    MNIST-Scale the lower edge of a bin of the images' own scales.  `equivariance_error` (no unit) and
    `prediction_change` (percent) are keyed by the enlargement; see `layers.equivariance.model_equivariance_error`.
    `scale_slopes`, keyed by epoch and "seen" or "held out", are slopes of the training loss (nats) along the natural
    logarithms of sigma_basis and ISR, means over batches, then their standard errors.
    """

    _later = frozenset({"equivariance_error", "prediction_change", "scale_slopes"})

    test_error: float = Field(ge=0, le=100)
    validation_error: float = Field(ge=0, le=100)
    selected_epoch: int = Field(ge=1)
    internal_scales: tuple[float, ...]
    train_loss_history: tuple[float, ...]
    validation_error_history: tuple[float, ...]
    internal_scales_history: tuple[tuple[float, ...], ...]
    test_error_by_scale: dict[str, float] | None = None
    equivariance_error: dict[str, float] | None = None
    prediction_change: dict[str, float] | None = None
    scale_slopes: dict[str, tuple[float, float, float, float]] | None = None


class Provenance(Part):
    """How a record was made.  Not part of the run's key.

    Times are wall-clock, `seconds` of the whole run, milliseconds per image of training or of the test set with making
    the batches.  `resumed` is from how many checkpoints the run went on after interruptions; times are then those of
    all its parts, without what was lost between a checkpoint and the interruption.
    """

    _later = frozenset({"train_ms_per_image", "inference_ms_per_image", "resumed"})

    scalestudy: str
    commit: str | None
    python: str
    torch: str
    device: str
    threads: int
    seconds: float = Field(ge=0)
    finished: str
    train_ms_per_image: float | None = Field(None, ge=0)
    inference_ms_per_image: float | None = Field(None, ge=0)
    resumed: int | None = Field(None, ge=1)

    @classmethod
    def of(cls, machine: Mapping[str, str | int], seconds: float, **of_the_run: float | None) -> Provenance:
        """Of this process and a `scalestudy.training.device.machine`, as of now."""
        return cls(
            scalestudy=__version__,
            commit=commit(),
            python=platform.python_version(),
            seconds=round(seconds, 2),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            **{name: machine[name] for name in ("torch", "device", "threads")},
            **of_the_run,
        )


class Record(Part):
    """A finished run.  `checksum` covers everything else, so an edited record is found out."""

    key: str
    spec: RunSpec
    metrics: Metrics
    provenance: Provenance
    checksum: str = ""

    @classmethod
    def of(cls, spec: RunSpec, metrics: Metrics, provenance: Provenance) -> Record:
        """A record with its key and checksum filled in."""
        parts = {"key": spec.key, "spec": spec, "metrics": metrics, "provenance": provenance}
        return cls(**parts, checksum=cls.model_construct(**parts).digest("checksum"))

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.key != self.spec.key:
            raise ValueError(f"record says key {self.key}, but its spec has key {self.spec.key}")
        if self.checksum != (digest := self.digest("checksum")):
            raise ValueError(
                f"checksum {self.checksum or 'missing'} does not match the content ({digest}): "
                "the record was edited or damaged"
            )
        return self


@cache
def commit() -> str | None:
    """Commit of the checkout that the package itself lies in and is tracked by, "-dirty" where it was changed, or None.

    Where git does not tell, the log says why: a checkout may belong to another user.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if not (checkout / ".git").exists():
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip()

    try:
        if not git("ls-tree", "HEAD", "--", package.name):
            return None
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--", package.name) else head
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        _LOG.warning("records do not name the commit of %s, which git does not tell: %s", checkout, reason)
        return None
