"""The figures of section 4.3 draw what they are given and say what is missing; see `test_figures` for the others."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scalestudy.models import SYSTEMS
from scalestudy.paper import figures, reported
from scalestudy.paper.figures.baseline_curves import _GROUPS
from scalestudy.paper.figures.style import OURS, PAPER
from scalestudy.paper.frames import BASELINE_COLUMNS, BASELINE_SCALE_COLUMNS, EQUIVARIANCE_COLUMNS
from scalestudy.training.spec import BASELINES, SYSTEM_NAMES, VARIANTS

mpl.use("Agg")
pytestmark = pytest.mark.usefixtures("untouched_settings")
NAN = float("nan")
ORANGE = "#e08214"
TITLES = {name: SYSTEMS[name].title for name in SYSTEM_NAMES}


def run(name, error, seed=0, augmented=False, scales=(), train=4.0, inference=0.5, device="cpu (x86_64)"):
    isr = max(scales) / min(scales) if scales else NAN
    values = (
        TITLES[name], name, augmented, seed, error, error, list(scales), isr, 1, 2, 400, 500, 9.0, train, inference, 1,
        device, False,
    )  # fmt: skip
    return dict(zip(BASELINE_COLUMNS, values, strict=True))


def frame(*rows):
    return pd.DataFrame(rows, columns=list(BASELINE_COLUMNS))


def changes(*rows):
    return pd.DataFrame(rows, columns=list(EQUIVARIANCE_COLUMNS))


def curve(name, values, seed=0, augmented=False):
    """Rows of `equivariance_frame` at 0.5, 1 and 2; predictions change by 10 times as many percent."""
    return [
        (TITLES[name], name, augmented, seed, factor, value, 10 * value)
        for factor, value in zip((0.5, 1.0, 2.0), values, strict=True)
    ]


def drawn(figure):
    """The axes of a figure that could be drawn without a warning."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure.axes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def rows_of(axes):
    return [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]


def points(axes, marker, colour):
    """(x, y) of everything drawn with a marker in a colour, in the order of drawing."""
    chosen = [line for line in axes.lines if line.get_marker() == marker and line.get_color() == colour]
    pairs = [np.stack([np.asarray(v, dtype=float) for v in line.get_data()], axis=-1) for line in chosen]
    return np.concatenate(pairs) if pairs else np.empty((0, 2))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def inside(figure):
    """Whether no title, label or legend reaches out of the picture."""
    renderer = figure.canvas.get_renderer()
    box = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    return box.x0 > -0.05 and box.y0 > -0.05 and box.x1 < width + 0.05 and box.y1 < height + 0.05


class TestBaselineErrors:
    RUNS = frame(
        run("cnn", 30.0), run("cnn", 32.0, 1), run("cnn", 20.0, augmented=True), run("sesn", 10.0), run("dss", NAN)
    )

    def test_ours(self):
        figure = figures.baseline_errors(self.RUNS)
        left, right = drawn(figure)
        assert left.get_title(loc="left") == "ours:\n400 images, 2 epochs, 2 realisations"
        assert rows_of(left) == reported.table("table5")["model"].tolist()
        np.testing.assert_allclose(points(left, "o", OURS), [(31, -0.16), (10, 5.84)])
        np.testing.assert_allclose(points(left, ".", OURS), [(30, -0.16), (32, -0.16)])
        np.testing.assert_allclose(points(left, "s", ORANGE), [(20, 0.16)])
        assert left.get_ylim()[0] > left.get_ylim()[1], "the first row stands on top"
        assert legend(figure) == [
            "without rescaling: large mean, small one run", "with random rescaling (+): large mean, small one run",
        ]  # fmt: skip
        assert texts(left) == texts(right) == [] and inside(figure)

    def test_the_papers(self):
        _, right = drawn(figures.baseline_errors(self.RUNS))
        printed = reported.table("table5")
        np.testing.assert_allclose(points(right, "o", OURS)[:, 0], printed["mnist_scale_mean"])
        np.testing.assert_allclose(points(right, "s", ORANGE)[:, 0], printed["mnist_scale_plus_mean"])
        bars = [bar.get_segments()[0] for bar in right.collections]
        spreads = [(bar[1, 0] - bar[0, 0]) / 2 for bar in bars]
        both = printed[["mnist_scale_std", "mnist_scale_plus_std"]].to_numpy().ravel()
        np.testing.assert_allclose(spreads, both)

    def test_variants_below_a_line(self):
        left, right = drawn(figures.baseline_errors(frame(run("interval_scales", 3.0), run("dss_scalar", 2.0))))
        assert rows_of(left)[11:] == [TITLES["dss_scalar"], TITLES["interval_scales"]]
        np.testing.assert_allclose(points(left, "o", OURS), [(2, 10.84), (3, 11.84)])
        for axes in (left, right):
            assert [
                line.get_ydata()[0]
                for line in axes.lines
                if line.get_linestyle() == "-" and line.get_marker() == "None"
            ] == [10.5]

    def test_one_seed_needs_no_word_on_small_dots(self):
        figure = figures.baseline_errors(frame(run("cnn", 2.0)))
        drawn(figure)
        assert legend(figure) == ["without rescaling", "with random rescaling (+)"]

    def test_without_runs(self):
        left, right = drawn(figures.baseline_errors(frame()))
        assert texts(left) == ["not measured"] and len(points(right, "o", OURS)) == 11


class TestLearnedScales:
    LEARNED = (1.4, 1.9, 2.6, 3.5)

    def test_dots_and_squares(self):
        runs = frame(
            run("ours_isr", 2.0, scales=self.LEARNED), run("ours_isr", 2.0, 1, scales=self.LEARNED), run("cnn", 2.0),
            run("sesn", 2.0, augmented=True, scales=(1.7, 2.14, 2.7, 3.4)),
        )  # fmt: skip
        figure = figures.learned_scales(runs)
        plain, augmented = drawn(figure)
        assert rows_of(plain) == ["SESN (Hermite)", "DISCO", *reported.table("table5")["model"].tolist()[-3:]]
        np.testing.assert_allclose(points(plain, "o", OURS), [(s, 1.86) for s in self.LEARNED * 2])
        np.testing.assert_allclose(points(augmented, "o", OURS)[:, 0], [1.7, 2.14, 2.7, 3.4])
        printed = reported.table("table6")
        for axes, flag in ((plain, False), (augmented, True)):
            means = printed[printed["augmented"] == flag][[f"scale{i}_mean" for i in (1, 2, 3, 4)]].to_numpy()
            np.testing.assert_allclose(points(axes, "s", PAPER)[:, 0], means.ravel())
        assert legend(figure)[0] == "ours, one dot per run and scale (400 images, 2 epochs, 2 realisations)"
        assert inside(figure)

    def test_variants_with_scales_get_rows(self):
        plain, _ = drawn(figures.learned_scales(frame(run("single_scale", 2.0, scales=(1.4,)), run("dss_scalar", 2.0))))
        assert rows_of(plain)[5:] == [TITLES["single_scale"]]
        np.testing.assert_allclose(points(plain, "o", OURS), [(1.4, 4.86)])

    def test_without_runs(self):
        figure = figures.learned_scales(frame())
        plain, _ = drawn(figure)
        assert legend(figure)[0] == "ours: not measured" and len(points(plain, "s", PAPER)) == 20


class TestEquivarianceByFactor:
    FRAME = changes(
        *curve("cnn", (0.8, 0.0, 0.4)), *curve("cnn", (0.6, 0.0, 0.2), seed=1), *curve("dss", (0.5, 0.0, 0.3)),
        *curve("sesn", (0.2, 0.0, 0.1), augmented=True),
    )  # fmt: skip

    @pytest.mark.parametrize(("value", "times"), [("relative_change", 1), ("prediction_change", 10)])
    def test_means_over_runs(self, value, times):
        figure = figures.equivariance_by_factor(self.FRAME, value)
        panels = np.array(drawn(figure)).reshape(2, 2)
        for axes in panels[0]:
            (cnn,) = [line for line in axes.lines if line.get_linestyle() == "--"]
            np.testing.assert_allclose(cnn.get_xdata(), (0.5, 1, 2))
            np.testing.assert_allclose(cnn.get_ydata(), np.multiply((0.7, 0, 0.3), times))
        (dss,) = [line for line in panels[0, 0].lines if line.get_marker() == "D"]
        np.testing.assert_allclose(dss.get_ydata(), np.multiply((0.5, 0, 0.3), times))
        (sesn,) = panels[1, 1].lines
        np.testing.assert_allclose(sesn.get_ydata(), np.multiply((0.2, 0, 0.1), times))
        assert inside(figure)

    def test_other_groups_stay_faintly_in_sight(self):
        panels = np.array(drawn(figures.equivariance_by_factor(self.FRAME))).reshape(2, 2)
        (faint,) = [line for line in panels[0, 1].lines if line.get_color() == "#d4d4d4"]
        np.testing.assert_allclose(faint.get_ydata(), (0.5, 0, 0.3))

    def test_labels(self):
        panels = np.array(drawn(figures.equivariance_by_factor(self.FRAME))).reshape(2, 2)
        names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in panels[1]]
        assert names == [["CNN", "DSS"], ["CNN", "SESN (Hermite)"]]
        assert [axes.get_title(loc="left") for axes in panels[0]] == list(_GROUPS)[:2]
        assert panels[1, 0].get_ylabel() == "with random rescaling (+)\nchange of the logits, relative"
        assert panels[0, 0].get_ylim()[0] == 0

    def test_variants_get_panels_where_there_are_runs(self):
        axes = drawn(figures.equivariance_by_factor(changes(*curve("single_scale", (0.5, 0.0, 0.5)))))
        assert len(axes) == 3 and len(axes[2].lines) == 1 and axes[2].lines[0].get_marker() == "D"

    def test_all_sixteen(self):
        rows = [row for name in SYSTEM_NAMES for flag in (False, True) for row in curve(name, (0.5, 0, 1), 0, flag)]
        figure = figures.equivariance_by_factor(changes(*rows))
        assert [len(axes.lines) for axes in drawn(figure)] == [16] * 6 and inside(figure)

    def test_nan_is_not_drawn(self):
        rows = changes(*curve("cnn", (0.5, 0.0, NAN)), *curve("dss", (NAN,) * 3))
        axes = drawn(figures.equivariance_by_factor(rows))[0]
        assert [list(line.get_xdata()) for line in axes.lines] == [[0.5, 1.0]]

    def test_without_the_test(self):
        panels = drawn(figures.equivariance_by_factor(changes()))
        assert [texts(axes) for axes in panels] == [["not measured"]] * 4
        panels = drawn(figures.equivariance_by_factor(self.FRAME[~self.FRAME["augmented"]]))
        assert [texts(axes) for axes in panels] == [[], []]  # no empty row

    def test_unknown_value(self):
        with pytest.raises(ValueError, match="value must be one of relative_change, prediction_change, got 'change'"):
            figures.equivariance_by_factor(self.FRAME, "change")


def test_every_system_has_a_panel_and_a_line_of_its_own():
    grouped = [name for names in _GROUPS.values() for name in names]
    assert sorted(["cnn", *grouped]) == sorted(SYSTEM_NAMES)
    assert set(VARIANTS).isdisjoint(BASELINES) and all(len(names) <= 5 for names in _GROUPS.values())


class TestErrorByDataScale:
    @staticmethod
    def bins(name, errors, seed=0, augmented=False):
        return [(TITLES[name], name, augmented, seed, edge, error) for edge, error in errors.items()]

    def test_middles_of_bins(self):
        rows = [
            *self.bins("cnn", {0.3: 8.0, 0.9: 2.0}), *self.bins("cnn", {0.3: 6.0}, seed=1),
            *self.bins("disco", {0.3: 5.0, 0.9: 1.0}, augmented=True),
        ]  # fmt: skip
        figure = figures.error_by_data_scale(pd.DataFrame(rows, columns=list(BASELINE_SCALE_COLUMNS)))
        panels = drawn(figure)
        np.testing.assert_allclose(panels[0].lines[0].get_data(), [(0.35, 0.95), (7.0, 2.0)])
        np.testing.assert_allclose(panels[3].lines[0].get_data(), [(0.35, 0.95), (5.0, 1.0)])
        assert panels[0].get_xlim() == (0.3, 1.0) and panels[2].get_xlabel() == "data scale of the digit"
        assert inside(figure)

    def test_without_runs(self):
        panels = drawn(figures.error_by_data_scale(pd.DataFrame([], columns=list(BASELINE_SCALE_COLUMNS))))
        assert [texts(axes) for axes in panels] == [["not measured"]] * 4


class TestCost:
    def test_median_of_the_runs(self):
        rows = [run("cnn", 2.0, i, train=t, inference=NAN) for i, t in enumerate((1.0, 2.0, 30.0))]
        figure = figures.cost(frame(*rows, run("sesn", 2.0, train=NAN, inference=7.0, augmented=True)))
        training, inference = drawn(figure)
        assert rows_of(training) == ["CNN", "SESN (Hermite)"]
        np.testing.assert_allclose(points(training, "o", OURS), [(2, -0.16)])
        np.testing.assert_allclose(points(training, ".", OURS)[:, 0], (1, 2, 30))
        np.testing.assert_allclose(points(inference, "s", ORANGE), [(7, 1.16)])
        assert len(points(training, "s", ORANGE)) == len(points(inference, "o", OURS)) == 0
        assert training.get_xscale() == "log"
        assert training.get_title(loc="left") == "training:\ncpu (x86_64), 1 thread"
        assert legend(figure)[0] == "without rescaling: large median, small one run"

    def test_machines_are_not_mixed(self):
        panels = drawn(figures.cost(frame(run("cnn", 2.0), run("cnn", 2.0, 1, train=9.0, device="cuda (X)"))))
        assert len(panels) == 4
        assert [points(axes, "o", OURS)[:, 0].tolist() for axes in (panels[0], panels[2])] == [[4.0], [9.0]]

    def test_without_times(self):
        for runs in (frame(), frame(run("cnn", 2.0, train=None, inference=None))):
            runs = runs.astype({"train_ms_per_image": float, "inference_ms_per_image": float})
            assert [texts(axes) for axes in drawn(figures.cost(runs))] == [["not measured"]] * 2


@pytest.mark.parametrize(
    ("figure", "columns"),
    [
        (figures.baseline_errors, BASELINE_COLUMNS), (figures.learned_scales, BASELINE_COLUMNS),
        (figures.cost, BASELINE_COLUMNS), (figures.equivariance_by_factor, EQUIVARIANCE_COLUMNS),
        (figures.error_by_data_scale, BASELINE_SCALE_COLUMNS),
    ],
)  # fmt: skip
def test_data_are_left_as_they_were(figure, columns):
    rows = {
        BASELINE_COLUMNS: frame(run("cnn", 2.0), run("sesn", 1.0, scales=(1.5, 2.0, 2.5, 3.0))),
        EQUIVARIANCE_COLUMNS: TestEquivarianceByFactor.FRAME,
        BASELINE_SCALE_COLUMNS: pd.DataFrame(TestErrorByDataScale.bins("cnn", {0.3: 1.0}), columns=list(columns[:6])),
    }[columns]
    before = rows.copy(deep=True)
    drawn(figure(rows))
    pd.testing.assert_frame_equal(rows, before)
