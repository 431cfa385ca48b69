"""Networks of the study: Table 1's, and the systems compared in Table 5; importing this does not import torch."""

from scalestudy.models.systems import SYSTEMS, System, build, register

__all__ = ["SYSTEMS", "System", "build", "register"]
