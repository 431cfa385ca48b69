"""Run specs: keys that never change by accident, and fields that are refused with the reason."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from scalestudy.data.distributions import LogUniform
from scalestudy.models import SYSTEMS
from scalestudy.paper.reported import MNIST_SCALE_REALISATIONS, table
from scalestudy.training.device import DTYPES
from scalestudy.training.spec import (
    BASELINES,
    MILLISECONDS,
    PAPER_REALISATIONS,
    SYSTEM_NAMES,
    VARIANTS,
    DataSpec,
    MnistScaleSpec,
    RunSpec,
    ScalesSpec,
    TrainingSpec,
)

WIDE = LogUniform(low=1, high=8)


def _fig3(isr: float) -> RunSpec:
    data = DataSpec(distribution=LogUniform(low=1, high=4.76), scale_test_images=50_000)
    return RunSpec(scales=ScalesSpec(isr=isr), data=data, seed=2)


PINNED = {
    "9accc72623beb3a0": RunSpec(data=DataSpec(distribution=WIDE)),
    "e8220a9f552f7288": RunSpec(scales=ScalesSpec(parameterisation="step_ratio"), data=DataSpec(distribution=WIDE)),
    "e059751556392d9e": _fig3(5.35),
    "16403be4e237bcde": RunSpec(
        data=DataSpec(distribution=WIDE, train_images=1500, validation_images=500, test_images=1000, shrink=3),
        training=TrainingSpec.paper_shaped(9, 64),
    ),
    "c8b1a985b4b0b5fd": RunSpec(
        scales=ScalesSpec(parameterisation="isr", sigma_basis=4.0, isr=1.5),
        data=DataSpec(distribution=LogUniform(low=1, high=2.83)),
        order="norm_relu",
        precision="float64",
    ),
    "7cf0772a85b546b8": RunSpec.baseline("sesn"),
    "fa77641382daa29d": RunSpec.baseline("ours_isr", 5, MnistScaleSpec(augmented=True)),
    "ee19c836d3cec3ed": RunSpec(
        model="cnn",
        data=MnistScaleSpec(train_images=400, validation_images=100, test_images=500, equivariance_images=0),
        training=TrainingSpec.paper_shaped(2, 32, "mnist_scale"),
    ),
}
"""A change of these keys orphans every stored record.  A new field takes a value that leaves them unchanged."""


@pytest.mark.parametrize("key", PINNED)
def test_pinned_keys(key):
    assert PINNED[key].key == key


def test_precisions_have_their_own_keys_and_only_float32_is_the_papers():
    specs = {name: RunSpec(data=DataSpec(distribution=WIDE), precision=name) for name in DTYPES}
    assert len({spec.key for spec in specs.values()}) == 3
    assert {name: spec.is_paper_size for name, spec in specs.items()} == {
        "float32": True, "tf32": False, "float64": False,
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"(?s)precision\n.*input_value='bfloat16'"):
        RunSpec(data=DataSpec(distribution=WIDE), precision="bfloat16")


def test_key_does_not_depend_on_how_numbers_are_written():
    first = RunSpec(
        scales=ScalesSpec(sigma_basis=2, isr="3"), data=DataSpec(distribution=LogUniform(low=1, high="8e0"))
    )
    assert first.key == RunSpec(data=DataSpec(distribution=WIDE)).key


def test_every_field_changes_the_key():
    base = RunSpec(data=DataSpec(distribution=WIDE, scale_test_images=10)).model_dump()
    changes = {
        ("order",): "norm_relu", ("seed",): 1, ("precision",): "float64",
        ("scales", "parameterisation"): "isr", ("scales", "sigma_basis"): 1.0, ("scales", "isr"): 2.0,
        ("scales", "num_scales"): 4, ("data", "distribution", "high"): 7.0, ("data", "train_images"): 9,
        ("data", "validation_images"): 9, ("data", "test_images"): 11, ("data", "scale_test_images"): 9,
        ("data", "shrink"): 2,
        ("training", "epochs"): 9, ("training", "batch_size"): 9, ("training", "learning_rate"): 0.1,
        ("training", "decay"): 0.2, ("training", "scale_learning_rate"): 0.2, ("training", "scale_decay"): 0.2,
        ("training", "scale_warmup_epochs"): 1.0, ("training", "milestones"): (1.0,),
    }  # fmt: skip
    keys = {RunSpec.model_validate(base).key}
    for path, value in changes.items():
        fields = RunSpec.model_validate(base).model_dump()
        inner = fields
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        keys.add(RunSpec.model_validate(fields).key)
    assert len(keys) == 1 + len(changes)


def test_every_field_of_a_system_changes_the_key():
    base = RunSpec.baseline("cnn")
    others = [
        RunSpec.baseline("dss"),
        RunSpec.baseline("cnn", 1),
        RunSpec.baseline("cnn", epochs=30),
        RunSpec.baseline("cnn", batch_size=64),
        *(
            RunSpec.baseline("cnn", data=MnistScaleSpec(**{name: value}))
            for name, value in {
                "augmented": True, "train_images": 9_999, "validation_images": 1_999, "test_images": 49_999,
                "equivariance_images": 999,
            }.items()
        ),
    ]  # fmt: skip
    assert len({spec.key for spec in (base, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sead": 1}, r"(?s)sead\n.*Extra inputs are not permitted .*input_value=1"),
        ({"seed": -1}, r"(?s)seed\n.*greater than or equal to 0 .*input_value=-1"),
        ({"model": "table9"}, r"(?s)model\n.*should be 'table1', 'cnn', .*input_value='table9'"),
        ({"recipe": 2}, r"(?s)recipe\n.*should be 1 .*input_value=2"),
        ({"precision": "half"}, r"(?s)precision\n.*'float32', 'tf32' or 'float64' .*input_value='half'"),
        ({"scales": {"isr": 1.0}}, r"(?s)scales.isr\n.*greater than 1 .*input_value=1.0"),
        ({"scales": {"sigma_basis": float("nan")}}, r"(?s)scales.sigma_basis\n.*finite number .*input_value=nan"),
        (
            {"scales": {"parameterisation": "ISR"}},
            r"(?s)parameterisation\n.*'fixed', 'isr', 'step_ratio'.*input_value='ISR'",
        ),
        (
            {"data": {"distribution": WIDE, "shrink": 4}},
            r"(?s)data.dynamic_scale_mnist.shrink\n.*1, 2 or 3 .*input_value=4",
        ),
        (
            {"data": {"distribution": WIDE, "train_images": 10_001}},
            r"(?s)data.dynamic_scale_mnist.train_images\n.*less than or equal to 10000",
        ),
        (
            {"data": {"distribution": WIDE, "test_images": 5, "scale_test_images": 6}},
            "scale_test_images must be at most test_images = 5, got 6",
        ),
        (
            {"model": "cnn"},
            "data must be MNIST-Scale .* for the model 'cnn', got Dynamic Scale MNIST; the model for that is 'table1'",
        ),
        (
            {"data": {"dataset": "mnist_scale"}},
            "data must be Dynamic Scale MNIST .* for the model 'table1', got MNIST-Scale; name a system .* cnn, sicnn",
        ),
        ({"scales": None}, "scales must be given for the model 'table1', got None; leave it out"),
        (
            {"model": "sesn", "scales": {}, "data": {"dataset": "mnist_scale"}},
            "scales must be None and order 'relu_norm' for the model 'sesn', .* got ScalesSpec.*; leave both out",
        ),
        (
            {"model": "sesn", "order": "norm_relu", "data": {"dataset": "mnist_scale"}},
            "scales must be None and order 'relu_norm' .* got None and 'norm_relu'; leave both out",
        ),
        (
            {"model": "sesn", "data": {"dataset": "mnist"}},
            r"(?s)data.mnist_scale.dataset\n.*should be 'mnist_scale' .*input_value='mnist'",
        ),
        (
            {"model": "sesn", "data": {"dataset": "mnist_scale", "validation_images": 2_001}},
            r"(?s)data.mnist_scale.validation_images\n.*less than or equal to 2000",
        ),
        (
            {"model": "sesn", "data": {"dataset": "mnist_scale", "shrink": 2}},
            r"(?s)data.mnist_scale.shrink\n.*Extra inputs are not permitted",
        ),
        (
            {"model": "sesn", "data": {"dataset": "mnist_scale", "test_images": 5, "equivariance_images": 6}},
            "equivariance_images must be at most test_images = 5, got 6",
        ),
        (
            {"model": "sesn", "data": {"dataset": "mnist_scale", "train_images": 129}},
            "batch_size must not leave a last batch of one image, .* got 128 with 129 train_images; change",
        ),
        ({"training": {"epochs": 0}}, r"(?s)training.epochs\n.*greater than or equal to 1 .*input_value=0"),
    ],
)
def test_refused_fields(fields, message):
    with pytest.raises(ValidationError, match=message):
        RunSpec(**{"data": {"distribution": WIDE}, **fields})


def test_specs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec(data=DataSpec(distribution=WIDE)).seed = 3


def test_paper_shaped_schedule():
    assert TrainingSpec.paper_shaped(60) == TrainingSpec()
    short = TrainingSpec.paper_shaped(9, 64)
    assert (short.milestones, short.scale_warmup_epochs, short.batch_size) == ((3.0, 6.0), 0.75, 64)


def test_work_grows_with_what_costs():
    base = RunSpec(data=DataSpec(distribution=WIDE)).work
    assert base == (60 * 35_000 + 50_000) * 168**2
    assert RunSpec(data=DataSpec(distribution=WIDE, shrink=2)).work == base / 4
    assert RunSpec(data=DataSpec(distribution=WIDE, scale_test_images=10)).work == base + 450 * 168**2


def test_paper_shaped_schedule_of_mnist_scale():
    """Only the scales' own schedule differs from sections 4.1 and 4.2 (FACTS: released code)."""
    full, of_canvas = TrainingSpec.paper_shaped(dataset="mnist_scale").model_dump(), TrainingSpec().model_dump()
    changed = {name: value for name, value in full.items() if value != of_canvas[name]}
    assert changed == {"scale_learning_rate": 0.005, "scale_decay": 0.1, "scale_warmup_epochs": 10.0}
    short = TrainingSpec.paper_shaped(6, 32, "mnist_scale")
    assert (short.milestones, short.scale_warmup_epochs, short.batch_size) == ((2.0, 4.0), 1.0, 32)
    assert (short.scale_learning_rate, short.scale_decay) == (0.005, 0.1)


def test_a_system_needs_no_scales_field():
    given = RunSpec(model="cnn", scales=None, data=MnistScaleSpec())
    assert RunSpec(model="cnn", data=MnistScaleSpec()) == given
    assert RunSpec.model_validate_json(given.model_dump_json()) == given
    assert RunSpec.model_validate(given.model_dump()).key == given.key
    assert RunSpec(data=DataSpec(distribution=WIDE)).scales == ScalesSpec()


def test_labels_and_data_sets():
    spec = RunSpec.baseline("sesn", 3, MnistScaleSpec(augmented=True))
    assert (spec.label, spec.dataset) == ("MNIST-Scale+, sesn, seed 3", "mnist_scale")
    assert RunSpec.baseline("sesn", 3).label == "MNIST-Scale, sesn, seed 3"
    assert RunSpec(data=DataSpec(distribution=WIDE)).dataset == "dynamic_scale_mnist"


def test_names_are_those_of_the_systems():
    assert tuple(SYSTEMS) == SYSTEM_NAMES == (*BASELINES, *VARIANTS)
    assert [SYSTEMS[name].title for name in BASELINES] == table("table5")["model"].tolist()
    assert [name for name, system in SYSTEMS.items() if system.in_table5] == list(BASELINES)
    assert len({system.title for system in SYSTEMS.values()}) == len(SYSTEM_NAMES)
    assert set(MILLISECONDS) == set(SYSTEM_NAMES)
    assert PAPER_REALISATIONS == MNIST_SCALE_REALISATIONS


@pytest.mark.parametrize(
    ("changes", "is_paper_size"),
    [
        ({}, True),
        ({"seed": 5}, True),
        ({"data": MnistScaleSpec(augmented=True)}, True),
        ({"data": MnistScaleSpec(equivariance_images=0)}, True),
        ({"data": MnistScaleSpec(train_images=9_999)}, False),
        ({"data": MnistScaleSpec(validation_images=1_999)}, False),
        ({"data": MnistScaleSpec(test_images=49_999)}, False),
        ({"training": TrainingSpec.paper_shaped(59, dataset="mnist_scale")}, False),
        ({"training": TrainingSpec.paper_shaped()}, False),
        ({"precision": "float64"}, False),
        ({"precision": "tf32"}, False),
    ],
)
def test_paper_size_on_mnist_scale(changes, is_paper_size):
    base = {"model": "sesn", "data": MnistScaleSpec(), "training": TrainingSpec.paper_shaped(dataset="mnist_scale")}
    assert RunSpec(**base | changes).is_paper_size is is_paper_size


def test_work_of_systems_grows_with_what_costs():
    base = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=0))
    train, evaluate = MILLISECONDS["cnn"]
    per_millisecond = base.work / (60 * (10_000 * train + 2_000 * evaluate) + 50_000 * evaluate)
    shown = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=100))
    assert shown.work - base.work == pytest.approx(per_millisecond * 10 * 100 * evaluate)
    half = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=0), epochs=30)
    assert base.work - half.work == pytest.approx(per_millisecond * 30 * (10_000 * train + 2_000 * evaluate))
    assert all(RunSpec.baseline(name).work > 1.3 * base.work for name in SYSTEM_NAMES if name != "cnn")
    canvas = RunSpec(data=DataSpec(distribution=WIDE, validation_images=2_000))
    assert 0.01 < base.work / canvas.work < 1  # one unit: a plain CNN on 56 x 56 pixels, Table 1 on 168 x 168


def test_a_realisation_out_of_range_is_refused():
    message = r"published realisation of MNIST-Scale, 0 \.\. 5, for the model 'sesn', got 6"
    with pytest.raises(ValidationError, match=message):
        RunSpec.baseline("sesn", seed=6)


def test_handing_specs_and_records_around_does_not_load_torch():
    """What only waits for runs (a Dask worker, `scalestudy status`) is spared a second and 150 MiB."""
    code = (
        "import sys\n"
        "import scalestudy.runs.cluster, scalestudy.runs.batch, scalestudy.paper.grids\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
