"""The systems compared on MNIST-Scale, one row each; importing this does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalestudy.models.frame import MnistScaleNet


@dataclass(frozen=True)
class System:
    """One system of the comparison.

    `cost` are milliseconds per image on one core of a server, batches of 16 and 100: training, evaluation.  Our choice,
    only to foresee the time of a run where no run of the same system is known.
    """

    title: str  # for people; where Table 5 has the system, the name there
    factory: str  # ``module:callable`` in `scalestudy.models`
    panel: str  # systems of one panel are drawn together
    cost: tuple[float, float]
    in_table5: bool = True  # whether the paper's Table 5 has this row
    # arguments of the factory for training with random rescaling ("+"), where the released constants differ then
    augmented: Mapping[str, float] = field(default_factory=dict)


_RESCALED = "rescaled filters or images"
_SCALES = "fixed or learned internal scales"
_VARIANT = "not in the paper"

SYSTEMS: dict[str, System] = {
    "cnn": System("CNN", "cnn:CNN", "", (5, 2)),
    "sicnn": System("SiCNN", "sicnn:SiCNN", _RESCALED, (48, 19)),
    "si_convnet": System("SI-ConvNet", "si_convnet:SIConvNet", _RESCALED, (35, 13)),
    "sevf": System("SEVF", "sevf:SEVF", _RESCALED, (51, 27)),
    "dss": System("DSS", "dss:DSS", _RESCALED, (11, 4)),
    "ss_cnn": System("SS-CNN", "ss_cnn:SSCNN", _RESCALED, (54, 19)),
    "sesn": System("SESN (Hermite)", "sesn:sesn", _SCALES, (24, 10), augmented={"sigma": 1.7, "mult": 1.5}),
    "disco": System("DISCO", "sesn:disco", _SCALES, (29, 15), augmented={"mult": 1.9}),
    "ours_isr": System("Ours (Learn ISR)", "sesn:ours_isr", _SCALES, (43, 13)),
    "ours_spacings": System("Ours (Learn Spacings)", "sesn:ours_spacings", _SCALES, (44, 13)),
    "ours_direct": System("Ours (Learn Scales Directly)", "sesn:ours_direct", _SCALES, (40, 12)),
    "sevf_scalar": System("SEVF (scalar)", "sevf:ScalarSEVF", _VARIANT, (47, 20), False),
    "dss_scalar": System("DSS (scalar)", "dss:ScalarDSS", _VARIANT, (11, 5), False),
    "ours_isr_like_sesn": System(
        "Ours (Learn ISR), built like SESN",
        "sesn:ours_isr_like_sesn",
        _VARIANT,
        (29, 10),
        False,
        augmented={"sigma": 1.7, "mult": 1.5},
    ),
    "single_scale": System("One learned scale (as NJet-Net)", "sesn:single_scale", _VARIANT, (8, 3), False),
    "interval_scales": System(
        "Scales learned in fixed intervals (as scale-equivariant U-Net)",
        "sesn:interval_scales",
        _VARIANT,
        (43, 13),
        False,
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
    module, _, factory = SYSTEMS[name].factory.partition(":")
    make = getattr(import_module(f"scalestudy.models.{module}"), factory)
    return make(**SYSTEMS[name].augmented) if augmented else make()
