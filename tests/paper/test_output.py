"""Figures and tables as files, and tables as notebooks show them."""

import csv
from io import BytesIO

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scalestudy.paper import output
from scalestudy.paper.compare import VERDICTS
from scalestudy.paper.figures.style import house_style
from scalestudy.paper.output import Shown, save_figure, save_table, to_html, to_markdown

GREEN, RED, AMBER, GREY = "#1b7837", "#b2182b", "#8a5200", "#5f6b7a"


def opened(path):
    return Image.open(BytesIO(path.read_bytes()))


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALESTUDY_RESULTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def figure():
    with house_style():
        figure = Figure(figsize=(3, 2))
        axes = figure.add_subplot()
    axes.plot([1, 2, 3], [3, 1, 2], label="line")
    axes.set_title("title")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "claim": ["a < b & c", "x | y"],
            "isr": [3.0, 0.123456789],
            "runs": [3, 12],
            "verdict": ["held", "did not hold"],
        }
    )


class TestFigures:
    def test_writes_png_and_pdf(self, figure, results):
        save_figure(figure, "quick", "some_figure")
        folder = results / "quick" / "figures"
        assert sorted(path.name for path in folder.iterdir()) == ["some_figure.pdf", "some_figure.png"]
        assert (folder / "some_figure.pdf").read_bytes().startswith(b"%PDF")
        assert opened(folder / "some_figure.png").format == "PNG"

    def test_the_same_figure_gives_the_same_bytes(self, figure, results):
        for name in ("first", "second"):
            save_figure(figure, "quick", name)
        for ending in ("png", "pdf"):
            first, second = (
                (results / "quick/figures" / f"{name}.{ending}").read_bytes() for name in ("first", "second")
            )
            assert first == second
        assert b"CreationDate" not in first
        assert "Software" not in opened(results / "quick/figures/first.png").info

    def test_has_the_resolution_of_the_style_and_nothing_cut_off(self, figure, results):
        before = dict(mpl.rcParams)
        save_figure(figure, "quick", "figure")
        image = opened(results / "quick/figures/figure.png")
        assert image.info["dpi"] == pytest.approx((160, 160), abs=0.1)
        assert image.width > 3 * 160, "the legend beside the axes belongs to the picture"
        assert dict(mpl.rcParams) == before

    def test_profile_must_be_a_plain_name(self, figure):
        with pytest.raises(ValueError, match="profile must be a plain name"):
            save_figure(figure, "../elsewhere", "figure")

    def test_is_shown_as_the_saved_picture_at_its_size_and_closed(self, results):
        with house_style():
            figure, _ = plt.subplots(figsize=(3, 2))
        shown = save_figure(figure, "quick", "some_figure")
        picture, metadata = shown._repr_png_()
        assert picture == (results / "quick" / "figures" / "some_figure.png").read_bytes()
        assert metadata == {"width": 288}
        assert repr(shown) == "figure some_figure"
        assert not plt.fignum_exists(figure.number)


class TestTables:
    def test_writes_csv_and_markdown(self, table, results):
        shown = save_table(table, "quick", "some_table")
        folder = results / "quick" / "tables"
        assert sorted(path.name for path in folder.iterdir()) == ["some_table.csv", "some_table.md"]
        pd.testing.assert_frame_equal(pd.read_csv(folder / "some_table.csv"), table)
        rows = list(csv.reader((folder / "some_table.csv").read_text(encoding="utf-8").splitlines()))
        assert rows[0] == list(table.columns) and len(rows) == 3
        assert (folder / "some_table.md").read_text(encoding="utf-8") == to_markdown(table)
        assert isinstance(shown, Shown) and shown.table is table

    def test_twice_is_the_same_bytes(self, table, results):
        for name in ("first", "second"):
            save_table(table, "quick", name)
        for ending in ("csv", "md"):
            first, second = (
                (results / "quick/tables" / f"{name}.{ending}").read_bytes() for name in ("first", "second")
            )
            assert first == second

    def test_other_alphabets(self, results):
        save_table(pd.DataFrame({"σ": ["2.29 ± 0.07"]}), "quick", "greek")
        assert "2.29 ± 0.07" in (results / "quick/tables/greek.md").read_text(encoding="utf-8")


class TestMarkdown:
    def test_table(self, table):
        assert to_markdown(table).splitlines() == [
            "| claim | isr | runs | verdict |",
            "|---|---|---|---|",
            "| a < b & c | 3 | 3 | held |",
            "| x \\| y | 0.123457 | 12 | did not hold |",
        ]

    def test_bars_in_titles_are_escaped_too(self):
        lines = to_markdown(pd.DataFrame({"KL(a | b)": [1.0]})).splitlines()
        assert lines == ["| KL(a \\| b) |", "|---|", "| 1 |"]

    def test_without_rows(self):
        assert to_markdown(pd.DataFrame({"a": [], "b": []})) == "| a | b |\n|---|---|\n"


class TestShown:
    def test_text_has_whole_cells_and_no_index(self):
        long = "word " * 60 + "end"
        lines = repr(Shown(pd.DataFrame({"claim": [long], "verdict": ["held"]}, index=[77]))).splitlines()
        assert len(lines) == 2 and lines[0].split() == ["claim", "verdict"]
        assert long in lines[1] and "77" not in lines[1]

    def test_titles_are_left_aligned(self, table):
        head, *rows = repr(Shown(table)).splitlines()
        assert head.lstrip().startswith("claim") and head.index("verdict") < max(map(len, rows)) - len("verdict")

    def test_html_is_that_of_the_table(self, table):
        assert Shown(table)._repr_html_() == to_html(table)


class TestHtml:
    def test_cells_are_left_aligned_and_escaped(self, table):
        text = to_html(table)
        assert text.startswith("<table><thead><tr>") and text.endswith("</tbody></table>")
        assert text.count('<th style="text-align:left">') == text.count('<td style="text-align:left;') / 2 == 4
        assert "a &lt; b &amp; c" in text and "a < b" not in text
        assert ">0.123457<" in text and ">3<" in text and ">12<" in text

    def test_titles_and_verdicts_are_escaped(self):
        text = to_html(pd.DataFrame({"<b>": ["<i>"], "verdict": ["<script>"]}))
        assert "<b>" not in text and "<i>" not in text and "<script>" not in text
        assert "&lt;script&gt;" in text and GREY in text

    @pytest.mark.parametrize(
        ("verdict", "colour"),
        [
            ("held", GREEN),
            ("reproduced", GREEN),
            ("did not hold", RED),
            ("different", RED),
            ("trivially different", AMBER),
            ("unclear", AMBER),
            ("inconclusive", AMBER),
            ("not comparable", GREY),
            ("not measured", GREY),
        ],
    )
    def test_colours_of_verdicts(self, verdict, colour):
        text = to_html(pd.DataFrame({"verdict": [verdict], "other": [verdict]}))
        assert text.count(colour) == text.count("<span") == 1
        assert f"color:{colour};" in text and text.count(verdict) == 2

    def test_every_verdict_that_is_one_has_a_colour(self):
        assert set(VERDICTS) - set(output._VERDICT_COLOURS) == {"not comparable", "not measured"}
