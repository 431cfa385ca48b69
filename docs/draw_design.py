"""Draws `docs/design.svg` from the imports of the package: `.venv/bin/python docs/draw_design.py`."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "scalestudy"
WINGS = {
    "files": "where everything lies; files written whole",
    "tolerance": "the tolerance model and its joint fit",
    "layers": "scales, bases, convolutions, exact fast algorithms",
    "data": "MNIST, Dynamic Scale MNIST, MNIST-Scale",
    "models": "Table 1's network and the systems of Table 5",
    "training": "one run: spec in, record out",
    "runs": "what is missing, made here or on a cluster",
    "paper": "its numbers and claims beside ours; notebooks, report",
    "cli": "the commands",
}
"""Each may import only those before it."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without the faces of folders that import nothing."""
    paths = {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(name.with_suffix("").parts).removesuffix(".__init__"): path for name, path in paths.items()}


def imported(path: Path) -> set[str]:
    """Names below `scalestudy` that a file imports, anywhere in it, such as `layers.conv`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "scalestudy":
            below = node.module.split(".")[1:]
            found |= {".".join([*below, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("scalestudy.")}
    return found


def arrows() -> Counter[tuple[str, str]]:
    """(importing wing, imported wing): number of modules in the first that import from the second."""
    counted: Counter[tuple[str, str]] = Counter()
    for name, path in modules().items():
        wing = name.split(".")[0]
        if wing in WINGS:
            counted.update(
                (wing, other) for other in {one.split(".")[0] for one in imported(path)} & WINGS.keys() - {wing}
            )
    return counted


def lines(wing: str) -> int:
    """Lines of code, comments and blanks of a wing."""
    chosen = [path for name, path in modules().items() if name.split(".")[0] == wing]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in chosen)


def draw() -> None:
    """Wings in their order from the top; an arc for each pair of which one imports the other: up is as it should be."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch

    mpl.rcParams.update({"svg.hashsalt": "scalestudy", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(10, 5.4))
    heights = {wing: height for height, wing in enumerate(WINGS)}
    for wing, height in heights.items():
        axes.text(0.02, height, wing, ha="left", va="center", fontsize=13, fontweight="bold", color="#0b3d5c")
        axes.text(1.6, height, WINGS[wing], ha="left", va="center", fontsize=10, color="#333333")
        axes.text(8.3, height, f"{lines(wing):,} lines", ha="right", va="center", fontsize=10, color="#666666")
    for (importing, imported_wing), count in sorted(arrows().items()):
        start, end = heights[importing], heights[imported_wing]
        axes.add_patch(
            FancyArrowPatch(
                (8.45, start), (8.45, end), connectionstyle=f"arc3,rad={0.55 if start > end else -0.55}",
                arrowstyle="-|>", mutation_scale=9, color="#0072b2" if start > end else "#b2182b",
                linewidth=0.7 + 0.22 * count, alpha=0.75,
            )
        )  # fmt: skip
    axes.set(xlim=(0, 10.6), ylim=(len(WINGS) - 0.4, -0.6))
    axes.axis("off")
    figure.savefig(
        PACKAGE.parent / "docs" / "design.svg", metadata={"Date": None}, facecolor="white", bbox_inches="tight"
    )


if __name__ == "__main__":
    draw()
