"""Maximum over scales, taken one scale at a time, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scalestudy.layers.fast.folded import Workspace


class ScaleMaximum:
    """Running maximum over scales, and which of them attained it.

    Parameters
    ----------
    start : Tensor
        Response of the first scale, or a floor; overwritten.
    track : bool
        Keep what `split_by_winner` needs.
    space : Workspace
        For what need not be kept.
    """

    def __init__(self, start: Tensor, track: bool, space: Workspace) -> None:
        self.values = start
        self.wins: list[Tensor] = []
        self._track, self._space = track, space

    def add(self, response: Tensor) -> None:
        """Take in the response of the next scale; where it is equal, the earlier one keeps the maximum."""
        if self._track:
            won = torch.gt(response, self.values, out=self._space.take("won", *response.shape))
            self.wins.append(won.to(torch.int8))  # not bool: the CPU converts that several times slower
        torch.maximum(self.values, response, out=self.values)


def split_by_winner(gradient: Tensor, wins: list[Tensor], space: Workspace) -> Iterator[Tensor]:
    """Divide the gradient of a `ScaleMaximum` among the responses that were added, last one first.

    Each part lies in the workspace, where the next one overwrites it.

    Parameters
    ----------
    gradient : Tensor
        Overwritten by what remains, in the end: the gradient of the first response.
    wins : list of Tensor
        `ScaleMaximum.wins`.
    space : Workspace
    """
    part = space.take("won", *gradient.shape)
    for won in reversed(wins):
        part.copy_(won)
        gradient -= part.mul_(gradient)
        yield part
