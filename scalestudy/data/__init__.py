"""Data sets of the study: MNIST, Dynamic Scale MNIST and MNIST-Scale, and the distributions of their data scales."""

from scalestudy.data.distributions import (
    Discrete,
    LogNormal,
    LogUniform,
    Normal,
    ScaleDistribution,
    Uniform,
    parse_distribution,
)
from scalestudy.data.dynamic import (
    DynamicScaleSplit,
    draw_scales,
    dynamic_scale_mnist,
    paper_test_scales,
    scale_test_batches,
)
from scalestudy.data.mnist import FileReport, Mnist, fetch_mnist, load_mnist, mnist_folder, verify_mnist
from scalestudy.data.mnist_files import DataError
from scalestudy.data.mnist_scale import MnistScaleSplit, mnist_scale
from scalestudy.data.realisations import RealisationReport, cached_realisations
from scalestudy.data.resample import rescale
from scalestudy.data.splits import (
    SPLIT_NAMES,
    dynamic_scale_split,
    mnist_scale_draws,
    mnist_scale_split,
    stratified_split,
)

__all__ = [
    "SPLIT_NAMES",
    "DataError",
    "Discrete",
    "DynamicScaleSplit",
    "FileReport",
    "LogNormal",
    "LogUniform",
    "Mnist",
    "MnistScaleSplit",
    "Normal",
    "RealisationReport",
    "ScaleDistribution",
    "Uniform",
    "cached_realisations",
    "draw_scales",
    "dynamic_scale_mnist",
    "dynamic_scale_split",
    "fetch_mnist",
    "load_mnist",
    "mnist_folder",
    "mnist_scale",
    "mnist_scale_draws",
    "mnist_scale_split",
    "paper_test_scales",
    "parse_distribution",
    "rescale",
    "scale_test_batches",
    "stratified_split",
    "verify_mnist",
]
