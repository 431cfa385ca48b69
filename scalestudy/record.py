"""The result of one training run: what was asked, what came out, and how it was made."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scalestudy.spec import RunSpec


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metrics(_Part):
    """Results of a run.  Errors in percent; scales in pixels of the paper's canvas.

    `internal_scales`, `test_error` and `validation_error` belong to the selected epoch: the first one
    with the lowest validation error.  Histories have one entry per epoch (after it);
    `internal_scales_history` has one more in front, the initial scales.
    """

    test_error: float = Field(ge=0, le=100)
    validation_error: float = Field(ge=0, le=100)
    selected_epoch: int = Field(ge=1)
    internal_scales: tuple[float, ...]
    train_loss_history: tuple[float, ...]
    validation_error_history: tuple[float, ...]
    internal_scales_history: tuple[tuple[float, ...], ...]
    test_error_by_scale: dict[str, float] | None = None


class Provenance(_Part):
    """How a record was made.  Not part of the run's key."""

    scalestudy: str
    commit: str | None
    python: str
    torch: str
    device: str
    threads: int
    seconds: float = Field(ge=0)
    finished: str


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
