"""Internal scale tolerance model: densities, divergence, fit."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from scalestudy.tolerance import (
    FIG2_GRID,
    FIG2_ISR,
    FIG2_NUM_SCALES,
    FIG2_RANGE,
    FIG2_START,
    JOINT_GRID,
    ToleranceGrid,
    data_density,
    fit_tolerance,
    kl_divergence,
    model_scales,
    tolerance_components,
    tolerance_density,
)

COARSE = ToleranceGrid(points=1_000)


@pytest.fixture(scope="module")
def joint():
    return fit_tolerance()


def test_scales_are_geometric_from_the_reference():
    np.testing.assert_allclose(model_scales(1.5, 2.0, 4), 1.5 * 2.0 ** (np.arange(4) / 3))
    np.testing.assert_allclose(model_scales(1.5, 2.0, 1), [1.5])


def test_density_sums_to_one_and_components_peak_at_one():
    components = tolerance_components(1.0, 3.0, 0.4, 3)
    assert components.shape == (3, 10_000)
    np.testing.assert_allclose(components.max(axis=1), 1.0)
    assert tolerance_density(1.0, 3.0, 0.4, 3).sum() == pytest.approx(1.0, abs=1e-12)


def test_single_component_is_a_gaussian_in_octaves():
    grid = ToleranceGrid(0.5, 2.0, 3)  # -1, 0, 1 octaves
    expected = np.exp(np.array([-1.0, 0.0, -1.0]) / (2 * 0.5**2))
    np.testing.assert_allclose(tolerance_density(1.0, 2.0, 0.5, 1, grid), expected / expected.sum())


def test_centre_far_outside_the_grid_still_has_weight():
    density = tolerance_density(1.0, 1e12, 0.1, 2)
    assert np.isfinite(density).all() and density[-1] > 1e-3


def test_underflow_in_the_model_counts_as_zero():
    model = tolerance_density(1.0, 2.0, 0.01, 1)
    assert (model == 0).any()
    assert np.isfinite(kl_divergence(model, data_density(1.0, 8.0)))


def test_data_is_flat_inside_and_half_normal_outside():
    grid = ToleranceGrid(0.25, 16.0, 6_001)  # -2 .. 4 octaves, step 0.001
    density = data_density(1.0, 4.0, grid)
    at = {octave: density[round((octave + 2) * 1000)] for octave in (-0.4, 0.0, 1.0, 2.0, 2.8)}
    assert at[0.0] == pytest.approx(at[1.0]) == pytest.approx(at[2.0])
    assert at[-0.4] / at[1.0] == pytest.approx(np.exp(-0.5))
    assert at[2.8] / at[1.0] == pytest.approx(np.exp(-2.0))
    assert density.sum() == pytest.approx(1.0)


def test_kl_is_zero_for_equal_densities_and_directed():
    first, second = data_density(1.0, 2.0, COARSE), data_density(1.0, 8.0, COARSE)
    assert kl_divergence(first, first) == pytest.approx(0.0, abs=1e-14)
    assert kl_divergence(first, second) > 0
    assert kl_divergence(first, second) != pytest.approx(kl_divergence(second, first), rel=0.01)
    assert kl_divergence(3 * first, second) == pytest.approx(kl_divergence(first, second))


def test_kl_handles_zeros_on_either_side():
    assert kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == pytest.approx(-np.log(2) + 50 * np.log(10))


def test_joint_fit_gives_the_printed_tau(joint):
    assert joint.tau == pytest.approx(0.459, abs=5e-4)
    assert joint.converged
    assert joint.objective == pytest.approx(sum(joint.divergences))
    assert joint.objective < joint.objective_at_start
    assert list(joint.isrs) == sorted(joint.isrs)


@pytest.mark.parametrize("start", [(2.0, 3.0, 0.3), (0.6, 6.0, 0.8), (1.5, 1.5, 1.5)])
def test_other_starts_find_the_same_optimum(joint, start):
    other = fit_tolerance(start=start)
    np.testing.assert_allclose(other.reference_scales, joint.reference_scales, atol=1e-4)
    np.testing.assert_allclose(other.isrs, joint.isrs, atol=1e-4)
    assert other.tau == pytest.approx(joint.tau, abs=1e-4)


def test_scipy_default_tolerances_end_at_the_same_printed_digits(joint):
    data = [data_density(low, high) for low, high in joint.ranges]

    def objective(x):
        return sum(kl_divergence(tolerance_density(x[i], x[3 + i], x[6], 3), data[i]) for i in range(3))

    bounds = [(0.5, None)] * 3 + [(1.5, None)] * 3 + [(0.1, None)]
    result = minimize(objective, [1, 1, 1, 2, 2, 2, 0.1], method="Nelder-Mead", bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x, [*joint.reference_scales, *joint.isrs, joint.tau], rtol=1e-4)


def test_optimum_is_a_minimum_in_every_direction(joint):
    data = [data_density(low, high) for low, high in joint.ranges]
    best = np.array([*joint.reference_scales, *joint.isrs, joint.tau])

    def objective(x):
        return sum(kl_divergence(tolerance_density(x[i], x[3 + i], x[6], 3), data[i]) for i in range(3))

    for i in range(7):
        for step in (-1e-3, 1e-3):
            moved = best.copy()
            moved[i] += step
            assert objective(moved) > joint.objective


def test_fig2_keeps_its_isr():
    fit = fit_tolerance([FIG2_RANGE], FIG2_NUM_SCALES, FIG2_ISR, FIG2_START, FIG2_GRID)
    assert fit.isrs == (2.0,) and len(fit.internal_scales[0]) == 4
    assert fit.internal_scales[0][-1] / fit.internal_scales[0][0] == pytest.approx(2.0)
    other = fit_tolerance([FIG2_RANGE], FIG2_NUM_SCALES, FIG2_ISR, (0.6, 2.0, 1.5), FIG2_GRID)
    np.testing.assert_allclose(other.reference_scales, fit.reference_scales, atol=1e-4)
    assert other.tau == pytest.approx(fit.tau, abs=1e-4)


def test_single_scale_has_no_isr():
    fit = fit_tolerance([(1.0, 2.0)], num_scales=1, grid=COARSE)
    assert np.isnan(fit.isrs[0]) and len(fit.internal_scales[0]) == 1 and fit.dips == (0.0,)


def test_dips_grow_with_the_width(joint):
    narrow, middle, wide = joint.dips
    assert 0.0 <= narrow <= middle < wide < 1.0


def test_dip_of_two_separate_scales_is_analytic():
    fit = dataclasses.replace(
        fit_tolerance([(1.0, 4.0)], num_scales=2, grid=COARSE), reference_scales=(1.0,), isrs=(4.0,), tau=0.3
    )
    side = np.exp(-(2.0**2) / (2 * 0.3**2))
    expected = 1 - 2 * np.exp(-1 / (2 * 0.3**2)) / (1 + side)
    assert fit.dips[0] == pytest.approx(expected, rel=1e-2)


def test_frame_has_a_row_per_distribution(joint):
    frame = joint.as_frame()
    assert frame["distribution"].tolist() == ["log-uniform [1, 2.83]", "log-uniform [1, 4.76]", "log-uniform [1, 8]"]
    np.testing.assert_allclose(frame["scale_3"] / frame["scale_1"], frame["isr"])
    assert frame["kl"].sum() == pytest.approx(joint.objective)


def test_grid_is_equidistant_in_octaves():
    assert JOINT_GRID.octaves.shape == (10_000,)
    assert JOINT_GRID.octaves[0] == -1 and JOINT_GRID.data_scales[-1] == pytest.approx(17.0)
    assert np.ptp(np.diff(JOINT_GRID.octaves)) < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tolerance_density(0.0, 2.0, 0.1, 3), r"reference_scale=0\.0 .*> 0"),
        (lambda: tolerance_density(1.0, 1.0, 0.1, 3), r"isr=1\.0 .*> 1"),
        (lambda: tolerance_density(1.0, float("nan"), 0.1, 3), "isr=nan"),
        (lambda: tolerance_density(1.0, 2.0, 0.0, 3), r"tau=0\.0 .*octaves"),
        (lambda: tolerance_density(1.0, 2.0, 0.1, 0), "num_scales=0 .*>= 1"),
        (lambda: data_density(2.0, 1.0), r"\(2\.0, 1\.0\) is empty, reversed"),
        (lambda: data_density(1.0, 1.0), "is empty"),
        (lambda: data_density(0.0, 1.0), "not positive"),
        (lambda: data_density(20.0, 30.0), "lies beyond the grid.*widen"),
        (lambda: data_density(1.0, 2.0, tail=0.0), r"tail=0\.0"),
        (lambda: ToleranceGrid(2.0, 1.0), "grid limits"),
        (lambda: ToleranceGrid(points=1), "points=1 is too small"),
        (lambda: kl_divergence(np.ones(2), np.ones(3)), "same grid"),
        (lambda: kl_divergence(np.zeros(2), np.ones(2)), "model is no density"),
        (lambda: kl_divergence(np.ones(2), np.array([-1.0, 2.0])), "data is no density"),
        (lambda: fit_tolerance([]), "ranges=.* is empty"),
        (lambda: fit_tolerance([(3.0, 1.0)]), "reversed"),
        (lambda: fit_tolerance(num_scales=0), "num_scales=0"),
        (lambda: fit_tolerance(fixed_isr=1.0), r"fixed_isr=1\.0 .*None to fit"),
        (lambda: fit_tolerance(start=(1.0, 2.0, 0.0)), "start=.*tau >= 0.1"),
        (lambda: fit_tolerance(start=(1.0, 1.2, 0.1)), "start=.*ISR >= 1.5"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
