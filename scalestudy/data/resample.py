"""Batched bicubic rescaling of digits on a zero canvas, on any device, with Pillow's pixels.

Both data sets of the paper were made with Pillow's affine bicubic transform. What it computes, for an N x N image, a
data scale s and a centre c (the published recipe):

- kernel: Keys with a = -1; no antialiasing for s < 1;
- output pixel i samples the input at u_i = (i + 1/2) / s + c - c / s - 1/2, taps floor(u_i) - 1 .. floor(u_i) + 2;
- output 0 where u_i + 1/2 lies outside [0, N); taps beyond the image are clamped to the edge pixel;
- horizontal then vertical in double precision, clipped to [0, 255], then truncated.

The digit fills the middle of the canvas and the rest is zero, so only the digit's pixels are ever read. All is float64
(our choice), because then all devices give the same pixels.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Method = Literal["matmul", "exact"]

# Added before truncation in method "matmul", so that rounding (at most 9e-13) does not turn a whole grey level into the
# one below. A larger value lifts pixels that truly lie just below: with 1e-9, 19 of 94 million of MNIST-Scale.
EPSILON = 4e-12
# Float64 canvases of a chunk of digits: what a CPU core keeps in its own cache (measured), and enough to fill a GPU.
_CHUNK_BYTES = {"cpu": 2**21, "cuda": 2**28}


def rescale(
    digits: Tensor, data_scales: Tensor, canvas_size: int, *, centre: float | None = None, method: Method = "matmul"
) -> Tensor:
    """Rescale each digit about one centre on a square zero canvas.

    Parameters
    ----------
    digits : Tensor
        uint8, shape (B, h, h): grey levels 0..255. Each lies in the middle of its canvas, at offset
        (canvas_size - h) / 2.
    data_scales : Tensor
        float64, shape (B,): object size factor, greater than 0, finite; 1 leaves the digit as it is.
    canvas_size : int
        Pixels along one side, at least h, and of the same parity as h.
    centre : float, optional
        The fixed point on both axes, in pixels from the canvas edge. Default: canvas_size / 2 (Dynamic Scale MNIST);
        MNIST-Scale has 14.5 on a canvas of 28.
    method : {"matmul", "exact"}
        ``"exact"``: Pillow's arithmetic step by step, bit for bit its pixels. ``"matmul"``: two matrix products per
        digit, about ten times as fast: floor(clip(W D W^T + eps, 0, 255)). About one pixel in ten million differs
        from Pillow's, by one level, nearly all of them at data scales such as 3 and 5, where whole grey levels are
        common and Pillow's own rounding decides.

    Returns
    -------
    Tensor
        uint8, shape (B, canvas_size, canvas_size), on the device of `digits`.

    Raises
    ------
    ValueError
        On digits that do not fit the canvas, or a data scale that is not positive and finite.

    Examples
    --------
    >>> digit = torch.full((1, 2, 2), 7, dtype=torch.uint8)
    >>> rescale(digit, torch.ones(1, dtype=torch.float64), 4)[0].tolist()
    [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]
    """
    size = digits.shape[-1]
    square = digits.dtype == torch.uint8 and digits.shape[1:] == (size, size)
    if not square or canvas_size < size or (canvas_size - size) % 2:
        raise ValueError(
            "digits must be uint8 of shape (B, h, h) with h <= canvas_size and canvas_size - h even, got "
            f"{digits.dtype} {tuple(digits.shape)} and canvas_size {canvas_size}; pad them to the middle of the canvas"
        )
    data_scales = checked_data_scales(data_scales, len(digits)).to(digits.device)
    return rescale_unchecked(digits, data_scales, canvas_size, centre=centre, method=method)


def rescale_unchecked(
    digits: Tensor, data_scales: Tensor, canvas_size: int, *, centre: float | None = None, method: Method = "matmul"
) -> Tensor:
    """`rescale` without its checks, which would make a GPU wait; for callers that have checked their scales once.

    `data_scales` must be on the device of `digits`.  For method "matmul" they may also be one for all digits, shape
    (1,): the same pixels for less work.
    """
    centre = canvas_size / 2 if centre is None else float(centre)
    compute = {"exact": _rescale_exact, "matmul": _rescale_matmul}[method]
    output = torch.empty((len(digits), canvas_size, canvas_size), dtype=torch.uint8, device=digits.device)
    budget = _CHUNK_BYTES.get(digits.device.type, 2**24)
    chunk = max(1, budget // (8 * canvas_size**2))
    for start in range(0, len(digits), chunk):
        part = slice(start, start + chunk)
        scales = data_scales if len(data_scales) == 1 else data_scales[part]
        output[part] = compute(digits[part], scales, canvas_size, centre)
    return output


def checked_data_scales(data_scales: Tensor, count: int) -> Tensor:
    """Return data scales of shape (count,); ValueError where they are no float64 numbers greater than 0 and finite."""
    if data_scales.dtype != torch.float64 or data_scales.shape != (count,):
        raise ValueError(
            f"data_scales must be a float64 tensor of shape ({count},), one per digit, got {data_scales.dtype} "
            f"{tuple(data_scales.shape)}; convert it with torch.as_tensor(values, dtype=torch.float64)"
        )
    bad = data_scales[~(torch.isfinite(data_scales) & (data_scales > 0))]
    if len(bad):
        raise ValueError(
            f"data_scales must be greater than 0 and finite, got {bad[0].item()}; 1 leaves a digit as it is"
        )
    return data_scales


def _coordinates(data_scales: Tensor, canvas_size: int, centre: float) -> tuple[Tensor, Tensor]:
    """Return u, float64 (B, N), where each output pixel samples, and whether that lies on the canvas, bool (B, N)."""
    inverse = 1.0 / data_scales[:, None]
    pixels = torch.arange(canvas_size, dtype=torch.float64, device=data_scales.device) + 0.5
    xi = inverse * pixels + (centre - inverse * centre)  # Pillow's order of operations: the roundings are its own
    return xi - 0.5, (xi >= 0) & (xi < canvas_size)


def keys_kernel(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1, Pillow's choice for affine transforms, of |t| in pixels.

    >>> keys_kernel(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])).tolist()
    [1.0, 0.625, 0.0, -0.125, 0.0]
    """
    t = distance.clamp(max=2)  # where the polynomial below is exactly 0
    near = (t - 2) * t * t + 1
    far = ((5 - t) * t - 8) * t + 4
    return torch.where(t <= 1, near, far)


def resampling_matrices(data_scales: Tensor, canvas_size: int, digit_size: int, centre: float) -> Tensor:
    """What each output pixel takes from each pixel of the digit along one axis: float64 (B, canvas_size, digit_size).

    Where the digit reaches the canvas border, taps beyond it are clamped: their weight is added to that of the edge
    pixel. Rows that sample outside are zero.
    """
    u, inside = _coordinates(data_scales, canvas_size, centre)
    u.masked_fill_(~inside, math.inf)  # too far away for any weight
    offset = (canvas_size - digit_size) // 2
    columns = torch.arange(digit_size, dtype=torch.float64, device=u.device) + offset
    matrix = keys_kernel((u[:, :, None] - columns).abs_())  # (B, N, h)
    if offset == 0:  # an inside pixel has u in [-1/2, N - 1/2), so taps go from -2 to N + 1
        last = canvas_size - 1
        matrix[:, :, 0] += keys_kernel((u + 1).abs()) + keys_kernel((u + 2).abs())
        matrix[:, :, -1] += keys_kernel((u - last - 1).abs()) + keys_kernel((u - last - 2).abs())
    return matrix


def _rescale_matmul(digits: Tensor, data_scales: Tensor, canvas_size: int, centre: float) -> Tensor:
    """Clip(W D W^T + eps), which becomes a whole grey level where it is stored: horizontal, then vertical."""
    matrix = resampling_matrices(data_scales, canvas_size, digits.shape[-1], centre).expand(len(digits), -1, -1)
    rows = torch.bmm(digits.to(torch.float64), matrix.mT)  # (B, h, N); autocasting leaves float64 alone
    pixels = torch.bmm(matrix, rows)  # (B, N, N)
    return pixels.add_(EPSILON).clamp_(0, 255)


def _rescale_exact(digits: Tensor, data_scales: Tensor, canvas_size: int, centre: float) -> Tensor:
    """Pillow's arithmetic: gather four taps per axis and evaluate its cubic by Horner's rule, in float64.

    Returns the clipped values, which become whole grey levels where they are stored.
    """
    size = digits.shape[-1]
    u, inside = _coordinates(data_scales, canvas_size, centre)
    below = torch.floor(u)
    fraction = u - below
    first = below.clamp(-4, canvas_size + 4).long() - 1  # (B, N); far outside, the value does not matter
    offset = (canvas_size - size) // 2
    taps = torch.stack([first + k for k in range(4)]).clamp_(0, canvas_size - 1)  # (4, B, N)
    taps = (taps - offset).clamp_(-1, size) + 1  # 0 and size + 1 are the zeros around the digit
    padded = torch.nn.functional.pad(digits.to(torch.float64), (1, 1, 1, 1))  # (B, h + 2, h + 2)
    rows = [padded.gather(2, tap[:, None, :].expand(-1, size + 2, -1)) for tap in taps]
    horizontal = _cubic(rows, fraction[:, None, :])  # (B, h + 2, N)
    columns = [horizontal.gather(1, tap[:, :, None].expand(-1, -1, canvas_size)) for tap in taps]
    pixels = _cubic(columns, fraction[:, :, None])  # (B, N, N)
    pixels.masked_fill_(~(inside[:, :, None] & inside[:, None, :]), 0.0)
    return pixels.clamp_(0, 255)


def _cubic(taps: list[Tensor], d: Tensor) -> Tensor:
    """Pillow's cubic through four neighbours at fraction `d` between the second and the third."""
    v1, v2, v3, v4 = taps
    return v2 + d * ((v3 - v1) + d * ((2 * (v1 - v2) + v3 - v4) + d * (((v2 - v1) - v3) + v4)))
