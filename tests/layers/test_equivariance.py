"""Equivariance error: small for scale convolutions, falling with resolution, large for everything else."""

import functools

import pytest
import torch
from torch import Tensor, nn

from scalestudy.layers.basis import VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv
from scalestudy.layers.equivariance import (
    assert_equivariant,
    assert_invariant,
    enlarge,
    layer_equivariance_error,
    model_equivariance_error,
    smooth_images,
)
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, SpacingScales, StepRatioScales

IMAGES = functools.partial(smooth_images, 2, 128)
DOUBLE = functools.partial(smooth_images, 2, 128, dtype=torch.float64)


def lifting(scales=None, effective_size: int | None = 5, **options) -> LiftingConv:
    torch.manual_seed(0)
    return LiftingConv(1, 4, FixedScales(2.0, 3.0, 3) if scales is None else scales, effective_size, **options)


def log_slope(x: list[float], y: list[float]) -> float:
    """Least-squares slope of log y over log x."""
    u, v = torch.tensor([x, y], dtype=torch.float64).log()
    return (((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()).item()


def test_images_are_sums_of_blobs_on_the_pixel_grid() -> None:
    """One blob: a Gaussian of its sigma, magnified about the image centre."""
    blob = functools.partial(smooth_images, 1, 41, blobs=1, blob_sigmas=(3.0, 3.0), seed=4, dtype=torch.float64)
    image, small = blob(2.0)[0, 0], blob(1.0)[0, 0]
    torch.testing.assert_close(image[::2, ::2], small[10:31, 10:31])  # pixel 20 + 2 k shows what 20 + k showed
    curvature = small.abs().log().diff(n=2, dim=1)
    torch.testing.assert_close(curvature, torch.full_like(curvature, -1 / 9))


def test_images_depend_on_the_scene_only() -> None:
    state, one = torch.get_rng_state(), smooth_images(2, 30, seed=1, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), state)
    finer = smooth_images(2, 90, resolution=3.0, seed=1, dtype=torch.float64)  # pixel 3 k + 1 lies on pixel k
    torch.testing.assert_close(finer[..., 1::3, 1::3], one)
    assert torch.equal(smooth_images(2, 30, seed=1), one.float())
    assert not torch.equal(smooth_images(2, 30, seed=2, dtype=torch.float64), one)
    assert smooth_images(2, 30, channels=3).shape == (2, 3, 30, 30)


@pytest.mark.parametrize("factor", [0.8, 1.26, 1.7320508, 2.5])
def test_interpolation_error_is_out_of_sight(factor: float) -> None:
    """Responses are smoother than these images; bicubic interpolation would be a hundred times worse."""
    at = (torch.arange(128, dtype=torch.float64) - 63.5) / (64 * factor)
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).expand(2, -1, -1, -1)
    bicubic = nn.functional.grid_sample(DOUBLE(1.0), grid, "bicubic", align_corners=False)
    expected = DOUBLE(factor)[..., 24:-24, 24:-24]
    errors = [
        (found[..., 24:-24, 24:-24] - expected).norm() / expected.norm()
        for found in (enlarge(DOUBLE(1.0), factor), bicubic)
    ]
    assert errors[0] < 1e-6 and errors[1] > 1e-4


def test_shrinking_leaves_zero_outside() -> None:
    shrunk = enlarge(torch.ones(60, 80), 0.5)
    assert shrunk[30, 40] == pytest.approx(1.0, abs=1e-5)
    assert shrunk[0].abs().max() < 1e-2
    assert shrunk.sum() == pytest.approx(30 * 40, rel=1e-3)


@pytest.mark.parametrize("parameterisation", [FixedScales, IsrScales, StepRatioScales, SpacingScales, DirectScales])
def test_scale_convolutions_are_equivariant(parameterisation) -> None:
    """The layer of Table 1 at its initial scales: errors of about 1e-3 per pair."""
    conv = lifting(parameterisation(2.0, 3.0, 3))
    errors = layer_equivariance_error(conv, IMAGES)
    assert (errors.shape, errors.dtype) == ((2,), torch.float64) and errors.max() < 3e-3
    assert_equivariant(conv, IMAGES, tolerance=3e-3)


def test_a_diverged_layer_is_not_equivariant() -> None:
    conv = lifting(DirectScales(2.0, 3.0, 3))
    scales, margin = conv.scales.values(), conv.kernel_size() // 2
    conv.weight.data.fill_(torch.nan)
    with pytest.raises(AssertionError, match="changes by nan"):
        assert_equivariant(conv, IMAGES, scales, margin=margin)


def test_longer_kernels_leave_the_interpolation_error_only() -> None:
    """The rest is the cut at 4 sigmas, at another fraction of a pixel for each scale: 6 sigmas remove it."""
    images = functools.partial(DOUBLE, resolution=0.8)
    scales = FixedScales(1.5, 3.0, 3)
    cut = layer_equivariance_error(lifting(scales).double(), images)
    whole = layer_equivariance_error(lifting(scales, extent=6.0).double(), images)
    assert whole.max() < 3e-6
    assert (cut > 30 * whole).all()


def test_error_of_the_grid_falls_with_resolution() -> None:
    """One scene and one layer at rising resolution, uncut: the sampling error falls faster than any power."""
    sigmas, errors = [0.5, 0.6, 0.7, 0.8, 1.0], []
    for sigma in sigmas:
        conv = lifting(FixedScales.from_values([sigma, 1.5 * sigma]), 3, extent=7.0).double()
        images = functools.partial(
            smooth_images, 1, round(80 * sigma) + 24, resolution=sigma, blob_sigmas=(6.0, 10.0), dtype=torch.float64
        )
        errors.append(layer_equivariance_error(conv, images).item())
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] < 1e-5
    assert log_slope(sigmas, errors) < -8


@pytest.mark.parametrize("effective_size", [3, 5])
def test_error_of_the_cut_falls_with_resolution(effective_size: int) -> None:
    """Kernels of 12 n + 3 pixels, cut at 4 sigmas, supports half a pixel too long: in proportion to 1 / sigma."""
    sigmas, errors = [n + 0.25 for n in (2, 4, 6, 8)], []
    for sigma in sigmas:
        scales = FixedScales.from_values([sigma, 1.5 * sigma])
        conv = lifting(scales, effective_size, kernel_size=round(12 * sigma)).double()
        size = round(40 * sigma)
        images = functools.partial(smooth_images, 1, size, resolution=size / 40, dtype=torch.float64)
        errors.append(layer_equivariance_error(conv, images).item())
    assert errors == sorted(errors, reverse=True)
    assert -1.2 < log_slope(sigmas, errors) < -0.6


def test_narrow_sub_sigmas_of_basis_b_need_resolution() -> None:
    """At sigma 1.5 its narrowest function has a sigma of 0.55 pixel: a tenth of the response is aliasing."""
    errors = []
    for resolution in (1.0, 2.0):
        conv = lifting(FixedScales(1.5 * resolution, 2.0, 4), None, basis=VaryingSigmaBasis(7), extent=6.0).double()
        images = functools.partial(smooth_images, 1, round(72 * resolution), resolution=resolution, dtype=torch.float64)
        errors.append(layer_equivariance_error(conv, images).max().item())
    assert errors[0] > 0.05 and errors[1] < 1e-5


def test_unequal_and_descending_scales_and_stacks() -> None:
    conv = lifting(FixedScales.from_values([3.1, 2.0, 4.5, 5.2]))
    assert layer_equivariance_error(conv, IMAGES).max() < 5e-3
    scales = IsrScales(1.2, 3.0, 3)
    lift = lifting(scales, 3)
    torch.manual_seed(1)
    net = nn.Sequential(lift, nn.ReLU(), GroupConv(4, 3, scales, 3))
    margin = lift.kernel_size() // 2 + net[2].kernel_size() // 2
    assert layer_equivariance_error(net, IMAGES, scales.values(), margin).max() < 1e-2
    assert layer_equivariance_error(lifting(), IMAGES, [2.0, 3.0, 6.0]).min() > 0.05  # scales of another layer


@pytest.mark.parametrize("control", ["plain", "normalised apart"])
def test_negative_controls(control: str) -> None:
    """The same kernel at every scale; each scale's kernel divided by its own norm, so that the gain is not 1."""
    conv = lifting(FixedScales(1.0, 3.0, 3))
    kernels, margin = conv.kernels().detach(), conv.kernel_size() // 2
    apart = kernels / kernels.flatten(3).norm(dim=-1)[..., None, None]
    kernels = kernels[:, :, :1].expand_as(kernels) if control == "plain" else apart

    def layer(x: Tensor) -> Tensor:
        return torch.stack([nn.functional.conv2d(x, kernel, padding=margin) for kernel in kernels.unbind(2)], 2)

    errors = layer_equivariance_error(layer, IMAGES, conv.scales.values(), margin)
    assert errors.min() > max(0.15, 30 * layer_equivariance_error(conv, IMAGES).max())
    with pytest.raises(AssertionError, match=r"not equivariant: from internal scale . to . .* tolerance=0\.01"):
        assert_equivariant(layer, IMAGES, conv.scales.values(), margin=margin)


class Brightest(nn.Module):
    """Blob detectors of many scales, and the strongest response anywhere: invariant while blobs fit the scales."""

    def __init__(self, num_scales: int) -> None:
        super().__init__()
        scales = FixedScales(1.2, 10.0, num_scales) if num_scales > 1 else FixedScales(4.0, 1, 1)
        self.conv = LiftingConv(1, 2, scales, basis=VaryingOrderBasis(3))
        self.conv.weight.data.zero_()
        self.conv.weight.data[0, 0, [2, 6]] = -1.0  # minus the Laplacian, normalised: strongest at the blob's sigma
        self.conv.weight.data[1, 0, [2, 6]] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.project(x).amax((2, 3))


def scenes(factor: float) -> Tensor:
    """Few blobs of 3 to 4 pixels within the central 60 of 144 pixels, so that they stay inside when enlarged by 2."""
    return smooth_images(6, 144, 0.4 * factor, blobs=3, blob_sigmas=(7.5, 10.0))


def test_an_invariant_network_and_one_that_is_not() -> None:
    """On scenes that are rendered, and on a batch that is resampled."""
    factors = [0.5, 0.71, 1.0, 1.41, 2.0]
    frame = model_equivariance_error(Brightest(16), scenes, factors)
    assert list(frame.columns) == ["factor", "relative_change", "prediction_change"]
    assert frame["factor"].tolist() == factors
    assert frame["relative_change"][2] == 0 and frame["relative_change"].max() < 0.05
    assert (frame["prediction_change"] == 0).all()
    resampled = model_equivariance_error(Brightest(16), scenes(1.0), factors)
    assert (frame["relative_change"] - resampled["relative_change"]).abs().max() < 0.02
    assert_invariant(Brightest(16), scenes, factors, tolerance=0.05)
    control = model_equivariance_error(Brightest(1), scenes, factors)
    assert control["relative_change"][[0, 4]].min() > 0.2
    with pytest.raises(
        AssertionError, match=r"not invariant: enlarged by 0.5, outputs change by 0\.\d+ of .* tolerance=0\.05"
    ):
        assert_invariant(Brightest(1), scenes, [0.5, 1.0], tolerance=0.05)
    with pytest.raises(AssertionError, match="enlarged by 2, outputs change by nan"):
        assert_invariant(lambda images: images.sum((2, 3)) * torch.nan, scenes, [2.0])


def test_changes_by_hand() -> None:
    """Outputs (factor, 1) of one image: at factor 2 they change by (1, 0) from (1, 1), and the larger one changes."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], torch.full((len(x),), 1.1)], 1)

    frame = model_equivariance_error(model, lambda factor: torch.full((3, 1, 4, 4), factor), [1.0, 2.0])
    assert frame["relative_change"].tolist() == pytest.approx([0.0, 1 / (1 + 1.1**2) ** 0.5])
    assert frame["prediction_change"].tolist() == [0.0, 100.0]


def test_modules_are_evaluated_and_put_back() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten())
    net[1].eval()
    frame = model_equivariance_error(net, IMAGES(1.0)[..., :20, :20], [1.0])
    assert frame["relative_change"].tolist() == [0.0]  # dropout would differ
    assert [part.training for part in net.modules()] == [True, True, False, True]
    assert net[0].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((True, 8), {}, "count must be an integer >= 1, got True"),
        ((1, 8.0), {}, r"size must be an integer >= 1, got 8\.0"),
        ((1, 8), {"channels": 0}, "channels must be an integer >= 1, got 0"),
        ((1, 8), {"blobs": 0}, "blobs must be an integer >= 1, got 0"),
        ((1, 8, 0.0), {}, r"magnification must be finite and > 0, got 0\.0"),
        ((1, 8), {"resolution": -1.0}, r"resolution must be finite and > 0, got -1\.0"),
        ((1, 8), {"blob_sigmas": (0.0, 1.0)}, r"blob_sigmas must be finite and > 0, got 0\.0"),
    ],
)
def test_bad_images(arguments, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        smooth_images(*arguments, **options)


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_bad_factors(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be finite and > 0"):
        enlarge(torch.zeros(4, 4), factor)
    with pytest.raises(ValueError, match="factors must be finite and > 0"):
        model_equivariance_error(nn.Flatten(), scenes, [1.0, factor])
    with pytest.raises(ValueError, match="internal_scales must be finite and > 0"):
        layer_equivariance_error(lifting(), IMAGES, [1.0, factor, 2.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.ReLU(), IMAGES), "internal_scales must be given for ReLU, which has no attribute 'scales'"),
        ((nn.ReLU(), IMAGES, [1.0, 2.0]), "margin must be given for ReLU, which has no attribute 'kernel_size'"),
        ((nn.ReLU(), IMAGES, [1.0, 2.0], 3), r"must return \(B, O, 2, 128, 128\) for 2 internal scales, got shape"),
        ((lifting(FixedScales(2.0, 1, 1)), IMAGES), r"internal_scales must be two or more to compare, got \[2\.0\]"),
        ((lifting(), functools.partial(smooth_images, 1, 60)), "images must be larger than 73 pixels, .* got 60"),
    ],
)
def test_bad_layers(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        layer_equivariance_error(*arguments)


def test_no_factors() -> None:
    with pytest.raises(ValueError, match="factors must be one or more factors > 0, got none"):
        model_equivariance_error(nn.Flatten(), scenes, [])
