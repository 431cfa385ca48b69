"""The paper's grids: how many runs, which are shared, in which order, and the frames of their records."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from fake_training import record_of

from scalestudy.claims import RUN_COLUMNS as CLAIM_COLUMNS
from scalestudy.claims import SCALE_TEST_COLUMNS as CLAIM_SCALE_TEST_COLUMNS
from scalestudy.reported import DISTRIBUTIONS as REPORTED
from scalestudy.reported import table
from scalestudy.spec import TrainingSpec
from scalestudy.study.grids import (
    DISTRIBUTIONS,
    FRAME_COLUMNS,
    NOTEBOOK_GROUPS,
    Study,
    StudySize,
    frame,
    scale_test_frame,
)

PARAMS = Path(__file__).resolve().parent.parent.parent / "params"


@pytest.fixture(scope="module", params=["paper", "quick"])
def study(request):
    return _study(request.param)


@pytest.fixture(scope="module")
def paper():
    return _study("paper")


def _study(profile):
    return Study(StudySize(**yaml.safe_load((PARAMS / f"{profile}.yaml").read_text())))


def keys(specs):
    return {spec.key for spec in specs}


def test_distributions_have_the_papers_labels():
    assert tuple(distribution.label for distribution in DISTRIBUTIONS) == REPORTED


def test_the_paper_has_234_runs(paper):
    groups = {name: keys(specs) for name, specs in paper.groups().items()}
    assert {name: len(group) for name, group in groups.items()} == {
        "table2": 9, "table4": 27, "eq5_as_printed": 9, "figure3": 135, "figure4": 72, "table3": 81,
    }  # fmt: skip
    everything = keys(paper.all_specs())
    assert len(everything) == len(paper.all_specs()) == 234 + 9
    assert len(everything - groups["eq5_as_printed"]) == 135 + 9 + 72 + 18
    assert set.union(*groups.values()) == everything


def test_the_papers_runs_are_the_recipe_that_is_the_default(paper):
    for spec in paper.all_specs():
        assert spec.training == TrainingSpec()
        assert (spec.order, spec.model, spec.precision, spec.scales.num_scales) == ("relu_norm", "table1", "float32", 3)


def test_every_row_of_the_reported_tables_has_its_runs(paper):
    fixed = Counter((spec.data.distribution.label, spec.scales.isr) for spec in paper.figure3())
    assert fixed == dict.fromkeys(table("fig3")[["distribution", "isr"]].itertuples(index=False, name=None), 3)
    starts = Counter((s.data.distribution.label, s.scales.sigma_basis, s.scales.isr) for s in paper.table3())
    columns = ["distribution", "init_sigma_basis", "init_isr"]
    assert starts == dict.fromkeys(table("table3")[columns].itertuples(index=False, name=None), 3)


def test_shared_runs(study):
    assert keys(study.table2()) <= keys(study.table4())
    assert keys(study.figure4()) <= keys(study.figure3())
    assert not keys(study.table2()) & keys(study.eq5_as_printed())
    shared = keys(study.table2()) & keys(study.table3())
    assert len(shared) == 3 * len(set(study.size.seeds) & set(study.size.initialisation_seeds))


def test_only_figure_4_has_the_scale_test(study):
    tested = keys(study.figure4())
    for spec in study.all_specs():
        expected = study.size.scale_test_images if spec.key in tested else 0
        assert spec.data.scale_test_images == expected


def test_order_of_want(paper):
    order = [spec.key for spec in paper.all_specs()]
    last = {name: max(map(order.index, keys(specs))) for name, specs in paper.groups().items()}
    assert last["table2"] < last["table4"] < last["eq5_as_printed"] < last["table3"] < last["figure3"]
    telling = [spec for spec in paper.figure3() if spec.scales.isr in (1.5, 2.38, 3, 4.76, 5.35, 7.56)]
    assert len(telling) == 6 * 3 * 3
    assert max(map(order.index, keys(telling))) < last["table3"]
    assert [spec.seed for spec in paper.table2()] == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("table3", 81),
        ("TABLE2", 9),
        ("[1, 8]", 81),
        ("direct", 9),
        (r"direct.*seed 1", 3),
        ("isr 7.56", 9),
        ("figure", 135),
    ],
)
def test_select(paper, text, count):
    found = paper.select(text)
    assert len(found) == count
    assert [spec.key for spec in paper.all_specs() if spec.key in keys(found)] == [spec.key for spec in found]


@pytest.mark.parametrize("text", ["table7", "[unclosed", "seed 3"])
def test_select_of_nothing(paper, text):
    with pytest.raises(ValueError, match=r"filter must match a group \(table2, .*got .* matches none of the 243 runs"):
        paper.select(text)


def test_runs_of_notebooks(paper):
    assert keys(paper.for_notebooks(["00_overview"])) == keys(paper.all_specs())
    assert keys(paper.for_notebooks(["07_parameterisation"])) == keys(paper.table4())
    assert paper.for_notebooks(["01_datasets"]) == []
    assert {group for groups in NOTEBOOK_GROUPS.values() for group in groups} <= set(paper.groups())


def test_frame(paper):
    spec = next(spec for spec in paper.figure3() if spec.scales.isr == 1.5 and spec.seed == 2)
    rows = frame([record_of(spec), record_of(paper.table2()[0])])
    assert tuple(rows.columns) == FRAME_COLUMNS
    assert set(CLAIM_COLUMNS) <= set(rows.columns)
    row = rows.iloc[0]
    assert (row.distribution, row.distribution_low, row.distribution_high) == (REPORTED[0], 1.0, 2.83)
    assert (row.scale_learning, row.init_sigma_basis, row.init_isr, row.seed, row.shrink) == ("fixed", 2.0, 1.5, 2, 1)
    assert (row.sigma_basis, row.isr, row.internal_scales) == (2.0, 3.0, [2.0, 3.464102, 6.0])
    assert (row.test_error, row.validation_error, row.selected_epoch, row.epochs) == (0.2, 1.5, 2, 60)
    assert row.isr_history == [2.0, 2.5, 3.0]
    assert (row.seconds, row.train_images, row.test_images) == (0.5, 10_000, 50_000)
    assert rows["scale_learning"].tolist() == ["fixed", "step_ratio"]


def test_scale_test_frame(paper):
    spec = next(spec for spec in paper.figure4() if spec.scales.isr == 7.56)
    rows = scale_test_frame([record_of(spec), record_of(paper.table2()[0])])
    assert set(CLAIM_SCALE_TEST_COLUMNS) <= set(rows.columns)
    assert rows.to_dict("list") == {
        "distribution": [REPORTED[0]] * 2, "isr": [7.56] * 2, "seed": [0] * 2, "scale_learning": ["fixed"] * 2,
        "data_scale": [0.5, 2.0], "test_error": [10.0, 1.0],
    }  # fmt: skip


def test_frames_of_nothing():
    assert tuple(frame([]).columns) == FRAME_COLUMNS
    assert frame([]).empty
    assert scale_test_frame([]).empty
