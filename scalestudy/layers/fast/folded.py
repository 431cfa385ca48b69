"""Separable correlation of planes that are folded about their middle: Fourier down the image, matrices across it.

What is computed is `correlate_plainly`: a basis function is a product of two 1-D functions, so a correlation with it is
a matrix down the image and a matrix across it.  Here it takes four steps, each with its adjoint for the way back, whose
sequence is `ScaleCorrelation`:

    planes --forward--> coefficients --apply--> products --mixing--> mixed coefficients --back--> responses

1. forward: down the image, cosine and sine coefficients (`VerticalTransform`), on a circle so long that nothing wraps
   round.  There, correlating with a vertical function is a multiplication.
2. apply: across it, the banded Toeplitz matrices of the few distinct horizontal functions (`HorizontalProducts`).
3. mixing: one small matrix per frequency, made of weights and vertical functions, from products to output channels.
4. back: to rows, of the output channels only.

Everything is symmetric about the middle of the image: cosines and functions of even order are even, sines and functions
of odd order odd.  So planes are folded there (`fold`), and steps 1, 2 and 4 take sums and differences of mirrored
halves, at half the cost.  A row of five columns a b c d e becomes

    left half  a b c    right half, mirrored  e d 0        sums a+e b+d c    differences a-e b-d c

Folded planes stay folded up to the pooling: to a maximum over scales, a ReLU or a sum the order of pixels means
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Planes (B, C, H, W) folded about their middles: (2, H', C B 2 W') with H' = ceil(H / 2), W' = ceil(W / 2).

    The upper half of the rows, then the lower half mirrored; in each row the left half, then the right half mirrored.
    A middle row belongs to the upper half, a middle column to the left one; their mirror images are zeros.
    """
    batch, channels, height, width = planes.shape
    folded = planes.new_zeros(2, (height + 1) // 2, channels, batch, 2, (width + 1) // 2)
    for quadrant, rows, cols, mirrored in _quadrants(folded.permute(0, 4, 3, 2, 1, 5), height, width):
        quadrant.copy_(planes[:, :, rows, cols].flip(mirrored))
    return folded.flatten(2)


def unfold(folded: Tensor, out: Tensor) -> None:
    """Write folded planes to planes (B, C, H, W) in their natural order: the inverse of `fold`."""
    batch, channels, height, width = out.shape
    parts = folded.view(2, -1, channels, batch, 2, (width + 1) // 2).permute(0, 4, 3, 2, 1, 5)
    for quadrant, rows, cols, mirrored in _quadrants(parts, height, width):
        out[:, :, rows, cols] = quadrant.flip(mirrored)


def _quadrants(parts: Tensor, height: int, width: int) -> Iterator[tuple[Tensor, slice, slice, list[int]]]:
    """Folded quadrants (B, C, h, w) of (2, 2, B, C, H', W'), their place in the plane, and mirrored axes."""
    half_height, half_width = parts.shape[-2:]
    for lower, rows in enumerate((slice(0, half_height), slice(half_height, height))):
        for right, cols in enumerate((slice(0, half_width), slice(half_width, width))):
            quadrant = parts[lower, right, :, :, : rows.stop - rows.start, : cols.stop - cols.start]
            yield quadrant, rows, cols, [2] * lower + [3] * right


class Workspace:
    """Intermediate results that are made again and again, always in the memory of their name, which caches hold."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self._empty = torch.empty(0, dtype=dtype, device=device)
        self._blocks: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised tensor of this shape."""
        count = math.prod(shape)
        if name not in self._blocks or len(self._blocks[name]) < count:
            self._blocks[name] = self._empty.new_empty(count)
        return self._blocks[name][:count].view(shape)

    def clear(self) -> None:
        """Give the memory back."""
        self._blocks.clear()


def circle(height: int, half_width: int) -> int:
    """Length of the circle on which a correlation with a kernel of this half-width has no wrap-around."""
    return height + min(half_width, height - 1)


def phases(period: int, positions: Tensor) -> Tensor:
    """Cosine and sine (N, 2, positions) of each frequency on a circle of N samples, in double precision."""
    frequencies = torch.arange(period, dtype=torch.float64)
    angles = (2 * math.pi / period) * ((frequencies[:, None] * positions) % period)  # exact turns: angles stay small
    return torch.stack([angles.cos(), angles.sin()], 1)


def shares(period: int) -> Tensor:
    """Of N frequencies, how much one of the first N // 2 + 1 counts, which stands for its negative, too; over N."""
    count = torch.ones(period // 2 + 1, dtype=torch.float64)
    count[1 : (period + 1) // 2] = 2
    return count / period


@dataclass(frozen=True)
class VerticalTransform:
    """Cosine and sine coefficients of folded rows, at V = floor(N / 2) + 1 frequencies of a circle of N rows.

    Positions are counted from the middle of the image, so cosines see the even part only and sines the odd part.
    """

    cos: Tensor  # (H', V), of each row and frequency
    sin: Tensor
    cos_offsets: Tensor  # (2 H - 1, V), of each distance between two rows, times `shares`; double precision
    sin_offsets: Tensor

    def forward(self, planes: Tensor, space: Workspace) -> Tensor:
        """Folded planes (2, H', N) to coefficients (V, 2, N), cosine before sine, in the block "coefficients"."""
        coefficients = space.take("coefficients", self.cos.shape[1], 2, planes.shape[2])
        half = space.take("half", *planes.shape[1:])
        torch.mm(self.cos.T, torch.add(planes[0], planes[1], out=half), out=coefficients[:, 0])
        torch.mm(self.sin.T, torch.sub(planes[0], planes[1], out=half), out=coefficients[:, 1])
        return coefficients

    def back(self, coefficients: Tensor, space: Workspace) -> Tensor:
        """Adjoint of `forward`: (V, 2, N) to (2, H', N), in the block "planes"."""
        shape = (len(self.cos), coefficients.shape[2])
        even = torch.mm(self.cos, coefficients[:, 0], out=space.take("half", *shape))
        odd = torch.mm(self.sin, coefficients[:, 1], out=space.take("other half", *shape))
        planes = space.take("planes", 2, *shape)
        torch.add(even, odd, out=planes[0])
        torch.sub(even, odd, out=planes[1])
        return planes

    def spectra(self, functions: Tensor, orders: tuple[int, ...]) -> Tensor:
        """Coefficients of 1-D functions (M, K), (M, V): of cosines if their order is even, of sines if it is odd."""
        padded = reaching(functions, len(self.cos_offsets) // 2)
        odd = _are_odd(orders, functions.device)
        return torch.where(odd, padded @ self.sin_offsets, padded @ self.cos_offsets).to(self.cos.dtype)


@kept
def vertical_transform(height: int, period: int, dtype: torch.dtype, device: torch.device) -> VerticalTransform:
    """The transform of planes of this height on a circle of this period."""
    share = shares(period)
    rows = torch.arange((height + 1) // 2, dtype=torch.float64) - (height - 1) / 2
    offsets = torch.arange(1 - height, height, dtype=torch.float64)
    of_rows, of_offsets = (phases(period, at)[: len(share)].permute(1, 2, 0).contiguous() for at in (rows, offsets))
    return VerticalTransform(*of_rows.to(device, dtype), *(of_offsets * share).to(device))


@kept
def _places(
    pairs: tuple[Pair, ...], orders: tuple[int, ...], cols: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Vertical function of each pair, (F,), and where the pair belongs, (F, 1, 2, C) of 0 and 1.

    That is by the parity of its vertical function and by the place of its horizontal one.
    """
    places = torch.zeros(len(pairs), 1, 2, len(cols), dtype=dtype)
    for number, (row, col) in enumerate(pairs):
        places[number, 0, orders[row] % 2, cols.index(col)] = 1
    return torch.tensor([row for row, _ in pairs], device=device), places.to(device)


@kept
def _are_odd(orders: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(orders, device=device)[:, None] % 2 == 1


def even_first(functions: Iterable[int], orders: tuple[int, ...]) -> tuple[int, ...]:
    """Functions of even order, then those of odd order."""
    return tuple(sorted(functions, key=lambda function: (orders[function] % 2, function)))


@dataclass(frozen=True)
class HorizontalProducts:
    """Correlation of folded rows with some horizontal functions of one scale, as matrix products.

    An even function adds what it makes of the sums and of the differences of mirrored columns to the left half of the
    result, and subtracts them for the right half; an odd function the other way round.
    """

    cols: tuple[int, ...]  # the functions (C,), see `even_first`
    num_even: int
    sums: Tensor  # (W', C W'), from sums of mirrored columns
    differences: Tensor

    @classmethod
    def of_scales(
        cls, functions: Tensor, orders: tuple[int, ...], cols: tuple[int, ...], width: int, dtype: torch.dtype
    ) -> list[HorizontalProducts]:
        """Products for each scale with some of the functions (M, S, K), on planes of this width."""
        half = (width + 1) // 2
        matrices = toeplitz(functions[list(cols)].to(dtype).mul_(0.5), width)[..., :half, :]  # (C, S, W', W)
        left, right = matrices[..., :half], matrices[..., width - half :].flip(-1)
        sums, differences = (part.permute(1, 3, 0, 2).flatten(2) for part in (left + right, left - right))
        num_even = sum(orders[col] % 2 == 0 for col in cols)
        return [cls(cols, num_even, *parts) for parts in zip(sums, differences, strict=True)]

    @property
    def width(self) -> int:
        """Columns of a folded plane: the width of the plane, rounded up to an even number."""
        return 2 * len(self.sums)

    def apply(self, lines: Tensor, space: Workspace, keep: bool) -> Tensor:
        """Folded rows (R, 2 W') to products (R, C, 2, W'), in the block "products" or, to be kept, in new memory."""
        left, right = lines.view(len(lines), 2, -1).unbind(1)
        mirrored = space.take("mirrored", *left.shape)
        flat, shape = (len(lines), self.sums.shape[1]), (len(lines), len(self.cols), -1)
        torch.add(left, right, out=mirrored)
        sums = torch.mm(mirrored, self.sums, out=space.take("sums", *flat)).view(shape)
        torch.sub(left, right, out=mirrored)
        differences = torch.mm(mirrored, self.differences, out=space.take("differences", *flat)).view(shape)
        shape = (*sums.shape[:2], 2, sums.shape[2])
        products = sums.new_empty(shape) if keep else space.take("products", *shape)
        torch.add(sums, differences, out=products[:, :, 0])
        torch.sub(sums, differences, out=products[:, :, 1])
        products[:, self.num_even :, 1].neg_()
        return products

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Adjoint of `apply`: products (R, C, 2, W'), overwritten, to folded rows (R, 2 W')."""
        left, right = gradient.unbind(2)
        right[:, self.num_even :].neg_()
        sums = (left + right).flatten(1) @ self.sums.T
        differences = (left - right).flatten(1) @ self.differences.T
        return torch.cat([sums + differences, sums - differences], 1)


class ScaleCorrelation:
    """Correlation of planes with kernels of one scale, weights (O, I, F) of pairs of functions (M, K), and its adjoint.

    N below is images times (folded) width.  What the methods return lies in the workspace, where the next call of any
    of them may overwrite it; `accumulate` leaves alone what `project` returned.
    """

    def __init__(
        self,
        weight: Tensor,
        pairs: tuple[Pair, ...],
        functions: Tensor,
        orders: tuple[int, ...],
        horizontal: HorizontalProducts,
        transform: VerticalTransform,
        space: Workspace,
    ) -> None:
        self._horizontal, self._transform, self._space = horizontal, transform, space
        self._orders, self._cols, self._width = orders, horizontal.cols, horizontal.width
        self._outs, self._ins = weight.shape[:2]
        self._spectra = transform.spectra(functions, orders)
        self.mixing = self._mixing(weight, pairs)

    def _synthesis(self, pairs: tuple[Pair, ...]) -> Tensor:
        """What a pair's weight adds to the mixing matrices, (F, V 2 C)."""
        rows, places = _places(pairs, self._orders, self._cols, self._spectra.dtype, self._spectra.device)
        return (self._spectra[rows][:, :, None, None] * places).flatten(1)

    def _mixing(self, weight: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """The weights as one matrix per frequency, (V, 2 O, 2 I C): horizontal products to responses."""
        parts = (weight.flatten(0, 1) @ self._synthesis(pairs)).view(*weight.shape[:2], -1, 2, len(self._cols))
        even, odd = parts.permute(3, 2, 0, 1, 4)  # (V, O, I, C)
        # cosines and sines of the response (rows) from those of the products: odd functions turn one into the other
        whole = torch.stack([torch.stack([even, odd], 2), torch.stack([-odd, even], 2)], 1)  # (V, 2, O, 2, I, C)
        return whole.flatten(3).flatten(1, 2)

    def moments(self, total: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
        """Gradient in weights (O, I, F) of any pairs, from the total (V, 2 I C, 2 O) of `accumulate`."""
        parts = total.view(len(total), 2, -1, len(self._cols), 2, self._outs)
        even = parts[:, 0, ..., 0, :] + parts[:, 1, ..., 1, :]
        odd = parts[:, 1, ..., 0, :] - parts[:, 0, ..., 1, :]
        both = torch.stack([even, odd], 1).permute(4, 2, 0, 1, 3)  # (O, I, V, 2, C)
        return both.flatten(2) @ self._synthesis(pairs).T

    def project(self, planes: Tensor, keep: bool = False) -> Tensor:
        """Coefficients (V, 2 I C, N) of folded planes (2, H', I N), correlated with each horizontal function.

        To be kept, they are put in new memory.
        """
        lines = self._transform.forward(planes, self._space).view(-1, self._width)  # (V 2 I B, 2 W')
        images = planes.shape[-1] // (self._ins * self._width)
        stays = images == 1 or len(self._cols) == 1  # no axis changes place: `reshape` below copies nothing
        products = self._horizontal.apply(lines, self._space, keep and stays)
        inside = products.view(-1, images, len(self._cols), self._width).transpose(1, 2)
        return inside.reshape(-1, 2 * self._ins * len(self._cols), images * self._width)

    def respond(self, projected: Tensor) -> Tensor:
        """Folded responses, (2, H', O N)."""
        mixed = self._space.take("mixed", *self.mixing.shape[:2], projected.shape[-1])
        torch.bmm(self.mixing, projected, out=mixed)
        return self._transform.back(mixed.view(len(mixed), 2, -1), self._space)

    def accumulate(self, total: Tensor, projected: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradient in the transposed mixing matrices what a folded gradient (2, H', O N) gives.

        Returns the coefficients (V, 2 O, N) of that, for `adjoint`.
        """
        spectrum = self._transform.forward(gradient, self._space).view(len(total), 2 * self._outs, -1)
        total.baddbmm_(projected, spectrum.mT)  # the other way round takes twice as long
        return spectrum

    def adjoint(self, spectrum: Tensor) -> Tensor:
        """Folded gradient in the planes, (2, H', I N), from the coefficients (V, 2 O, N) of that in the responses."""
        products = torch.bmm(self.mixing.mT, spectrum)  # (V, 2 I C, N)
        images = products.shape[-1] // self._width
        inside = products.view(-1, len(self._cols), images, self._width).transpose(1, 2)
        lines = self._horizontal.adjoint(inside.reshape(-1, len(self._cols), 2, self._width // 2))
        return self._transform.back(lines.view(len(products), 2, -1), self._space)
