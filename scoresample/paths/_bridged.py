"""The densities between noise and the posterior of many observations that need no correction."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractScorePath, as_time
from scoresample.paths._frame import Frame
from scoresample.paths._observations import AlignedPrior, Singles, flat, level_score, unflat
from scoresample.scores import Constrain, Position, Structure

_START_SCALES = 20.0
"""Sampling starts where the noise is at most this many standard deviations of the prior."""


class BridgedScore(AbstractScorePath):
    """Bridging densities from noise to the posterior of n independent observations.

    At noise s in the coordinates y of the data, with p_s(y | x_j) the noised law under one observation and p_s(y) the
    noised prior,

    ``grad log p = sum_j grad log p_s(y | x_j) + (1 - n) grad log p_s(y)``,

    which is the noised prior times the likelihood of each observation averaged over the noise: proper at all levels
    where likelihoods are bounded. Without noise it is the posterior; on the way it is not that posterior with noise,
    and is narrower by up to sqrt(n). So this is no noised score: annealed Langevin samples it, with steps from its
    Jacobian and the bias of the last level's steps, and no sampler that reverses noise takes it. With n = 1 every level
    is the score itself. The stiffest direction has n times the curvature that an unseen one has, so the steps that the
    unseen one needs grow with n: for large n prefer the corrections of
    [`CombinedScore`][scoresample.paths.CombinedScore].

    Source: Geffner, Papamakarios and Mnih 2023, arXiv 2209.14249, section 3.1. There the factor of the prior is
    ``(1 - n) f(t) grad log p(theta)``, f falling from 1 to 0 and the prior without noise, which is not defined where
    noise takes points out of a bounded prior, and need not be proper. For the prior N(0, c) the factor here is that one
    with ``f = c / (c + s^2)``.

    The clock is such that equal cubed steps, the samplers' ladder for such paths, are uniform in log-SNR:
    ``log_snr(t) = high + (1 - (1 - t)^(1/3)) (low - high)``.

    Attributes:
        singles: the score under each observation.
        prior: the prior in the same coordinates, noised alike.
        log_snr_range: where both the score and the prior are valid.
        means: (n, d) of the laws under each observation.
        single_precisions: (n, d, d) inverse covariances of the same.
        prior_mean: (d,).
        prior_precision: (d, d).
    """

    singles: Singles
    prior: AlignedPrior
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain
    means: Array
    single_precisions: Array
    prior_mean: Array
    prior_precision: Array

    def log_snr(self, t: Array) -> Array:
        """log(alpha/sigma) at time t."""
        low, high = self.log_snr_range.astype(t.dtype)
        widest = 1 / jnp.sqrt(jnp.linalg.eigvalsh(self.prior_precision)[0]).astype(t.dtype)
        start = jnp.clip(-jnp.log(_START_SCALES * widest), low, high)
        return high + (1 - jnp.cbrt(1 - t)) * (start - high)

    def standard_score(self, z: Position, t: Array) -> Position:
        """The sum of the scores under each observation, less the prior's."""
        y, log_snr = flat(z), self.log_snr(t)
        if self.singles.number == 1:
            return unflat(level_score(self.singles.one(0), y, log_snr), self.structure)
        total = self.singles.total(lambda path, _: level_score(path, y, log_snr))
        excess = self.singles.number - 1
        return unflat(total - excess * self.prior(y, log_snr), self.structure)

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        """Draws from the normal law with the level's precision, were all laws normal."""
        t = as_time(t, self.structure)
        mean, covariance = self.level_moments(t)
        noise = jax.random.normal(key, (num_particles, mean.size), mean.dtype)
        return jax.vmap(lambda z: unflat(z, self.structure))(mean + noise @ jnp.linalg.cholesky(covariance).T)

    def level_moments(self, t: Array) -> tuple[Array, Array]:
        """The mean (d,) and the covariance (d, d) at level t, were all laws normal."""
        squared = jnp.exp(-2 * self.log_snr(t))
        precisions, prior = self.single_precisions.astype(t.dtype), self.prior_precision.astype(t.dtype)
        identity = jnp.eye(prior.shape[0], dtype=t.dtype)
        noised = jnp.linalg.solve(identity + squared * precisions, precisions)
        noised_prior = jnp.linalg.solve(identity + squared * prior, prior)
        # Summed as differences: n precisions less n - 1 of the prior lose their digits.
        total = noised_prior + jnp.sum(noised - noised_prior, axis=0)
        centre = self.prior_mean.astype(t.dtype)
        pull = jnp.einsum("nij,nj->i", noised, self.means.astype(t.dtype) - centre)
        covariance = jnp.linalg.inv(total)
        return centre + covariance @ pull, 0.5 * (covariance + covariance.T)

    def lipschitz(self, t: Array) -> None:
        """None: the samplers estimate it, since it grows with n."""
        del t

    def condition_axes(self) -> Any:
        """None: all particles see all observations."""
        return None
