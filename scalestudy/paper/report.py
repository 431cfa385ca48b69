"""The report: an index page with findings, claims and figures, and a page per executed notebook."""

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
from scalestudy.paper.findings import sentences
from scalestudy.paper.notebooks import is_of
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
    figures = {name: _figure(name, heading) for path in notebooks for name, heading in _figures(path).items()}
    replacements = {
        "{{profile}}": html.escape(study.profile),
        "{{sizes}}": html.escape(f"{study.description} {study.baseline_description}"),
        "{{runs}}": f"{len(comparison.levels[comparison.main][1])} of {len(study.all_specs())} runs",
        "{{found}}": "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences(comparison)),
        "{{pair}}": "".join(figures[name] for name in _FIRST if name in figures),
        "{{counts}}": html.escape(comparison.counted()),
        "{{claims}}": _claims(comparison),
        "{{figures}}": "".join(text for name, text in figures.items() if name not in _FIRST)
        or "<p>No figures yet.</p>",
        "{{pages}}": "".join(pages) or "<li>No notebook has been executed yet.</li>",
        "{{numbers}}": to_html(comparison.numbers),
    }
    return re.sub(r"{{\w+}}", lambda name: replacements[name.group()], template)


def _claims(comparison: Comparison) -> str:
    """A line a claim with its verdict at each size, under the paper's items; what was measured unfolds."""
    parts, item = [], None
    measured = {name: judged.set_index("id")["measured"] for name, judged in comparison.judgements.items()}
    for one in comparison.claims().to_dict("records"):
        if one["item"] != item:
            item = one["item"]
            parts.append(f"<h3>{item}</h3>")
        verdicts = "".join(_verdict(name, one[name]) for name in comparison.levels)
        told = "".join(
            f"<p><b>{html.escape(name)}</b>: {html.escape(measured[name][one['id']])}</p>" for name in measured
        )
        says = f'<span class="says">{html.escape(one["claim"])}</span>'
        parts.append(f'<details class="claim"><summary>{says}{verdicts}</summary>{told}</details>')
    return "".join(parts)


def _verdict(size: str, verdict: str) -> str:
    if not verdict:
        return f'<span class="verdict none">{html.escape(size)}: -</span>'
    return f'<span class="verdict">{html.escape(size)}: <b style="color: {COLOURS[verdict]}">{verdict}</b></span>'


def _title(notebook: Path) -> str:
    """Its first heading."""
    found = re.search(r"^# (.+)", "\n".join("".join(cell["source"]) for cell in _cells(notebook)), re.MULTILINE)
    return found[1].strip() if found else notebook.stem


def _figures(notebook: Path) -> dict[str, str]:
    """Names of the figures that it shows (`scalestudy.paper.show.ShownFigure`), and the headings above them."""
    figures, heading = {}, ""
    for cell in _cells(notebook):
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ (.+)", "".join(cell["source"]), re.MULTILINE) or [heading])[-1]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                figures["".join(data["text/plain"]).removeprefix("figure ")] = heading
    return figures


def _cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def _figure(name: str, heading: str) -> str:
    """HTML of a figure that leads to its PDF."""
    caption, file = html.escape(heading), f"figures/{quote(name)}"
    image = f'<img src="{file}.png" alt="{caption}" loading="lazy">'
    return f'<figure><a href="{file}.pdf">{image}</a><figcaption>{caption}</figcaption></figure>'
