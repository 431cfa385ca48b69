"""The order in which a split is read, shared by all data sets."""

from collections.abc import Iterator

import torch
from torch import Tensor


def batch_positions(
    count: int, batch_size: int, generator: torch.Generator | None, device: torch.device
) -> Iterator[Tensor]:
    """Yield the positions 0 .. count - 1 once each, in batches.

    Parameters
    ----------
    count : int
        Items of the split.
    batch_size : int
        At least 1; the last batch may be smaller.
    generator : torch.Generator or None
        Shuffles; a CPU generator gives the same order on every device. None: ascending order.
    device : torch.device
        Of the positions.

    Yields
    ------
    Tensor
        int64, shape (b,).

    Raises
    ------
    ValueError
        On a batch size that is no integer of at least 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"batch_size must be an integer of at least 1, got {batch_size!r}; the last batch may be smaller"
        )
    if generator is None:
        order = torch.arange(count, device=device)
    else:
        order = torch.randperm(count, generator=generator, device=generator.device).to(device)
    yield from order.split(batch_size)
