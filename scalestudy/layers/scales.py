"""Internal scales: small modules that return the S sigmas of a scale convolution.

Each class is one way to parameterise the scales of a network.  All of them return absolute sigmas in pixels, shape
(S,), smallest first when created; layers that share an instance share their scales, as in every network of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from scalestudy.layers.described import Described


def require_integer(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no integer, or too small."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def is_finite(value: object) -> bool:
    """Whether it is a number, and neither NaN nor infinite."""
    return isinstance(value, Real) and math.isfinite(value)


def log_spaced_scales(sigma_basis: float, isr: float, num_scales: int) -> tuple[float, ...]:
    """Internal scales of Eq. 2 in double precision: log-uniform from ``sigma_basis`` to ``sigma_basis * isr`` pixels.

    >>> [round(sigma, 3) for sigma in log_spaced_scales(2.0, 3.0, 3)]
    [2.0, 3.464, 6.0]
    """
    require_integer("num_scales", num_scales)
    if not (is_finite(sigma_basis) and sigma_basis > 0):
        raise ValueError(f"sigma_basis must be finite and > 0 pixels, got {sigma_basis!r}; the paper uses 1 to 4")
    if num_scales == 1:
        if isr != 1:
            raise ValueError(f"a single scale spans no range: isr must be 1 with num_scales=1, got {isr!r}")
        return (float(sigma_basis),)
    if not (is_finite(isr) and isr > 1):
        raise ValueError(
            f"isr (largest over smallest internal scale) must be finite and > 1, got {isr!r}; "
            "the paper uses 1.5 to 7.56"
        )
    return tuple(sigma_basis * isr ** (i / (num_scales - 1)) for i in range(num_scales))


def _two_or_more(sigma_basis: float, isr: float, num_scales: int) -> tuple[float, ...]:
    """`log_spaced_scales`, of parameterisations that need a range."""
    scales = log_spaced_scales(sigma_basis, isr, num_scales)
    if len(scales) < 2:
        raise ValueError("num_scales must be >= 2 to learn a range of scales, got 1; use DirectScales for one")
    return scales


class InternalScales(Described):
    """Base class: a module whose forward pass returns the internal scales, shape (S,), in pixels."""

    num_scales: int  # S

    def parameters_in_pixels(self) -> list[nn.Parameter]:
        """The learnable parameters that are lengths in pixels; the others have no unit."""
        return []

    @property
    def isr(self) -> float:
        """Present internal scale range: last over first scale, no unit."""
        scales = self.values()
        return scales[-1] / scales[0]

    def values(self) -> list[float]:
        """Present internal scales in pixels, as Python floats."""
        scales = self().detach().double()
        if scales.is_meta or torch.compiler.is_exporting():
            remedy = "give kernel_size, or FixedScales.from_values(scales.values())"
            raise ValueError(f"{type(self).__name__} have no values on meta and in exported graphs; {remedy}")
        return scales.tolist()

    def description(self) -> str:
        return f"{type(self).__name__} of {self.num_scales} scales"

    def extra_repr(self) -> str:
        if any(tensor.is_meta for tensor in (*self.parameters(), *self.buffers())):
            return f"{self.num_scales} internal scales without values"
        return "internal_scales=[" + ", ".join(f"{sigma:.4g}" for sigma in self.values()) + "]"


class FixedScales(InternalScales):
    """Fixed internal scales (Eq. 2 without learning).

    Kept in double precision, as the official code computes its fixed bases; a later ``.float()`` rounds them.  Compiled
    and exported graphs hold what was given, moved or loaded last: make other scales rather than fill the buffer.

    Parameters
    ----------
    sigma_basis : float
        Smallest scale in pixels, > 0.
    isr : float
        Internal scale range, largest over smallest scale, > 1 (exactly 1 for a single scale).
    num_scales : int
        Number of scales S, >= 1.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        self._set(log_spaced_scales(sigma_basis, isr, num_scales))

    @classmethod
    def from_values(cls, values: Sequence[float]) -> FixedScales:
        """Fixed scales given one by one, in pixels, each > 0 (not in the paper; SESN rounds its scales so)."""
        if len(values) == 0 or not all(is_finite(value) and value > 0 for value in values):
            raise ValueError(f"values must be one or more finite sigmas > 0 pixels, got {list(values)!r}")
        scales = cls.__new__(cls)
        nn.Module.__init__(scales)
        scales._set(values)
        return scales

    def _set(self, values: Sequence[float]) -> None:
        self.num_scales = len(values)
        self._known = [float(value) for value in values]
        self.register_buffer("internal_scales", torch.tensor(values, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.internal_scales

    def values(self) -> list[float]:
        if self.internal_scales.is_meta or torch.compiler.is_compiling():
            return list(self._known)
        return super().values()

    def _apply(self, *arguments: Any, **options: Any) -> FixedScales:
        values = torch.tensor(self.values(), dtype=torch.float64, device="cpu")
        super()._apply(*arguments, **options)
        values = values.to(self.internal_scales.dtype)
        self._known, self.internal_scales = values.tolist(), values.to(self.internal_scales.device)  # after to_empty
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._known = self.values()


class IsrScales(InternalScales):
    """Learnable sigma_basis and ISR, exactly as printed in the paper (Eq. 2 and Eq. 5): ISR = 1 + gamma^2.

    The official code computes something else under the same name, see `StepRatioScales`.

    Created with the initial values, as `FixedScales`; num_scales >= 2.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        self.num_scales = len(_two_or_more(sigma_basis, isr, num_scales))
        self.sigma_basis = nn.Parameter(torch.tensor(float(sigma_basis)))
        self.gamma = nn.Parameter(torch.tensor(math.sqrt(isr - 1.0)))

    def forward(self) -> Tensor:
        steps = torch.arange(self.num_scales, dtype=torch.float64, device=self.gamma.device) / (self.num_scales - 1)
        return self.sigma_basis * (1 + self.gamma.square()) ** steps.to(self.gamma.dtype)

    def parameters_in_pixels(self) -> list[nn.Parameter]:
        return [self.sigma_basis]


class SpacingScales(InternalScales):
    """Learnable sigma_basis and individual spacings (Section 4.2, parameterisation 2).

    s_0 = sigma_basis, s_i = s_(i-1) (1 + gamma_i^2), from the official code; the paper gives no formula.

    Created with the initial values, as `FixedScales`; num_scales >= 2.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        self.num_scales = len(_two_or_more(sigma_basis, isr, num_scales))
        self.sigma_basis = nn.Parameter(torch.tensor([float(sigma_basis)]))
        gamma = math.sqrt(isr ** (1.0 / (num_scales - 1)) - 1.0)
        self.gamma = nn.Parameter(self._gammas(gamma))

    def _gammas(self, start: float) -> Tensor:
        return torch.full((self.num_scales - 1,), start)

    def forward(self) -> Tensor:
        ratio = 1 + self.gamma.square()
        return torch.cat([self.sigma_basis, ratio.expand(self.num_scales - 1)]).cumprod(0)

    def parameters_in_pixels(self) -> list[nn.Parameter]:
        return [self.sigma_basis]


class StepRatioScales(SpacingScales):
    """Learnable sigma_basis and one step ratio for all spacings, as the official code computes its "ISR".

    Where the paper prints ISR = 1 + gamma^2 (Eq. 5), the released code makes the ratio of *adjacent* scales
    1 + gamma^2, so that ISR = (1 + gamma^2)^(S-1): the same set of scales, other learning dynamics.

    Created with the initial values, as `FixedScales`; num_scales >= 2.
    """

    def _gammas(self, start: float) -> Tensor:
        return torch.tensor(start)


class LogScales(InternalScales):
    """Learnable logarithms of sigma_basis and ISR (Eq. 2): equal ratios cost equal steps, and no scale leaves them.

    Not in the paper: our choice, for scales that are to forget their start.

    Created with the initial values, as `FixedScales`; num_scales >= 2.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        self.num_scales = len(_two_or_more(sigma_basis, isr, num_scales))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma_basis)))
        self.log_isr = nn.Parameter(torch.tensor(math.log(isr)))

    def forward(self) -> Tensor:
        steps = torch.arange(self.num_scales).to(self.log_isr) / (self.num_scales - 1)
        return (self.log_sigma + self.log_isr * steps).exp()


class DirectScales(InternalScales):
    """Each internal scale is its own parameter (Section 4.2, parameterisation 3): no order, no bound.

    As in the released code nothing keeps a scale positive; a layer refuses those that it cannot sample.

    Created with the initial values, as `FixedScales`.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        self.num_scales = num_scales
        self.sigmas = nn.Parameter(torch.tensor(log_spaced_scales(sigma_basis, isr, num_scales)))

    def forward(self) -> Tensor:
        return self.sigmas

    def parameters_in_pixels(self) -> list[nn.Parameter]:
        return [self.sigmas]


class KeptScales(InternalScales):
    """Those of other internal scales that were not dropped (not in the paper: our choice)."""

    def __init__(self, scales: InternalScales) -> None:
        super().__init__()
        self.scales = scales
        self.register_buffer("kept", torch.ones(scales.num_scales, dtype=torch.bool))

    @property
    def num_scales(self) -> int:
        return int(self.kept.sum())

    def drop(self, dropped: Tensor) -> None:
        """Drop some of those that are left, bool (num_scales,)."""
        self.kept[self.kept.clone()] = ~dropped

    def forward(self) -> Tensor:
        return self.scales()[self.kept]

    def description(self) -> str:
        return f"{type(self).__name__} of {self.scales.description()}"


class IntervalScales(InternalScales):
    """Scales learned directly, each inside an interval of its own that it cannot leave.

    Not in the paper's experiments; its Sections 2 and 5 name the scale-equivariant U-Net (Yang et al., 2023), which
    learns scales inside intervals, and set the paper's own unconstrained scales against it.  Our reading: the intervals
    meet half-way between neighbours (in ratio), so that the scales keep their order, and a sigmoid keeps each inside,
    s_i = sigma_i q^(sigmoid(theta_i) - 1/2) with q the initial ratio of neighbours, which starts with theta = 0.

    Created with the initial values, as `FixedScales`; num_scales >= 2.
    """

    def __init__(self, sigma_basis: float, isr: float, num_scales: int) -> None:
        super().__init__()
        centres = _two_or_more(sigma_basis, isr, num_scales)
        self.num_scales = num_scales
        self.theta = nn.Parameter(torch.zeros(num_scales))
        self.register_buffer("centres", torch.tensor(centres))

    def forward(self) -> Tensor:
        ratio = self.centres[1] / self.centres[0]
        return self.centres * ratio ** (self.theta.sigmoid() - 0.5)
