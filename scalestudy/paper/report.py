"""The report: an index page with the scorecard and the figures, and a page per executed notebook."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scalestudy import files
from scalestudy.files import probe
from scalestudy.paper.compare import Comparison
from scalestudy.paper.notebooks import is_of
from scalestudy.paper.show import to_html
from scalestudy.paper.study import Study


def build(profile: str, changes: Mapping[str, Any]) -> tuple[Path, Comparison]:
    """Write ``results/<profile>/index.html`` and a page per notebook executed with these parameters; tell what it says.

    StoreError or RuntimeError, before anything is computed, if the folder cannot be written or nbconvert is missing.
    """
    parameters = {"profile": profile, "changes": dict(changes)}
    study = Study.open(**parameters)
    folder = files.results(study.profile)
    probe(folder)
    since = files.params(profile).stat().st_mtime
    copies = sorted((folder / "notebooks").glob("*.ipynb"))
    notebooks = [path for path in copies if is_of(path, parameters) and path.stat().st_mtime > since]
    convert(notebooks, folder / "pages")
    comparison, index = Comparison.of(study), folder / "index.html"
    index.write_text(_index(study, comparison, notebooks, folder), encoding="utf-8")
    return index, comparison


def convert(notebooks: list[Path], folder: Path) -> None:
    """Turn executed notebooks into self-contained HTML pages; pages that are newer than their notebook stay."""
    try:
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise RuntimeError("the report needs nbconvert; pip install 'scalestudy[notebooks]'") from error
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        page = folder / f"{path.stem}.html"
        if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
            page.write_text(exporter.from_filename(str(path))[0], encoding="utf-8")


def _index(study: Study, comparison: Comparison, notebooks: list[Path], folder: Path) -> str:
    template = resources.files("scalestudy.paper").joinpath("report.html").read_text(encoding="utf-8")
    pages = [f'<li><a href="pages/{quote(path.stem)}.html">{html.escape(_title(path))}</a></li>' for path in notebooks]
    figures = [_figure(folder / "figures" / f"{name}.png") for path in notebooks for name in _figures(path)]
    replacements = {
        "{{profile}}": html.escape(study.profile),
        "{{sizes}}": html.escape(f"{study.description} {study.baseline_description}"),
        "{{runs}}": f"{len(comparison.levels[comparison.main][1])} of {len(study.all_specs())} runs",
        "{{counts}}": html.escape(comparison.counted()),
        "{{claims}}": to_html(comparison.claims().drop(columns="id")),
        "{{figures}}": "".join(figures) or "<p>No figures yet.</p>",
        "{{pages}}": "".join(pages) or "<li>No notebook has been executed yet.</li>",
        "{{numbers}}": to_html(comparison.numbers),
    }
    return re.sub(r"{{\w+}}", lambda name: replacements[name.group()], template)


def _title(notebook: Path) -> str:
    """Its first heading."""
    found = re.search(r"^# (.+)", "\n".join("".join(cell["source"]) for cell in _cells(notebook)), re.MULTILINE)
    return found[1].strip() if found else notebook.stem


def _figures(notebook: Path) -> list[str]:
    """Names of the figures that it shows, see `scalestudy.paper.show.ShownFigure`."""
    shown = [output.get("data", {}) for cell in _cells(notebook) for output in cell.get("outputs", ())]
    return ["".join(data["text/plain"]).removeprefix("figure ") for data in shown if "image/png" in data]


def _cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def _figure(png: Path) -> str:
    """HTML of a figure that leads to its PDF."""
    caption = html.escape(re.sub(r"(?<=[a-z])(?=\d)", " ", png.stem.replace("_", " ")).capitalize())
    return (
        f'<a href="figures/{quote(png.stem)}.pdf"><figure><img src="figures/{quote(png.name)}" alt="{caption}" '
        f'loading="lazy"><figcaption>{caption}</figcaption></figure></a>'
    )
