"""The paper's grids: how many runs, which are shared, in which order, and the frames of their records."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from fake_training import record_of

from scalestudy.paper.claims import BASELINE_COLUMNS as CLAIM_BASELINE_COLUMNS
from scalestudy.paper.claims import RUN_COLUMNS as CLAIM_COLUMNS
from scalestudy.paper.claims import SCALE_TEST_COLUMNS as CLAIM_SCALE_TEST_COLUMNS
from scalestudy.paper.grids import (
    BASELINE_COLUMNS,
    BASELINE_SCALE_COLUMNS,
    DISTRIBUTIONS,
    EQUIVARIANCE_COLUMNS,
    FRAME_COLUMNS,
    NOTEBOOK_GROUPS,
    WANTED_SYSTEMS,
    Study,
    StudySize,
    baseline_frame,
    baseline_scale_frame,
    equivariance_frame,
    frame,
    scale_test_frame,
)
from scalestudy.paper.reported import DISTRIBUTIONS as REPORTED
from scalestudy.paper.reported import table
from scalestudy.training.spec import BASELINES, SYSTEM_NAMES, VARIANTS, MnistScaleSpec, RunSpec, TrainingSpec

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


def test_the_paper_has_234_runs_and_table5(paper):
    groups = {name: keys(specs) for name, specs in paper.groups().items()}
    assert {name: len(group) for name, group in groups.items()} == {
        "table2": 9, "table4": 27, "eq5_as_printed": 9, "figure3": 135, "figure4": 72, "table3": 81,
        "table5": 16 * 6 * 2,
    }  # fmt: skip
    everything = keys(paper.all_specs())
    assert len(everything) == len(paper.all_specs()) == 234 + 9 + 192
    assert len(everything - groups["eq5_as_printed"] - groups["table5"]) == 135 + 9 + 72 + 18
    assert set.union(*groups.values()) == everything


def test_the_papers_runs_are_the_recipe_that_is_the_default(paper):
    for spec in paper.all_specs():
        assert spec.is_paper_size
        if spec.key in keys(paper.table5()):
            assert spec == RunSpec.baseline(spec.model, spec.seed, spec.data)
            continue
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
        if spec.dataset != "dynamic_scale_mnist":
            continue
        expected = study.size.scale_test_images if spec.key in tested else 0
        assert spec.data.scale_test_images == expected


def test_order_of_want(paper):
    order = [spec.key for spec in paper.all_specs()]
    last = {name: max(map(order.index, keys(specs))) for name, specs in paper.groups().items()}
    assert last["table2"] < last["table4"] < last["eq5_as_printed"] < last["table3"] < last["figure3"]
    assert last["figure3"] < min(map(order.index, keys(paper.table5())))
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
        ("direct", 9 + 12),
        (r"direct.*seed 1", 3 + 2),
        ("isr 7.56", 9),
        ("figure", 135),
        ("table5", 192),
        ("sesn", 2 * 12),
        ("MNIST-Scale+, sesn", 6),
        (r"MNIST-Scale\+?, (sesn|cnn), seed [01]$", 2 * 2 * 2),
    ],
)
def test_select(paper, text, count):
    found = paper.select(text)
    assert len(found) == count
    assert [spec.key for spec in paper.all_specs() if spec.key in keys(found)] == [spec.key for spec in found]


@pytest.mark.parametrize("text", ["table7", "[unclosed", "seed 6"])
def test_select_of_nothing(paper, text):
    with pytest.raises(ValueError, match=r"filter must match a group \(table2, .*got .* matches none of the 435 runs"):
        paper.select(text)


def test_runs_of_notebooks(paper):
    assert keys(paper.for_notebooks(["00_overview"])) == keys(paper.all_specs())
    assert keys(paper.for_notebooks(["07_parameterisation"])) == keys(paper.table4())
    assert keys(paper.for_notebooks(["08_baselines"])) == keys(paper.table5())
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


def test_order_of_want_on_mnist_scale(paper):
    """Issue: realisations 0..2 of all systems, then with "+", then 3..5; cheap systems first, variants last."""
    assert sorted(WANTED_SYSTEMS) == sorted(SYSTEM_NAMES) and WANTED_SYSTEMS[-5:] == VARIANTS
    order = [(spec.model, spec.data.augmented, spec.seed) for spec in paper.table5()]
    assert order == [
        (model, augmented, seed)
        for seeds in ((0, 1, 2), (3, 4, 5))
        for augmented in (False, True)
        for model in WANTED_SYSTEMS
        for seed in seeds
    ]


def test_systems_of_a_size(paper):
    assert _study("quick").size.systems[: len(BASELINES)] == BASELINES
    assert paper.size.systems == SYSTEM_NAMES
    sizes = paper.size.parameters() | {"baseline_models": ["sesn", "variants", "cnn"], "baseline_augmented": False}
    some = Study(StudySize(**sizes))
    assert some.size.systems == ("sesn", *VARIANTS, "cnn")
    assert [spec.model for spec in some.table5()[::3]][:7] == ["cnn", "sesn", *VARIANTS]
    assert len(some.table5()) == 7 * 6 and not any(spec.data.augmented for spec in some.table5())
    assert Study(StudySize(**sizes | {"baseline_models": []})).table5() == []


def test_runs_on_mnist_scale_have_the_sizes_of_the_study():
    size = _study("quick").size.model_copy(update={"equivariance_images": 7, "baseline_validation_images": 99})
    spec = Study(size).table5()[0]
    assert spec.data == MnistScaleSpec(
        train_images=size.baseline_train_images,
        validation_images=99,
        test_images=size.baseline_test_images,
        equivariance_images=7,
    )
    assert spec.training == TrainingSpec.paper_shaped(size.baseline_epochs, size.baseline_batch_size, "mnist_scale")


def baseline(model, seed=0, augmented=False, **changes):
    """A record of a system; errors depend on the seed."""
    spec = RunSpec.baseline(model, seed, MnistScaleSpec(augmented=augmented))
    record = record_of(spec, test_error=2.0 + seed)
    metrics = record.metrics.model_copy(
        update={
            "test_error_by_scale": {"0.9000": 1.0, "0.3000": 6.0},
            "equivariance_error": {"2.0000": 0.5, "0.5000": 0.25},
            "prediction_change": {"2.0000": 20.0, "0.5000": 10.0},
        }
        | changes
    )
    made = record.provenance.model_copy(update={"train_ms_per_image": 5.5, "inference_ms_per_image": 2.5})
    return type(record).of(spec, metrics, made)


def test_baseline_frame():
    none = {"internal_scales": (), "internal_scales_history": ((),)}
    records = [
        baseline("ours_isr", augmented=True), baseline("cnn", 1, **none), baseline("cnn", 0, True, **none),
        baseline("cnn", 0, **none), baseline("single_scale", internal_scales=(1.5,)),
    ]  # fmt: skip
    rows = baseline_frame(records)
    assert tuple(rows.columns) == BASELINE_COLUMNS
    assert set(CLAIM_BASELINE_COLUMNS) <= set(rows.columns)
    assert rows["name"].tolist() == ["cnn", "cnn", "cnn", "ours_isr", "single_scale"]
    assert rows["model"].tolist()[:4] == ["CNN", "CNN", "CNN", "Ours (Learn ISR)"]
    assert rows["augmented"].tolist() == [False, False, True, True, False]
    assert rows["seed"].tolist() == [0, 1, 0, 0, 0]
    assert rows["test_error"].tolist() == [2.0, 3.0, 2.0, 2.0, 2.0]
    assert rows["internal_scales"].tolist() == [[], [], [], [2.0, 3.464102, 6.0], [1.5]]
    assert rows["isr"].isna().tolist() == [True, True, True, False, False]
    assert rows["isr"].tolist()[3:] == [3.0, 1.0]
    row = rows.iloc[3]
    assert (row.train_ms_per_image, row.inference_ms_per_image, row.threads, row.device) == (5.5, 2.5, 1, "cpu")
    assert (row.epochs, row.train_images, row.test_images, row.paper_size) == (60, 10_000, 50_000, True)


def test_frames_of_scales_and_factors():
    records = [baseline("cnn", 1), baseline("cnn", 0)]
    common = {"model": ["CNN"] * 4, "name": ["cnn"] * 4, "augmented": [False] * 4, "seed": [0, 0, 1, 1]}
    rows = baseline_scale_frame(records)
    assert tuple(rows.columns) == BASELINE_SCALE_COLUMNS
    assert rows.to_dict("list") == {**common, "data_scale": [0.3, 0.9] * 2, "test_error": [6.0, 1.0] * 2}
    rows = equivariance_frame(records)
    assert tuple(rows.columns) == EQUIVARIANCE_COLUMNS
    assert rows.to_dict("list") == {
        **common, "factor": [0.5, 2.0] * 2, "relative_change": [0.25, 0.5] * 2, "prediction_change": [10.0, 20.0] * 2,
    }  # fmt: skip


def test_frames_hold_runs_on_their_own_data_set(paper):
    records = [record_of(paper.figure4()[0]), baseline("cnn")]
    assert [len(make(records)) for make in (frame, scale_test_frame, baseline_frame)] == [1, 2, 1]
    assert [len(make(records)) for make in (baseline_scale_frame, equivariance_frame)] == [2, 2]
    assert baseline_frame(records)["train_images"].tolist() == [10_000]


def test_frames_of_nothing():
    assert tuple(frame([]).columns) == FRAME_COLUMNS
    assert frame([]).empty
    assert scale_test_frame([]).empty
    assert tuple(baseline_frame([]).columns) == BASELINE_COLUMNS
    assert tuple(baseline_scale_frame([]).columns) == BASELINE_SCALE_COLUMNS
    assert tuple(equivariance_frame([]).columns) == EQUIVARIANCE_COLUMNS
    assert baseline_frame([]).empty and baseline_scale_frame([]).empty and equivariance_frame([]).empty
