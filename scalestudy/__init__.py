"""scalestudy: a reproducible study of scale learning in scale-equivariant convolutional networks.

What other work may want comes from here by name, and is imported when it is asked for: ``from scalestudy import
LiftingConv``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ below imports when it is asked for
    from scalestudy.layers.basis import SampledBasis as SampledBasis
    from scalestudy.layers.basis import VaryingOrderBasis as VaryingOrderBasis
    from scalestudy.layers.basis import VaryingSigmaBasis as VaryingSigmaBasis
    from scalestudy.layers.conv import GroupConv as GroupConv
    from scalestudy.layers.conv import LiftingConv as LiftingConv
    from scalestudy.layers.conv import ScaleProjection as ScaleProjection
    from scalestudy.layers.equivariance import assert_equivariant as assert_equivariant
    from scalestudy.layers.equivariance import assert_invariant as assert_invariant
    from scalestudy.layers.scales import DirectScales as DirectScales
    from scalestudy.layers.scales import FixedScales as FixedScales
    from scalestudy.layers.scales import IsrScales as IsrScales
    from scalestudy.layers.scales import SpacingScales as SpacingScales
    from scalestudy.layers.scales import StepRatioScales as StepRatioScales
    from scalestudy.models.systems import System as System
    from scalestudy.models.systems import build as build
    from scalestudy.models.systems import register as register
    from scalestudy.models.table1 import Table1Net as Table1Net
    from scalestudy.paper.study import Study as Study
    from scalestudy.training.fit import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "layers.conv": ("LiftingConv", "GroupConv", "ScaleProjection"),
    "layers.scales": ("FixedScales", "IsrScales", "StepRatioScales", "SpacingScales", "DirectScales"),
    "layers.basis": ("VaryingOrderBasis", "VaryingSigmaBasis", "SampledBasis"),
    "layers.equivariance": ("assert_equivariant", "assert_invariant"),
    "models.table1": ("Table1Net",),
    "models.systems": ("System", "build", "register"),
    "training.fit": ("fit",),
    "paper.study": ("Study",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scalestudy' has no attribute {name!r}")
    return getattr(import_module(f"scalestudy.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
