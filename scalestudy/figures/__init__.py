"""One function per figure of the paper, and the study's own; each returns a matplotlib figure."""

from scalestudy.figures.datasets import digit_samples, scale_densities
from scalestudy.figures.kernels import equivariance_errors, kernel_pipeline, kernel_sizes
from scalestudy.figures.results import error_by_isr, error_by_scale, initialisations, isr_history, parameterisations
from scalestudy.figures.tolerance import tolerance_example, tolerance_fit

__all__ = [
    "digit_samples",
    "equivariance_errors",
    "error_by_isr",
    "error_by_scale",
    "initialisations",
    "isr_history",
    "kernel_pipeline",
    "kernel_sizes",
    "parameterisations",
    "scale_densities",
    "tolerance_example",
    "tolerance_fit",
]
