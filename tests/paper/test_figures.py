"""Every figure draws what it is given, says what is missing, and leaves matplotlib's settings alone."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from scalestudy.data import DynamicScaleSplit, LogUniform
from scalestudy.layers.conv import LiftingConv
from scalestudy.layers.scales import FixedScales, StepRatioScales
from scalestudy.paper import figures, params, reported, tables
from scalestudy.paper.figures.style import DISTRIBUTION_COLOURS, OURS
from scalestudy.paper.frames import frame, scale_test_frame
from scalestudy.paper.grids import DISTRIBUTIONS, Study
from scalestudy.runs.store import RunStore
from scalestudy.tolerance import FIG2_GRID, FIG2_ISR, FIG2_NUM_SCALES, FIG2_RANGE, FIG2_START, fit_tolerance

mpl.use("Agg")
pytestmark = pytest.mark.usefixtures("untouched_settings")
NARROW, MIDDLE, WIDE = reported.DISTRIBUTIONS
RECORDS = Path(__file__).resolve().parent / "records"


@pytest.fixture(scope="module")
def groups():
    store = RunStore(RECORDS)
    groups = Study(params.load("quick")).groups().items()
    return {name: frame(store.get(spec) for spec in specs) for name, specs in groups}


@pytest.fixture(scope="module")
def scale_test():
    store = RunStore(RECORDS)
    return scale_test_frame(store.get(spec) for spec in Study(params.load("quick")).figure4())


@pytest.fixture(scope="module")
def fit():
    return fit_tolerance()


def drawn(figure):
    """The axes of a figure that could be drawn without a warning."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure.axes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    legend = axes.get_legend() or axes.figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def lines_with(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]


def points(line):
    return np.stack([np.asarray(values, dtype=float) for values in line.get_data()], axis=-1)


class TestErrorByIsr:
    def test_curves_and_stars(self, groups):
        runs = groups["figure3"]
        left, right = drawn(figures.error_by_isr(runs))
        assert left.get_title(loc="left") == "ours: 800 images, 6 epochs, 2 seeds, lengths / 3"
        assert right.get_title(loc="left") == "the paper: 10000 images, 60 epochs, 3 seeds"
        assert legend(right) == list(reported.DISTRIBUTIONS)
        for index, name in enumerate(reported.DISTRIBUTIONS):
            ours = runs[runs["distribution"] == name].groupby("init_isr")["test_error"].mean()
            paper = reported.table("fig3").query("distribution == @name").set_index("isr")["test_error_mean"]
            for axes, mean in ((left, ours), (right, paper)):
                curve, star = lines_with(axes, "o")[index], lines_with(axes, "*")[index]
                dodge = points(curve)[0, 0] / mean.index[0]
                assert dodge == pytest.approx((1 / 1.012, 1, 1.012)[index]), "side by side, but still at their ISR"
                np.testing.assert_allclose(points(curve), np.column_stack([mean.index * dodge, mean]))
                np.testing.assert_allclose(points(star), [(mean.idxmin() * dodge, mean.min())])
                assert curve.get_color() == star.get_color() == DISTRIBUTION_COLOURS[index]
            seeds = [dots.get_offsets()[:, 1] for dots in left.collections if isinstance(dots, PathCollection)]
            np.testing.assert_allclose(seeds[index], runs[runs["distribution"] == name]["test_error"])

    def test_stars_of_the_paper(self, groups):
        _, right = drawn(figures.error_by_isr(groups["figure3"]))
        assert [star.get_xdata()[0] for star in lines_with(right, "*")] == pytest.approx([2.38, 4.76, 5.35], rel=0.015)

    def test_one_distribution_and_one_seed(self, groups):
        runs = groups["figure3"].query("distribution == @WIDE and seed == 0")
        left, right = drawn(figures.error_by_isr(runs.assign(shrink=1)))
        assert left.get_title(loc="left") == "ours: 800 images, 6 epochs, 1 seed"
        assert len(lines_with(left, "*")) == 1 and len(lines_with(right, "*")) == 3

    def test_without_runs(self):
        left, right = drawn(figures.error_by_isr(frame([])))
        assert texts(left) == ["not measured"] and len(lines_with(right, "*")) == 3


class TestErrorByScale:
    def test_lines(self, scale_test):
        panels = drawn(figures.error_by_scale(scale_test))
        assert [axes.get_title(loc="left") for axes in panels] == list(reported.DISTRIBUTIONS)
        assert legend(panels[-1]) == ["1.5", "7.56"]
        for axes, name in zip(panels, reported.DISTRIBUTIONS, strict=True):
            for line, isr in zip(axes.lines, (1.5, 7.56), strict=True):
                rows = scale_test[(scale_test["distribution"] == name) & (scale_test["isr"] == isr)]
                mean = rows.groupby("data_scale")["test_error"].mean()
                np.testing.assert_allclose(points(line), np.column_stack([mean.index, mean]))
        assert panels[0].get_yscale() == "log" and panels[0].get_ylim()[1] == 100
        assert panels[0].get_ylim()[0] < min(line.get_ydata().min() for axes in panels for line in axes.lines)

    def test_widest_distribution_missing(self, scale_test):
        panels = drawn(figures.error_by_scale(scale_test[scale_test["distribution"] != WIDE]))
        assert [texts(axes) for axes in panels] == [[], [], ["not measured"]]
        assert legend(panels[-1]) == ["1.5", "7.56"]

    def test_one_seed(self, scale_test):
        assert all(len(axes.lines) == 2 for axes in drawn(figures.error_by_scale(scale_test.query("seed == 0"))))

    def test_without_the_test(self):
        panels = drawn(figures.error_by_scale(scale_test_frame([])))
        assert [texts(axes) for axes in panels] == [["not measured"]] * 3
        assert panels[-1].get_legend() is None


class TestIsrHistory:
    def test_histories(self, groups):
        runs = groups["table2"].query("distribution == @WIDE")
        (axes,) = drawn(figures.isr_history(runs, 4.76))
        histories = [line for line in axes.lines if line.get_color() == OURS and len(line.get_xdata()) == 7]
        assert len(histories) == len(runs) == 2
        for line, (_, run) in zip(histories, runs.sort_values("seed").iterrows(), strict=True):
            np.testing.assert_array_equal(points(line), np.column_stack([range(7), run["isr_history"]]))
            assert line.get_ydata()[0] == pytest.approx(3.0)
        for dot, (_, run) in zip(lines_with(axes, "o"), runs.sort_values("seed").iterrows(), strict=True):
            np.testing.assert_allclose(points(dot), [(run["selected_epoch"], run["isr"])])
        assert axes.get_xlim() == (0, 6) and axes.get_xlabel() == "epoch (the paper trains for 60)"
        assert legend(axes) == [
            "ours, one line per seed; dot: selected epoch", "our best fixed ISR (4.76)", "paper: learned 4.20 ± 0.16",
            "paper: best fixed ISR (5.35)",
        ]  # fmt: skip

    def test_paper_lines_are_its_numbers(self):
        (axes,) = drawn(figures.isr_history(frame([]), None))
        rows = reported.table("table2").query("distribution == @WIDE").set_index("scale_learning")["isr_mean"]
        assert [line.get_ydata()[0] for line in axes.lines] == [rows["fixed"]]
        assert axes.patches[0].get_y() == pytest.approx(rows["learned"] - 0.159)
        assert axes.patches[0].get_height() == pytest.approx(2 * 0.159)
        assert texts(axes) == ["not measured"] and not any("our" in label.split() for label in legend(axes))


class TestInitialisations:
    def test_arrows(self, groups):
        runs = groups["table3"]
        panels = drawn(figures.initialisations(runs))
        assert [axes.get_title(loc="left") for axes in panels] == [
            f"{side}: {name}" for side in ("ours (1 seed)", "paper") for name in reported.DISTRIBUTIONS
        ]
        paper = reported.table("table3")
        for axes, name in zip(panels[3:], reported.DISTRIBUTIONS, strict=True):
            cells = paper[paper["distribution"] == name]
            arrows = [(*arrow.xyann, *arrow.xy) for arrow in axes.texts]
            columns = ["init_sigma_basis", "init_isr", "sigma_basis_mean", "isr_mean"]
            np.testing.assert_allclose(arrows, cells[columns].to_numpy())
            assert len(lines_with(axes, "o")) == 9
        for axes, name in zip(panels[:3], reported.DISTRIBUTIONS, strict=True):
            mean = runs[runs["distribution"] == name].groupby(["init_sigma_basis", "init_isr"])[["sigma_basis", "isr"]]
            np.testing.assert_allclose([arrow.xy for arrow in axes.texts], mean.mean().to_numpy())

    def test_axes_reach_every_arrow(self, groups):
        for axes in drawn(figures.initialisations(groups["table3"])):
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            assert all(left < x < right and low < y < high for x, y in (arrow.xy for arrow in axes.texts))

    def test_one_distribution_missing(self, groups):
        runs = groups["table3"]
        panels = drawn(figures.initialisations(runs[runs["distribution"] != MIDDLE]))
        assert texts(panels[1]) == ["not measured"] and "not measured" not in texts(panels[0])

    def test_without_runs(self):
        panels = drawn(figures.initialisations(frame([])))
        assert [texts(axes) for axes in panels[:3]] == [["not measured"]] * 3
        assert all(len(lines_with(axes, "o")) == 9 for axes in panels[3:])


class TestParameterisations:
    def test_scales(self, groups):
        runs = groups["table4"]
        panels = drawn(figures.parameterisations(runs, tables.PARAMETERISATIONS))
        assert [label.get_text() for label in panels[0].get_yticklabels()] == ["isr", "spacing", "direct"]
        assert legend(panels[-1]) == ["ours, one dot per seed", "paper"]
        paper = reported.table("table4").set_index(["distribution", "parameterisation"])
        for axes, name in zip(panels, reported.DISTRIBUTIONS, strict=True):
            assert axes.get_title(loc="left") == name
            for height, (ours, theirs) in enumerate(reversed(tables.PARAMETERISATIONS)):
                rows = runs[(runs["distribution"] == name) & (runs["scale_learning"] == ours)]
                dots = [line for line in lines_with(axes, "o") if list(line.get_ydata()) == [height + 0.12] * 3]
                assert [list(line.get_xdata()) for line in dots] == rows["internal_scales"].tolist()
                (square,) = [line for line in lines_with(axes, "s") if list(line.get_ydata()) == [height - 0.12] * 3]
                expected = paper.loc[(name, theirs), ["scale1_mean", "scale2_mean", "scale3_mean"]]
                np.testing.assert_allclose(points(square)[:, 0], expected.astype(float))

    def test_one_seed_of_one_distribution_and_no_runs(self, groups):
        some = groups["table4"].query("distribution == @NARROW and seed == 0")
        for runs, dots in ((some, 3), (frame([]), 0)):
            panels = drawn(figures.parameterisations(runs, tables.PARAMETERISATIONS))
            assert len(lines_with(panels[0], "o")) == dots
            assert all(len(lines_with(axes, "s")) >= 3 for axes in panels)


class TestTolerance:
    def test_joint_fit(self, fit):
        figure = figures.tolerance_fit(fit)
        panels = drawn(figure)
        assert [axes.get_title(loc="left") for axes in panels] == [
            f"{label}: ISR {isr:.2f}" for label, isr in zip(fit.labels, fit.isrs, strict=True)
        ]
        assert [axes.get_ylabel() for axes in panels] == ["density per octave", "", ""]
        for axes, scales, limits in zip(panels, fit.internal_scales, fit.ranges, strict=True):
            verticals = [line.get_xdata()[0] for line in axes.lines[1:]]
            assert verticals == [*scales, *limits]
            octaves, density = np.log2(axes.lines[0].get_xdata()), axes.lines[0].get_ydata()
            assert np.trapezoid(density, octaves) == pytest.approx(1, abs=1e-3)
        assert len(figure.legends[0].get_texts()) == 4

    def test_example(self):
        fit = fit_tolerance((FIG2_RANGE,), FIG2_NUM_SCALES, FIG2_ISR, FIG2_START, FIG2_GRID)
        (axes,) = drawn(figures.tolerance_example(fit))
        model, *parts = axes.lines[: FIG2_NUM_SCALES + 1]
        np.testing.assert_allclose(sum(part.get_ydata() for part in parts), model.get_ydata(), atol=1e-9)
        assert "tolerance of one internal scale" in legend(axes) and len(legend(axes)) == 5


def split_of(count, seed=0):
    digits = torch.zeros(count, 28, 28, dtype=torch.uint8)
    digits[:, 6:22, 6:22] = 200
    scales = torch.linspace(3, 1, count, dtype=torch.float64)
    return DynamicScaleSplit(digits, torch.zeros(count, dtype=torch.int64), scales, canvas_size=84)


class TestDatasets:
    def test_digits_in_the_order_of_their_scales(self):
        panels = drawn(figures.digit_samples({NARROW: split_of(5), "other": split_of(6)}, count=4))
        assert len(panels) == 8 and [panels[0].get_ylabel(), panels[4].get_ylabel()] == ["[1, 2.83]", "other"]
        assert [axes.get_title() for axes in panels[:4]] == ["×1.50", "×2.00", "×2.50", "×3.00"]
        filled = [(np.asarray(axes.images[0].get_array()) > 0).sum() for axes in panels[:4]]
        assert filled == sorted(filled) and filled[0] < filled[-1]

    def test_fewer_digits_than_places(self):
        panels = drawn(figures.digit_samples({"small": split_of(2)}, count=4))
        assert [len(axes.images) for axes in panels] == [1, 1, 0, 0]
        assert not any(tick for axes in panels for tick in axes.get_xticks())

    def test_densities(self):
        drawn_scales = {d.label: d.sample(500, np.random.default_rng(0)) for d in DISTRIBUTIONS}
        panels = drawn(figures.scale_densities(DISTRIBUTIONS, drawn_scales))
        assert [axes.get_title(loc="left") for axes in panels] == list(reported.DISTRIBUTIONS)
        for axes, high in zip(panels, (2.83, 4.76, 8.0), strict=True):
            assert axes.lines[0].get_ydata().max() == pytest.approx(1 / np.log2(high))
            stairs = axes.patches[0].get_data()
            assert (stairs.values * np.diff(np.log2(stairs.edges))).sum() == pytest.approx(1)

    def test_density_of_one(self):
        one = LogUniform(low=1, high=4)
        (axes,) = drawn(figures.scale_densities([one], {one.label: np.array([2.0])}))
        assert axes.get_ylabel() == "density per octave"


class TestKernels:
    @pytest.mark.parametrize(("order", "num_scales", "shown"), [(5, 3, 4), (2, 2, 2), (1, 4, 1)])
    def test_pipeline(self, order, num_scales, shown):
        torch.manual_seed(0)
        layer = LiftingConv(1, 2, StepRatioScales(2.0, 3.0, num_scales), order)
        panels = np.array(drawn(figures.kernel_pipeline(layer, out_channel=1))).reshape(num_scales, shown + 3)
        kernels = layer.kernels()[1, 0].detach().numpy()
        for axes, kernel, sigma in zip(panels, kernels, layer.scales.values(), strict=True):
            np.testing.assert_allclose(np.asarray(axes[-1].images[0].get_array()), kernel, rtol=1e-6)
            assert axes[0].get_ylabel().endswith(f"= {sigma:.2f} px")
        assert [axes.get_title() for axes in panels[0]][-1] == "= kernel"
        weights = np.asarray(panels[num_scales // 2, -2].images[0].get_array())
        assert weights.shape == (order, order)
        np.testing.assert_allclose(weights.T.ravel(), layer.weight[1, 0].detach().numpy())
        assert all(not parameter.grad_fn for parameter in layer.parameters())

    def test_pipeline_of_zero_weights(self):
        layer = LiftingConv(1, 1, FixedScales(2.0, 3.0, 3), 3)
        torch.nn.init.zeros_(layer.weight)
        drawn(figures.kernel_pipeline(layer))

    def test_sizes(self):
        sizes = pd.DataFrame({"isr": [1.5, 3.0, 6.0], "kernel": [25, 49, 97], "support": [20, 40, 80]})
        (axes,) = drawn(figures.kernel_sizes(sizes))
        assert legend(axes) == ["kernel", "support"]
        np.testing.assert_array_equal(points(axes.lines[0]), sizes[["isr", "kernel"]].to_numpy())
        assert axes.get_ylim()[0] == 0

    def test_equivariance_errors(self):
        errors = pd.DataFrame(
            {"layer": ["b", "b", "a", "a"], "resolution": [1.0, 2.0, 1.0, 2.0], "error": [0.1, 0.01, 1.0, 0.9]}
        )
        (axes,) = drawn(figures.equivariance_errors(errors, [1, 2]))
        assert legend(axes) == ["b", "a"] and axes.get_yscale() == "log"
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), [1.0, 0.9])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]


def test_style_is_the_projects_and_does_not_leak(groups):
    """`settings` checks that it does not leak, also where drawing fails."""
    with mpl.rc_context({"axes.spines.top": True, "figure.dpi": 50}):
        inside = dict(mpl.rcParams)
        figure = figures.error_by_isr(groups["figure3"])
        assert dict(mpl.rcParams) == inside
        with pytest.raises(KeyError):
            figures.error_by_isr(pd.DataFrame())
        assert dict(mpl.rcParams) == inside
    assert figure.dpi == 110 and not figure.axes[0].spines["top"].get_visible()
    assert figure.axes[0].spines["left"].get_edgecolor() == to_rgba("#444444")


def test_every_figure_is_tested():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_figures*.py"))
    assert [name for name in figures.__all__ if f"figures.{name}(" not in source] == []
