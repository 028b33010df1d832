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


def check_process(process: object) -> None:
    """Raise a TypeError unless this is a noise process."""
    if not isinstance(process, AbstractNoiseProcess):
        raise TypeError(f"`process` must be a noise process such as VP() or VE(), got {process!r}.")


def _check_order(low: float, high: float, names: tuple[str, str]) -> None:
    if not 0 < low < high < float("inf"):
        raise ValueError(f"`{names[0]}` < `{names[1]}` must be positive numbers, got {low} and {high}.")


def _check_positive(value: float, name: str) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be positive, got {value}.")


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

    def log_alpha(self, t: Array) -> Array:
        """``-B(t)/2``."""
        return -0.5 * _integrated_rate(t, self.beta_min, self.beta_max)

    def variance(self, t: Array) -> Array:
        """``1 - exp(-B(t))``."""
        return -jnp.expm1(-_integrated_rate(t, self.beta_min, self.beta_max))

    def time(self, log_snr: Array) -> Array:
        """The positive root of ``B(t) = log(1 + exp(-2 lambda))``, in the form that keeps precision near t=0."""
        return _time_of_rate(jax.nn.softplus(-2 * jnp.asarray(log_snr)), self.beta_min, self.beta_max)


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


class SubVP(AbstractNoiseProcess):
    """The sub-VP process, ``dx = -beta(t)/2 x dt + sqrt(beta(t) (1 - exp(-2 B(t)))) dW`` with beta linear in t.

    ``alpha^2 = exp(-B)``, ``sigma = 1 - exp(-B)``, ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2``: less noise
    than `VP` at every time (Song et al. 2021, arXiv 2011.13456, eqs. 28 and 29). Data should have about unit scale.

    Attributes:
        beta_min: beta(0).
        beta_max: beta(1).

    Examples:
        >>> import jax.numpy as jnp
        >>> process = SubVP()
        >>> bool(process.variance(jnp.array(0.2)) < VP().variance(jnp.array(0.2)))
        True
    """

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)

    def __check_init__(self) -> None:
        """Check the two rates."""
        _check_order(self.beta_min, self.beta_max, ("beta_min", "beta_max"))

    def log_alpha(self, t: Array) -> Array:
        """``-B(t)/2``."""
        return -0.5 * _integrated_rate(t, self.beta_min, self.beta_max)

    def variance(self, t: Array) -> Array:
        """``(1 - exp(-B(t)))^2``."""
        return jnp.expm1(-_integrated_rate(t, self.beta_min, self.beta_max)) ** 2

    def time(self, log_snr: Array) -> Array:
        """Where ``exp(-B/2) = r (1 - exp(-B))``, r = alpha/sigma: a quadratic equation in ``exp(-B/2)``."""
        log_ratio = jnp.asarray(log_snr)
        # sigma = 2 / (1 + sqrt(1 + 4 r^2)) and exp(-B/2) = r sigma: the first keeps precision for large r.
        root = jnp.hypot(1.0, 2 * jnp.exp(log_ratio))
        from_sigma = -jnp.log1p(-2 / (1 + jnp.maximum(root, 1 + 1e-3)))
        from_alpha = 2 * (jnp.log1p(root) - jnp.log(2.0) - log_ratio)
        return _time_of_rate(jnp.where(log_ratio > 0, from_sigma, from_alpha), self.beta_min, self.beta_max)


class OU(AbstractNoiseProcess):
    """The Ornstein-Uhlenbeck process ``dX = -X ds + sqrt(2) dW`` up to time `horizon`, seen on the clock t = s/horizon.

    ``alpha = exp(-horizon t)``, ``sigma^2 = 1 - exp(-2 horizon t)``: the process of the convergence papers (Chen et al.
    2023, arXiv 2209.11215; Benton et al. 2024, arXiv 2308.03686). Data should have about unit scale.

    Attributes:
        horizon: the time s at which the forward process ends.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(OU(2.0).alpha(jnp.array(0.5))), 4)
        0.3679
    """

    horizon: float = eqx.field(static=True, default=8.0)

    def __check_init__(self) -> None:
        """Check the horizon."""
        _check_positive(self.horizon, "horizon")

    def log_alpha(self, t: Array) -> Array:
        """``-horizon t``."""
        return -self.horizon * jnp.asarray(t)

    def variance(self, t: Array) -> Array:
        """``1 - exp(-2 horizon t)``."""
        return -jnp.expm1(-2 * self.horizon * jnp.asarray(t))

    def time(self, log_snr: Array) -> Array:
        """``log(1 + exp(-2 lambda)) / (2 horizon)``."""
        return jax.nn.softplus(-2 * jnp.asarray(log_snr)) / (2 * self.horizon)


class EDM(AbstractNoiseProcess):
    """Noise whose standard deviation grows linearly: ``alpha = 1``, ``sigma(t) = sigma_max t``.

    The clock of Karras et al. 2022 (arXiv 2206.00364, table 1), scaled to [0, 1]; ``dx = sqrt(2 sigma sigma') dW``.

    Attributes:
        sigma_max: sigma(1), ten to twenty times the largest scale of the data or more.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(EDM().sigma(jnp.array(0.5)))
        40.0
    """

    sigma_max: float = eqx.field(static=True, default=80.0)

    def __check_init__(self) -> None:
        """Check the scale."""
        _check_positive(self.sigma_max, "sigma_max")

    def log_alpha(self, t: Array) -> Array:
        """Zero: the signal keeps its scale."""
        return jnp.zeros_like(jnp.asarray(t))

    def variance(self, t: Array) -> Array:
        """``(sigma_max t)^2``."""
        return (self.sigma_max * jnp.asarray(t)) ** 2

    def time(self, log_snr: Array) -> Array:
        """``exp(-lambda) / sigma_max``."""
        return jnp.exp(-jnp.asarray(log_snr)) / self.sigma_max


def _integrated_rate(t: Array, low: float, high: float) -> Array:
    """The integral of the rate ``low + (high - low) t`` from 0 to t."""
    return t * (low + 0.5 * (high - low) * t)


def _time_of_rate(integrated: Array, low: float, high: float) -> Array:
    """The positive t with this integral, in the form that keeps precision near 0."""
    return 2 * integrated / (low + jnp.sqrt(low**2 + 2 * (high - low) * integrated))
