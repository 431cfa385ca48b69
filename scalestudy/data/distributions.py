"""Distributions of the data scale: the object size factor of each digit.

The paper's are log-uniform on [1, 2.83], [1, 4.76] and [1, 8] (section 4.1); the others are for further experiments
(our choice). Every distribution draws by its inverse cumulative distribution function, one uniform number per draw, so
the first k of n draws do not depend on n.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import ndtr, ndtri

_SMALLEST_MASS = 1e-9
DataScale = Annotated[float, Field(gt=0)]


class _Distribution(BaseModel):
    """Subclasses add `quantile`, the data scale below which that share of the draws lies, and `label`, their name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw data scales, float64 (count,); advances the generator by `count` uniform numbers."""
        return self.quantile(rng.random(count))


class _Range(_Distribution):
    """A distribution on [low, high]; subclasses add `_octaves`, log2 of the quantile, and `_density`, per octave."""

    low: DataScale
    high: DataScale

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.low < self.high:
            raise ValueError(
                f"low must be smaller than high, got low {_number(self.low)} and high {_number(self.high)}; swap "
                'them, or use the kind "single" for one value'
            )
        return self

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        octaves = self._octaves(np.asarray(probability, dtype=np.float64))
        return np.clip(np.exp2(octaves), self.low, self.high)

    def log2_density(self, octaves: np.ndarray) -> np.ndarray:
        """Probability per octave at log2 of the data scale, shape of the argument; 0 outside the range."""
        inside = (octaves >= np.log2(self.low)) & (octaves <= np.log2(self.high))
        return np.where(inside, self._density(octaves), 0.0)


class LogUniform(_Range):
    """log2 of the data scale is uniform on [log2 low, log2 high] (section 4.1); 0 < low < high.

    >>> LogUniform(low=1, high=8).quantile(1 / 3).item()
    2.0
    """

    kind: Literal["log-uniform"] = "log-uniform"

    def _octaves(self, probability: np.ndarray) -> np.ndarray:
        low, high = np.log2(self.low), np.log2(self.high)
        return low + probability * (high - low)

    def _density(self, octaves: np.ndarray) -> float:
        return 1.0 / np.log2(self.high / self.low)

    @property
    def label(self) -> str:
        return f"log-uniform [{_number(self.low)}, {_number(self.high)}]"


class LogNormal(_Range):
    """log2 of the data scale is normal, cut to [log2 low, log2 high] and renormalised.

    `mean` and `std` are those of **log2** of the data scale before the cut, in octaves (mean 1 is a data scale of 2);
    `low` and `high` are data scales.
    """

    mean: float
    std: float = Field(gt=0)
    kind: Literal["log-normal"] = "log-normal"

    @model_validator(mode="after")
    def _reachable(self) -> LogNormal:
        _, start, end = self._shares
        if not end - start > _SMALLEST_MASS:
            raise ValueError(
                f"low and high must keep more than {_SMALLEST_MASS} of the normal distribution, got {self.label}; "
                "widen the range or std"
            )
        return self

    @property
    def _shares(self) -> tuple[float, float, float]:
        """Side, and the shares of the normal below the two ends; a range above the mean is mirrored (side -1).

        Small tail masses are exact below the mean only.
        """
        low, high = ((np.log2(end) - self.mean) / self.std for end in (self.low, self.high))
        return (-1.0, float(ndtr(-high)), float(ndtr(-low))) if low > 0 else (1.0, float(ndtr(low)), float(ndtr(high)))

    def _octaves(self, probability: np.ndarray) -> np.ndarray:
        side, start, end = self._shares
        share = start + probability * (end - start) if side > 0 else end - probability * (end - start)
        return self.mean + self.std * side * ndtri(share)

    def _density(self, octaves: np.ndarray) -> np.ndarray:
        _, start, end = self._shares
        z = (octaves - self.mean) / self.std
        return np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * self.std * (end - start))

    @property
    def label(self) -> str:
        numbers = map(_number, (self.mean, self.std, self.low, self.high))
        return "log-normal ({}, {}) [{}, {}]".format(*numbers)


class Bimodal(_Range):
    """Log-uniform on two ranges of equal share, each `width` octaves wide, at the two ends of [low, high].

    >>> Bimodal(low=1, high=8, width=0.5).quantile(0.5 + 1e-12).round(3).item()
    5.657
    """

    width: float = Field(gt=0)
    kind: Literal["bimodal"] = "bimodal"

    @model_validator(mode="after")
    def _apart(self) -> Bimodal:
        if not 2 * self.width < np.log2(self.high / self.low):
            raise ValueError(f"width must be less than half of the range in octaves, got {self.label}; lower it")
        return self

    def _octaves(self, probability: np.ndarray) -> np.ndarray:
        inside = 2 * self.width * probability
        gap = np.log2(self.high / self.low) - 2 * self.width
        return np.log2(self.low) + inside + np.where(probability < 0.5, 0.0, gap)

    def _density(self, octaves: np.ndarray) -> np.ndarray:
        from_ends = np.minimum(octaves - np.log2(self.low), np.log2(self.high) - octaves)
        return np.where(from_ends <= self.width, 0.5 / self.width, 0.0)

    @property
    def label(self) -> str:
        return f"bimodal ({_number(self.width)}) [{_number(self.low)}, {_number(self.high)}]"


class SingleScale(_Distribution):
    """Every digit has the data scale `value`."""

    value: DataScale
    kind: Literal["single"] = "single"

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        return np.full(np.shape(probability), self.value)

    @property
    def label(self) -> str:
        return f"single scale {_number(self.value)}"


ScaleDistribution = Annotated[LogUniform | LogNormal | Bimodal | SingleScale, Field(discriminator="kind")]


def _number(value: float) -> str:
    """As the paper prints it: ``8``, not ``8.0``; else all digits that are needed to read it back."""
    return repr(float(value)).removesuffix(".0")
