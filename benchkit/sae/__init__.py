"""Sparse autoencoders on recorded activations: `benchkit sae train`; the scorer is `sae:FILE`."""

from benchkit.sae.config import SAEConfig, TrainConfig, product
from benchkit.sae.outcome import Outcome, Trained
from benchkit.sae.train import train

__all__ = ["Outcome", "SAEConfig", "TrainConfig", "Trained", "product", "train"]
