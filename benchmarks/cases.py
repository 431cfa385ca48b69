"""The cases of `scale_convolution.py`: which networks, at which sizes, and what they need at least."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import scipy.fft
import torch

from scalestudy import LiftingConv
from scalestudy.layers.fast.separable import separable_cost
from scalestudy.layers.scales import FixedScales, InternalScales, StepRatioScales
from scalestudy.models.table1 import Table1Net

Algorithm = Literal["ours", "fft", "dense"]
Phase = Literal["step", "eval"]

SIGMA_BASIS = 2.0
"""Smallest internal scale in pixels, as in the paper's Fig. 3."""


class FftConv(LiftingConv):
    """Dense kernels by FFT, as a user would write it: products of spectra of a good size, derivatives by autograd."""

    def forward(self, x: torch.Tensor, add_bias: bool = True) -> torch.Tensor:
        kernels, side = self.kernels()[:, 0], x.shape[-1]
        half = kernels.shape[-1] // 2
        size = 2 * [fft_length(side, half)]
        spectra = torch.fft.rfft2(x, size)[:, :, None] * torch.fft.rfft2(kernels, size).conj()
        return torch.fft.irfft2(spectra, size).roll((half, half), (-2, -1))[..., :side, :side]


def fft_length(side: int, half_width: int) -> int:
    """The least good length on which kernels of this half-width do not wrap round."""
    return scipy.fft.next_fast_len(side + half_width, real=True)


@dataclass(frozen=True)
class Case:
    """One network of Table 1 on one batch.

    Attributes
    ----------
    algorithm : {"ours", "fft", "dense"}
        "dense" builds K x K kernels and convolves, as the released code does; "fft" takes them through `FftConv`.
    parameterisation : {"fixed", "learned"}
        "learned" is the released code's step ratio.
    isr, num_scales, image_size, batch
        A single scale is the largest of the others, sigma_basis * isr, so that the kernel is as large.
    rounds : int
        Times that count.  A case of one round takes tens of seconds: it is not warmed up, and only its step is timed.
    """

    algorithm: Algorithm
    parameterisation: Literal["fixed", "learned"]
    isr: float = 3.0
    num_scales: int = 3
    image_size: int = 168
    batch: int = 16
    rounds: int = field(default=5, compare=False)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What is timed."""
        return ("step",) if self.rounds == 1 else ("step", "eval")

    def scales(self) -> InternalScales:
        """The internal scales."""
        if self.num_scales == 1:
            return FixedScales(SIGMA_BASIS * self.isr, 1.0, 1)
        kind = FixedScales if self.parameterisation == "fixed" else StepRatioScales
        return kind(SIGMA_BASIS, self.isr, self.num_scales)

    def network(self) -> Table1Net:
        """The network, with the same initial weights at each call."""
        torch.manual_seed(0)
        algorithm = "dense" if self.algorithm == "dense" else "auto"
        size = self.image_size
        net = Table1Net(self.scales(), image_size=size, pool_size=size // 4, algorithm=algorithm)
        if self.algorithm == "fft":
            conv = FftConv(1, net.conv.out_channels, net.conv.scales, basis=net.conv.basis)
            conv.weight, net.conv = net.conv.weight, conv
        return net

    def images_and_labels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random ones, the same at each call."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 1, self.image_size, self.image_size, generator=generator)
        return images, torch.randint(0, 10, (self.batch,), generator=generator)


def multiplications(case: Case, net: Table1Net, phase: Phase) -> int:
    """Multiplications of the scale convolution for one image.

    A training step needs twice those of the forward pass: the gradient in the weights costs as much, and the images
    need no gradient.  What learned scales need beyond that is left out: it counts as a distance from the floor.
    """
    conv, size = net.conv, case.image_size
    if case.algorithm == "dense":
        forward = case.num_scales * conv.kernel_size() ** 2 * conv.out_channels * size**2
    elif case.algorithm == "fft":
        length, planes = fft_length(size, conv.kernel_size() // 2), case.num_scales * conv.out_channels
        forward = round((1 + planes) * 2 * length**2 * math.log2(length)) + 2 * planes * length**2
    else:
        basis = conv.basis.sample(conv.scales(), conv.kernel_size())
        layer = (basis, conv.in_channels, conv.out_channels, (size, size))
        forward = sum(sum(separable_cost(*layer, half_width)) for half_width in basis.half_widths((size, size)))
    return forward * (2 if phase == "step" else 1)


def moved_bytes(case: Case, net: Table1Net, phase: Phase) -> int:
    """Bytes per image that the layers hand on in float32, each moved once.

    The image is read, the maximum over scales is written and read; in the backward pass its gradient is written and
    read, and the image is read again.  What an algorithm keeps for itself, kernels, weights and the few values after
    pooling do not count.
    """
    planes = net.conv.in_channels + 2 * net.conv.out_channels
    return 4 * case.image_size**2 * planes * (2 if phase == "step" else 1)


def _varied(name: str, values: tuple, dense: tuple, rounds: tuple[int, int], batch: int) -> tuple[Case, ...]:
    """Cases along one field: ours with fixed and learned scales, FFT and dense with fixed ones."""
    kinds = (("ours", "fixed"), ("ours", "learned"), ("fft", "fixed"), ("dense", "fixed"))
    return tuple(
        Case(algorithm, kind, **{"batch": batch, name: value, "rounds": rounds[algorithm == "dense"]})
        for value in values
        for algorithm, kind in kinds
        if (algorithm != "dense" or value in dense) and (value != 1 or kind == "fixed" or name != "num_scales")
    )


SWEEPS: dict[str, tuple[Case, ...]] = {
    "isr": (
        *_varied("isr", (1.5, 2.0, 3.0, 4.24, 6.0, 7.56), (1.5, 2.0, 3.0), rounds=(7, 3), batch=16),
        Case("dense", "learned", rounds=3),
    ),
    "large_isr": _varied("isr", (4.24, 7.56), (4.24, 7.56), rounds=(5, 1), batch=1),
    "num_scales": _varied("num_scales", (1, 2, 3, 4, 6), (1, 3, 6), rounds=(5, 2), batch=16),
    "image_size": _varied("image_size", (56, 84, 112, 168), (56, 84, 112, 168), rounds=(5, 2), batch=16),
    "batch": _varied("batch", (1, 4, 16, 64), (1, 4, 16), rounds=(5, 3), batch=16),
}
"""Cases by what they vary; those of one sweep run in turn.  Dense stops early where a step would take a minute."""

MEMORY = tuple(case for case in SWEEPS["isr"] if (case.isr, case.num_scales) == (3.0, 3))
"""Cases whose memory is measured."""
