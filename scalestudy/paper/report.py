"""The report: an index page with findings, claims and figures, and a page per executed notebook."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from scalestudy import files
from scalestudy.paper.answers import answers
from scalestudy.paper.compare import Comparison
from scalestudy.paper.findings import sentences
from scalestudy.paper.notebooks import extra, is_of
from scalestudy.paper.show import COLOURS, to_html
from scalestudy.paper.study import Study

_FIRST = ("figure3", "figure5")  # figures on the first screen


def build(profile: str, changes: Mapping[str, Any]) -> tuple[Path, Comparison]:
    """Write ``results/<profile>/index.html`` and a page per notebook executed with these parameters; tell what it says.

    StoreError or RuntimeError, before anything is computed, if the folder cannot be written or nbconvert is missing.
    """
    parameters = {"profile": profile, "changes": dict(changes)}
    study = Study.open(**parameters)
    folder = files.results(study.profile)
    files.probe(folder)
    since = files.params(profile).stat().st_mtime
    copies = sorted((folder / "notebooks").glob("*.ipynb"))
    notebooks = [path for path in copies if is_of(path, parameters) and path.stat().st_mtime > since]
    convert(notebooks, folder / "pages")
    comparison, index = Comparison.of(study), folder / "index.html"
    pages = {path.stem: _title_and_figures(path) for path in notebooks}
    figures = {name: heading for _, shown in pages.values() for name, heading in shown.items()}
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = jinja2.Template(template, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).render(
        study=study,
        comparison=comparison,
        found=sentences(comparison),
        beyond=to_html(answers(study)),
        measured={name: judged.set_index("id")["measured"] for name, judged in comparison.judgements.items()},
        colours=COLOURS,
        titles={stem: title for stem, (title, _) in pages.items()},
        first={name: figures.pop(name) for name in _FIRST if name in figures},
        figures=figures,
        numbers=to_html(comparison.numbers),
    )
    index.write_text(page, encoding="utf-8")
    return index, comparison


def convert(notebooks: list[Path], folder: Path) -> None:
    """Turn executed notebooks into self-contained HTML pages; pages that are newer than their notebook stay."""
    exporter = extra("nbconvert").HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        page = folder / f"{path.stem}.html"
        if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
            page.write_text(exporter.from_filename(str(path))[0], encoding="utf-8")


def _title_and_figures(notebook: Path) -> tuple[str, dict[str, str]]:
    """Its first heading; names of the figures that it shows (`show.ShownFigure`), and the headings above them."""
    title, heading, figures = "", "", {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        found = re.findall(r"^#+ (.+)", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and found:
            title, heading = title or found[0], found[-1]
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            if "image/png" in data:
                figures["".join(data["text/plain"]).removeprefix("figure ")] = heading
    return title or notebook.stem, figures
