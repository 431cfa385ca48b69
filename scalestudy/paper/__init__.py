"""The paper's tables, figures and claims beside our runs.  What most notebooks use comes from here by name."""

from importlib import import_module
from typing import Any

_HOME = {
    "Comparison": "compare", "Study": "study", "run_sizes": "systems", "Shown": "show", "save_figure": "show",
    "save_table": "show", "save_text": "show",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported when asked for: ``scalestudy.paper.reported`` alone needs neither torch nor matplotlib."""
    if name not in _HOME:
        raise AttributeError(f"module 'scalestudy.paper' has no attribute {name!r}")
    return getattr(import_module(f"scalestudy.paper.{_HOME[name]}"), name)
