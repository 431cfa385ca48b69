"""Argument checks of the tolerance model."""

import numpy as np


def check_above(name: str, value: float, limit: float, remedy: str) -> None:
    """Refuse a value that is not finite or not above the limit."""
    if not (np.isfinite(value) and value > limit):
        raise ValueError(f"{name}={value!r} is outside the allowed range: it must be finite and > {limit:g}; {remedy}.")


def check_num_scales(num_scales: int) -> None:
    """Refuse a number of internal scales below 1."""
    if num_scales < 1:
        raise ValueError(
            f"num_scales={num_scales!r} is outside the allowed range: it must be >= 1; the paper uses 3 or 4."
        )


def check_range(name: str, low: float, high: float) -> None:
    """Refuse a range of scales that is empty, reversed or not positive."""
    if not (np.isfinite([low, high]).all() and 0 < low < high):
        raise ValueError(
            f"{name}=({low!r}, {high!r}) is empty, reversed or not positive: use 0 < low < high, such as (1.0, 8.0)."
        )
