"""The size of a study: exactly the parameters that every notebook declares."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scalestudy.training.spec import BASELINES, CANVAS_SIZE, PAPER_REALISATIONS, VARIANTS, BaselineName, VariantName

_Isr = Annotated[float, Field(gt=1)]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Realisation = Annotated[int, Field(ge=0, lt=PAPER_REALISATIONS)]
_Sigma = Annotated[float, Field(gt=0)]
_GROUPS = {"table5": BASELINES, "variants": VARIANTS}


class StudySize(BaseModel):
    """Sizes of data sets, schedules and grids.

    Parameters
    ----------
    profile : str
        Name of the profile, for the folders of results.
    shrink : {1, 2, 3}
        Divisor of all lengths: the canvas is 168 / shrink pixels.
    train_images, validation_images, test_images : int
        Images per split: 2 to 10,000, 1 to 5,000, 1 to 50,000 (paper: the largest).
    scale_test_images : int
        Test digits shown at each of the 45 data scales of Fig. 4, 0 (no such test) to `test_images`.
    epochs : int
        At least 1 (released code: 60); the schedule is stretched with it.
    batch_size : int
        Images, at least 2 (released code: 128).
    seeds : tuple of int
        At least one, for Fig. 3 and Tables 2 and 4 (paper: three).
    isrs : tuple of float
        Fixed ISRs of Fig. 3, each > 1.
    scale_test_isrs : tuple of float
        ISRs of Fig. 4, a subset of `isrs`.
    initial_sigmas, initial_isrs : tuple of float
        Starts of Table 3: sigma_basis in pixels of the paper's canvas, > 0, and ISR, > 1; all pairs are run.
    initialisation_seeds : tuple of int
        Seeds of Table 3, at least one (paper: three).
    baseline_models : tuple of str
        Systems to compare on MNIST-Scale: their names, or "table5" for all rows of that table and "variants" for all
        others; none: no such runs.  `systems` is the list of names.
    baseline_seeds : tuple of int
        Realisations of MNIST-Scale, at least one (paper: 0 .. 5).
    baseline_augmented : bool
        Whether each system is also trained with random rescaling ("+").
    baseline_train_images, baseline_validation_images, baseline_test_images : int
        Images per split: 2 to 10,000, 1 to 2,000, 1 to 50,000 (paper: the largest).
    baseline_epochs, baseline_batch_size : int
        As `epochs` and `batch_size` (released code: 60 and 128).
    equivariance_images : int
        Test digits of the test for invariance, 0 (no such test) to `baseline_test_images`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: str = Field(min_length=1)
    shrink: Literal[1, 2, 3]
    train_images: int = Field(ge=2, le=10_000)
    validation_images: int = Field(ge=1, le=5_000)
    test_images: int = Field(ge=1, le=50_000)
    scale_test_images: int = Field(ge=0, le=50_000)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seeds: tuple[_Seed, ...] = Field(min_length=1)
    isrs: tuple[_Isr, ...] = Field(min_length=1)
    scale_test_isrs: tuple[_Isr, ...]
    initial_sigmas: tuple[_Sigma, ...] = Field(min_length=1)
    initial_isrs: tuple[_Isr, ...] = Field(min_length=1)
    initialisation_seeds: tuple[_Seed, ...] = Field(min_length=1)
    baseline_models: tuple[Literal["table5", "variants", BaselineName, VariantName], ...]
    baseline_seeds: tuple[_Realisation, ...] = Field(min_length=1)
    baseline_augmented: bool
    baseline_train_images: int = Field(ge=2, le=10_000)
    baseline_validation_images: int = Field(ge=1, le=2_000)
    baseline_test_images: int = Field(ge=1, le=50_000)
    baseline_epochs: int = Field(ge=1)
    baseline_batch_size: int = Field(ge=2)
    equivariance_images: int = Field(ge=0, le=50_000)

    @model_validator(mode="after")
    def _consistent(self) -> StudySize:
        lists = {name: value for name, value in vars(self).items() if isinstance(value, tuple)}
        for name, values in {**lists, "baseline_models": self.systems}.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must be distinct values, got {list(values)}; remove the repeated ones")
        if not set(self.scale_test_isrs) <= set(self.isrs):
            raise ValueError(
                f"scale_test_isrs must be values of isrs = {list(self.isrs)}, got {list(self.scale_test_isrs)}; "
                "add the missing ones to isrs"
            )
        if self.scale_test_images > self.test_images:
            raise ValueError(
                f"scale_test_images must be at most test_images = {self.test_images}, got {self.scale_test_images}; "
                "lower it"
            )
        if self.equivariance_images > self.baseline_test_images:
            raise ValueError(
                f"equivariance_images must be at most baseline_test_images = {self.baseline_test_images}, got "
                f"{self.equivariance_images}; lower it"
            )
        if self.baseline_train_images % self.baseline_batch_size == 1:
            raise ValueError(
                f"baseline_batch_size must not leave a last batch of one image, got {self.baseline_batch_size} with "
                f"baseline_train_images = {self.baseline_train_images}; change one of them by 1"
            )
        return self

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems to compare on MNIST-Scale, as `baseline_models` says."""
        return tuple(name for given in self.baseline_models for name in _GROUPS.get(given, (given,)))

    @property
    def description(self) -> str:
        """One line for people: these sizes beside the paper's."""
        seeds = len(self.seeds)
        canvas = CANVAS_SIZE // self.shrink
        return (
            f"Size of these runs: {self.train_images:,} training, {self.validation_images:,} validation and "
            f"{self.test_images:,} test digits, {canvas} x {canvas} pixels, {self.epochs} epochs, "
            f"{seeds} seed{'s' * (seeds != 1)}. The paper's: 10,000 / 5,000 / 50,000 digits, 168 x 168 pixels, "
            "60 epochs, 3 seeds."
        )

    @property
    def baseline_description(self) -> str:
        """One line for people: the sizes of the runs on MNIST-Scale beside the paper's."""
        seeds = len(self.baseline_seeds)
        return (
            f"Size of the runs on MNIST-Scale: {self.baseline_train_images:,} training, "
            f"{self.baseline_validation_images:,} validation and {self.baseline_test_images:,} test digits, "
            f"{self.baseline_epochs} epochs, batches of {self.baseline_batch_size}, {seeds} "
            f"realisation{'s' * (seeds != 1)}; {self.equivariance_images:,} digits in the test for invariance. The "
            f"paper's: 10,000 / 2,000 / 50,000 digits, 60 epochs, batches of 128, {PAPER_REALISATIONS} realisations."
        )

    def parameters(self) -> dict[str, int | float | str | list]:
        """The fields as plain values, as papermill takes them."""
        return self.model_dump(mode="json")

    def has_scale_test(self, isr: float) -> bool:
        """Whether the runs with this fixed ISR get the test of Fig. 4."""
        return any(math.isclose(isr, value) for value in self.scale_test_isrs)
