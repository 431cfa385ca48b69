"""Writing figures and tables where the report finds them."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from scalestudy import files
from scalestudy.paper.figures.style import house_style

_GOOD, _BAD, _NEAR = ("#1b7837", "#e4f3e8"), ("#b2182b", "#fbe7ea"), ("#8a5200", "#fdf1dd")
_VERDICT_COLOURS = {
    "held": _GOOD,
    "reproduced": _GOOD,
    "did not hold": _BAD,
    "different": _BAD,
    "trivially different": _NEAR,
    "unclear": _NEAR,
    "inconclusive": _NEAR,
}


class ShownFigure:
    """A saved figure as a notebook shows it: the PNG itself, at its size in inches.

    Not left to the plotting backend, which shows figures only where it was switched on before the first one.

    Parameters
    ----------
    path : Path
        The PNG.
    width : float
        Inches.
    """

    def __init__(self, path: Path, width: float) -> None:
        self.path, self.width = path, width

    def __repr__(self) -> str:
        return f"figure {self.path.stem}"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.path.read_bytes(), {"width": round(96 * self.width)}


def save_figure(figure: Figure, profile: str, name: str) -> ShownFigure:
    """Write a figure as PNG and PDF to ``results/<profile>/figures``, close it, and return it for display.

    Parameters
    ----------
    figure : Figure
    profile : str
        Name of the profile that the numbers belong to.
    name : str
        File name without ending, such as ``figure3``.
    """
    folder = files.results(profile) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with house_style():
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    width = figure.get_figwidth()
    plt.close(figure)
    return ShownFigure(folder / f"{name}.png", width)


class Shown:
    """A table as a notebook shows it: left-aligned, whole texts, coloured verdicts; plain text compares in nbval.

    Parameters
    ----------
    table : pandas.DataFrame
        Shown without its index.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def __repr__(self) -> str:
        return self.table.to_string(index=False, justify="left", max_colwidth=None)

    def _repr_html_(self) -> str:
        return to_html(self.table)


def save_table(table: pd.DataFrame, profile: str, name: str) -> Shown:
    """Write a table as CSV and Markdown to ``results/<profile>/tables`` and return it for display.

    Parameters
    ----------
    table : pandas.DataFrame
        Written without its index.
    profile, name
        As in `save_figure`.
    """
    folder = files.results(profile) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
    return Shown(table)


def to_html(table: pd.DataFrame) -> str:
    """A table as HTML that needs no style sheet, with coloured verdicts.

    Examples
    --------
    >>> "#1b7837" in to_html(pd.DataFrame({"claim": ["a < b"], "verdict": ["held"]}))
    True
    """
    head = "".join(f'<th style="text-align:left">{html.escape(str(column))}</th>' for column in table.columns)
    rows = []
    for row in table.itertuples(index=False):
        cells = [
            f'<td style="text-align:left;vertical-align:top">{_cell(column, cell)}</td>'
            for column, cell in zip(table.columns, row, strict=True)
        ]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(column: object, cell: object) -> str:
    text = html.escape(f"{cell:g}" if isinstance(cell, float) else str(cell))
    return badge(text, str(cell)) if str(column).startswith("verdict") else text


def badge(text: str, verdict: str) -> str:
    """HTML text on the colour of a verdict."""
    ink, paper = _VERDICT_COLOURS.get(verdict, ("#5f6b7a", "#eef1f4"))
    style = f"color:{ink};background:{paper};padding:.05rem .55rem;border-radius:1rem;white-space:nowrap"
    return f'<span style="{style}">{text}</span>'


def to_markdown(table: pd.DataFrame) -> str:
    """A table as GitHub Markdown.

    Examples
    --------
    >>> print(to_markdown(pd.DataFrame({"isr": [3.0], "verdict": ["reproduced"]})))
    | isr | verdict |
    |---|---|
    | 3 | reproduced |
    <BLANKLINE>
    """
    lines = [_markdown_row(table.columns), "|" + "---|" * len(table.columns)]
    lines += [_markdown_row(row) for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[object]) -> str:
    texts = [f"{cell:g}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(texts) + " |"
