"""scalestudy: a reproducible study of scale learning in scale-equivariant convolutional networks."""

__version__ = "0.1.0"
