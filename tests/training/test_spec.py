"""Run specs: keys that never change by accident, and fields that are refused with the reason."""

import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

from scalestudy.data.distributions import LogUniform
from scalestudy.models.systems import SYSTEMS
from scalestudy.training.spec import DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec

WIDE = DataSpec(distribution=LogUniform(low=1, high=8))

PINNED = {
    "e8220a9f552f7288": RunSpec(scales=ScalesSpec(parameterisation="step_ratio"), data=WIDE),
    "7cf0772a85b546b8": RunSpec.baseline("sesn"),
    "fa77641382daa29d": RunSpec.baseline("ours_isr", 5, MnistScaleSpec(augmented=True)),
    "16403be4e237bcde": RunSpec(
        data=DataSpec(
            distribution=LogUniform(low=1, high=8), train_images=1500, validation_images=500, test_images=1000, shrink=3
        ),
        training=TrainingSpec.paper_shaped(9, 64),
    ),
    "c8b1a985b4b0b5fd": RunSpec(
        scales=ScalesSpec(parameterisation="isr", sigma_basis=4.0, isr=1.5),
        data=DataSpec(distribution=LogUniform(low=1, high=2.83)),
        order="norm_relu",
        precision="float64",
    ),
}
"""A change of these keys orphans every stored record.  A new field goes into `_later`."""


@pytest.mark.parametrize("key", PINNED)
def test_pinned_keys(key):
    assert PINNED[key].key == key


class LaterTraining(TrainingSpec):
    _later = frozenset({"momentum"})
    momentum: float = 0.9


class LaterRun(RunSpec):
    _later = frozenset({"loss"})
    loss: str = "cross-entropy"
    training: LaterTraining = LaterTraining()


@pytest.mark.parametrize("key", PINNED)
def test_a_field_that_comes_later_leaves_keys_alone(key):
    """And it counts, is written and comes back where it is not at its default."""
    fields = PINNED[key].model_dump()
    assert LaterRun.model_validate(fields).key == key
    assert LaterRun.model_validate(fields).model_dump_json() == PINNED[key].model_dump_json()
    changed = [
        LaterRun.model_validate({**fields, "loss": "hinge"}),
        LaterRun.model_validate({**fields, "training": {**fields["training"], "momentum": 0.5}}),
    ]
    assert len({key, *(spec.key for spec in changed)}) == 3
    assert [LaterRun.model_validate_json(spec.model_dump_json()) for spec in changed] == changed


def test_key_does_not_depend_on_how_numbers_are_written():
    first = RunSpec(
        scales=ScalesSpec(sigma_basis=2, isr="3"), data=DataSpec(distribution=LogUniform(low=1, high="8e0"))
    )
    assert first.key == RunSpec(data=WIDE).key


OF_TRAINING = {
    "epochs": 9, "batch_size": 8, "learning_rate": 0.1, "decay": 0.2, "scale_learning_rate": 0.2, "scale_decay": 0.2,
    "scale_warmup_epochs": 1.0, "milestones": (1.0,),
}  # fmt: skip
OF_TABLE1 = {
    "order": "norm_relu", "seed": 1, "precision": "float64",
    "scales": {"parameterisation": "isr", "sigma_basis": 1.0, "isr": 2.0, "num_scales": 4},
    "data": {
        "distribution": {"low": 2.0, "high": 7.0}, "train_images": 9, "validation_images": 9, "test_images": 11,
        "scale_test_images": 9, "shrink": 2,
    },
    "training": OF_TRAINING,
}  # fmt: skip
OF_A_SYSTEM = {
    "model": "dss", "seed": 1, "precision": "float64",
    "data": {
        "augmented": True, "train_images": 9_998, "validation_images": 1_999, "test_images": 49_999,
        "equivariance_images": 999,
    },
    "training": OF_TRAINING,
}  # fmt: skip


def leaves(changes, path=()):
    for name, value in changes.items():
        yield from leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


@pytest.mark.parametrize(
    ("base", "changes", "fixed"),
    [
        (
            RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8), scale_test_images=10)),
            dict(leaves(OF_TABLE1)),
            {"recipe", "kind", "model"},
        ),
        (RunSpec.baseline("cnn"), dict(leaves(OF_A_SYSTEM)), {"recipe", "dataset", "scales", "order"}),
    ],
    ids=["table1", "system"],
)
def test_every_field_changes_the_key(base, changes, fixed):
    assert {path[-1] for path, _ in leaves(base.model_dump())} == {path[-1] for path in changes} | fixed
    keys = {base.key}
    for path, value in changes.items():
        content = inner = base.model_dump()
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        keys.add(RunSpec.model_validate(content).key)
    assert len(keys) == 1 + len(changes)


def on_mnist_scale(**data):
    return {"model": "sesn", "data": {"dataset": "mnist_scale", **data}}


def on_canvas(**data):
    return {"data": {"distribution": {"kind": "log-uniform", "low": 1, "high": 8}, **data}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sead": 1}, r"(?s)sead\n.*Extra inputs are not permitted .*input_value=1"),
        ({"seed": -1}, r"(?s)seed\n.*greater than or equal to 0 .*input_value=-1"),
        ({"model": "table9"}, r"(?s)model\n.*should be 'table1', 'cnn', .*input_value='table9'"),
        ({"recipe": 2}, r"(?s)recipe\n.*should be 1 .*input_value=2"),
        ({"precision": "bfloat16"}, r"(?s)precision\n.*'float32', 'tf32' or 'float64' .*input_value='bfloat16'"),
        ({"scales": {"isr": 1.0}}, r"(?s)scales.isr\n.*greater than 1 .*input_value=1.0"),
        ({"scales": {"sigma_basis": float("nan")}}, r"(?s)scales.sigma_basis\n.*finite number .*input_value=nan"),
        ({"scales": {"parameterisation": "ISR"}}, r"(?s)parameterisation\n.*'fixed', 'isr', .*input_value='ISR'"),
        ({"training": {"epochs": 0}}, r"(?s)training.epochs\n.*greater than or equal to 1 .*input_value=0"),
        (on_canvas(shrink=4), r"(?s)data.dynamic_scale_mnist.shrink\n.*1, 2 or 3 .*input_value=4"),
        (on_canvas(train_images=10_001), r"(?s)dynamic_scale_mnist.train_images\n.*less than or equal to 10000"),
        (
            on_canvas(test_images=5, scale_test_images=6),
            "scale_test_images must be at most test_images = 5, got 6; low",
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
        (on_mnist_scale() | {"scales": {}}, "scales must be None .* the model 'sesn', .* got ScalesSpec.*; leave both"),
        (on_mnist_scale() | {"order": "norm_relu"}, "order 'relu_norm' .* got None and 'norm_relu'; leave both out"),
        (
            on_mnist_scale() | {"seed": 6},
            r"published realisation of MNIST-Scale, 0 \.\. 5, for the model 'sesn', got 6",
        ),
        (on_mnist_scale(dataset="mnist"), r"(?s)dataset\n.*should be 'mnist_scale' .*input_value='mnist'"),
        (on_mnist_scale(validation_images=2_001), r"(?s)mnist_scale.validation_images\n.*less than or equal to 2000"),
        (on_mnist_scale(shrink=2), r"(?s)data.mnist_scale.shrink\n.*Extra inputs are not permitted"),
        (
            on_mnist_scale(test_images=5, equivariance_images=6),
            "equivariance_images must be at most test_images = 5, got",
        ),
        (
            on_mnist_scale(train_images=129),
            "must not leave a last batch of one image, .* got 128 with 129 train_images",
        ),
    ],
)
def test_refused_fields(fields, message):
    with pytest.raises(ValidationError, match=message):
        RunSpec(**on_canvas() | fields)


def test_specs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec(data=WIDE).seed = 3


def test_paper_shaped_schedules():
    """On MNIST-Scale only the scales' own schedule is another one (released code)."""
    assert TrainingSpec.paper_shaped(60) == TrainingSpec()
    short = TrainingSpec.paper_shaped(9, 64)
    assert (short.milestones, short.scale_warmup_epochs, short.batch_size) == ((3.0, 6.0), 0.75, 64)
    full, of_canvas = TrainingSpec.paper_shaped(dataset="mnist_scale").model_dump(), TrainingSpec().model_dump()
    changed = {name: value for name, value in full.items() if value != of_canvas[name]}
    assert changed == {"scale_learning_rate": 0.005, "scale_decay": 0.1, "scale_warmup_epochs": 10.0}
    short = TrainingSpec.paper_shaped(6, 32, "mnist_scale")
    assert (short.milestones, short.scale_warmup_epochs, short.scale_learning_rate) == ((2.0, 4.0), 1.0, 0.005)


def test_a_system_needs_no_scales_field():
    given = RunSpec(model="cnn", scales=None, data=MnistScaleSpec())
    assert RunSpec(model="cnn", data=MnistScaleSpec()) == given == RunSpec.model_validate_json(given.model_dump_json())
    assert RunSpec(data=WIDE).scales == ScalesSpec()


def test_labels_and_data_sets():
    spec = RunSpec.baseline("sesn", 3, MnistScaleSpec(augmented=True))
    assert (spec.label, spec.dataset) == ("MNIST-Scale+, sesn, seed 3", "mnist_scale")
    assert RunSpec.baseline("sesn", 3).label == "MNIST-Scale, sesn, seed 3"
    spec = RunSpec(data=WIDE)
    assert (spec.label, spec.dataset) == ("log-uniform [1, 8], fixed sigma 2 ISR 3, seed 0", "dynamic_scale_mnist")


def test_models_are_the_systems_and_table_1():
    assert get_args(RunSpec.model_fields["model"].annotation) == ("table1", *SYSTEMS)


@pytest.mark.parametrize(
    ("changes", "is_paper_size"),
    [
        ({"seed": 5}, True),
        ({"data": {"augmented": True}}, True),
        ({"data": {"equivariance_images": 0}}, True),
        ({"data": {"train_images": 9_999}}, False),
        ({"data": {"validation_images": 1_999}}, False),
        ({"data": {"test_images": 49_999}}, False),
        ({"training": TrainingSpec.paper_shaped(59, dataset="mnist_scale")}, False),
        ({"training": TrainingSpec.paper_shaped()}, False),
        ({"precision": "float64"}, False),
        ({"precision": "tf32"}, False),
    ],
)
def test_paper_size_on_mnist_scale(changes, is_paper_size):
    changes = {**changes, "data": MnistScaleSpec(**changes.get("data", {}))}
    base = {"model": "sesn", "training": TrainingSpec.paper_shaped(dataset="mnist_scale")}
    assert RunSpec(**base | changes).is_paper_size is is_paper_size


@pytest.mark.parametrize(
    ("changes", "is_paper_size"),
    [
        ({"data": DataSpec(distribution=LogUniform(low=1, high=8), scale_test_images=10)}, True),
        ({"data": DataSpec(distribution=LogUniform(low=1, high=8), shrink=3)}, False),
        ({"order": "norm_relu"}, False),
        ({"scales": ScalesSpec(num_scales=4)}, False),
        ({"precision": "float64"}, False),
    ],
)
def test_paper_size_on_the_canvas(changes, is_paper_size):
    assert RunSpec(**{"data": WIDE, **changes}).is_paper_size is is_paper_size


def test_work_grows_with_what_costs():
    base = RunSpec(data=WIDE).work
    assert base == (60 * 35_000 + 50_000) * 168**2
    assert RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8), shrink=2)).work == base / 4
    shown = RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8), scale_test_images=10)).work
    assert shown == base + 450 * 168**2


def test_work_of_systems_grows_with_what_costs():
    base = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=0))
    train, evaluate = SYSTEMS["cnn"].cost
    per_millisecond = base.work / (60 * (10_000 * train + 2_000 * evaluate) + 50_000 * evaluate)
    shown = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=100))
    assert shown.work - base.work == pytest.approx(per_millisecond * 10 * 100 * evaluate)
    assert all(RunSpec.baseline(name).work > 1.3 * base.work for name in SYSTEMS if name != "cnn")
    assert (
        0.01 < base.work / RunSpec(data=WIDE).work < 1
    )  # one unit: a plain CNN on 56 x 56 pixels, Table 1 on 168 x 168


@pytest.mark.parametrize("module", ["spec", "record", "state", "device"])
def test_what_only_waits_for_runs_does_not_load_torch(module):
    """The data sets' own face is left out here, so that this tells of these modules alone."""
    code = (
        "import importlib.util, sys, types\n"
        "face = sys.modules['scalestudy.data'] = types.ModuleType('scalestudy.data')\n"
        "face.__path__ = importlib.util.find_spec('scalestudy').submodule_search_locations[0] + '/data',\n"
        f"import scalestudy.training.{module}\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
