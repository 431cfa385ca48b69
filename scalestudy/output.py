"""Writing figures and tables where the report finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from matplotlib.figure import Figure

from scalestudy import paths


def save_figure(figure: Figure, profile: str, name: str) -> None:
    """Write a figure as PNG and PDF to ``results/<profile>/figures``.

    Inside a notebook the figure is shown as well, once, by the inline backend.

    Parameters
    ----------
    figure : Figure
    profile : str
        Name of the profile that the numbers belong to.
    name : str
        File name without ending, such as ``figure3``.
    """
    folder = paths.results(profile) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})


def save_table(table: pd.DataFrame, profile: str, name: str) -> pd.DataFrame:
    """Write a table as CSV and Markdown to ``results/<profile>/tables`` and return it for display.

    Parameters
    ----------
    table : pandas.DataFrame
        Written without its index.
    profile, name
        As in `save_figure`.
    """
    folder = paths.results(profile) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
    return table


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
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [f"{cell:g}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@contextmanager
def wide_text() -> Iterator[None]:
    """Show frames without cutting long texts or hiding rows and columns."""
    with pd.option_context("display.max_colwidth", None, "display.max_rows", None, "display.max_columns", None):
        yield
