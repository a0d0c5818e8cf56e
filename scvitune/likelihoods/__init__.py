"""Log-probabilities of counts with their gradients: torch in, torch out."""

from scvitune.likelihoods._convolution import (
    Decoded,
    convolved_negative_binomial,
    negative_binomial_log_probability,
)
from scvitune.likelihoods._mean import ScaleActivation, compute_mean
from scvitune.likelihoods._negative_binomial import negative_binomial
from scvitune.likelihoods._normal import normal
from scvitune.likelihoods._poisson import poisson
from scvitune.likelihoods._single_pass import LIKELIHOOD_KERNELS, compile_kernels

__all__ = [
    "LIKELIHOOD_KERNELS",
    "Decoded",
    "ScaleActivation",
    "compile_kernels",
    "compute_mean",
    "convolved_negative_binomial",
    "negative_binomial",
    "negative_binomial_log_probability",
    "normal",
    "poisson",
]
