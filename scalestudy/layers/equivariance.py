"""Equivariance error: how far a layer or a network is from commuting with a change of scale (Eq. 1).

Write L_a for enlargement by a factor a about the image centre, (L_a x)(p) = x(p / a), and x * k_s for the
correlation with a kernel k_s(u) = psi(u / s) / s^2, the amplitude that Hermite-Gaussian bases have.  With u = a v,

    (L_a x * k_(a s))(p) = integral of x((p + u) / a) psi(u / (a s)) / (a s)^2 du
                         = integral of x(p / a + v) psi(v / s) / s^2 dv = L_a (x * k_s)(p):

the response at scale a s to the enlarged image is the enlarged response at scale s, with gain 1.  On a pixel grid it
holds approximately, and these functions measure by how much.  The paper prints no such number: the protocol is ours.

What is no error of the layer is kept out.  Images are formulas, so an enlarged image is rendered anew.  Responses must
be interpolated, because the positions p / a fall between pixels: by a long windowed sinc, whose own error on such
smooth maps is below 1e-6.  Pixels that see the zero padding are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import EllipsisType

import pandas as pd
import torch
from torch import Tensor, nn

from scalestudy.layers.scales import is_finite, require_integer

Images = Callable[[float], Tensor]
"""Renders one and the same batch of scenes (B, C, H, W) enlarged by any factor about the image centre."""

REACH = 12  # half-width of the interpolation kernel in pixels
_KAISER_BETA = 14.0  # shape of its window: error 1e-7 in the pass band, which ends at 0.6 of the Nyquist frequency


def smooth_images(
    count: int,
    size: int,
    magnification: float = 1.0,
    *,
    resolution: float = 1.0,
    seed: int = 0,
    channels: int = 1,
    blobs: int = 40,
    blob_sigmas: tuple[float, float] = (2.0, 5.0),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Random sums of Gaussian blobs (B, C, size, size), rendered without interpolation at any magnification.

    Not in the paper: our choice, because blobs are smooth and can be evaluated anywhere.  A scene is
    ``size / resolution`` units wide; blob centres are uniform in it, amplitudes standard normal, sigmas uniform in
    `blob_sigmas`.  Scenes depend on `seed`, `count`, `channels`, `blobs`, `blob_sigmas` and their width only.

    Parameters
    ----------
    count, channels, size : int
        Images B, channels C, height and width in pixels; >= 1.
    magnification : float
        The scene is enlarged by this factor about the image centre, > 0.
    resolution : float
        Pixels per unit of the scene, > 0; the same scene at twice the pixels is ``size=2 * size, resolution=2``.
    seed : int
        Of a generator of its own.
    blobs : int
        Blobs per image and channel, >= 1.
    blob_sigmas : tuple of float
        Smallest and largest blob sigma in units of the scene, > 0.

    >>> import functools
    >>> images = functools.partial(smooth_images, 4, 96)  # as `layer_equivariance_error` takes them
    >>> images(1.5).shape  # the four scenes enlarged by 1.5
    torch.Size([4, 1, 96, 96])
    """
    for name, number in (("count", count), ("size", size), ("channels", channels), ("blobs", blobs)):
        require_integer(name, number)
    _require_positive("magnification", magnification)
    _require_positive("resolution", resolution)
    _require_positive("blob_sigmas", *blob_sigmas)
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, blobs)
    centres = (torch.rand(2, *shape, 1, generator=generator, dtype=torch.float64) - 0.5) * size / resolution
    spread = torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
    sigmas = blob_sigmas[0] + spread * (blob_sigmas[1] - blob_sigmas[0])
    amplitudes = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    at = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (resolution * magnification)
    rows, columns = torch.exp(-0.5 * ((at - centres) / sigmas).square())  # (B, C, blobs, size) each
    return ((amplitudes * rows).mT @ columns).to(device=device, dtype=dtype)


def enlarge(maps: Tensor, factor: float) -> Tensor:
    """Enlarge maps (..., H, W) by a factor > 0 about their centre, on the same canvas, zero outside.

    By a Kaiser-windowed sinc of half-width `REACH` per axis (our choice): bicubic interpolation would hide the errors
    that we look for.  Maps with frequencies above 0.6 of the Nyquist frequency (step edges) ring.  Below 1 the kernel
    widens to cut frequencies that the result cannot hold.
    """
    _require_positive("factor", factor)
    if not maps.is_floating_point():
        raise ValueError(f"maps must be of a floating point type, got {maps.dtype}: call maps.float() first")
    rows, columns = (_interpolation(length, factor).to(maps) for length in maps.shape[-2:])
    return rows @ maps @ columns.mT


def _interpolation(length: int, factor: float) -> Tensor:
    """Matrix (length, length) that enlarges a signal about its centre."""
    pixel = torch.arange(length, dtype=torch.float64)
    source = (length - 1) / 2 + (pixel - (length - 1) / 2) / factor
    cut = min(1.0, factor)
    distance = (source[:, None] - pixel) * cut
    inside = (1 - (distance / REACH).square()).clamp(min=0)
    beta = torch.tensor(_KAISER_BETA, dtype=torch.float64)
    window = torch.special.i0(beta * inside.sqrt()) / torch.special.i0(beta)
    return cut * torch.sinc(distance) * window * (inside > 0)


def layer_equivariance_error(
    layer: Callable[[Tensor], Tensor],
    images: Images,
    internal_scales: Sequence[float] | None = None,
    margin: int | None = None,
) -> Tensor:
    """Equivariance error of responses on a scale axis, one number per pair of adjacent internal scales.

    For the pair i, with a = s_(i+1) / s_i and R_i the response of scale i,

        error_i = || R_(i+1)(L_a x) - L_a R_i(x) || / || L_a R_i(x) ||   (L2, all images, channels, interior pixels).

    Not in the paper: our choice, because it asks of a layer exactly what Eq. 1 promises.  What remains is the
    discretisation error of the layer.  Sampling on the pixel grid: falls faster than any power of sigma, below 1e-6
    once the narrowest function of a basis has a sigma of about 1 pixel.  Cutting off at a whole pixel near k sigmas,
    elsewhere for each scale: of the order of 1e-3 for k = 4, in proportion to 1 / sigma at a given misfit, gone for
    k = 6.

    Parameters
    ----------
    layer : callable
        (B, C, H, W) -> (B, O, S, H, W): a `LiftingConv`, or anything else that ends on a scale axis.
    images : callable
        See `Images`; for example ``functools.partial(smooth_images, 4, 96)``.
    internal_scales : sequence of float, optional
        S >= 2 sigmas in pixels, > 0.  Default: ``layer.scales.values()``.
    margin : int, optional
        How many pixels of input a response sees to each side, >= 0.  Default: half of ``layer.kernel_size()``;
        for several layers, the sum of their halves.

    Returns
    -------
    Tensor
        Shape (S - 1,), float64, no unit; 0 is perfect.

    Raises
    ------
    ValueError
        If the response has no scale axis of length S, or the images are too small to leave an interior.
    """
    for name, given, attribute in (("internal_scales", internal_scales, "scales"), ("margin", margin, "kernel_size")):
        if given is None and not hasattr(layer, attribute):
            raise ValueError(f"{name} must be given for {type(layer).__name__}, which has no attribute {attribute!r}")
    scales = layer.scales.values() if internal_scales is None else internal_scales
    margin = layer.kernel_size() // 2 if margin is None else margin
    if len(scales) < 2:
        raise ValueError(f"internal_scales must be two or more to compare, got {list(scales)!r}")
    _require_positive("internal_scales", *scales)
    errors = []
    with _evaluating(layer):
        original = _responses(layer, images(1.0), len(scales))
        for i in range(len(scales) - 1):
            factor = scales[i + 1] / scales[i]
            enlarged = _responses(layer, images(factor), len(scales))[:, :, i + 1]
            interior = _interior(enlarged.shape[-2:], margin, factor)
            expected = enlarge(original[:, :, i], factor)[interior]
            difference = torch.linalg.vector_norm(enlarged[interior] - expected)
            errors.append(difference / torch.linalg.vector_norm(expected))
    return torch.stack(errors).cpu()


def assert_equivariant(
    layer: Callable[[Tensor], Tensor],
    images: Images,
    internal_scales: Sequence[float] | None = None,
    tolerance: float = 1e-2,
    *,
    margin: int | None = None,
) -> None:
    """Raise an error that names the worst pair of scales unless `layer_equivariance_error` of the layer is small.

    For layers, or stacks of them, that end on a scale axis; what ends on outputs of a class is for `assert_invariant`.

    Parameters
    ----------
    layer, images, internal_scales, margin
        See there.
    tolerance : float
        Largest error allowed.  A scale convolution whose narrowest function has a sigma of about 1 pixel stays below
        5e-3; a plain convolution in its place is above 0.15.

    Raises
    ------
    AssertionError
        Where the error of a pair of adjacent scales is larger.
    """
    errors = layer_equivariance_error(layer, images, internal_scales, margin)
    worst = int(errors.argmax())  # NaN, if there is any
    if not errors[worst] <= tolerance:
        raise AssertionError(
            f"not equivariant: from internal scale {worst} to {worst + 1} the response changes by {errors[worst]:.2g} "
            f"of its norm beyond the change of scale, more than tolerance={tolerance:g}"
        )


def assert_invariant(
    model: Callable[[Tensor], Tensor], images: Images | Tensor, factors: Sequence[float], tolerance: float = 1e-2
) -> None:
    """Raise an error that names the worst factor unless `model_equivariance_error`, the relative change, is small.

    Raises
    ------
    AssertionError
        Where outputs change by more than `tolerance` of their norm.
    """
    changes = model_equivariance_error(model, images, factors).set_index("factor")["relative_change"]
    if not (changes <= tolerance).all():
        worst = changes.fillna(math.inf).idxmax()
        raise AssertionError(
            f"not invariant: enlarged by {worst:g}, outputs change by {changes[worst]:.2g} of their norm, more than "
            f"tolerance={tolerance:g}"
        )


def model_equivariance_error(
    model: Callable[[Tensor], Tensor], images: Images | Tensor, factors: Sequence[float]
) -> pd.DataFrame:
    """Change of a network's outputs when its input is enlarged by factors a > 0: 0 for a scale-invariant network.

    Our choice, for networks of any kind that map (B, C, H, W) to (B, ...); modules are run in evaluation mode.  Images
    are rendered (see `Images`), or a batch that `enlarge` resamples (zero outside, so let zero be the background).  One
    row per factor: `relative_change`, the L2 norm over the batch of f(L_a x) - f(x) over that of f(x);
    `prediction_change`, how many images change their largest output, in percent.  A constant network scores 0: read the
    numbers beside the error rate.
    """
    if len(factors) == 0:
        raise ValueError("factors must be one or more factors > 0, got none")
    _require_positive("factors", *factors)
    rows = []
    with _evaluating(model):
        render = images if callable(images) else lambda factor: enlarge(images, factor)
        reference = model(render(1.0)).double().flatten(1)
        for factor in factors:
            outputs = model(render(float(factor))).double().flatten(1)
            change = torch.linalg.vector_norm(outputs - reference) / torch.linalg.vector_norm(reference)
            flipped = (outputs.argmax(1) != reference.argmax(1)).double().mean()
            rows.append((float(factor), change.item(), 100 * flipped.item()))
    return pd.DataFrame(rows, columns=["factor", "relative_change", "prediction_change"])


def _responses(layer: Callable[[Tensor], Tensor], images: Tensor, num_scales: int) -> Tensor:
    responses, size = layer(images), images.shape[-2:]
    if responses.dim() != 5 or responses.shape[2:] != (num_scales, *size):
        raise ValueError(
            f"layer must return (B, O, {num_scales}, {size[0]}, {size[1]}) for {num_scales} internal scales, "
            f"got shape {tuple(responses.shape)}"
        )
    return responses.double()


def _interior(shape: Sequence[int], margin: int, factor: float) -> tuple[EllipsisType | slice, ...]:
    """Pixels of the enlarged response whose inputs, in both images, lie inside the image."""
    slices = []
    for length in shape:
        centre = (length - 1) / 2
        radius = min(centre - margin, factor * (centre - margin - REACH))
        if radius < 1:
            raise ValueError(
                f"images must be larger than {2 * (margin + REACH) + 1} pixels, because responses see {margin} pixels "
                f"to each side and interpolation {REACH}, got {length}"
            )
        slices.append(slice(math.ceil(centre - radius), math.floor(centre + radius) + 1))
    return (..., *slices)


def _require_positive(name: str, *values: float) -> None:
    for value in values:
        if not (is_finite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, got {value!r}")


@contextmanager
def _evaluating(model: object) -> Iterator[None]:
    """Without gradients; a module in evaluation mode, each of its parts put back afterwards."""
    modes = {part: part.training for part in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        for part in modes:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
