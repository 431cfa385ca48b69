"""The systems compared on MNIST-Scale, one row each; importing this does not import torch."""

from __future__ import annotations

import os
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "scalestudy.systems"  # their modules, and those that the variable names, register systems
IMPORT_VARIABLE = "SCALESTUDY_IMPORT"
GROUPS = ("table5", "variants")  # how `baseline_models` of a profile calls those of the paper's table, and all others


@dataclass(frozen=True)
class System:
    """One system of the comparison.

    Parameters
    ----------
    title : str
        For people; where Table 5 has the system, the name there.
    factory : str
        ``package.module:callable``, imported when it is needed and called as
        ``callable(in_channels=1, num_classes=10, image_size=28)``: a network from images (B, 1, 28, 28) to logits
        (B, 10).  Internal scales that the record is to have are its attribute `scales`.
    panel : str
        Systems of one panel are drawn together.
    cost : (float, float)
        Milliseconds per image on one core of a server, batches of 16 and 100: training, evaluation.  Our choice, only
        to foresee the time of a run where no run of the same system is known.
    in_table5 : bool
        Whether the paper's Table 5 has this row.
    augmented : mapping
        Arguments of the factory for training with random rescaling ("+"), where the released constants differ then.
    """

    title: str
    factory: str
    panel: str = "not in the paper"
    cost: tuple[float, float] = (40, 15)
    in_table5: bool = False
    augmented: Mapping[str, float] = field(default_factory=dict)


class _Systems(UserDict):
    """Rows by name; those from outside this package are looked for when one is first asked for."""

    def __init__(self, rows: dict[str, System]) -> None:
        self.rows, self.complete = rows, False

    @property
    def data(self) -> dict[str, System]:
        if not self.complete:
            for point in entry_points(group=ENTRY_POINTS):
                point.load()
            for module in os.environ.get(IMPORT_VARIABLE, "").split():
                try:
                    import_module(module)
                except ImportError as error:
                    raise ValueError(
                        f"{IMPORT_VARIABLE} must name modules that can be imported, got {module!r} ({error}); "
                        "install it, or name its folder in PYTHONPATH"
                    ) from error
            self.complete = True
        return self.rows


_RESCALED = "rescaled filters or images"
_SCALES = "fixed or learned internal scales"
_SESN_PLUS = {"sigma": 1.7, "mult": 1.5}

SYSTEMS = _Systems({
    "cnn": System("CNN", ".cnn:CNN", "", (5, 2), True),
    "sicnn": System("SiCNN", ".sicnn:SiCNN", _RESCALED, (48, 19), True),
    "si_convnet": System("SI-ConvNet", ".si_convnet:SIConvNet", _RESCALED, (35, 13), True),
    "sevf": System("SEVF", ".sevf:SEVF", _RESCALED, (51, 27), True),
    "dss": System("DSS", ".dss:DSS", _RESCALED, (11, 4), True),
    "ss_cnn": System("SS-CNN", ".ss_cnn:SSCNN", _RESCALED, (54, 19), True),
    "sesn": System("SESN (Hermite)", ".sesn:sesn", _SCALES, (24, 10), True, _SESN_PLUS),
    "disco": System("DISCO", ".sesn:disco", _SCALES, (29, 15), True, {"mult": 1.9}),
    "ours_isr": System("Ours (Learn ISR)", ".sesn:ours_isr", _SCALES, (43, 13), True),
    "ours_spacings": System("Ours (Learn Spacings)", ".sesn:ours_spacings", _SCALES, (44, 13), True),
    "ours_direct": System("Ours (Learn Scales Directly)", ".sesn:ours_direct", _SCALES, (40, 12), True),
    "sevf_scalar": System("SEVF (scalar)", ".sevf:ScalarSEVF", cost=(47, 20)),
    "dss_scalar": System("DSS (scalar)", ".dss:ScalarDSS", cost=(11, 5)),
    "ours_isr_like_sesn": System(
        "Ours (Learn ISR), built like SESN", ".sesn:ours_isr_like_sesn", cost=(29, 10), augmented=_SESN_PLUS
    ),
    "single_scale": System("One learned scale (as NJet-Net)", ".sesn:single_scale", cost=(8, 3)),
    "interval_scales": System(
        "Scales learned in fixed intervals (as scale-equivariant U-Net)", ".sesn:interval_scales", cost=(43, 13)
    ),
})  # fmt: skip
"""Every system by its name: those of Table 5 in its order, variants that no table of the paper has, registered ones."""


def register(name: str, system: System) -> None:
    """Add a system from outside this package, so that runs, tables and notebooks know it by its name.

    A module that calls this is imported wherever systems are looked up, also in the processes that train, if a package
    names it in an entry point of the group ``scalestudy.systems``, or the variable ``SCALESTUDY_IMPORT`` does (modules
    with spaces between them; on a cluster, set it for the workers).  It should not import torch: the factory's module
    does.  Records are found by the name: choose another one when the network changes.

    Parameters
    ----------
    name : str
        What specs, ``baseline_models`` in a profile, and `build` call it.
    system : System
        Its row.

    Raises
    ------
    ValueError
        If the name stands for something else already, or the row is none.
    """
    if not isinstance(system, System) or ":" not in system.factory:
        raise ValueError(f"system must be a System whose factory is 'package.module:callable', got {system!r}")
    if not name or name in ("table1", *GROUPS) or SYSTEMS.rows.get(name, system) != system:
        raise ValueError(f"name must be new, got {name!r}, which stands for something else; choose another name")
    SYSTEMS.rows[name] = system


def build(
    name: str, *, augmented: bool = False, in_channels: int = 1, num_classes: int = 10, image_size: int = 28
) -> nn.Module:
    """Build a system of Table 5 or one of its variants, initialised from torch's global generator.

    Parameters
    ----------
    name : str
        One of `scalestudy.models.SYSTEMS`.
    augmented : bool
        With the constants for training with random rescaling ("+"), which SESN and DISCO have.
    in_channels, num_classes : int
        Of the images, >= 1.
    image_size : int
        Height and width in pixels, even and at least 16: three blocks halve the doubled images.  Internal scales stay
        what they are in pixels of the doubled images.

    Raises
    ------
    ValueError
        If there is no such system, or it cannot be built for such images.
    """
    if name not in list(SYSTEMS):
        remedy = f"name the module that registers another one in {IMPORT_VARIABLE}"
        raise ValueError(f"name must be one of {', '.join(SYSTEMS)}, got {name!r}; {remedy}")
    module, _, factory = SYSTEMS[name].factory.partition(":")
    make = getattr(import_module(module, "scalestudy.models"), factory)
    constants = SYSTEMS[name].augmented if augmented else {}
    return make(in_channels=in_channels, num_classes=num_classes, image_size=image_size, **constants)
