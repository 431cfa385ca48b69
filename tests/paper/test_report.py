"""The report of a temporary project: a whole page that leads to what is there, and to nothing else."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scalestudy.paper import params, report, reported, scorecard
from scalestudy.paper.grids import Study
from scalestudy.paper.show import save_figure
from scalestudy.runs.store import RunStore

pytest.importorskip("nbconvert", reason="the report needs the extra 'notebooks'")
matplotlib.use("Agg")

RECORDS = Path(__file__).resolve().parent / "records"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects links, pictures and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.pictures, self.cells, self.tags, self.text = [], [], [], [], set(), ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        self.links += [value for name, value in attrs if (tag, name) == ("a", "href")]
        self.pictures += [value for name, value in attrs if (tag, name) == ("img", "src")]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def size():
    return params.load("quick")


@pytest.fixture(scope="class")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for variable, folder in (("ROOT", ""), ("RESULTS", "results"), ("RUNS", "runs")):
            patch.setenv(f"SCALESTUDY_{variable}", str(root / folder))
        yield root


@pytest.fixture(scope="module", autouse=True)
def one_fit():
    """The tolerance fit takes a second and does not depend on the project."""
    fit = scorecard.fit_tolerance()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorecard, "fit_tolerance", lambda: fit)
        yield


def notebook(folder, name, heading, answer):
    cells = [
        new_markdown_cell(f"{heading}\n\nA question."),
        new_code_cell(
            "print('asked')",
            execution_count=1,
            outputs=[
                new_output("stream", name="stdout", text=answer + "\n"),
                new_output("execute_result", execution_count=1, data={"text/plain": "3", "text/html": "<b>three</b>"}),
            ],
        ),
    ]
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def figure(name):
    drawing = matplotlib.figure.Figure(figsize=(1, 1))
    drawing.add_subplot()
    save_figure(drawing, "quick", name)


def check_links(page, folder):
    for link in page.links + page.pictures:
        assert (folder / unquote(link)).is_file(), link


class TestEmptyProject:
    def test_page(self, size, project):
        index, card = report.build(size)
        assert index == project / "results" / "quick" / "index.html"
        text = index.read_text(encoding="utf-8")
        page = Page(text)
        assert "{{" not in text and page.links == page.pictures == []
        total = len(Study(size).all_specs())
        assert f"Profile quick, 0 of {total} runs. {size.description}" in page.text
        assert "No figures yet." in page.text and "No notebook has been executed yet." in page.text
        assert card.numbers["verdict"].value_counts()["not measured"] == 226
        assert not (project / "runs").exists(), "looking for records creates no store"


@pytest.fixture(scope="class")
def built(size, project):
    folder, store = project / "results" / "quick", RunStore(project / "runs")
    for spec in Study(size).table2():
        store.put(RunStore(RECORDS).get(spec))
    notebook(folder, "05_learned", "# Scales & <i>learning</i>", "five")
    notebook(folder, "04_range", "# {{numbers}} of 04", "four < five")
    figure("figure3")
    figure("a & b #1")
    index, card = report.build(size)
    return index, card, folder


class TestProject:
    def test_page_is_whole(self, built):
        text = built[0].read_text(encoding="utf-8")
        page = Page(text)
        assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
        assert {"title", "h1", "table", "figure", "details"} <= page.tags
        assert set(re.findall(r"{{\w+}}", text)) == {"{{numbers}}"}, "the title of a notebook, as it is"

    def test_says_what_was_run(self, built, size):
        text = Page(built[0].read_text(encoding="utf-8")).text
        assert f"Profile quick, 6 of {len(Study(size).all_specs())} runs. {size.description}" in text

    def test_counts(self, built):
        text = Page(built[0].read_text(encoding="utf-8")).text
        for row in built[1].counts().itertuples(index=False):
            assert f"{row.count} {row.kind}{'' if row.count == 1 else 's'} {row.verdict}" in text

    def test_claims_and_numbers(self, built):
        _, card, _ = built
        cells = Page(built[0].read_text(encoding="utf-8")).cells
        claims = card.claims[["item", "claim", "measured", "verdict"]].to_numpy().ravel().tolist()
        assert len(card.claims) == len(reported.claims())
        assert cells == claims + card.numbers.to_numpy().ravel().tolist()

    def test_links_lead_to_files(self, built):
        index, _, folder = built
        page = Page(index.read_text(encoding="utf-8"))
        check_links(page, folder)
        assert page.links == [
            "figures/a%20%26%20b%20%231.pdf", "figures/figure3.pdf", "pages/04_range.html", "pages/05_learned.html",
        ]  # fmt: skip
        assert page.pictures == ["figures/a%20%26%20b%20%231.png", "figures/figure3.png"]

    def test_titles_are_escaped(self, built):
        text = built[0].read_text(encoding="utf-8")
        assert ">Scales &amp; &lt;i&gt;learning&lt;/i&gt;</a>" in text and "<i>" not in text
        assert "<figcaption>A &amp; b #1</figcaption>" in text
        assert ">{{numbers}} of 04</a>" in text

    def test_figure_without_pdf_leads_to_its_picture(self, built, size):
        folder = built[2]
        figure("without")
        (folder / "figures" / "without.pdf").unlink()
        page = Page(report.build(size)[0].read_text(encoding="utf-8"))
        check_links(page, folder)
        (folder / "figures" / "without.png").unlink()
        report.build(size)
        assert page.links[2] == page.pictures[2] == "figures/without.png"

    def test_pages_hold_the_outputs(self, built):
        text = (built[2] / "pages" / "04_range.html").read_text(encoding="utf-8")
        assert "four &lt; five" in text and "<b>three</b>" in text and "A question." in text

    def test_same_records_give_the_same_page(self, built, size):
        before = built[0].read_bytes()
        assert report.build(size)[0].read_bytes() == before


def test_pages_are_made_again_only_for_newer_notebooks(tmp_path):
    path, pages = notebook(tmp_path, "03_some", "No heading", "first"), tmp_path / "pages"
    (page,) = report.convert(path.parent, pages)
    page.write_text("kept", encoding="utf-8")
    assert report.convert(path.parent, pages) == {page: "03_some"}
    assert page.read_text(encoding="utf-8") == "kept"
    notebook(tmp_path, "03_some", "text\n# Heading", "second")
    later = page.stat().st_mtime + 10
    os.utime(path, (later, later))
    assert report.convert(path.parent, pages) == {page: "Heading"}
    assert "second" in page.read_text(encoding="utf-8")
