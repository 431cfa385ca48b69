"""Data sets of the study: MNIST, Dynamic Scale MNIST and MNIST-Scale, and the distributions of their data scales.

Importing this does not import torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "distributions": ("Bimodal", "LogNormal", "LogUniform", "ScaleDistribution", "SingleScale"),
    "dynamic": ("DynamicScaleSplit", "dynamic_scale_mnist", "paper_test_scales"),
    "mnist": ("DataError", "Mnist", "fetch_mnist", "load_mnist", "mnist_folder", "verify_mnist"),
    "realisations": ("MnistScaleSplit", "mnist_scale"),
    "resample": ("rescale",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"scalestudy.data has no {name!r}")
    return getattr(import_module(f"scalestudy.data.{home}"), name)
