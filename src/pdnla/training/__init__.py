"""Training: the Lightning module, the average of the weights, pictures of a run."""

from pdnla.training.module import ColorizationModule

__all__ = ["ColorizationModule"]
