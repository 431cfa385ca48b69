"""Internal scale tolerance model: densities, divergence, fit."""

import dataclasses
import json

import numpy as np
import pytest
from reference_files import reference_file
from scipy.optimize import minimize

from scalestudy import tolerance
from scalestudy.paper.reported import RANGES
from scalestudy.tolerance import ToleranceGrid, data_density, fit_tolerance, kl_divergence, tolerance_density

COARSE = ToleranceGrid(points=1_000)


@pytest.fixture(scope="module")
def joint():
    return fit_tolerance(RANGES)


def parameters(fit):
    return np.array([*fit.reference_scales, *fit.isrs, fit.tau])


@pytest.fixture(scope="module")
def objective(joint):
    """The sum of the three divergences, written out."""
    data = [data_density(low, high) for low, high in joint.ranges]
    return lambda x: sum(kl_divergence(tolerance_density(x[i], x[3 + i], x[6], 3), data[i]) for i in range(3))


def test_components_are_gaussians_in_octaves_around_geometric_centres():
    np.testing.assert_allclose(tolerance.model_scales(1.5, 2.0, 4), 1.5 * 2.0 ** (np.arange(4) / 3))
    grid = ToleranceGrid(0.5, 2.0, 3)  # -1, 0, 1 octaves
    assert grid.octaves.tolist() == [-1, 0, 1] and grid.data_scales.tolist() == [0.5, 1, 2]
    lower, upper = tolerance.tolerance_components(1.0, 2.0, 0.5, 2, grid)
    np.testing.assert_allclose(lower, np.exp(np.array([-1.0, 0.0, -1.0]) / (2 * 0.5**2)))
    np.testing.assert_allclose(upper, np.exp(np.array([-4.0, -1.0, 0.0]) / (2 * 0.5**2)))
    np.testing.assert_allclose(tolerance_density(1.0, 2.0, 0.5, 2, grid), (lower + upper) / (lower + upper).sum())
    far = tolerance_density(1.0, 1e12, 0.1, 2)  # a centre far outside the grid still has weight
    assert np.isfinite(far).all() and far[-1] > 1e-3


def test_data_is_flat_inside_and_half_normal_outside():
    density = data_density(1.0, 4.0, ToleranceGrid(0.25, 16.0, 6_001))  # -2 .. 4 octaves, step 0.001
    at = {octave: density[round((octave + 2) * 1000)] for octave in (-0.4, 0.0, 1.0, 2.0, 2.8)}
    assert at[0.0] == pytest.approx(at[1.0]) == pytest.approx(at[2.0])
    assert at[-0.4] / at[1.0] == pytest.approx(np.exp(-0.5))
    assert at[2.8] / at[1.0] == pytest.approx(np.exp(-2.0))
    assert density.sum() == pytest.approx(1.0)


def test_kl_is_zero_for_equal_densities_directed_and_handles_zeros():
    first, second = data_density(1.0, 2.0, COARSE), data_density(1.0, 8.0, COARSE)
    assert kl_divergence(first, first) == pytest.approx(0.0, abs=1e-14)
    assert kl_divergence(3 * first, second) == pytest.approx(kl_divergence(first, second))
    assert kl_divergence(first, second) != pytest.approx(kl_divergence(second, first), rel=0.01)
    assert kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == pytest.approx(-np.log(2) + 50 * np.log(10))


def test_joint_fit_gives_the_printed_tau_at_a_minimum_in_every_direction(joint, objective):
    authors = json.loads(reference_file("tolerance.json").read_text())
    assert joint.tau == pytest.approx(authors["tau"], abs=5e-4)
    assert round(joint.tau, 3) == 0.459
    assert joint.objective_at_start == pytest.approx(authors["objective_at_start"], rel=1e-6)
    assert joint.converged
    assert joint.objective == pytest.approx(objective(parameters(joint)))
    assert joint.objective_at_start == pytest.approx(objective([1, 1, 1, 2, 2, 2, 0.1]))
    for moved in 1e-3 * np.concatenate([np.eye(7), -np.eye(7)]):
        assert objective(parameters(joint) + moved) > joint.objective


@pytest.mark.parametrize("start", [(2.0, 3.0, 0.3), (0.6, 6.0, 0.8), (1.5, 1.5, 1.5)])
def test_other_starts_find_the_same_optimum(joint, start):
    np.testing.assert_allclose(parameters(fit_tolerance(RANGES, start=start)), parameters(joint), atol=1e-4)


def test_scipy_default_tolerances_end_at_the_same_printed_digits(joint, objective):
    bounds = [(0.5, None)] * 3 + [(1.5, None)] * 3 + [(0.1, None)]
    result = minimize(objective, [1, 1, 1, 2, 2, 2, 0.1], method="Nelder-Mead", bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x, parameters(joint), rtol=1e-4)


def test_fig2_keeps_its_isr():
    settings, starts = ([(0.6, 2.0)], 4, 2.0), ((1.25, 2.0, 0.1), (0.6, 2.0, 1.5))
    fit, other = (fit_tolerance(*settings, start, tolerance.FIG2_GRID) for start in starts)
    assert fit.isrs == (2.0,) and len(fit.internal_scales[0]) == 4
    assert fit.internal_scales[0][-1] / fit.internal_scales[0][0] == pytest.approx(2.0)
    np.testing.assert_allclose(parameters(other), parameters(fit), atol=1e-4)


def test_dips_grow_with_the_width_and_are_analytic_between_separate_scales(joint):
    narrow, middle, wide = joint.dips
    assert 0.0 <= narrow <= middle < wide < 1.0
    fit = fit_tolerance([(1.0, 4.0)], num_scales=2, grid=COARSE)
    fit = dataclasses.replace(fit, reference_scales=(1.0,), isrs=(4.0,), tau=0.3)
    expected = 1 - 2 * np.exp(-1 / (2 * 0.3**2)) / (1 + np.exp(-(2.0**2) / (2 * 0.3**2)))
    assert fit.dips[0] == pytest.approx(expected, rel=1e-2)


def test_frame_has_a_row_per_distribution(joint):
    frame = joint.as_frame()
    assert frame["distribution"].tolist() == ["log-uniform [1, 2.83]", "log-uniform [1, 4.76]", "log-uniform [1, 8]"]
    assert (frame["low"].tolist(), frame["high"].tolist()) == ([1, 1, 1], [2.83, 4.76, 8])
    np.testing.assert_allclose(frame["scale_3"] / frame["scale_1"], frame["isr"])
    assert frame["kl"].sum() == pytest.approx(joint.objective)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranges": []}, r"ranges must hold at least one \(low, high\), got none"),
        ({"ranges": [(3.0, 1.0)]}, r"ranges must be .* low < high .*got \(3.0, 1.0\); swap"),
        ({"ranges": [(0.0, 1.0)]}, r"in the grid \[0.5, 17\], got \(0.0, 1.0\); .*widen"),
        ({"num_scales": 1}, "num_scales must be at least 2, got 1; the paper has 3 or 4"),
        ({"fixed_isr": 1.0}, "fixed_isr must be greater than 1, got 1.0; leave it out to fit"),
        ({"start": (1.0, 2.0, 0.0)}, r"start must be .* from \(0.5, 1.5, 0.1\) on, got \(1.0, 2.0, 0.0\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_tolerance(**{"ranges": RANGES} | arguments)
