"""The report: an index page with the scorecard and the figures, and a page per executed notebook."""

from __future__ import annotations

import html
import re
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from scalestudy import files
from scalestudy.files import probe
from scalestudy.paper.compare import Scorecard, scorecard
from scalestudy.paper.output import badge, to_html
from scalestudy.paper.study import Study
from scalestudy.runs.store import RunStore


def build(study: Study) -> tuple[Path, Scorecard]:
    """Write ``results/<profile>/index.html`` and a page per executed notebook.

    Parameters
    ----------
    study : Study
        Its executed notebooks and records are there.

    Returns
    -------
    (Path, Scorecard)
        The index page, and what it says.

    Raises
    ------
    StoreError
        Before anything is computed, if the folder cannot be written.
    """
    folder = files.results(study.profile)
    probe(folder)
    store = RunStore(files.runs())
    specs = study.all_specs()
    records = [record for spec in specs if (record := store.get(spec)) is not None]
    card = scorecard(study, records)
    pages = convert(folder / "notebooks", folder / "pages")
    index = folder / "index.html"
    index.write_text(_index(study, card, pages, folder, len(records), len(specs)), encoding="utf-8")
    return index, card


def convert(notebooks: Path, folder: Path) -> dict[Path, str]:
    """Turn executed notebooks into self-contained HTML pages; pages that are newer than their notebook stay.

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
        if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
            body, _ = exporter.from_filename(str(path))
            page.write_text(body, encoding="utf-8")
        pages[page] = _title(path)
    return pages


def _title(notebook: Path) -> str:
    import nbformat

    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return notebook.stem


def _index(study: Study, card: Scorecard, pages: dict[Path, str], folder: Path, done: int, wanted: int) -> str:
    template = resources.files("scalestudy.paper").joinpath("report.html").read_text(encoding="utf-8")
    links = "".join(
        f'<li><a href="pages/{quote(page.name)}">{html.escape(title)}</a></li>' for page, title in pages.items()
    )
    figures = "".join(map(_figure, sorted((folder / "figures").glob("*.png"))))
    claims = card.claims[["item", "claim", "measured", "verdict"]]
    replacements = {
        "{{profile}}": html.escape(study.profile),
        "{{sizes}}": html.escape(f"{study.description} {study.baseline_description}"),
        "{{runs}}": f"{done} of {wanted} runs",
        "{{counts}}": _counts(card),
        "{{claims}}": to_html(claims),
        "{{figures}}": figures or "<p>No figures yet.</p>",
        "{{pages}}": links or "<li>No notebook has been executed yet.</li>",
        "{{numbers}}": to_html(card.numbers),
    }
    return re.sub(r"{{\w+}}", lambda name: replacements[name.group()], template)


def _figure(png: Path) -> str:
    """HTML of a figure that leads to its PDF, or to itself where there is none."""
    pdf = png.with_suffix(".pdf")
    caption = html.escape(re.sub(r"(?<=[a-z])(?=\d)", " ", png.stem.replace("_", " ")).capitalize())
    return (
        f'<a href="figures/{quote((pdf if pdf.exists() else png).name)}"><figure>'
        f'<img src="figures/{quote(png.name)}" alt="{caption}" loading="lazy">'
        f"<figcaption>{caption}</figcaption></figure></a>"
    )


def _counts(card: Scorecard) -> str:
    return " ".join(
        badge(f"{row.count} {row.kind}{'s' * (row.count != 1)} {row.verdict}", row.verdict)
        for row in card.counts().itertuples(index=False)
    )
