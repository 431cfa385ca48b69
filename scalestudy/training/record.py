"""The result of one training run: what was asked, what came out, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from scalestudy.training.spec import RunSpec


class _Part(BaseModel):
    """`_later` names fields that came after records had been stored: None of them is not written at all.

    So an old record reads, checks and writes back byte for byte as before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent_later_fields(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = serialise(self)
        return {name: value for name, value in fields.items() if value is not None or name not in self._later}


class Metrics(_Part):
    """Results of a run.  Errors in percent; scales in pixels of the paper's canvas (MNIST-Scale: of 56 x 56 images).

    `internal_scales`, `test_error` and `validation_error` belong to the selected epoch: the first one
    with the lowest validation error.  Histories have one entry per epoch (after it);
    `internal_scales_history` has one more in front, the initial scales.  A system without internal scales has empty
    ones.

    `test_error_by_scale` is keyed by the data scale: on Dynamic Scale MNIST that at which all digits are shown, on
    MNIST-Scale the lower edge of a bin of the images' own scales.  `equivariance_error` (L2 norm of the change of the
    outputs over that of the outputs, no unit) and `prediction_change` (percent of the images) are keyed by the factor
    by which the digits are enlarged; see `scalestudy.layers.equivariance.model_equivariance_error`.
    """

    _later = frozenset({"equivariance_error", "prediction_change"})

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


class Provenance(_Part):
    """How a record was made.  Not part of the run's key.

    `seconds` is the whole run.  `train_ms_per_image` is the wall-clock time of the epochs' training parts over the
    images that they saw, `inference_ms_per_image` that of the test set over its images: milliseconds, with making the
    batches, on this device and this number of threads.  `resumed` is from how many checkpoints the run went on
    after interruptions (None: it had none); the times are then those of all its parts, without what was lost between
    a checkpoint and the interruption.
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


class Record(_Part):
    """A finished run.  `checksum` covers everything else, so an edited record is found out."""

    key: str
    spec: RunSpec
    metrics: Metrics
    provenance: Provenance
    checksum: str = ""

    @classmethod
    def of(cls, spec: RunSpec, metrics: Metrics, provenance: Provenance) -> Record:
        """A record with its key and checksum filled in."""
        bare = cls.model_construct(key=spec.key, spec=spec, metrics=metrics, provenance=provenance)
        return cls(key=spec.key, spec=spec, metrics=metrics, provenance=provenance, checksum=bare.digest())

    def digest(self) -> str:
        """SHA-256 (16 hex digits) of the canonical JSON of everything but the checksum."""
        content = self.model_dump(mode="json", exclude={"checksum"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.key != self.spec.key:
            raise ValueError(f"record says key {self.key}, but its spec has key {self.spec.key}")
        if self.checksum != self.digest():
            raise ValueError(
                f"checksum {self.checksum or 'missing'} does not match the content ({self.digest()}): "
                "the record was edited or damaged"
            )
        return self
