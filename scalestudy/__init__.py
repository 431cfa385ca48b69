"""scalestudy: a reproducible study of scale learning in scale-equivariant convolutional networks.

What other work may want comes from here by name, and is imported when it is asked for: ``from scalestudy import
LiftingConv``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "layers.conv": ("LiftingConv", "GroupConv", "ScaleProjection"),
    "layers.scales": ("FixedScales", "IsrScales", "StepRatioScales", "SpacingScales", "DirectScales"),
    "layers.basis": ("VaryingOrderBasis", "VaryingSigmaBasis", "SampledBasis"),
    "layers.equivariance": ("assert_equivariant",),
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
