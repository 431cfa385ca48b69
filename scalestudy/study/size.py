"""The size of a study: exactly the parameters that every notebook declares."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scalestudy.spec import CANVAS_SIZE

_Isr = Annotated[float, Field(gt=1)]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Sigma = Annotated[float, Field(gt=0)]


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

    @model_validator(mode="after")
    def _consistent(self) -> StudySize:
        for name in ("seeds", "isrs", "scale_test_isrs", "initial_sigmas", "initial_isrs", "initialisation_seeds"):
            values = getattr(self, name)
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
        return self

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

    def parameters(self) -> dict[str, int | float | str | list]:
        """The fields as plain values, as papermill takes them."""
        return self.model_dump(mode="json")

    def has_scale_test(self, isr: float) -> bool:
        """Whether the runs with this fixed ISR get the test of Fig. 4."""
        return any(math.isclose(isr, value) for value in self.scale_test_isrs)
