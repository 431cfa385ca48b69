"""Separable correlation with the kernels of one scale: Fourier transforms down the image, banded matrices across it.

What is computed is `correlate_plainly`: a basis function is a product of two 1-D functions, so a correlation with it is
a matrix down the image and a matrix across it.  Here it takes four steps, each with its adjoint for the way back, whose
sequence is `ScaleCorrelation`:

    planes --rfft--> spectra --apply--> products --mixing--> spectra of responses --irfft--> responses

1. rfft: down the image, on a circle so long that nothing wraps round.  There, correlating with a vertical function is
   a multiplication.
2. apply: across the image, the banded Toeplitz matrices of the few distinct horizontal functions
   (`HorizontalProducts`).
3. mixing: one small matrix per frequency, made of weights and vertical functions, from products to output channels.
4. irfft: back to rows, of the output channels only.

Planes are turned before, columns first (`turn`), and stay so up to the pooling: to a maximum over scales, a ReLU or a
sum the order of pixels means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.basis import reaching
from scalestudy.layers.fast.plain import kept

Pair = tuple[int, int]
_LEAST_BLOCK = 12  # columns, measured on a CPU: smaller matrices save little


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


def turn(planes: Tensor) -> Tensor:
    """A copy of planes (B, C, H, W) with columns first, (C, W, B, H)."""
    return planes.permute(1, 3, 0, 2).clone(memory_format=torch.contiguous_format)


def turned_back(planes: Tensor) -> Tensor:
    """Planes (C, W, B, H) as (B, C, H, W)."""
    return planes.permute(2, 0, 3, 1)


def circle(height: int, half_width: int) -> int:
    """Rows of a circle round which a correlation with kernels of this half-width does not wrap, good for an FFT."""
    return next_fast_len(height + min(half_width, height - 1), real=True)


def blocks(width: int, half_width: int) -> tuple[int, int, int]:
    """How `HorizontalProducts` takes planes: in so many blocks, of so many columns, with so many more to each side.

    The last block may reach beyond the plane, which is one block without margins where more would save less than a
    third.

    >>> blocks(168, 8), blocks(167, 8), blocks(168, 60)
    ((14, 12, 8), (13, 13, 8), (1, 168, 0))
    """
    number = max(1, width // _LEAST_BLOCK)
    block = -(-width // number)
    return (number, block, half_width) if 3 * (block + 2 * half_width) <= 2 * width else (1, width, 0)


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


class HorizontalProducts:
    """Correlation of columns with C functions (C, K) that reach `half_width` to each side, as matrix products.

    The Toeplitz matrices are banded: all blocks of columns share what is not zero.
    """

    def __init__(self, functions: Tensor, width: int, half_width: int) -> None:
        number, self.block, self._margin = blocks(width, half_width)
        self._width, self.surplus = width, number * self.block - width
        square = toeplitz(functions, self.block + 2 * self._margin)
        self._matrix = square[:, self._margin :][:, : self.block].flatten(0, 1)  # (C w, w + 2 margin)

    def apply(self, planes: Tensor) -> Tensor:
        """Products (I, n, C, w, X) of planes (I, W, X), for n blocks of w columns, the last of them `surplus`."""
        padded = functional.pad(planes, (0, 0, self._margin, self._margin + self.surplus))
        windows = padded.unfold(1, self._matrix.shape[1], self.block).mT  # (I, n, w + 2 margin, X)
        matrices = self._matrix.expand(windows.shape[0] * windows.shape[1], -1, -1)
        products = torch.bmm(matrices, windows.flatten(0, 1))
        return products.view(*windows.shape[:2], -1, self.block, planes.shape[2])

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Adjoint of `apply`, also of the first functions only: (I, W, X) of (I, n, c, w, X), 0 in the surplus."""
        parts = self._matrix[: gradient.shape[2] * self.block].T @ gradient.flatten(2, 3)
        planes = gradient.new_zeros(len(parts), self._width + self.surplus + 2 * self._margin, gradient.shape[4])
        for number, part in enumerate(parts.unbind(1)):
            planes[:, number * self.block :][:, : part.shape[1]] += part
        return planes[:, self._margin :][:, : self._width]


class ScaleCorrelation:
    """Correlation of planes (H, W) with kernels of one scale, and its adjoint.

    Weights (O, I, F) are those of pairs of the functions (M, K).  The gradients in other pairs may be wanted, too: of C
    horizontal functions in all, `cols`, the c of the weights come first.  N below is the columns of all images, V the
    number of frequencies.
    """

    def __init__(
        self,
        weight: Tensor,
        pairs: tuple[Pair, ...],
        functions: Tensor,
        cols: tuple[int, ...],
        size: tuple[int, int],
        half_width: int,
    ) -> None:
        height, width = size
        self.period, self._height, self._cols, self._ins = circle(height, half_width), height, cols, weight.shape[1]
        self._horizontal = HorizontalProducts(functions[list(cols)].to(weight.dtype), width, half_width)
        reach = min(half_width, height - 1)  # a correlation is a convolution with the mirror image
        around = functional.pad(reaching(functions.flip(-1), reach), (0, self.period - 2 * reach - 1)).roll(-reach, -1)
        self._spectra = torch.fft.rfft(around).to(weight.dtype.to_complex())  # (M, V)
        self.mixing = self._mixing(weight, pairs)

    def _synthesis(self, pairs: tuple[Pair, ...], cols: tuple[int, ...]) -> Tensor:
        """What a pair's weight adds to the mixing matrices, (F, V, C)."""
        rows, places = _places(pairs, cols, self._spectra.real.dtype, self._spectra.device)
        return self._spectra[rows][:, :, None] * places

    def _mixing(self, weight: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """The weights as one matrix per frequency, (V, O, c I): from products to responses."""
        synthesis = torch.view_as_real(self._synthesis(pairs, self._cols[: len({col for _, col in pairs})]))
        parts = (weight.flatten(0, 1) @ synthesis.flatten(1)).view(*weight.shape[:2], *synthesis.shape[1:])
        return torch.view_as_complex(parts).permute(2, 0, 3, 1).flatten(2).contiguous()

    def zero_total(self) -> Tensor:
        """What `accumulate` adds to, (V, C I, O)."""
        frequencies, outs, _ = self.mixing.shape
        return self.mixing.new_zeros(frequencies, len(self._cols) * self._ins, outs)

    def moments(self, total: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """Gradient in weights (O, I, F) of any pairs, from the total of `accumulate`."""
        synthesis = self._synthesis(pairs, self._cols) * shares(self.period, total.real.dtype, total.device)[:, None]
        parts = total.unflatten(1, (-1, self._ins)).permute(3, 2, 0, 1).contiguous()  # (O, I, V, C)
        return torch.view_as_real(parts).flatten(2) @ torch.view_as_real(synthesis).flatten(1).T

    def project(self, planes: Tensor) -> Tensor:
        """Spectra (V, C I, N) of turned planes (I, W, B, H), correlated with each horizontal function."""
        spectra = torch.view_as_real(torch.fft.rfft(planes, n=self.period))
        products = self._horizontal.apply(spectra.flatten(2)).unflatten(4, spectra.shape[2:])
        products = torch.view_as_complex(products).permute(5, 2, 0, 1, 3, 4).contiguous()  # (V, C, I, n, w, B)
        return products.flatten(3).flatten(1, 2)[..., : planes.shape[1:3].numel()]

    def respond(self, projected: Tensor, *columns: int) -> Tensor:
        """Turned responses, (O, *columns, H)."""
        return self._rows(torch.bmm(self.mixing, projected[:, : self.mixing.shape[2]])).unflatten(1, columns)

    def accumulate(self, total: Tensor, projected: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradient in the transposed mixing matrices what a turned gradient (O, W, B, H) gives.

        Zeros may follow its rows.  Returns its spectra (V, O, N), for `adjoint`.
        """
        spectrum = self._spectrum(gradient)
        total.baddbmm_(projected.conj(), spectrum.mT)  # the other way round takes twice as long
        return spectrum

    def adjoint(self, spectrum: Tensor, *columns: int) -> Tensor:
        """Turned gradient in the planes, (I, *columns, H), from the spectra (V, O, N) of that in the responses."""
        products = functional.pad(torch.bmm(self.mixing.mH, spectrum), (0, self._horizontal.surplus * columns[1]))
        products = products.unflatten(2, (-1, self._horizontal.block, columns[1])).unflatten(1, (-1, self._ins))
        products = torch.view_as_real(products.permute(2, 3, 1, 4, 5, 0).contiguous())  # (I, n, c, w, B, V, 2)
        planes = self._horizontal.adjoint(products.flatten(4)).unflatten(2, products.shape[4:])
        return torch.fft.irfft(torch.view_as_complex(planes), n=self.period)[..., : self._height]

    def _spectrum(self, planes: Tensor) -> Tensor:
        """Spectra (V, C, N) of turned planes (C, ..., H) down the image."""
        rows = planes[..., : self.period].flatten(1, -2)
        return torch.fft.rfft(rows, n=self.period).permute(2, 0, 1).contiguous()

    def _rows(self, spectrum: Tensor) -> Tensor:
        """Planes (C, N, H) of spectra (V, C, N)."""
        lines = spectrum.permute(1, 2, 0).contiguous()  # or the FFT would gather them, more slowly
        return torch.fft.irfft(lines, n=self.period)[..., : self._height]
