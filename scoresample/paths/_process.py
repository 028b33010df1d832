"""Noise processes: ``x_t = alpha(t) x_0 + sigma(t) z``, the clock and the scale of a Gaussian perturbation."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


class AbstractNoiseProcess(eqx.Module):
    """A Gaussian perturbation with scale alpha(t) and variance sigma(t)^2, t in [0, 1] from data to noise.

    It is the law of ``dx = f(t) x dt + g(t) dW`` with ``f = (log alpha)'`` and ``g^2 = (sigma^2)' - 2 f sigma^2``
    (Kingma et al. 2021, arXiv 2107.00630; Karras et al. 2022, arXiv 2206.00364, appendix B), which this class derives
    once from `alpha` and `variance`.
    """

    @abc.abstractmethod
    def log_alpha(self, t: Array) -> Array:
        """The logarithm of the scale of the signal at time t."""

    @abc.abstractmethod
    def variance(self, t: Array) -> Array:
        """The variance of the noise at time t."""

    @abc.abstractmethod
    def time(self, log_snr: Array) -> Array:
        """The time at which ``log(alpha/sigma)`` has this value."""

    def alpha(self, t: Array) -> Array:
        """The scale of the signal at time t."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Array) -> Array:
        """The standard deviation of the noise at time t."""
        return jnp.sqrt(self.variance(t))

    def log_snr(self, t: Array) -> Array:
        """``lambda(t) = log(alpha(t) / sigma(t))``."""
        return self.log_alpha(t) - 0.5 * jnp.log(self.variance(t))

    def drift_rate(self, t: Array) -> Array:
        """The coefficient f(t) of the drift ``f(t) x``."""
        return jax.grad(self.log_alpha)(jnp.asarray(t, dtype=jnp.result_type(float, t)))

    def squared_diffusion(self, t: Array) -> Array:
        """The squared diffusion g(t)^2."""
        t = jnp.asarray(t, dtype=jnp.result_type(float, t))
        return jax.grad(self.variance)(t) - 2 * self.drift_rate(t) * self.variance(t)


def _check_order(low: float, high: float, names: tuple[str, str]) -> None:
    if not 0 < low < high < float("inf"):
        raise ValueError(f"`{names[0]}` < `{names[1]}` must be positive numbers, got {low} and {high}.")


class VP(AbstractNoiseProcess):
    """The variance-preserving process, ``dx = -beta(t)/2 x dt + sqrt(beta(t)) dW`` with beta linear in t.

    ``alpha^2 = exp(-B)``, ``sigma^2 = 1 - exp(-B)``, ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2``
    (Song et al. 2021, arXiv 2011.13456, eqs. 32-33). Data should have about unit scale.

    Attributes:
        beta_min: beta(0).
        beta_max: beta(1).

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(VP().variance(jnp.array(1.0))), 5)
        0.99996
    """

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)

    def __check_init__(self) -> None:
        """Check the two rates."""
        _check_order(self.beta_min, self.beta_max, ("beta_min", "beta_max"))

    def _integrated_beta(self, t: Array) -> Array:
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def log_alpha(self, t: Array) -> Array:
        """``-B(t)/2``."""
        return -0.5 * self._integrated_beta(t)

    def variance(self, t: Array) -> Array:
        """``1 - exp(-B(t))``."""
        return -jnp.expm1(-self._integrated_beta(t))

    def time(self, log_snr: Array) -> Array:
        """The positive root of ``B(t) = log(1 + exp(-2 lambda))``, in the form that keeps precision near t=0."""
        integrated = jax.nn.softplus(-2 * jnp.asarray(log_snr))
        slope = self.beta_max - self.beta_min
        return 2 * integrated / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integrated))


class VE(AbstractNoiseProcess):
    """The variance-exploding process, ``dx = sigma(t) sqrt(2 log(sigma_max/sigma_min)) dW``.

    ``alpha = 1``, ``sigma(t) = sigma_min (sigma_max/sigma_min)^t`` (Song et al. 2021, arXiv 2011.13456, eqs. 30-31).

    Attributes:
        sigma_min: sigma(0), a tenth of the smallest scale of the data or less.
        sigma_max: sigma(1), ten to twenty times the largest scale of the data.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(VE(0.01, 100.0).sigma(jnp.array(0.5))), 4)
        1.0
    """

    sigma_min: float = eqx.field(static=True, default=0.002)
    sigma_max: float = eqx.field(static=True, default=80.0)

    def __check_init__(self) -> None:
        """Check the two scales."""
        _check_order(self.sigma_min, self.sigma_max, ("sigma_min", "sigma_max"))

    def log_alpha(self, t: Array) -> Array:
        """Zero: the signal keeps its scale."""
        return jnp.zeros_like(jnp.asarray(t))

    def variance(self, t: Array) -> Array:
        """``sigma_min^2 (sigma_max/sigma_min)^(2t)``."""
        log_ratio = jnp.log(self.sigma_max / self.sigma_min)
        return jnp.exp(2 * (jnp.log(self.sigma_min) + log_ratio * t))

    def time(self, log_snr: Array) -> Array:
        """``log(sigma / sigma_min) / log(sigma_max / sigma_min)`` at ``sigma = exp(-lambda)``."""
        return (-jnp.asarray(log_snr) - jnp.log(self.sigma_min)) / jnp.log(self.sigma_max / self.sigma_min)
