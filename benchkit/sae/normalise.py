"""Normalisation of the autoencoder's input, x -> z: everything is trained, scored and measured on z.

none        z = x
dimension   z = (x - mean) / std, each dimension by itself
layernorm   z = (x - m) / sqrt(v + 1e-5), m and v the mean and variance of the vector's own dimensions
whiten      z = (x - mean) W, W = V / sqrt(variances of the principal components): PCA whitening
standardise z = (x - m) / (s + 1e-5), s the deviation of the vector's own dimensions with N - 1 below the root; back,
            x = z s + m: SAELens' layer_norm
rescale     z = x sqrt(D) / |x|: its constant_norm_rescale
A reconstruction's error in x is what the same map, without its shift, makes of an error in z backwards
(`error_of_x`): nothing is a difference of large numbers, wherever a dimension lies.

Mean, standard deviation and covariance are those of the examples to train on. In `dimension`, a dimension that never
changes is only centred. In `whiten`, a component whose variance is below 1e-4 of the median component's is divided as
if it had that much: what lies below is the rounding of float16.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.errors import DataError
from benchkit.sae.config import Normalisation

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-5
FLOOR = 1e-4


def fit_normalisation(
    how: Normalisation,
    mean: Float64[np.ndarray, " D"],
    variance: Float64[np.ndarray, " D"],
    covariance: Float64[np.ndarray, "D D"] | None,
) -> dict[str, Float32[np.ndarray, "..."]]:
    """The tensors that `normalised` needs: `mean`, `std`, `whitening` and its inverse `unwhitening`. covariance: for
    whiten alone."""
    if how not in ("dimension", "whiten"):
        return {}
    centre = mean.astype(np.float32)
    if how == "dimension":
        std = np.sqrt(np.where(variance > 0, variance, 1))
        return {"mean": centre, "std": std.astype(np.float32)}
    if covariance is None:
        raise ValueError("whitening needs the covariance")
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    typical = np.median(variances) if np.median(variances) > 0 else variances[0]
    if not typical > 0:
        raise DataError("the activations are all alike: there is nothing to whiten")
    scale = np.sqrt(np.maximum(variances, FLOOR * typical))
    return {
        "mean": centre,
        "whitening": (vectors / scale).astype(np.float32),
        "unwhitening": (vectors * scale).T.astype(np.float32),
    }


def covariance_about(
    batches: Iterator[Float32[np.ndarray, "B D"]], mean: Float64[np.ndarray, " D"]
) -> Float64[np.ndarray, "D D"]:
    """E[(x - mean)(x - mean)^T], in float64."""
    total, n = np.zeros((len(mean), len(mean))), 0
    for batch in batches:
        x = batch - mean
        total += x.T @ x
        n += len(x)
    return total / n


def normalised(x: "Tensor", how: Normalisation, tensors: "Mapping[str, Tensor]") -> "Tensor":
    """z of vectors x, [B, D]."""
    if how == "none":
        return x
    if how == "dimension":
        return (x - tensors["mean"]) / tensors["std"]
    if how == "whiten":
        return (x - tensors["mean"]) @ tensors["whitening"]
    if how == "rescale":
        return x * (x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True))
    centred = x - x.mean(dim=1, keepdim=True)
    if how == "standardise":
        return centred / (x.std(dim=1, keepdim=True) + EPS)
    return centred / (centred.square().mean(dim=1, keepdim=True) + EPS).sqrt()


def error_of_x(error: "Tensor", x: "Tensor", how: Normalisation, tensors: "Mapping[str, Tensor]") -> "Tensor":
    """What an error of the reconstruction of z is as one of x, [B, D], in float64. x: the vectors themselves, whose own
    scale layernorm took away."""
    e = error.double()
    if how == "none":
        return e
    if how == "dimension":
        return e * tensors["std"].double()
    if how == "whiten":
        inverse = tensors["unwhitening"] if "unwhitening" in tensors else tensors["whitening"].double().inverse()
        return e @ inverse.double()
    if how == "rescale":
        return e * (x.double().norm(dim=1, keepdim=True) / x.shape[1] ** 0.5)
    if how == "standardise":
        return e * x.double().std(dim=1, keepdim=True)
    centred = x.double() - x.double().mean(dim=1, keepdim=True)
    return e * (centred.square().mean(dim=1, keepdim=True) + EPS).sqrt()


def denormalised(z_hat: "Tensor", x: "Tensor", how: Normalisation, tensors: "Mapping[str, Tensor]") -> "Tensor":
    """The reconstruction of x that one of z is, [B, D], in float32."""
    made = error_of_x(z_hat, x, how, tensors)
    if how in ("dimension", "whiten"):
        made = made + tensors["mean"].double()
    elif how in ("layernorm", "standardise"):
        made = made + x.double().mean(dim=1, keepdim=True)
    return made.float()
