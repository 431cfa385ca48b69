"""The report: an index page with the scorecard and the figures, and a page per executed notebook."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pandas as pd

from scalestudy import paths
from scalestudy.scorecard import Scorecard, scorecard
from scalestudy.study.grids import Study
from scalestudy.study.size import StudySize
from scalestudy.study.store import RunStore

_VERDICT_CLASS = {
    "held": "good",
    "reproduced": "good",
    "did not hold": "bad",
    "different": "bad",
    "trivially different": "near",
    "unclear": "near",
    "inconclusive": "near",
}


def build(size: StudySize) -> tuple[Path, Scorecard]:
    """Write ``results/<profile>/index.html``, a page per executed notebook, and the scorecard as tables.

    Parameters
    ----------
    size : StudySize
        Of the study whose executed notebooks and records are there.

    Returns
    -------
    (Path, Scorecard)
        The index page, and what it says.
    """
    folder = paths.results(size.profile)
    folder.mkdir(parents=True, exist_ok=True)
    study, store = Study(size), RunStore(paths.runs())
    specs = study.all_specs()
    records = [record for spec in specs if (record := store.get(spec)) is not None]
    card = scorecard(study, records)
    card.numbers.to_csv(folder / "scorecard_numbers.csv", index=False)
    card.claims.to_csv(folder / "scorecard_claims.csv", index=False)
    pages = convert(folder / "notebooks", folder / "pages")
    index = folder / "index.html"
    index.write_text(_index(size, card, pages, folder, len(records), len(specs)), encoding="utf-8")
    return index, card


def convert(notebooks: Path, folder: Path, on_page: Callable[[Path], None] | None = None) -> dict[Path, str]:
    """Turn executed notebooks into self-contained HTML pages.

    Returns
    -------
    dict
        Page -> title (the notebook's first heading), in the order of the notebooks' names.
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        page = folder / f"{path.stem}.html"
        body, _ = exporter.from_filename(str(path))
        page.write_text(body, encoding="utf-8")
        pages[page] = _title(path)
        if on_page is not None:
            on_page(page)
    return pages


def _title(notebook: Path) -> str:
    import nbformat

    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return notebook.stem


def _index(size: StudySize, card: Scorecard, pages: dict[Path, str], folder: Path, done: int, wanted: int) -> str:
    template = files("scalestudy").joinpath("report.html").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="pages/{page.name}">{html.escape(title)}</a></li>' for page, title in pages.items())
    figures = "".join(
        f'<a href="figures/{path.stem}.pdf"><figure><img src="figures/{path.name}" alt="{path.stem}" loading="lazy">'
        f"<figcaption>{html.escape(path.stem.replace('_', ' '))}</figcaption></figure></a>"
        for path in sorted((folder / "figures").glob("*.png"))
    )
    claims = card.claims[["item", "claim", "measured", "verdict"]]
    replacements = {
        "{{profile}}": html.escape(size.profile),
        "{{sizes}}": html.escape(size.description),
        "{{runs}}": f"{done} of {wanted} runs",
        "{{counts}}": _counts(card),
        "{{claims}}": to_html(claims),
        "{{figures}}": figures or "<p>No figures yet.</p>",
        "{{pages}}": links or "<li>No notebook has been executed yet.</li>",
        "{{numbers}}": to_html(card.numbers),
    }
    for name, text in replacements.items():
        template = template.replace(name, text)
    return template


def _counts(card: Scorecard) -> str:
    return "".join(
        f'<span class="badge {_VERDICT_CLASS.get(row.verdict, "none")}">{row.count} {row.kind}s {row.verdict}</span> '
        for row in card.counts().itertuples(index=False)
    )


def to_html(table: pd.DataFrame) -> str:
    """A table with coloured verdicts."""
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in table.columns)
    rows = []
    for row in table.itertuples(index=False):
        cells = [
            f'<td><span class="badge {_VERDICT_CLASS.get(str(cell), "none")}">{html.escape(str(cell))}</span></td>'
            if column == "verdict"
            else f"<td>{html.escape(str(cell))}</td>"
            for column, cell in zip(table.columns, row, strict=True)
        ]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
