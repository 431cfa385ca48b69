"""DISCO's basis and its optimisation (Sosnovik et al., DISCO: accurate Discrete Scale Convolutions, 2021)."""

from scalestudy.layers.disco.bank import SCALES, disco_bank, disco_basis
from scalestudy.layers.disco.loss import equivariance_loss, white_noise_images
from scalestudy.layers.disco.optimum import expected_loss

__all__ = ["SCALES", "disco_bank", "disco_basis", "equivariance_loss", "expected_loss", "white_noise_images"]
