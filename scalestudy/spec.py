"""What one training run computes: a validated, frozen description, and the key that names it.

Every length is given in pixels of the paper's 168-pixel canvas.  `DataSpec.shrink` divides them all
(canvas, digit, sigmas and their learning rate, pooling window) before anything is built, so a shrunk run
differs from the paper's in that one field, and sigmas of all runs can be compared.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scalestudy.data.distributions import ScaleDistribution

CANVAS_SIZE = 168
"""Height and width of a Dynamic Scale MNIST image in pixels (paper, Appendix)."""

POOL_SIZE = 42
"""Window of Table 1's max pooling in pixels."""

Parameterisation = Literal["fixed", "isr", "step_ratio", "spacing", "direct"]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScalesSpec(_Spec):
    """Internal scales at the start of the run.

    `parameterisation` names the class of `scalestudy.scales`: "fixed", "isr" (Eq. 5 as printed),
    "step_ratio" (what the released code calls ISR), "spacing" or "direct".
    """

    parameterisation: Parameterisation = "fixed"
    sigma_basis: float = Field(2.0, gt=0)
    isr: float = Field(3.0, gt=1)
    num_scales: int = Field(3, ge=2)


class DataSpec(_Spec):
    """Dynamic Scale MNIST (paper, Appendix): digits at scales drawn from a distribution.

    Counts are images per split; fewer than the paper's 10,000 / 5,000 / 50,000 are the first ones of its
    splits.  `scale_test_images` is the number of test digits shown at each of the 45 scales of Fig. 4
    (0: no such test).
    """

    distribution: ScaleDistribution
    train_images: int = Field(10_000, ge=2, le=10_000)
    validation_images: int = Field(5_000, ge=1, le=5_000)
    test_images: int = Field(50_000, ge=1, le=50_000)
    scale_test_images: int = Field(0, ge=0, le=50_000)
    shrink: Literal[1, 2, 3] = 1

    @model_validator(mode="after")
    def _scale_test_within_test(self) -> DataSpec:
        if self.scale_test_images > self.test_images:
            raise ValueError(
                f"scale_test_images must be at most test_images = {self.test_images}, got {self.scale_test_images}"
            )
        return self


class TrainingSpec(_Spec):
    """Optimisation (released code; the paper gives none of it).

    Adam; the learning rate is multiplied by `decay` (for the scales by `scale_decay`) at each milestone
    (in epochs); the scales' own rate first rises linearly from 0 over `scale_warmup_epochs`.
    """

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.01, gt=0)
    decay: float = Field(0.1, gt=0, le=1)
    scale_learning_rate: float = Field(0.01, ge=0)
    scale_decay: float = Field(0.75, gt=0, le=1)
    scale_warmup_epochs: float = Field(5.0, ge=0)
    milestones: tuple[float, ...] = (20.0, 40.0)

    @classmethod
    def paper_shaped(cls, epochs: int, batch_size: int = 128) -> TrainingSpec:
        """The paper's schedule with all its times stretched to `epochs` (60 gives it unchanged)."""
        return cls(
            epochs=epochs,
            batch_size=batch_size,
            scale_warmup_epochs=round(5 * epochs / 60, 6),
            milestones=tuple(round(epoch * epochs / 60, 6) for epoch in (20, 40)),
        )


class RunSpec(_Spec):
    """One training run.

    `recipe` is a version: a change that alters what a run computes bumps it, and old records stop
    counting.  `order` is Table 1's order of ReLU and batch norm: "relu_norm" as in the released code,
    "norm_relu" as printed.  The seed selects the split, the drawn scales, the initial weights and the
    shuffling, as in the released code.

    Examples
    --------
    >>> from scalestudy.data import LogUniform
    >>> spec = RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8)))
    >>> spec.label
    'log-uniform [1, 8], fixed sigma 2 ISR 3, seed 0'
    """

    recipe: Literal[1] = 1
    model: Literal["table1"] = "table1"
    order: Literal["relu_norm", "norm_relu"] = "relu_norm"
    scales: ScalesSpec = ScalesSpec()
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["float32", "float64"] = "float32"

    @property
    def key(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON: the name of the run's record."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short name for people."""
        scales = self.scales
        return (
            f"{self.data.distribution.label}, {scales.parameterisation} sigma {scales.sigma_basis:g} "
            f"ISR {scales.isr:g}, seed {self.seed}"
        )

    @property
    def is_paper_size(self) -> bool:
        """Whether images, lengths, schedule and precision are the paper's, so that results can be compared."""
        paper = DataSpec(distribution=self.data.distribution, scale_test_images=self.data.scale_test_images)
        same_model = (self.order, self.precision, self.scales.num_scales) == ("relu_norm", "float32", 3)
        return self.data == paper and self.training == TrainingSpec() and same_model

    @property
    def work(self) -> float:
        """Rough cost: images passed forward (training counts three times) times pixels, no unit.

        Our choice: only ratios matter, to foresee the time of a run from that of others.
        """
        data = self.data
        images = (
            self.training.epochs * (3 * data.train_images + data.validation_images)
            + data.test_images
            + 45 * data.scale_test_images
        )
        return images * math.pow(CANVAS_SIZE / data.shrink, 2)
