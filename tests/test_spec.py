"""Run specs: keys that never change by accident, and fields that are refused with the reason."""

import pytest
from pydantic import ValidationError

from scalestudy.data.distributions import LogUniform
from scalestudy.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec

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
}
"""A change of these keys orphans every stored record.  A new field takes a value that leaves them unchanged."""


@pytest.mark.parametrize("key", PINNED)
def test_pinned_keys(key):
    assert PINNED[key].key == key


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sead": 1}, r"(?s)sead\n.*Extra inputs are not permitted .*input_value=1"),
        ({"seed": -1}, r"(?s)seed\n.*greater than or equal to 0 .*input_value=-1"),
        ({"model": "table9"}, r"(?s)model\n.*should be 'table1' .*input_value='table9'"),
        ({"recipe": 2}, r"(?s)recipe\n.*should be 1 .*input_value=2"),
        ({"precision": "half"}, r"(?s)precision\n.*'float32' or 'float64' .*input_value='half'"),
        ({"scales": {"isr": 1.0}}, r"(?s)scales.isr\n.*greater than 1 .*input_value=1.0"),
        ({"scales": {"sigma_basis": float("nan")}}, r"(?s)scales.sigma_basis\n.*finite number .*input_value=nan"),
        (
            {"scales": {"parameterisation": "ISR"}},
            r"(?s)parameterisation\n.*'fixed', 'isr', 'step_ratio'.*input_value='ISR'",
        ),
        ({"data": {"distribution": WIDE, "shrink": 4}}, r"(?s)data.shrink\n.*1, 2 or 3 .*input_value=4"),
        (
            {"data": {"distribution": WIDE, "train_images": 10_001}},
            r"(?s)data.train_images\n.*less than or equal to 10000",
        ),
        (
            {"data": {"distribution": WIDE, "test_images": 5, "scale_test_images": 6}},
            "scale_test_images must be at most test_images = 5, got 6",
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
