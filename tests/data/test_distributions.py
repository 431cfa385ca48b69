"""Distributions of data scales: draws, densities, labels, JSON and messages."""

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from scalestudy import data
from scalestudy.data import Bimodal, LogNormal, LogUniform, ScaleDistribution, SingleScale

RANGES = [
    LogUniform(low=1, high=2.83),
    LogUniform(low=0.5, high=8),
    *(LogNormal(mean=mean, std=0.5, low=1, high=8) for mean in (1, -1, -2.4)),
]
ALL = [*RANGES, Bimodal(low=1, high=8, width=0.5), SingleScale(value=2)]


class Spec(BaseModel):
    distribution: ScaleDistribution


def test_every_public_name_leads_somewhere() -> None:
    for names in data._HOMES.values():
        assert all(getattr(data, name) is not None for name in names)
    with pytest.raises(AttributeError, match=r"scalestudy.data has no 'mnits'"):
        _ = data.mnits


@pytest.mark.parametrize("distribution", ALL, ids=lambda one: one.label)
def test_first_draws_do_not_depend_on_the_count(distribution: ScaleDistribution) -> None:
    many, few = (distribution.sample(count, np.random.default_rng(5)) for count in (1000, 10))
    assert (many.dtype, many.shape) == (np.float64, (1000,))
    assert np.array_equal(few, many[:10])


@pytest.mark.parametrize("distribution", RANGES, ids=lambda one: one.label)
def test_density_is_the_derivative_of_the_quantiles(distribution: ScaleDistribution) -> None:
    probability = np.linspace(0.0, 1.0, 2001)
    at = distribution.quantile(probability)
    assert (at[0], at[-1]) == pytest.approx((distribution.low, distribution.high))
    assert (np.diff(at) > 0).all()
    middle = np.log2(distribution.quantile((probability[1:] + probability[:-1]) / 2))
    slope = np.diff(probability) / np.diff(np.log2(at))
    assert np.allclose(distribution.log2_density(middle)[20:-20], slope[20:-20], rtol=1e-3)
    outside = np.log2([distribution.low * 0.99, distribution.high * 1.01])
    assert distribution.log2_density(outside).tolist() == [0, 0]


def test_log_uniform_is_flat_per_octave_and_log_normal_has_its_moments() -> None:
    assert np.allclose(LogUniform(low=1, high=8).log2_density(np.linspace(0.1, 2.9, 9)), 1 / 3)
    octaves = np.log2(LogNormal(mean=2, std=0.5, low=0.25, high=64).sample(20_000, np.random.default_rng(0)))
    assert (octaves.mean(), octaves.std()) == pytest.approx((2, 0.5), abs=0.02)


def test_bimodal_is_flat_on_both_ends_and_has_nothing_between() -> None:
    distribution = Bimodal(low=1, high=8, width=0.5)
    octaves = np.log2(distribution.sample(4000, np.random.default_rng(0)))
    low, high = octaves[octaves < 1.5], octaves[octaves > 1.5]
    assert (low.min(), low.max(), high.min(), high.max()) == pytest.approx((0, 0.5, 2.5, 3), abs=0.01)
    assert (low.mean(), high.mean(), len(low) / 4000) == pytest.approx((0.25, 2.75, 0.5), abs=0.02)
    assert distribution.log2_density(np.array([-0.1, 0.1, 0.6, 2.4, 2.9, 3.1])).tolist() == [0, 1, 0, 0, 1, 0]


def test_far_tail_and_single_scale_stay_exact() -> None:
    draws = LogNormal(mean=0, std=0.5, low=6.5, high=8).sample(1000, np.random.default_rng(0))
    assert len(np.unique(draws)) == 1000
    assert 6.5 <= draws.min() < draws.max() <= 8
    assert set(SingleScale(value=2.5).sample(100, np.random.default_rng(0))) == {2.5}


def test_labels_and_json() -> None:
    labels = {
        "log-uniform [1, 2.83]": '{"low":1.0,"high":2.83,"kind":"log-uniform"}',
        "log-normal (-1, 0.5) [1, 8]": '{"low":1.0,"high":8.0,"mean":-1.0,"std":0.5,"kind":"log-normal"}',
        "bimodal (0.5) [1, 8]": '{"low":1.0,"high":8.0,"width":0.5,"kind":"bimodal"}',
        "single scale 2": '{"value":2.0,"kind":"single"}',
    }
    for label, text in labels.items():
        distribution = Spec.model_validate_json(f'{{"distribution": {text}}}').distribution
        assert (distribution.label, distribution.model_dump_json()) == (label, text)
        assert distribution in ALL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "gauss", "low": 1, "high": 2}, "(?s)'gauss'.*'log-uniform', 'log-normal', 'bimodal', 'single'"),
        ({"low": 1, "high": 2}, "(?s)kind"),
        ({"kind": "log-uniform", "low": 2, "high": 1}, "low must be smaller than high, got low 2 and high 1; swap"),
        ({"kind": "log-uniform", "low": 1, "high": 1}, 'use the kind "single" for one value'),
        ({"kind": "log-uniform", "low": 0, "high": 1}, "(?s)low.*greater than 0.*input_value=0"),
        ({"kind": "log-uniform", "low": 1, "high": np.inf}, "(?s)high.*finite number.*inf"),
        ({"kind": "log-uniform", "low": 1, "high": 2, "hihg": 3}, "(?s)hihg.*not permitted.*3"),
        ({"kind": "log-uniform", "low": 1}, "(?s)high.*required"),
        ({"kind": "log-normal", "low": 1, "high": 4, "mean": 1, "std": 0}, "(?s)std.*greater than 0"),
        ({"kind": "log-normal", "low": 3, "high": 4, "mean": 0, "std": 0.1}, "must keep more than 1e-09 of .*widen"),
        ({"kind": "single", "value": -1}, "(?s)value.*greater than 0.*input_value=-1"),
    ],
)
def test_bad_fields_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate({"distribution": fields})
