"""The systems compared on MNIST-Scale, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scalestudy.layers.scales import DirectScales, IntervalScales, SpacingScales, StepRatioScales
from scalestudy.models.cnn import CNN
from scalestudy.models.dss import DSS, ScalarDSS
from scalestudy.models.frame import MnistScaleNet
from scalestudy.models.sesn import disco, learned, sesn
from scalestudy.models.sevf import SEVF, ScalarSEVF
from scalestudy.models.si_convnet import SIConvNet
from scalestudy.models.sicnn import SiCNN
from scalestudy.models.ss_cnn import SSCNN


@dataclass(frozen=True)
class System:
    """One system of the comparison.

    Attributes
    ----------
    title : str
        Name for people; where Table 5 has the system, the name there.
    make : callable
        Builds it, freshly initialised; takes `augmented`, because two systems have other constants with "+".
    in_table5 : bool
        Whether the paper's Table 5 has this row.
    """

    title: str
    make: Callable[[bool], MnistScaleNet]
    in_table5: bool = True


_START = (1.5, 2.0, 4)
"""sigma_basis (pixels), ISR and number of scales that the paper's networks start from (released code)."""


def _isr_like_sesn(augmented: bool) -> MnistScaleNet:
    return learned(StepRatioScales(1.7 if augmented else 1.5, 2.0, 4), augmented, like_sesn=True)


SYSTEMS: dict[str, System] = {
    "cnn": System("CNN", lambda augmented: CNN()),
    "sicnn": System("SiCNN", lambda augmented: SiCNN()),
    "si_convnet": System("SI-ConvNet", lambda augmented: SIConvNet()),
    "sevf": System("SEVF", lambda augmented: SEVF()),
    "dss": System("DSS", lambda augmented: DSS()),
    "ss_cnn": System("SS-CNN", lambda augmented: SSCNN()),
    "sesn": System("SESN (Hermite)", sesn),
    "disco": System("DISCO", disco),
    "ours_isr": System("Ours (Learn ISR)", lambda augmented: learned(StepRatioScales(*_START), augmented)),
    "ours_spacings": System("Ours (Learn Spacings)", lambda augmented: learned(SpacingScales(*_START), augmented)),
    "ours_direct": System("Ours (Learn Scales Directly)", lambda augmented: learned(DirectScales(*_START), augmented)),
    "sevf_scalar": System("SEVF (scalar)", lambda augmented: ScalarSEVF(), in_table5=False),
    "dss_scalar": System("DSS (scalar)", lambda augmented: ScalarDSS(), in_table5=False),
    "ours_isr_like_sesn": System("Ours (Learn ISR), built like SESN", _isr_like_sesn, in_table5=False),
    "single_scale": System(
        "One learned scale (as NJet-Net)",
        lambda augmented: learned(DirectScales(_START[0], 1.0, 1), augmented),
        in_table5=False,
    ),
    "interval_scales": System(
        "Scales learned in fixed intervals (as scale-equivariant U-Net)",
        lambda augmented: learned(IntervalScales(*_START), augmented),
        in_table5=False,
    ),
}
"""Every system by its name, in the order of Table 5, then the variants that no table of the paper has."""


def build(name: str, *, augmented: bool = False) -> MnistScaleNet:
    """Build a system of Table 5 or one of its variants, initialised from torch's global generator.

    Parameters
    ----------
    name : str
        One of `SYSTEMS`.
    augmented : bool
        With the constants for training with random rescaling ("+"), which SESN and DISCO have.

    Raises
    ------
    ValueError
        If there is no such system.
    """
    if name not in SYSTEMS:
        raise ValueError(f"name must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name].make(augmented)
