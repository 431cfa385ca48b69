"""Distributions of data scales: draws, densities, labels and messages."""

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from scalestudy.data import (
    Discrete,
    LogNormal,
    LogUniform,
    Normal,
    ScaleDistribution,
    Uniform,
    parse_distribution,
)

CONTINUOUS = [
    LogUniform(low=1, high=2.83),
    LogUniform(low=0.5, high=8),
    Uniform(low=0.3, high=1),
    Normal(mean=2, std=0.5, low=1, high=4),
    Normal(mean=1, std=0.5, low=3, high=4),
    LogNormal(mean=1, std=0.5, low=1, high=8),
    LogNormal(mean=-1, std=0.5, low=1, high=8),
]
DISCRETE = [Discrete(values=(1, 2, 4)), Discrete(values=(1, 2.5), probabilities=(0.25, 0.75))]
ALL = CONTINUOUS + DISCRETE


def _name(distribution: object) -> str:
    return distribution.label


@pytest.mark.parametrize("distribution", ALL, ids=_name)
def test_first_draws_do_not_depend_on_the_count(distribution: ScaleDistribution) -> None:
    many = distribution.sample(1000, np.random.default_rng(5))
    assert many.dtype == np.float64
    assert many.shape == (1000,)
    assert np.array_equal(distribution.sample(10, np.random.default_rng(5)), many[:10])
    assert not np.array_equal(distribution.sample(1000, np.random.default_rng(6)), many)


@pytest.mark.parametrize("distribution", CONTINUOUS, ids=_name)
def test_density_is_the_derivative_of_the_quantiles(distribution: ScaleDistribution) -> None:
    probability = np.linspace(0.0, 1.0, 2001)
    at = distribution.quantile(probability)
    assert at[0] == pytest.approx(distribution.low)
    assert at[-1] == pytest.approx(distribution.high)
    assert (np.diff(at) > 0).all()
    middle = distribution.quantile((probability[1:] + probability[:-1]) / 2)
    slope = np.diff(probability) / np.diff(at)
    assert np.allclose(distribution.pdf(middle)[20:-20], slope[20:-20], rtol=1e-3)


@pytest.mark.parametrize("distribution", CONTINUOUS, ids=_name)
def test_densities_integrate_to_one_and_vanish_outside(distribution: ScaleDistribution) -> None:
    grid = np.linspace(distribution.low, distribution.high, 20_001)
    assert np.trapezoid(distribution.pdf(grid), grid) == pytest.approx(1.0, abs=1e-6)
    octaves = np.linspace(np.log2(distribution.low) + 1e-12, np.log2(distribution.high) - 1e-12, 20_001)
    assert np.trapezoid(distribution.log2_density(octaves), octaves) == pytest.approx(1.0, abs=1e-6)
    assert not distribution.pdf(np.array([-1.0, 0.0, distribution.low * 0.99, distribution.high * 1.01])).any()


def test_log_uniform_is_flat_per_octave_and_uniform_is_not() -> None:
    octaves = np.linspace(0.1, 2.9, 9)
    assert np.allclose(LogUniform(low=1, high=8).log2_density(octaves), 1 / 3)
    assert np.ptp(Uniform(low=1, high=8).log2_density(octaves)) > 0.3


def test_moments_of_a_wide_normal() -> None:
    draws = Normal(mean=10, std=1, low=4, high=16).sample(20_000, np.random.default_rng(0))
    assert draws.mean() == pytest.approx(10, abs=0.03)
    assert draws.std() == pytest.approx(1, abs=0.03)
    octaves = np.log2(LogNormal(mean=2, std=0.5, low=0.25, high=64).sample(20_000, np.random.default_rng(0)))
    assert octaves.mean() == pytest.approx(2, abs=0.02)
    assert octaves.std() == pytest.approx(0.5, abs=0.02)


def test_far_tail_stays_exact() -> None:
    far = Normal(mean=1, std=0.5, low=3.9, high=4.5)
    draws = far.sample(1000, np.random.default_rng(0))
    assert len(np.unique(draws)) == 1000
    assert draws.min() >= 3.9
    assert draws.max() <= 4.5


def test_discrete_probabilities() -> None:
    draws = DISCRETE[1].sample(20_000, np.random.default_rng(0))
    assert set(draws) == {1.0, 2.5}
    assert (draws == 2.5).mean() == pytest.approx(0.75, abs=0.02)
    assert DISCRETE[1].pdf(np.array([1.0, 2.0, 2.5])).tolist() == [0.25, 0.0, 0.75]
    assert DISCRETE[0].log2_density(np.array([0.0, 0.5, 2.0])).tolist() == pytest.approx([1 / 3, 0.0, 1 / 3])
    assert DISCRETE[0].quantile(np.array([0.0, 0.999999])).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("distribution", "label"),
    [
        (LogUniform(low=1, high=2.83), "log-uniform [1, 2.83]"),
        (LogUniform(low=1, high=4.76), "log-uniform [1, 4.76]"),
        (LogUniform(low=1, high=8), "log-uniform [1, 8]"),
        (Uniform(low=0.3, high=1), "uniform [0.3, 1]"),
        (Normal(mean=2, std=0.5, low=1, high=4), "normal (2, 0.5) [1, 4]"),
        (LogNormal(mean=-1, std=0.5, low=1, high=8), "log-normal (-1, 0.5) [1, 8]"),
        (DISCRETE[0], "discrete {1, 2, 4}"),
        (DISCRETE[1], "discrete {1: 0.25, 2.5: 0.75}"),
    ],
)
def test_labels(distribution: ScaleDistribution, label: str) -> None:
    assert distribution.label == label


@pytest.mark.parametrize("distribution", ALL, ids=_name)
def test_every_form_is_read_back(distribution: ScaleDistribution) -> None:
    for form in (distribution, distribution.label, distribution.model_dump(), distribution.model_dump_json()):
        assert parse_distribution(form) == distribution


def test_a_field_of_a_model_tells_kinds_apart() -> None:
    class Spec(BaseModel):
        distribution: ScaleDistribution

    spec = Spec.model_validate({"distribution": {"kind": "uniform", "low": 1, "high": 2}})
    assert spec.distribution == Uniform(low=1, high=2)


def test_distributions_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CONTINUOUS[0].low = 2.0


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"kind": "gauss", "low": 1, "high": 2},
            "kind must be one of log-uniform, .*got 'gauss'; give a label such as",
        ),
        ({"low": 1, "high": 2}, "kind must be one of .*got None"),
        ("gauss [1, 2]", "kind must be one of .*got 'gauss'"),
        ("log-uniform 1 to 2", "description must be a label or JSON, got 'log-uniform 1 to 2'; give a label"),
        ("{not json", "description must be valid JSON, got '{not json'"),
        (3, "description must be a text or a dict, got 3"),
        ("log-uniform [2, 1]", "low must be smaller than high, got low 2 and high 1; swap"),
        ("uniform [1, 1]", "low must be smaller than high, got low 1 and high 1; swap .*discrete"),
        ("log-uniform [0, 1]", "low must be a data scale greater than 0, got 0.0; 1 leaves"),
        ("log-uniform [-2, -1]", "low must be a data scale greater than 0, got -2.0"),
        ("uniform [1, inf]", "(?s)high.*finite number.*inf"),
        ("uniform [nan, 1]", "(?s)low.*finite number.*nan"),
        ("uniform [one, 2]", "(?s)low.*valid number.*one"),
        ({"kind": "uniform", "low": 1, "high": 2, "hihg": 3}, "(?s)hihg.*not permitted.*3"),
        ({"kind": "uniform", "low": 1}, "(?s)high.*required"),
        ("uniform (1, 2) [1, 2]", "(?s)mean.*not permitted"),
        ("normal (2, 0) [1, 4]", 'std must be greater than 0, got 0.0; use the kind "discrete"'),
        ("normal (2, 0.01) [3, 4]", "low and high must keep more than 1e-09 of the normal .*widen"),
        ("discrete {}", "(?s)values"),
        ("discrete {2, 1}", r"values must be .*strictly increasing, got \(2.0, 1.0\); sort"),
        ("discrete {0, 1}", r"values must be at least one data scale greater than 0.*got \(0.0, 1.0\)"),
        ("discrete {1: 0.5, 2: 0.6}", r"probabilities must be 2 numbers .* sum to 1.*got \(0.5, 0.6\); leave"),
        ("discrete {1: 0.5, 2}", r"probabilities must be 2 numbers"),
        ("discrete {1: 1.5, 2: -0.5}", r"probabilities must be 2 numbers greater than 0"),
    ],
)
def test_bad_descriptions_are_refused(description: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_distribution(description)


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_count_is_checked(count: object) -> None:
    with pytest.raises(ValueError, match="count must be an integer of at least 0, got"):
        CONTINUOUS[0].sample(count, np.random.default_rng(0))
