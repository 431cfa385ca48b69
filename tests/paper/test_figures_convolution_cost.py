"""The figures of cost draw what was measured and say what is missing; see `test_figures` for the others."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scalestudy.paper import costs, figures
from scalestudy.paper.figures.convolution_cost import KINDS, PANELS
from scalestudy.paper.figures.style import OURS, PAPER

mpl.use("Agg")
pytestmark = pytest.mark.usefixtures("untouched_settings")
ORANGE = KINDS["ours", "learned"][0]


def row(sweep, value, median, kind=("ours", "fixed"), phase="step", rounds=3, spread=2.0):
    sizes = {"isr": 3.0, "num_scales": 3, "image_size": 168, "batch": 16, sweep.removeprefix("large_"): value}
    times = {"median_ms": median, "least_ms": median / spread, "most_ms": median * spread, "rounds": rounds}
    rest = {"kernel_size": 49, "multiplications": 1, "share_of_products": 0.5, "floor_ms": 1.0}
    return {"sweep": sweep, "algorithm": kind[0], "parameterisation": kind[1], "phase": phase, **sizes, **times, **rest}


def frame(*rows):
    return pd.DataFrame(rows, columns=list(costs.ROW_COLUMNS))


def memory(*values, kinds=tuple(KINDS)):
    rows = [(*kind, 3.0, 3, 168, 16, value, 82.7) for kind, value in zip(kinds, values, strict=False)]
    return pd.DataFrame(rows, columns=list(costs.MEMORY_COLUMNS))


def drawn(figure):
    """The axes of a figure that could be drawn without a warning."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure.axes


def lines(axes, marker, colour):
    """(x, y) of each line drawn with a marker in a colour."""
    found = [line for line in axes.lines if line.get_marker() == marker and line.get_color() == colour]
    return [[list(map(float, values)) for values in line.get_data()] for line in found]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestConvolutionCost:
    ROWS = frame(
        row("isr", 7.56, 14.0), row("isr", 1.5, 12.0), row("isr", 1.5, 13.0, ("ours", "learned")),
        row("isr", 1.5, 90.0, ("dense", "fixed")), row("isr", 3.0, 280.0, ("dense", "fixed")),
        row("isr", 1.5, 5.0, phase="eval"), row("large_isr", 7.56, 29000.0, ("dense", "fixed"), rounds=1),
        row("large_isr", 7.56, 20.0), row("num_scales", 2, 9.0), row("num_scales", 6, 24.0),
        row("image_size", 84, 4.0), row("image_size", 168, 12.0), row("batch", 4, 12.0),
    )  # fmt: skip

    def test_medians_sorted_and_bars(self):
        isr, *_ = drawn(figures.convolution_cost(self.ROWS))
        assert lines(isr, "o", OURS) == [[[1.5, 7.56], [12.0, 14.0]]]
        assert lines(isr, "s", ORANGE) == [[[1.5], [13.0]]]
        bar = isr.collections[0].get_segments()[0]
        np.testing.assert_allclose(bar, [[1.5, 6.0], [1.5, 24.0]])
        assert (isr.get_xscale(), isr.get_yscale()) == ("log", "log")
        assert isr.get_xlabel() == "internal scale range (ISR)" and isr.get_ylabel() == "milliseconds per image"

    def test_dense_where_it_ran_once(self):
        isr, *_ = drawn(figures.convolution_cost(self.ROWS))
        line, once = lines(isr, "^", PAPER)
        assert line == [[1.5, 3.0], [90.0, 280.0]] and once == [[7.56], [29000.0]]
        (joint,) = [one for one in isr.lines if one.get_linestyle() == ":"]
        np.testing.assert_allclose(joint.get_data(), [(3.0, 7.56), (280.0, 29000.0)])

    def test_guides_are_proportional(self):
        _, scales, size, batch = drawn(figures.convolution_cost(self.ROWS))
        for axes, values, expected in ((scales, (2, 6), (8.0, 24.0)), (size, (84, 168), (3.0, 12.0))):
            (guide,) = [line for line in axes.lines if line.get_linestyle() == ":"]
            np.testing.assert_allclose(guide.get_data(), (values, expected))
        assert not [line for line in batch.lines if line.get_linestyle() == ":"]

    def test_ticks_are_what_was_measured(self):
        panels = drawn(figures.convolution_cost(self.ROWS))
        assert [list(axes.get_xticks()) for axes in panels] == [[1.5, 3.0, 7.56], [2, 6], [84, 168], [4]]
        for axes in panels:
            low, high = axes.get_ylim()
            shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
            assert 2 <= len(shown) <= 8, "a logarithmic axis needs numbers"

    def test_evaluation(self):
        figure = figures.convolution_cost(self.ROWS, "eval")
        isr, *others = drawn(figure)
        assert lines(isr, "o", OURS) == [[[1.5], [5.0]]] and not lines(isr, "^", PAPER)
        assert figure.get_suptitle() == "Evaluation of the Table 1 network"
        assert [[text.get_text() for text in axes.texts] for axes in others] == [["not measured"]] * 3
        assert legend(figure) == ["ours, fixed scales"]

    def test_legend(self):
        assert legend(figures.convolution_cost(self.ROWS)) == [
            "ours, fixed scales", "ours, learned scales", "dense, fixed scales", "dense, one image, timed once",
            "proportional to scales, to pixels (through ours)",
        ]  # fmt: skip

    def test_without_measurements(self):
        panels = drawn(figures.convolution_cost(frame()))
        assert [[text.get_text() for text in axes.texts] for axes in panels] == [["not measured"]] * len(PANELS)

    def test_unknown_phase(self):
        with pytest.raises(ValueError, match="phase must be one of step, eval, got 'training'"):
            figures.convolution_cost(self.ROWS, "training")

    def test_data_are_left_as_they_were(self):
        before = self.ROWS.copy(deep=True)
        drawn(figures.convolution_cost(self.ROWS))
        pd.testing.assert_frame_equal(self.ROWS, before)


class TestConvolutionMemory:
    def test_bars(self):
        figure = figures.convolution_memory(memory(130.0, 131.0, 500.0, 501.4))
        (axes,) = drawn(figure)
        assert [bar.get_width() for bar in axes.patches] == [130.0, 131.0, 500.0, 501.4]
        assert [label.get_text() for label in axes.get_yticklabels()] == [name for *_, name in KINDS.values()]
        assert [text.get_text() for text in axes.texts] == ["130", "131", "500", "501"]
        assert axes.lines[0].get_xdata()[0] == 82.7 and legend(figure) == ["responses at all scales alone"]
        assert axes.get_title(loc="left") == "batch of 16, 168 x 168 pixels, ISR 3"
        assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first bar stands on top"

    def test_one_kind(self):
        (axes,) = drawn(figures.convolution_memory(memory(500.0, kinds=[("dense", "fixed")])))
        assert [label.get_text() for label in axes.get_yticklabels()] == ["dense, fixed scales"]

    def test_without_measurements(self):
        (axes,) = drawn(figures.convolution_memory(memory()))
        assert [text.get_text() for text in axes.texts] == ["not measured"]
