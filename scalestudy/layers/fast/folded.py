"""Separable correlation of planes that are folded about their middle: Fourier down the image, matrices across it.

What is computed is `correlate_plainly`: a basis function is a product of two 1-D functions, so a correlation with it is
a matrix down the image and a matrix across it.  Here it takes four steps, each with its adjoint for the way back, whose
sequence is `ScaleCorrelation`:

    planes --apply--> products --rfft--> projected --mixing--> spectra of responses --irfft--> responses

1. apply: across the image, the banded Toeplitz matrices of the few distinct horizontal functions
   (`HorizontalProducts`).
2. rfft: down the image, on a circle so long that nothing wraps round.  There, correlating with a vertical function is
   a multiplication.
3. mixing: one small matrix per frequency, made of weights and vertical functions, from products to output channels.
4. irfft: back to rows, of the output channels only.

Horizontal functions are even or odd about their middle.  So planes are folded about theirs (`fold`), and step 1 takes
sums and differences of mirrored columns, at half the cost.  A row of five columns a b c d e becomes

    left half  a b c    right half, mirrored  e d 0        sums a+e b+d c    differences a-e b-d c

Folded planes stay folded up to the pooling: to a maximum over scales, a ReLU or a sum the order of pixels means
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.basis import reaching
from scalestudy.layers.fast.plain import kept

Pair = tuple[int, int]


def toeplitz(functions: Tensor, length: int) -> Tensor:
    """Matrices (..., L, L) that correlate L samples with functions (..., 2 h + 1) at offsets -h .. h, zero padded.

    >>> toeplitz(torch.tensor([1.0, 2.0, 3.0]), 3).tolist()
    [[2.0, 3.0, 0.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]
    """
    return reaching(functions, length - 1).unfold(-1, length, 1).flip(-2)


def correlate_plainly(x: Tensor, weight: Tensor, functions: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Planes (B, I, H, W) to (B, O, H, W), by weights (O, I, F) of pairs of functions (M, K)."""
    rows, cols = zip(*pairs, strict=True)
    down, across = toeplitz(functions[list(rows)], x.shape[2]), toeplitz(functions[list(cols)], x.shape[3])
    products = torch.einsum("fhi,bcij,fwj->bcfhw", down, x, across)
    return torch.einsum("ocf,bcfhw->bohw", weight, products)


def fold(planes: Tensor) -> Tensor:
    """Planes (B, C, H, W) folded about their middle column: (C, 2, W', B, H) with W' = ceil(W / 2), columns first.

    The left half, then the right half mirrored; a middle column belongs to the left one, its mirror image is zero.
    """
    batch, channels, height, width = planes.shape
    folded = planes.new_zeros(channels, 2, (width + 1) // 2, batch, height)
    for half, cols, mirrored in _halves(folded, width):
        half.copy_(planes[..., cols].permute(1, 3, 0, 2).flip(mirrored))
    return folded


def unfold(folded: Tensor, out: Tensor) -> None:
    """Write folded planes to planes (B, C, H, W) in their natural order: the inverse of `fold`."""
    for half, cols, mirrored in _halves(folded, out.shape[-1]):
        out[..., cols] = half.flip(mirrored).permute(2, 0, 3, 1)


def _halves(folded: Tensor, width: int) -> Iterator[tuple[Tensor, slice, list[int]]]:
    """Both halves (C, w, B, H) of folded planes, their columns, and mirrored axes."""
    left, right = slice(0, folded.shape[2]), slice(folded.shape[2], width)
    return iter([(folded[:, 0], left, []), (folded[:, 1, : width - right.start], right, [1])])


def circle(height: int, half_width: int) -> int:
    """Rows of a circle round which a correlation with kernels of this half-width does not wrap, good for an FFT."""
    return next_fast_len(height + min(half_width, height - 1), real=True)


@kept
def shares(period: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of N frequencies, how much one of the first N // 2 + 1 counts, which stands for its negative, too; over N."""
    own = period // 2 + 1
    return torch.tensor([(1 + (0 < k < period - k)) / period for k in range(own)], dtype=torch.float64).to(
        device, dtype
    )


@kept
def _places(
    pairs: tuple[Pair, ...], cols: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Vertical function of each pair, (F,), and the place of its horizontal one, (F, 1, C) of 0 and 1."""
    rows = torch.tensor([row for row, _ in pairs], device=device)
    return rows, torch.tensor([[[col == one for one in cols]] for _, col in pairs], dtype=dtype, device=device)


def even_first(functions: Iterable[int], orders: tuple[int, ...]) -> tuple[int, ...]:
    """Functions of even order, then those of odd order."""
    return tuple(sorted(functions, key=lambda function: (orders[function] % 2, function)))


@dataclass(frozen=True)
class HorizontalProducts:
    """Correlation of folded planes with some horizontal functions of one scale, as matrix products.

    An even function adds what it makes of the sums and of the differences of mirrored columns to the left half of the
    result, and subtracts them for the right half; an odd function the other way round.
    """

    cols: tuple[int, ...]  # the functions (C,), see `even_first`
    num_even: int
    sums: Tensor  # (C W', W'), from sums of mirrored columns
    differences: Tensor

    @classmethod
    def of_scales(
        cls, functions: Tensor, orders: tuple[int, ...], cols: tuple[int, ...], width: int, dtype: torch.dtype
    ) -> list[HorizontalProducts]:
        """Products for each scale with some of the functions (M, S, K), on planes of this width."""
        half = (width + 1) // 2
        matrices = toeplitz(functions[list(cols)].to(dtype).mul_(0.5), width)[..., :half, :]  # (C, S, W', W)
        left, right = matrices[..., :half], matrices[..., width - half :].flip(-1)
        sums, differences = (part.transpose(0, 1).flatten(1, 2) for part in (left + right, left - right))
        num_even = sum(orders[col] % 2 == 0 for col in cols)
        return [cls(cols, num_even, *parts) for parts in zip(sums, differences, strict=True)]

    def apply(self, planes: Tensor) -> Tensor:
        """Products (I, C, 2, W', B, H) of folded planes (I, 2, W', B, H)."""
        left, right = planes.flatten(3).unbind(1)
        shape = len(planes), len(self.cols), -1, *planes.shape[3:]
        sums, differences = (self.sums @ (left + right)).view(shape), (self.differences @ (left - right)).view(shape)
        products = torch.stack([sums + differences, sums - differences], 2)
        products[:, self.num_even :, 1].neg_()
        return products

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Adjoint of `apply`, whose argument it overwrites."""
        left, right = gradient.unbind(2)
        right[:, self.num_even :].neg_()
        sums, differences = (left + right).flatten(1, 2).flatten(2), (left - right).flatten(1, 2).flatten(2)
        sums, differences = self.sums.T @ sums, self.differences.T @ differences
        return torch.stack([sums + differences, sums - differences], 1).unflatten(3, gradient.shape[4:])


class ScaleCorrelation:
    """Correlation of planes with kernels of one scale, weights (O, I, F) of pairs of functions (M, K), and its adjoint.

    N below is the folded columns of all images, V the number of frequencies of a circle of `period` rows.
    """

    def __init__(
        self,
        weight: Tensor,
        pairs: tuple[Pair, ...],
        functions: Tensor,
        horizontal: HorizontalProducts,
        height: int,
        period: int,
    ) -> None:
        self.period, self._height, self._horizontal, self._ins = period, height, horizontal, weight.shape[1]
        reach = min(height - 1, period - height)  # a correlation is a convolution with the mirror image
        around = functional.pad(reaching(functions.flip(-1), reach), (0, period - 2 * reach - 1)).roll(-reach, -1)
        self._spectra = torch.fft.rfft(around).to(weight.dtype.to_complex())  # (M, V)
        self.mixing = self._mixing(weight, pairs)

    def _synthesis(self, pairs: tuple[Pair, ...]) -> Tensor:
        """What a pair's weight adds to the mixing matrices, (F, V, C)."""
        rows, places = _places(pairs, self._horizontal.cols, self._spectra.real.dtype, self._spectra.device)
        return self._spectra[rows][:, :, None] * places

    def _mixing(self, weight: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """The weights as one matrix per frequency, (V, O, I C): from horizontal products to responses."""
        synthesis = torch.view_as_real(self._synthesis(pairs))
        parts = (weight.flatten(0, 1) @ synthesis.flatten(1)).view(*weight.shape[:2], *synthesis.shape[1:])
        return torch.view_as_complex(parts).permute(2, 0, 1, 3).flatten(2).contiguous()

    def moments(self, total: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """Gradient in weights (O, I, F) of any pairs, from the total (V, I C, O) of `accumulate`."""
        synthesis = self._synthesis(pairs) * shares(self.period, total.real.dtype, total.device)[:, None]
        parts = total.unflatten(1, (self._ins, -1)).permute(3, 1, 0, 2).contiguous()  # (O, I, V, C)
        return torch.view_as_real(parts).flatten(2) @ torch.view_as_real(synthesis).flatten(1).T

    def project(self, planes: Tensor) -> Tensor:
        """Spectra (V, I C, N) of folded planes (I, 2, W', B, H), correlated with each horizontal function."""
        return self._spectrum(self._horizontal.apply(planes).flatten(0, 1))

    def respond(self, projected: Tensor, *columns: int) -> Tensor:
        """Folded responses, (O, *columns, H)."""
        return self._rows(torch.bmm(self.mixing, projected)).unflatten(1, columns)

    def accumulate(self, total: Tensor, projected: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradient in the transposed mixing matrices what a folded gradient (O, 2, W', B, H) gives.

        Zeros may follow its rows.  Returns its spectra (V, O, N), for `adjoint`.
        """
        spectrum = self._spectrum(gradient)
        total.baddbmm_(projected.conj(), spectrum.mT)  # the other way round takes twice as long
        return spectrum

    def adjoint(self, spectrum: Tensor, *columns: int) -> Tensor:
        """Folded gradient in the planes, (I, *columns, H), from the spectra (V, O, N) of that in the responses."""
        products = self._rows(torch.bmm(self.mixing.mH, spectrum)).unflatten(1, columns)
        return self._horizontal.adjoint(products.unflatten(0, (self._ins, -1)).contiguous())

    def _spectrum(self, planes: Tensor) -> Tensor:
        """Spectra (V, C, N) of folded planes (C, ..., H) down the image."""
        rows = planes[..., : self.period].flatten(1, -2)
        return torch.fft.rfft(rows, n=self.period).permute(2, 0, 1).contiguous()

    def _rows(self, spectrum: Tensor) -> Tensor:
        """Planes (C, N, H) of spectra (V, C, N)."""
        lines = spectrum.permute(1, 2, 0).contiguous()  # or the FFT would gather them, more slowly
        return torch.fft.irfft(lines, n=self.period)[..., : self._height]
