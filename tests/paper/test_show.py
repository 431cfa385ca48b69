"""The house style, and figures and tables as files and as notebooks show them."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from scalestudy.paper import plots, show


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALESTUDY_RESULTS", str(tmp_path))
    with mpl.rc_context():
        mpl.use("Agg")
        yield tmp_path
    plt.close("all")


@pytest.fixture
def table():
    verdicts = ["held", "did not hold"]
    columns = {"claim": ["a < b & c", "x | y"], "isr": [3.0, 0.123456789], "runs": [3, 12], "verdict": verdicts}
    return pd.DataFrame(columns, index=[7, 7])


def small_figure():
    plots.use_house_style()
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([1, 2, 3], [3, 1, 2], label="line")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


class TestFigures:
    def test_files(self, results):
        """The same figure gives the same bytes; a legend beside the axes is not cut off."""
        for name in ("first", "second"):
            figure = small_figure()
            shown = show.save_figure(figure, "quick", name)
            assert not plt.fignum_exists(figure.number)
        folder = results / "quick" / "figures"
        for ending, head in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
            first, second = ((folder / f"{name}.{ending}").read_bytes() for name in ("first", "second"))
            assert first == second and first.startswith(head) and b"CreationDate" not in first
        with Image.open(folder / "first.png") as image:
            assert image.info["dpi"] == pytest.approx((192, 192), abs=0.1) and image.width > 3 * 192
        picture, size = shown._repr_png_()
        assert (picture, size, repr(shown)) == ((folder / "second.png").read_bytes(), {"width": 288}, "figure second")

    def test_settings_of_the_user_do_not_leak(self, results):
        show.save_figure(small_figure(), "quick", "plain")
        own = {"text.usetex": True, "axes.facecolor": "yellow", "savefig.transparent": True, "axes.titlesize": 33}
        mpl.rcParams.update(own)
        show.save_figure(small_figure(), "quick", "own")
        folder = results / "quick" / "figures"
        assert (folder / "plain.png").read_bytes() == (folder / "own.png").read_bytes()

    def test_axes(self):
        figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
        plots.factor_axis(left, [1.5, 3], "ISR")
        left.plot([1, 4], [1, 5000])
        left.set_yscale("log")
        plots.plain_log_numbers(left.yaxis)
        plots.picture(right, pd.DataFrame([[-2.0, 1.0]]).to_numpy(), "kernel", signed=True)
        figure.draw_without_rendering()
        assert [text.get_text() for text in left.get_xticklabels()] == ["1.5", "3"]
        assert {"10", "1,000"} <= {text.get_text() for text in left.get_yticklabels()}
        assert right.images[0].get_clim() == (-2.0, 2.0) and right.get_title(loc="center") == "kernel"


class TestTables:
    def test_files(self, table, results):
        shown = show.save_table(table, "quick", "some")
        folder = results / "quick" / "tables"
        pd.testing.assert_frame_equal(pd.read_csv(folder / "some.csv"), table.reset_index(drop=True))
        assert (folder / "some.md").read_text(encoding="utf-8").splitlines() == [
            "| claim | isr | runs | verdict |", "|---|---|---|---|", "| a < b & c | 3 | 3 | held |",
            "| x \\| y | 0.123457 | 12 | did not hold |",
        ]  # fmt: skip
        assert shown._repr_html_() == show.to_html(table)

    def test_text_has_whole_cells_and_no_index(self):
        long = "word " * 60 + "end"
        head, line = repr(show.Shown(pd.DataFrame({"claim": [long], "verdict": ["held"]}, index=[77]))).splitlines()
        assert head.split() == ["claim", "verdict"] and long in line and "77" not in line

    def test_html_is_escaped(self, table):
        text = show.to_html(table.rename(columns={"runs": "<b>"}))
        assert "a &lt; b &amp; c" in text and "a < b" not in text and "<b>" not in text
        assert ">0.123457<" in text and ">3<" in text and ">12<" in text and ">7<" not in text

    @pytest.mark.parametrize("verdict", [*show.COLOURS, "<i>", ""])
    def test_colours_of_verdicts(self, verdict):
        text = show.to_html(pd.DataFrame({"overnight": [verdict], "other": [f"it is {verdict}"]}))
        ink, coloured = show.COLOURS.get(verdict, "no ink").split(";")[0], verdict in show.COLOURS
        assert text.count("background") == text.count(ink) == coloured and "<i>" not in text

    def test_two_tables_on_one_page_do_not_share_rules(self, table):
        names = {show.to_html(one).split("<table id=")[1][:20] for one in (table, table[:1], table[["isr"]])}
        assert len(names) == 3
