"""Scale convolutions as modules: internal scales, bases, convolutions, tests of equivariance."""
