"""Pillow's own resampling, which both data sets of the paper were made with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def pillow() -> Callable[..., Tensor]:
    """Affine bicubic transform of 28 x 28 digits about a centre, image by image, on a zero canvas."""
    image_module = pytest.importorskip("PIL.Image")
    affine, bicubic = image_module.Transform.AFFINE, image_module.Resampling.BICUBIC

    def rescaled(digits: Tensor, scales: Tensor, centre: float, canvas: int = 28) -> Tensor:
        images = []
        for digit, scale in zip(digits.numpy(), scales.tolist(), strict=True):
            m = 1.0 / scale
            b = centre - m * centre
            image = image_module.fromarray(np.pad(digit, (canvas - 28) // 2))
            images.append(np.asarray(image.transform((canvas, canvas), affine, (m, 0, b, 0, m, b), bicubic)))
        return torch.from_numpy(np.stack(images))

    return rescaled
