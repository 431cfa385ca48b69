"""Distributions of the data scale: the object size factor of each digit.

The paper's are log-uniform on [1, 2.83], [1, 4.76] and [1, 8] (section 4.1); the others are for further experiments
(our choice). Every distribution draws by its inverse cumulative distribution function, one uniform number per draw, so
the first k of n draws do not depend on n.
"""

import itertools
import json
import re
from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from scipy.special import ndtr, ndtri

_SMALLEST_MASS = 1e-9


class _Distribution(BaseModel):
    """What all distributions share: validation settings and sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw data scales.

        Parameters
        ----------
        count : int
            How many, 0 or more.
        rng : numpy.random.Generator
            Advanced by `count` uniform numbers.

        Returns
        -------
        ndarray of float64, shape (count,)
        """
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
            raise ValueError(f"count must be an integer of at least 0, got {count!r}; ask for a number of draws")
        return self.quantile(rng.random(count))

    @abstractmethod
    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """Return the data scale below which a share `probability` (in [0, 1]) of the draws lies."""

    @abstractmethod
    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """Return the probability density per unit of data scale, shape of `data_scale`, zero outside the range."""

    def log2_density(self, log2_data_scale: np.ndarray | float) -> np.ndarray:
        """Return the probability density per octave at log2 of the data scale, shape of the argument."""
        data_scale = np.exp2(np.asarray(log2_data_scale, dtype=np.float64))
        return self.pdf(data_scale) * data_scale * np.log(2.0)

    @property
    @abstractmethod
    def label(self) -> str:
        """The name in tables and figures, such as ``log-uniform [1, 2.83]``; `parse_distribution` reads it back."""


class _Range(_Distribution):
    """A distribution on [low, high]."""

    low: float
    high: float

    @field_validator("low", "high")
    @classmethod
    def _positive(cls, value: float, info: ValidationInfo) -> float:
        if not value > 0:
            raise ValueError(
                f"{info.field_name} must be a data scale greater than 0, got {value}; 1 leaves a digit as it is"
            )
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "_Range":
        if not self.low < self.high:
            raise ValueError(
                f"low must be smaller than high, got low {_number(self.low)} and high {_number(self.high)}; swap "
                'them, or use the kind "discrete" for a single value'
            )
        return self

    def _inside(self, data_scale: np.ndarray) -> np.ndarray:
        return (data_scale >= self.low) & (data_scale <= self.high)

    @property
    def _range_label(self) -> str:
        return f"[{_number(self.low)}, {_number(self.high)}]"


class LogUniform(_Range):
    """log2 of the data scale is uniform on [log2 low, log2 high] (section 4.1).

    Parameters
    ----------
    low, high : float
        0 < low < high, data scales.

    Examples
    --------
    >>> LogUniform(low=1, high=8).label
    'log-uniform [1, 8]'
    >>> LogUniform(low=1, high=8).quantile(1 / 3).item()
    2.0
    """

    kind: Literal["log-uniform"] = "log-uniform"

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        low, high = np.log2(self.low), np.log2(self.high)
        return np.clip(np.exp2(low + np.asarray(probability, dtype=np.float64) * (high - low)), self.low, self.high)

    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        data_scale = np.asarray(data_scale, dtype=np.float64)
        inside = self._inside(data_scale)
        return np.where(inside, 1.0 / (np.where(inside, data_scale, 1.0) * np.log(self.high / self.low)), 0.0)

    @property
    def label(self) -> str:
        """See the base class."""
        return f"log-uniform {self._range_label}"


class Uniform(_Range):
    """The data scale is uniform on [low, high].

    Parameters
    ----------
    low, high : float
        0 < low < high, data scales.
    """

    kind: Literal["uniform"] = "uniform"

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        probability = np.asarray(probability, dtype=np.float64)
        return np.clip(self.low + probability * (self.high - self.low), self.low, self.high)

    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        return np.where(self._inside(np.asarray(data_scale, dtype=np.float64)), 1.0 / (self.high - self.low), 0.0)

    @property
    def label(self) -> str:
        """See the base class."""
        return f"uniform {self._range_label}"


class _TruncatedNormal(_Range):
    """A normal distribution of an axis x (the data scale or its log2), cut to [low, high]."""

    mean: float
    std: float

    @field_validator("std")
    @classmethod
    def _wide(cls, value: float) -> float:
        if not value > 0:
            raise ValueError(f'std must be greater than 0, got {value}; use the kind "discrete" for a single value')
        return value

    @model_validator(mode="after")
    def _reachable(self) -> "_TruncatedNormal":
        if not self._mass > _SMALLEST_MASS:
            raise ValueError(
                f"low and high must keep more than {_SMALLEST_MASS} of the normal distribution, got mean "
                f"{_number(self.mean)}, std {_number(self.std)} cut to {self._range_label}; widen the range or std"
            )
        return self

    @abstractmethod
    def _axis(self, data_scale: np.ndarray | float) -> np.ndarray:
        """Return the data scale on the axis on which it is normal."""

    @property
    def _bounds(self) -> tuple[float, float]:
        """Standardised bounds."""
        return tuple(float((self._axis(value) - self.mean) / self.std) for value in (self.low, self.high))

    @property
    def _mass(self) -> float:
        """The share of the whole normal distribution that lies in the range."""
        a, b = self._bounds
        return float(ndtr(-a) - ndtr(-b) if a > 0 else ndtr(b) - ndtr(a))

    def _axis_quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """Quantile on the axis x; a range above the mean is mirrored, because small tail masses are exact below it."""
        a, _ = self._bounds
        share = np.asarray(probability, dtype=np.float64) * self._mass
        z = -ndtri(ndtr(-a) - share) if a > 0 else ndtri(ndtr(a) + share)
        return self.mean + self.std * z

    def _axis_pdf(self, data_scale: np.ndarray) -> np.ndarray:
        z = (self._axis(data_scale) - self.mean) / self.std
        return np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * self.std * self._mass)

    @property
    def label(self) -> str:
        """See the base class."""
        return f"{self.kind} ({_number(self.mean)}, {_number(self.std)}) {self._range_label}"


class Normal(_TruncatedNormal):
    """The data scale is normal, truncated to [low, high] (and renormalised).

    Parameters
    ----------
    mean, std : float
        Of the data scale before truncation; std > 0.
    low, high : float
        0 < low < high, data scales.
    """

    kind: Literal["normal"] = "normal"

    def _axis(self, data_scale: np.ndarray | float) -> np.ndarray:
        return np.asarray(data_scale, dtype=np.float64)

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        return np.clip(self._axis_quantile(probability), self.low, self.high)

    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        data_scale = np.asarray(data_scale, dtype=np.float64)
        return np.where(self._inside(data_scale), self._axis_pdf(data_scale), 0.0)


class LogNormal(_TruncatedNormal):
    """log2 of the data scale is normal, truncated to [log2 low, log2 high] (and renormalised).

    Parameters
    ----------
    mean, std : float
        Of **log2** of the data scale, in octaves, before truncation: mean 1 is a data scale of 2; std > 0.
    low, high : float
        0 < low < high, data scales (not their logarithms).
    """

    kind: Literal["log-normal"] = "log-normal"

    def _axis(self, data_scale: np.ndarray | float) -> np.ndarray:
        return np.log2(np.asarray(data_scale, dtype=np.float64))

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        return np.clip(np.exp2(self._axis_quantile(probability)), self.low, self.high)

    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        data_scale = np.asarray(data_scale, dtype=np.float64)
        inside = self._inside(data_scale)
        safe = np.where(inside, data_scale, self.low)
        return np.where(inside, self._axis_pdf(safe) / (safe * np.log(2.0)), 0.0)


class Discrete(_Distribution):
    """The data scale is one of a few values.

    Parameters
    ----------
    values : tuple of float
        At least one, greater than 0, strictly increasing.
    probabilities : tuple of float, optional
        One per value, each greater than 0, summing to 1 (within 1e-6). Default: equal.

    Notes
    -----
    `pdf` and `log2_density` return the probability of a listed value, and 0 elsewhere.
    """

    kind: Literal["discrete"] = "discrete"
    values: tuple[float, ...]
    probabilities: tuple[float, ...] | None = None

    @field_validator("values")
    @classmethod
    def _increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or values[0] <= 0 or any(a >= b for a, b in itertools.pairwise(values)):
            raise ValueError(
                f"values must be at least one data scale greater than 0, strictly increasing, got {values}; sort them "
                "and merge equal ones"
            )
        return values

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Discrete":
        given = self.probabilities
        if given is not None and (
            len(given) != len(self.values) or min(given) <= 0 or not abs(sum(given) - 1.0) <= 1e-6
        ):
            raise ValueError(
                f"probabilities must be {len(self.values)} numbers greater than 0 that sum to 1, one per value, got "
                f"{given}; leave them out for equal ones"
            )
        return self

    @property
    def _shares(self) -> np.ndarray:
        given = self.probabilities or (1.0,) * len(self.values)
        return np.asarray(given, dtype=np.float64) / sum(given)

    def quantile(self, probability: np.ndarray | float) -> np.ndarray:
        """See the base class."""
        edges = np.cumsum(self._shares)[:-1]
        return np.asarray(self.values, dtype=np.float64)[np.searchsorted(edges, probability, side="right")]

    def pdf(self, data_scale: np.ndarray | float) -> np.ndarray:
        """Return the probability of each data scale that is one of the values, else 0."""
        data_scale = np.asarray(data_scale, dtype=np.float64)
        return (data_scale[..., None] == np.asarray(self.values)) @ self._shares

    def log2_density(self, log2_data_scale: np.ndarray | float) -> np.ndarray:
        """Return the probability of each value at its log2 (within rounding), else 0."""
        at = np.asarray(log2_data_scale, dtype=np.float64)[..., None]
        return np.isclose(at, np.log2(self.values), rtol=0.0, atol=1e-12) @ self._shares

    @property
    def label(self) -> str:
        """See the base class."""
        if self.probabilities is None:
            return f"discrete {{{', '.join(map(_number, self.values))}}}"
        pairs = zip(self.values, self.probabilities, strict=True)
        return f"discrete {{{', '.join(f'{_number(value)}: {_number(share)}' for value, share in pairs)}}}"


ScaleDistribution = Annotated[LogUniform | Uniform | Normal | LogNormal | Discrete, Field(discriminator="kind")]
"""Any distribution of data scales, for fields of pydantic models; told apart by ``kind``."""

_KINDS = ("log-uniform", "uniform", "normal", "log-normal", "discrete")
_ADAPTER: TypeAdapter = TypeAdapter(ScaleDistribution)
_FORMS = (
    'give a label such as "log-uniform [1, 2.83]", "normal (2, 0.5) [1, 4]" or "discrete {1, 2, 4}", '
    "or the fields as JSON"
)


def parse_distribution(description: str | dict[str, Any] | _Distribution) -> ScaleDistribution:
    """Read a distribution from its label, from JSON, or from a mapping of its fields.

    Parameters
    ----------
    description : str, dict or distribution
        Such as ``"log-uniform [1, 2.83]"`` or ``{"kind": "uniform", "low": 1, "high": 2}``; a distribution is returned.

    Returns
    -------
    LogUniform, Uniform, Normal, LogNormal or Discrete

    Raises
    ------
    ValueError
        On an unknown kind or field, an empty or reversed range, or a data scale that is not positive.

    Examples
    --------
    >>> parse_distribution("log-uniform [1, 2.83]")
    LogUniform(low=1.0, high=2.83, kind='log-uniform')
    """
    if isinstance(description, _Distribution):
        return description
    fields = _fields_of_text(description) if isinstance(description, str) else description
    if not isinstance(fields, dict):
        raise ValueError(f"description must be a text or a dict, got {description!r}; {_FORMS}")
    if fields.get("kind") not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {fields.get('kind')!r}; {_FORMS}")
    return _ADAPTER.validate_python(fields)


_LABEL = re.compile(
    r"\s*(?P<kind>[a-z-]+)\s*(?:\(\s*(?P<mean>[^,()]+),(?P<std>[^,()]+)\))?"
    r"\s*(?:\[(?P<low>[^,\[\]]+),(?P<high>[^,\[\]]+)\]|\{(?P<values>[^{}]*)\})\s*"
)


def _fields_of_text(text: str) -> dict[str, Any]:
    """Turn a label or JSON into fields, all numbers still text in a label: pydantic reads them."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"description must be valid JSON, got {text!r} ({error}); {_FORMS}") from error
    match = _LABEL.fullmatch(text)
    if match is None:
        raise ValueError(f"description must be a label or JSON, got {text!r}; {_FORMS}")
    fields: dict[str, Any] = {key: value.strip() for key, value in match.groupdict().items() if value is not None}
    if "values" in fields:
        pairs = [item.split(":") for item in fields.pop("values").split(",")]
        fields["values"] = [pair[0].strip() for pair in pairs]
        if any(len(pair) > 1 for pair in pairs):
            fields["probabilities"] = [pair[-1].strip() for pair in pairs if len(pair) > 1]
    return fields


def _number(value: float) -> str:
    """Write a number as the paper does: ``8``, not ``8.0``; all digits that are needed to read it back.

    >>> _number(8.0), _number(2.83)
    ('8', '2.83')
    """
    return repr(float(value)).removesuffix(".0")
