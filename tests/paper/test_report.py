"""The report of a temporary project: a whole page that leads to what belongs to it, and to nothing else."""

import html
import os
import re
import sys
import time
from collections import Counter
from urllib.parse import unquote

import matplotlib as mpl
import nbformat
import pytest
from fake_training import record_of
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scalestudy import files
from scalestudy.paper import report
from scalestudy.paper.answers import answers
from scalestudy.paper.findings import sentences
from scalestudy.paper.show import save_figure
from scalestudy.paper.study import Study
from scalestudy.runs.store import RunStore

pytest.importorskip("nbconvert", reason="the report needs the extra 'notebooks'")
mpl.use("Agg")

SECTIONS = ["#found", "#claims", "#beyond", "#figures", "#notebooks", "#numbers"]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page:
    """Links, pictures, cells of tables and text of a page whose tags are all closed."""

    def __init__(self, page):
        opened, closed = (Counter(re.findall(mark + r"(\w+)", page)) for mark in ("<", "</"))
        assert {tag: count for tag, count in opened.items() if tag not in VOID} == closed
        self.text = html.unescape(re.sub("<[^>]*>", "", page))
        self.cells = [html.unescape(cell) for cell in re.findall("<td[^>]*>([^<]*)</td>", page)]
        self.links, self.pictures = (re.findall(f'<{place}="([^"]*)"', page) for place in ("a href", "img src"))


def built(profile, changes):
    return Page(report.build(profile, changes)[0].read_text("utf-8"))


def executed(name, heading, answer, shown="", profile="quick", changes=()):
    """An executed notebook as papermill leaves it, which shows a figure."""
    folder = files.results(f"{profile}-custom" if changes else profile)
    outputs = [new_output("stream", name="stdout", text=answer + "\n")]
    if shown:
        save_figure(Figure(figsize=(1, 1)), folder.name, shown)
        picture = {"text/plain": f"figure {shown}", "image/png": "iVBORw0KGgo="}
        outputs.append(new_output("execute_result", execution_count=1, data=picture))
    code = new_code_cell("print('asked')", execution_count=1, outputs=outputs)
    notebook = new_notebook(cells=[new_markdown_cell(f"{heading}\n\nA question."), code])
    parameters = {"profile": profile, "changes": dict(changes)}
    notebook.metadata["papermill"] = {"parameters": parameters, "end_time": "2024-01-01", "exception": None}
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_empty_project(project):
    index, comparison = report.build("quick", {})
    assert index == project / "results" / "quick" / "index.html"
    page, study = Page(index.read_text("utf-8")), Study.open("quick")
    assert page.pictures == [] and page.links == SECTIONS
    assert f"Profile quick, 0 of {len(study.all_specs())} runs" in page.text and study.description in page.text
    assert "No figures yet." in page.text and "No notebook has been executed yet." in page.text
    assert comparison.numbers["verdict"].eq("").sum() == 226
    assert not (project / "runs").exists(), "looking for records creates no store"


def test_project(project):
    store, study = RunStore(project / "runs"), Study.open("quick")
    for spec in study.table2():
        store.put(record_of(spec, 20.0 + spec.seed))
    executed("05_learned", "# Scales & <i>learning</i>", "five", "a & b #1")
    executed("04_range", "# {{numbers}} of 04", "four < five", "figure3")
    index, comparison = report.build("quick", {})
    text, page = index.read_text("utf-8"), Page(index.read_text("utf-8"))
    assert set(re.findall(r"{{\w+}}", text)) == {"{{numbers}}"}, "the title of a notebook, as it is"
    assert f"Profile quick, 6 of {len(study.all_specs())} runs" in page.text
    tables = answers(study), comparison.numbers
    assert page.cells == [str(cell) for table in tables for cell in table.to_numpy().ravel()]
    for one in comparison.claims().itertuples():
        assert one.claim in page.text and one.measured in page.text
    assert all(sentence in page.text for sentence in sentences(comparison)) and comparison.counted() in page.text
    assert page.links == [
        *SECTIONS, "figures/figure3.pdf", "figures/a%20%26%20b%20%231.pdf", "pages/04_range.html",
        "pages/05_learned.html",
    ]  # fmt: skip
    assert page.pictures == ["figures/figure3.png", "figures/a%20%26%20b%20%231.png"]
    linked = page.links[len(SECTIONS) :] + page.pictures
    assert all((index.parent / unquote(link)).is_file() for link in linked)
    assert text.count("Scales &amp; &lt;i&gt;learning&lt;/i&gt;") == 3 and "<i>" not in text, "link, caption, alt text"
    assert ">{{numbers}} of 04</a>" in text
    held = (index.parent / "pages" / "04_range.html").read_text("utf-8")
    assert "four &lt; five" in held and "A question." in held
    assert report.build("quick", {})[0].read_text("utf-8") == text, "the same records give the same page"


def test_what_belongs_to_other_parameters_is_left_out(project):
    executed("01_data", "# Data", "one", "digits", changes={"train_images": 100})
    executed("02_kernels", "# Kernels", "two", "figure1", changes={"train_images": 300})
    page = built("quick", {"train_images": 300})
    linked = ["figures/figure1.pdf", "pages/02_kernels.html"]
    assert "300 training" in page.text and page.links[len(SECTIONS) :] == linked
    executed("02_kernels", "# Kernels", "two", "figure1")
    assert len(built("quick", {}).links) == len(SECTIONS) + 2
    later = time.time() + 100
    os.utime(project / "params" / "quick.yaml", (later, later))
    assert built("quick", {}).links == SECTIONS, "the profile was edited afterwards"


def test_pages_are_made_again_only_for_newer_notebooks(project, tmp_path):
    path, page = executed("03_some", "No heading", "first"), tmp_path / "03_some.html"
    page.write_text("kept")
    later = path.stat().st_mtime + 10
    for changed, kept in ((page, True), (path, False)):
        os.utime(changed, (later, later))
        later += 10
        report.convert([path], tmp_path)
        assert (page.read_text("utf-8") == "kept") == kept
    assert "first" in page.read_text("utf-8")


def test_without_nbconvert(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    with pytest.raises(RuntimeError, match=r"need nbconvert; pip install 'scalestudy\[notebooks\]'"):
        report.build("quick", {})
