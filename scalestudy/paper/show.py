"""Figures and tables as files of a profile, and as notebooks and the report show them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from scalestudy import files
from scalestudy.paper.plots import STYLE

_GOOD, _BAD, _NEAR = "#1b7837; background: #e4f3e8", "#b2182b; background: #fbe7ea", "#8a5200; background: #fdf1dd"
COLOURS = {
    "held": _GOOD, "reproduced": _GOOD, "did not hold": _BAD, "different": _BAD,
    "trivially different": _NEAR, "unclear": _NEAR, "inconclusive": _NEAR, "one run": _NEAR,
}  # fmt: skip


@dataclass(repr=False)
class ShownFigure:
    """A saved figure as a notebook shows it, whatever the plotting backend: the PNG itself, `width` in inches."""

    path: Path
    width: float

    def __repr__(self) -> str:
        return f"figure {self.path.stem}"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.path.read_bytes(), {"width": round(96 * self.width)}


def save_figure(figure: Figure, profile: str, name: str) -> ShownFigure:
    """Write a figure as PNG and PDF to ``results/<profile>/figures``, close it, and return it for display."""
    path = _file(profile, "figures", f"{name}.png")
    with plt.style.context(STYLE):
        figure.savefig(path, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    plt.close(figure)
    return ShownFigure(path, figure.get_figwidth())


@dataclass(repr=False)
class Shown:
    """A table as a notebook shows it: whole texts, no index, coloured verdicts; nbval compares the plain text."""

    table: pd.DataFrame

    def __repr__(self) -> str:
        return self.table.to_string(index=False, justify="left", max_colwidth=None)

    def _repr_html_(self) -> str:
        return to_html(self.table)


def save_table(table: pd.DataFrame, profile: str, name: str) -> Shown:
    """Write a table, without its index, as CSV and Markdown to ``results/<profile>/tables``; return it for display."""
    table.to_csv(_file(profile, "tables", f"{name}.csv"), index=False)
    _file(profile, "tables", f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
    return Shown(table)


def save_text(told: str, profile: str, name: str) -> str:
    """Write Markdown to ``results/<profile>/tables``; return it."""
    _file(profile, "tables", f"{name}.md").write_text(told + "\n", encoding="utf-8")
    return told


def _file(profile: str, kind: str, name: str) -> Path:
    folder = files.results(profile) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def to_html(table: pd.DataFrame) -> str:
    """A table as HTML that brings its own style: verdicts have their colours."""
    name = f"{zlib.crc32(table.to_csv().encode()):x}"  # of the style's rules: the same for the same table
    style = table.reset_index(drop=True).style.hide(axis="index").format(_text, escape="html")
    style = style.format_index(escape="html", axis="columns").set_uuid(name)
    style.map(lambda cell: f"color: {COLOURS[cell]}; white-space: nowrap" if cell in COLOURS else "")
    cells = [("text-align", "left"), ("vertical-align", "top")]
    return style.set_table_styles([{"selector": "th, td", "props": cells}]).to_html()


def to_markdown(table: pd.DataFrame) -> str:
    """A table as GitHub Markdown."""
    rows = (map(_text, row) for row in (table.columns, *table.itertuples(index=False)))
    head, *lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return head + "|" + "---|" * table.shape[1] + "\n" + "".join(lines)


def _text(cell: object) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
