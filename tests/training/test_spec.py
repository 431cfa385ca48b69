"""Run specs: keys that never change by accident, and fields that are refused with the reason."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from scalestudy.data.distributions import LogUniform
from scalestudy.models.systems import SYSTEMS
from scalestudy.training.spec import DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec

WIDE = DataSpec(distribution=LogUniform(low=1, high=8), scale_test_images=10)

SMALL = {"train_images": 1500, "validation_images": 500, "test_images": 1000, "shrink": 3}
UNUSUAL = {"order": "norm_relu", "precision": "float64"}
UNUSUAL["scales"] = ScalesSpec(parameterisation="isr", sigma_basis=4.0, isr=1.5)
PAPERS = DataSpec(distribution=LogUniform(low=1, high=8))
PINNED = {
    "e8220a9f552f7288": RunSpec(scales=ScalesSpec(parameterisation="step_ratio"), data=PAPERS),
    "7cf0772a85b546b8": RunSpec.baseline("sesn"),
    "fa77641382daa29d": RunSpec.baseline("ours_isr", 5, MnistScaleSpec(augmented=True)),
    "16403be4e237bcde": RunSpec(data=PAPERS.model_copy(update=SMALL), training=TrainingSpec.paper_shaped(9, 64)),
    "c8b1a985b4b0b5fd": RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=2.83)), **UNUSUAL),
}
"""A change of these keys orphans every stored record.  A new field goes into `_later`."""


@pytest.mark.parametrize("key", PINNED)
def test_pinned_keys(key):
    assert PINNED[key].key == key


class LaterTraining(TrainingSpec):
    _later = TrainingSpec._later | {"momentum"}
    momentum: float = 0.9


class LaterRun(RunSpec):
    training: LaterTraining = LaterTraining()


@pytest.mark.parametrize("key", PINNED)
def test_a_field_that_comes_later_leaves_keys_alone(key):
    """And it counts, is written and comes back where it is not at its default."""
    fields = PINNED[key].model_dump()
    assert LaterRun.model_validate(fields).model_dump_json() == PINNED[key].model_dump_json()
    changed = LaterRun.model_validate({**fields, "training": {**fields["training"], "momentum": 0.5}})
    assert LaterRun.model_validate(fields).key == key != changed.key
    assert LaterRun.model_validate_json(changed.model_dump_json()) == changed


def test_key_does_not_depend_on_how_numbers_are_written():
    data = DataSpec(distribution=LogUniform(low=1, high="8e0"), scale_test_images="10")
    assert RunSpec(scales=ScalesSpec(sigma_basis=2, isr="3"), data=data).key == RunSpec(data=WIDE).key


OF_EVERY = {
    "seed": 1, "precision": "float64", "training.epochs": 9, "training.batch_size": 8, "training.learning_rate": 0.1,
    "training.decay": 0.2, "training.scale_learning_rate": 0.2, "training.scale_decay": 0.2,
    "training.scale_warmup_epochs": 1.0, "training.milestones": (1.0,), "data.train_images": 9_998,
    "data.validation_images": 1_999, "data.test_images": 49_999,
}  # fmt: skip
OF_TABLE1 = OF_EVERY | {
    "order": "norm_relu", "scales.parameterisation": "isr", "scales.sigma_basis": 1.0, "scales.isr": 2.0,
    "scales.num_scales": 4, "data.distribution.low": 2.0, "data.distribution.high": 7.0, "data.scale_test_images": 9,
    "data.shrink": 2,
}  # fmt: skip
ADDED = {  # not written at their defaults
    "data.images": "fashion_mnist", "data.equivariance_images": 9, "training.held_out": 0.2, "training.scales_until": 9,
    "training.drop_below": 0.01,
}  # fmt: skip
OF_A_SYSTEM = OF_EVERY | {"model": "dss", "data.augmented": True, "data.equivariance_images": 999}


def changed(spec, changes):
    """The spec with other values, by dotted path."""
    content = spec.model_dump()
    for path, value in changes.items():
        inner = content
        *above, name = path.split(".")
        for part in above:
            inner = inner[part]
        inner[name] = value
    return RunSpec.model_validate(content)


def leaves(content, path=""):
    for name, value in content.items():
        yield from leaves(value, f"{path}{name}.") if isinstance(value, dict) else [f"{path}{name}"]


@pytest.mark.parametrize(
    ("base", "changes", "added", "fixed"),
    [
        (RunSpec(data=WIDE), OF_TABLE1, ADDED, {"recipe", "model", "data.distribution.kind"}),
        (RunSpec.baseline("cnn"), OF_A_SYSTEM, {}, {"recipe", "order", "scales", "data.dataset"}),
    ],
    ids=["table1", "system"],
)
def test_every_field_changes_the_key(base, changes, added, fixed):
    assert {*leaves(base.model_dump())} == {*changes} | fixed
    changes = {**changes, **added}
    assert len({base.key, *(changed(base, {name: changes[name]}).key for name in changes)}) == 1 + len(changes)


def on_mnist_scale(**data):
    return {"model": "sesn", "data": {"dataset": "mnist_scale", **data}}


def on_canvas(**data):
    return {"data": {"distribution": {"kind": "log-uniform", "low": 1, "high": 8}, **data}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sead": 1}, r"(?s)sead\n.*Extra inputs are not permitted .*input_value=1"),
        ({"model": "table9"}, "model must be one of table1, cnn, .*, got 'table9'; .* SCALESTUDY_IMPORT"),
        ({"scales": {"sigma_basis": float("nan")}}, r"(?s)scales.sigma_basis\n.*finite number .*input_value=nan"),
        (on_canvas(shrink=4), r"(?s)data.dynamic_scale_mnist.shrink\n.*1, 2 or 3 .*input_value=4"),
        (on_canvas(test_images=5, scale_test_images=6), "scale_test_images .* most test_images = 5, got 6; lower"),
        ({"model": "cnn"}, "data must be of mnist_scale for the model 'cnn', got dynamic_scale_mnist; 'table1' is for"),
        (on_mnist_scale() | {"model": "table1"}, "data must be of dynamic_scale_mnist .* got mnist_scale; .* cnn, sic"),
        ({"scales": None}, "scales must be given for the model 'table1', got None; leave it out"),
        (on_mnist_scale() | {"scales": {}}, "scales must be None .* the model 'sesn', .* got ScalesSpec.*; leave both"),
        (on_mnist_scale() | {"order": "norm_relu"}, "order 'relu_norm' .* got None and 'norm_relu'; leave both out"),
        (on_mnist_scale() | {"training": {"held_out": 0.1}}, r"held_out must be left out for .* 'sesn', .*0\.1"),
        (
            on_canvas() | {"training": {"slopes_at": [1]}},
            "slopes_at must go with the parameterisation 'log' and held_o",
        ),
        (
            on_canvas() | {"scales": {"num_scales": 1, "parameterisation": "isr"}},
            "fixed or direct for one .*, got 'isr'",
        ),
        (on_mnist_scale() | {"seed": 6}, r"realisation of MNIST-Scale, 0 \.\. 5, for the model 'sesn', got 6"),
        (on_mnist_scale(test_images=5, equivariance_images=6), "equivariance_images .* most test_images = 5, got 6"),
        (on_mnist_scale(train_images=129), "not leave a last batch of one image, .* got 128 with 129 train_images"),
    ],
)
def test_refused_fields(fields, message):
    with pytest.raises(ValidationError, match=message):
        RunSpec(**on_canvas() | fields)


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


def test_a_system_needs_no_scales_field_and_labels():
    given = RunSpec(model="cnn", scales=None, data=MnistScaleSpec())
    assert RunSpec(model="cnn", data=MnistScaleSpec()) == given == RunSpec.model_validate_json(given.model_dump_json())
    spec = RunSpec.baseline("sesn", 3, MnistScaleSpec(augmented=True))
    assert (spec.label, spec.dataset) == ("MNIST-Scale+, sesn, seed 3", "mnist_scale")
    spec = RunSpec(data=WIDE)
    assert (spec.label, spec.dataset) == ("log-uniform [1, 8], fixed sigma 2 ISR 3, seed 0", "dynamic_scale_mnist")
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (RunSpec(data=WIDE), {"data.shrink": 3}),
        (RunSpec(data=WIDE), {"order": "norm_relu"}),
        (RunSpec(data=WIDE), {"scales.num_scales": 4}),
        (RunSpec(data=WIDE), {"training.epochs": 59}),
        (RunSpec.baseline("sesn"), {"training": TrainingSpec.paper_shaped()}),
        *((RunSpec.baseline("sesn"), {f"data.{part}_images": 9}) for part in ("train", "validation")),
        (RunSpec.baseline("sesn"), {"data.test_images": 49_999}),
        *((RunSpec.baseline("sesn"), {"precision": precision}) for precision in ("tf32", "float64")),
    ],
)
def test_paper_size(base, changes):
    """Seed, augmentation and how many images the additional tests show do not matter; these do, one by one."""
    for neutral in ({"seed": 5}, {"data.augmented": True} if base.scales is None else {"data.scale_test_images": 9}):
        assert changed(base, neutral).is_paper_size
    assert changed(base, {"data.equivariance_images": 0} if base.scales is None else {}).is_paper_size
    assert not changed(base, changes).is_paper_size


def test_work_grows_with_what_costs():
    table1 = RunSpec(data=WIDE)
    assert table1.work == (60 * 35_000 + 50_000 + 450) * 168**2
    assert changed(table1, {"data.shrink": 2}).work == table1.work / 4
    base = RunSpec.baseline("cnn", data=MnistScaleSpec(equivariance_images=0))
    assert 0.01 < base.work / table1.work < 1  # one unit, though these images have 56 x 56 pixels
    train, evaluate = SYSTEMS["cnn"].cost
    per_millisecond = base.work / (60 * (10_000 * train + 2_000 * evaluate) + 50_000 * evaluate)
    shown = changed(base, {"data.equivariance_images": 100})
    assert shown.work - base.work == pytest.approx(per_millisecond * 10 * 100 * evaluate)
    assert all(RunSpec.baseline(name).work > 1.3 * base.work for name in SYSTEMS if name != "cnn")


@pytest.mark.parametrize("module", ["spec", "record", "state", "device"])
def test_what_only_waits_for_runs_does_not_load_torch(module):
    code = f"import sys, scalestudy.training.{module}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
