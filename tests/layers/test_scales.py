"""Internal scales: values, ranges, gradients, and messages for bad input."""

import copy
import itertools
import math
import pickle

import pytest
import torch

from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IntervalScales,
    IsrScales,
    LogScales,
    SpacingScales,
    StepRatioScales,
    log_spaced_scales,
)

LEARNED = [IsrScales, IntervalScales, LogScales, DirectScales, StepRatioScales, SpacingScales]


def gradient(scales: InternalScales, weights: list[float]) -> dict[str, list[float]]:
    (scales() * torch.tensor(weights)).sum().backward()
    return {name: parameter.grad.flatten().tolist() for name, parameter in scales.named_parameters()}


def test_log_spaced_scales_by_hand() -> None:
    assert log_spaced_scales(2, 9.0, 3) == pytest.approx((2, 6, 18))
    assert log_spaced_scales(1.5, 2.0, 4) == pytest.approx((1.5, 1.889882, 2.381102, 3))
    assert log_spaced_scales(2.5, 1, 1) == (2.5,)
    values = log_spaced_scales(1.3, 7.56, 6)
    ratios = [b / a for a, b in itertools.pairwise(values)]
    assert ratios == pytest.approx([7.56 ** (1 / 5)] * 5)


@pytest.mark.parametrize("start", [(2.0, 3.0, 3), (1.0, 1.5, 2), (1.5, 7.56, 5)], ids=str)
@pytest.mark.parametrize("kind", [FixedScales, *LEARNED])
def test_every_parameterisation_starts_at_the_same_scales(kind, start) -> None:
    scales, (_, isr, num_scales) = kind(*start), start
    assert scales().shape == (num_scales,) and scales.num_scales == num_scales
    assert scales.values() == pytest.approx(log_spaced_scales(*start), rel=1e-6)
    assert scales.isr == pytest.approx(isr, rel=1e-6)


def test_number_of_parameters() -> None:
    counts = [sum(part.numel() for part in kind(2.0, 3.0, 4).parameters()) for kind in (FixedScales, *LEARNED)]
    assert counts == [0, 2, 4, 2, 4, 2, 4]


def test_initial_gammas() -> None:
    """Eq. 5 as printed, and what the released code makes of it."""
    assert IsrScales(2.0, 3.0, 3).gamma.item() == pytest.approx(math.sqrt(2))
    for isr, gamma in ((1.5, 0.4741), (3, 0.8556), (6, 1.2039)):
        assert StepRatioScales(2.0, isr, 3).gamma.item() == pytest.approx(gamma, abs=5e-5)
    assert StepRatioScales(1.5, 2.0, 4).gamma.item() == pytest.approx(0.50982, abs=5e-6)
    assert SpacingScales(2.0, 3.0, 3).gamma.tolist() == pytest.approx([0.8556, 0.8556], abs=5e-5)


def test_formulas_away_from_the_start() -> None:
    for kind, gamma, expected in (
        (IsrScales, 2.0, [2, 2 * 5**0.5, 10]),
        (StepRatioScales, 2.0, [2, 10, 50]),
        (SpacingScales, [1.0, 2.0], [2, 4, 20]),
    ):
        scales = kind(2.0, 3.0, 3)
        scales.gamma.data = torch.tensor(gamma)
        assert scales.values() == pytest.approx(expected)


def test_gradients_by_hand() -> None:
    assert gradient(IsrScales(2.0, 5.0, 2), [0, 1]) == {
        "sigma_basis": pytest.approx([5.0]),
        "gamma": pytest.approx([2 * 2 * 2.0]),  # 2 sigma gamma, gamma = 2
    }
    found = gradient(StepRatioScales(2.0, 4.0, 3), [0, 0, 1])  # gamma = 1: s_2 = sigma (1 + gamma^2)^2
    assert found == {"sigma_basis": pytest.approx([4.0]), "gamma": pytest.approx([2 * 2 * 2 * 2.0])}
    found = gradient(SpacingScales(2.0, 4.0, 3), [0, 1, 0])
    assert found == {"sigma_basis": pytest.approx([2.0]), "gamma": pytest.approx([4.0, 0.0])}
    assert gradient(DirectScales(2.0, 4.0, 3), [1, 2, 3]) == {"sigmas": pytest.approx([1.0, 2.0, 3.0])}


def test_fixed_scales_from_values() -> None:
    scales = FixedScales.from_values([1.5, 1.89, 2.38, 3.0])
    assert (scales.values(), scales.num_scales, scales().dtype) == ([1.5, 1.89, 2.38, 3.0], 4, torch.float64)


@pytest.mark.parametrize("kind", [FixedScales, *LEARNED])
def test_state_dict_dtype_copy_and_pickle(kind) -> None:
    scales = kind(2.0, 3.0, 3)
    for parameter in scales.parameters():
        parameter.data += 0.1
    other = kind(1.0, 1.5, 3)
    other.load_state_dict(scales.state_dict())
    for same in (other, copy.deepcopy(scales), pickle.loads(pickle.dumps(scales))):
        assert same.values() == scales.values()
    assert scales.double().values() == pytest.approx(other.values(), rel=1e-6)
    assert scales().dtype == torch.float64
    assert "internal_scales=[" in repr(scales)


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_scales_have_no_values_on_meta(kind) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} have no values on meta and .*; give kernel_size"):
        kind(2.0, 3.0, 3).to("meta").values()


@pytest.mark.parametrize("kind", [log_spaced_scales, FixedScales, *LEARNED])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 1.0, 3), r"isr .* must be finite and > 1, got 1\.0; the paper uses 1\.5 to 7\.56"),
        ((2.0, math.nan, 3), r"isr .* got nan"),
        ((2.0, math.inf, 3), r"isr .* got inf"),
        ((0.0, 3.0, 3), r"sigma_basis must be finite and > 0 pixels, got 0\.0"),
        ((math.nan, 3.0, 3), "sigma_basis .* got nan"),
        ((2.0, 3.0, 0), "num_scales must be an integer >= 1, got 0"),
        ((2.0, 3.0, 3.0), r"num_scales must be an integer >= 1, got 3\.0"),
        ((2.0, 3.0, True), "num_scales must be an integer >= 1, got True"),
        ((2.0, 3.0, 1), r"isr must be 1 with num_scales=1, got 3\.0"),
    ],
)
def test_bad_values(kind, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*arguments)


@pytest.mark.parametrize("kind", [IsrScales, StepRatioScales, SpacingScales])
def test_one_scale_has_no_range_to_learn(kind) -> None:
    with pytest.raises(ValueError, match=r"num_scales must be >= 2 to learn a range.*use DirectScales"):
        kind(2.0, 1, 1)


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, math.nan], [-1.0]])
def test_bad_fixed_values(values) -> None:
    with pytest.raises(ValueError, match="values must be one or more finite sigmas > 0"):
        FixedScales.from_values(values)


def test_interval_scales_stay_in_their_intervals_and_in_order() -> None:
    """Intervals meet half-way between neighbours, on the logarithm."""
    scales = IntervalScales(1.5, 8.0, 4)
    assert scales.values() == pytest.approx([1.5, 3.0, 6.0, 12.0])
    for far, factor in ((-100.0, math.sqrt(0.5)), (100.0, math.sqrt(2.0))):
        scales.theta.data.fill_(far)
        assert scales.values() == pytest.approx([1.5 * factor, 3 * factor, 6 * factor, 12 * factor])
    scales.theta.data = torch.tensor([100.0, -100.0, 0.0, 0.0])
    assert scales.values()[0] == pytest.approx(scales.values()[1])
    assert scales.parameters_in_pixels() == []


def test_interval_scales_gradient_by_hand() -> None:
    """d s / d theta at the start is s ln(q) / 4."""
    expected = [sigma * math.log(2.0) / 4 for sigma in (1.0, 2.0, 4.0)]
    assert gradient(IntervalScales(1.0, 4.0, 3), [1, 1, 1]) == {"theta": pytest.approx(expected)}
