"""One function per figure of the paper, and the study's own; each returns a matplotlib figure."""

from scalestudy.paper.figures.baseline_curves import equivariance_by_factor, error_by_data_scale
from scalestudy.paper.figures.baselines import baseline_errors, cost, learned_scales
from scalestudy.paper.figures.convolution_cost import convolution_cost, convolution_memory
from scalestudy.paper.figures.datasets import digit_samples, scale_densities
from scalestudy.paper.figures.kernels import equivariance_errors, kernel_pipeline, kernel_sizes
from scalestudy.paper.figures.results import (
    error_by_isr,
    error_by_scale,
    initialisations,
    isr_history,
    parameterisations,
)
from scalestudy.paper.figures.tolerance import tolerance_example, tolerance_fit

__all__ = [
    "baseline_errors",
    "convolution_cost",
    "convolution_memory",
    "cost",
    "digit_samples",
    "equivariance_by_factor",
    "equivariance_errors",
    "error_by_data_scale",
    "error_by_isr",
    "error_by_scale",
    "initialisations",
    "isr_history",
    "kernel_pipeline",
    "kernel_sizes",
    "learned_scales",
    "parameterisations",
    "scale_densities",
    "tolerance_example",
    "tolerance_fit",
]
