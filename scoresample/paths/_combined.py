"""The posterior of many observations as a path: combinations of scores under one observation each."""

import warnings
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths._base import AbstractScorePath, as_time
from scoresample.paths._bridged import BridgedScore
from scoresample.paths._centred import CentredScore
from scoresample.paths._conditioning import Condition, ConditionalPath
from scoresample.paths._frame import Frame
from scoresample.paths._grid import check_concrete
from scoresample.paths._observations import (
    AlignedPrior,
    Singles,
    aligned_prior,
    density_moments,
    flat,
    frame_vectors,
    level_score,
    unflat,
)
from scoresample.paths._perturbed import AbstractPerturbedScore
from scoresample.paths._perturbed_density import PerturbedDensity
from scoresample.paths._process import AbstractNoiseProcess
from scoresample.paths._single_moments import path_moments, single_moments
from scoresample.scores import Constrain, Position, Structure

Combination = Literal["gauss", "jac", "fnpse"]
"""How scores under one observation each are combined."""

_STOP_FRACTION = 0.1
"""Sampling should end where the noise is at most this share of the smallest scale."""
_WIDER = 1e-3
"""A law that is wider than the prior by a smaller share than this is as wide, up to rounding."""
_ROUNDING = 32.0
"""Eigenvalues of denoising covariances are rounded by up to this many units in the last place."""


class CombinedScore(AbstractPerturbedScore):
    """The noised posterior of n independent observations, from scores under one observation each.

    With y = z/alpha, s = sigma/alpha, g_j the score of ``p_s(y | x_j)`` and g_0 that of the noised prior, the score is

    ``g = g_0 + Lambda^-1 sum_j W_j (g_j - g_0)``,  ``Lambda = 1 + sum_j (W_j - 1)``,  ``W_j = S_0 S_j^-1``,

    up to a change of basis: the product of the normal laws of the clean point given the noised one, S_j their
    covariances under each observation and S_0 under the prior (Linhart et al. 2024, arXiv 2404.07593, eq. 10 and
    section 3). Written so, it needs no difference of large numbers at little noise, where it is the exact
    ``g_0 + sum_j (g_j - g_0)``.

    * ``"gauss"``: ``S^-1 = C^-1 + 1/s^2`` from covariances C of the laws without noise, found once: no further cost.
    * ``"jac"``: ``S = s^2 (1 + s^2 J)`` from the symmetric part of the Jacobian J of each score (Tweedie's formula of
      second order), d more derivatives for every score, and right where the covariance changes with the point.

    Both are exact on normal models and at s = 0; otherwise the levels between are approximate, so no solver's error
    bound holds, and what is wrong with a learned score is added n times over. Where an S_j is wider than S_0 in some
    direction, which an observation of a normal model never makes it, or not positive, its width there is set to that of
    S_0, or to the least that rounding lets one tell from 0. Lambda is then never below 1, whatever n, and nothing is
    divided by zero; `regularised_share` counts how often it happened. With n = 1 it is the score itself.

    Attributes:
        singles: the score under each observation.
        prior: the diffused prior in the same coordinates.
        method: ``"gauss"`` or ``"jac"``.
        process: the noise process of the score.
        log_snr_range: where both the score and the prior are valid.
        mean: of the normal approximation to the combined law, in standard coordinates.
        covariance: of the same.
        single_precisions: (n, d, d) inverse covariances under each observation.
        prior_precision: (d, d) inverse covariance of the prior.
        single_regularised: (n,) whether the covariance under an observation had to be cut to the prior's.
    """

    singles: Singles
    prior: AlignedPrior
    method: Literal["gauss", "jac"] = eqx.field(static=True)
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain
    mean: Array
    covariance: Array
    single_precisions: Array
    prior_precision: Array
    single_regularised: Array

    def standard_score(self, z: Position, t: Array) -> Position:
        """The combination, or the score itself where there is one observation."""
        if self.singles.number == 1:
            return self.singles.one(0).standard_score(z, t)
        return unflat(self._combined(z, t)[0], self.structure)

    def regularised_share(self, particles: Position, t: Array | float) -> Array:
        """The share of the covariances S_j that had to be cut at one level.

        Arguments:
            particles: points in standard coordinates with one leading axis.
            t: the level.

        Returns:
            A number in [0, 1]: over particles and observations; with ``"gauss"`` the same at all levels.
        """
        t = as_time(t, particles)
        dtype = t.dtype
        if self.singles.number == 1:
            return jnp.zeros((), dtype)
        if self.method == "gauss":
            return jnp.mean(self.single_regularised.astype(dtype))
        return jnp.mean(jax.vmap(lambda z: self._combined(z, t)[1])(particles))

    def data_moments(self) -> tuple[Position, Position]:
        """Mean and variances of the normal approximation to the combined law."""
        return unflat(self.mean, self.structure), unflat(jnp.diagonal(self.covariance), self.structure)

    def smallest_scale(self) -> Array:
        """The smallest standard deviation of the normal approximation, of order 1/sqrt(n) of a single one's."""
        return jnp.sqrt(jnp.linalg.eigvalsh(self.covariance)[0])

    def condition_axes(self) -> Any:
        """None: all particles see all observations."""
        return None

    def _combined(self, z: Position, t: Array) -> tuple[Array, Array]:
        """The score at one point as a vector, and the share of covariances that were cut."""
        alpha, log_snr = self.process.alpha(t), self.process.log_snr(t)
        y, squared = flat(z) / alpha, jnp.exp(-2 * log_snr)
        combine = self._from_covariances if self.method == "gauss" else self._from_jacobians
        value, share = combine(y, log_snr, squared)
        return value / alpha, share

    def _from_covariances(self, y: Array, log_snr: Array, squared: Array) -> tuple[Array, Array]:
        prior = self.prior(y, log_snr)

        def weighed(path: AbstractPerturbedScore, precision: Array) -> Array:
            gain = level_score(path, y, log_snr) - prior
            return gain + squared * (precision.astype(y.dtype) @ gain)

        total = self.singles.total(weighed, self.single_precisions)
        # No level and no particle changes these axes.
        variances, axes = jnp.linalg.eigh(self.covariance)
        variances, axes = variances.astype(y.dtype), axes.astype(y.dtype)
        value = prior + axes @ ((axes.T @ total) * (variances / (variances + squared)))
        return value, jnp.mean(self.single_regularised.astype(y.dtype))

    def _from_jacobians(self, y: Array, log_snr: Array, squared: Array) -> tuple[Array, Array]:
        identity = jnp.eye(y.size, dtype=y.dtype)
        least = _ROUNDING * jnp.finfo(y.dtype).eps

        def with_covariance(score: Any) -> tuple[Array, Array]:
            value, jacobian = score(y), jax.jacfwd(score)(y)
            return value, identity + 0.5 * squared * (jacobian + jacobian.T)

        prior, width = with_covariance(lambda v: self.prior(v, log_snr))
        widths, axes = jnp.linalg.eigh(width)
        bad_prior = widths[0] < least
        root = axes * jnp.sqrt(jnp.maximum(widths, least))
        unroot = (axes / jnp.sqrt(jnp.maximum(widths, least))).T
        floor = jnp.minimum(least / jnp.maximum(widths[0], least), 1.0)

        def weighed(path: AbstractPerturbedScore) -> tuple[Array, Array, Array]:
            value, width = with_covariance(lambda v: level_score(path, v, log_snr))
            relative, turned = jnp.linalg.eigh(unroot @ width @ unroot.T)
            cut = (relative[0] < floor) | (relative[-1] > 1 + floor + _WIDER) | bad_prior
            inverse = 1 / jnp.clip(relative, floor, 1.0)
            weight = (turned * inverse) @ turned.T
            excess = (turned * (inverse - 1)) @ turned.T
            return weight @ (unroot @ (value - prior)), excess, cut.astype(y.dtype)

        total, excess, cuts = self.singles.total(lambda path, _: weighed(path))
        value = prior + root @ jnp.linalg.solve(identity + excess, total)
        return value, cuts / self.singles.number


def combine_observations(
    score: AbstractPerturbedScore,
    observations: Condition,
    *,
    prior: Any = None,
    method: Combination = "gauss",
    moments: tuple[Any, Any] | None = None,
    key: Array | None = None,
    num_draws: int = 500,
    chunk_size: int | None = None,
) -> AbstractScorePath:
    """The posterior of many independent observations, from a score that was trained on one at a time.

    ``p(theta | x_1, ..., x_n)`` is proportional to ``p(theta)^(1-n) prod_j p(theta | x_j)``. With noise that product
    no longer holds level by level; the methods differ in what they do about it:

    * ``"gauss"`` and ``"jac"`` correct it by covariances and give a noised score for every path sampler: see
      [`CombinedScore`][scoresample.paths.CombinedScore]. ``"jac"`` costs d derivatives for every score.
    * ``"fnpse"`` takes other densities between, which are not the noised posterior's: see
      [`BridgedScore`][scoresample.paths.BridgedScore]. Sample it with annealed Langevin; the samplers that reverse
      noise refuse it.

    Arguments:
        score: a conditional score ``p_t(theta | x)``, such as one from ``fit_score(theta, conditions=x)``.
        observations: conditions of the score with a leading axis of n, one or more.
        prior: the prior of theta: a noised score of any process, or a `Gaussian` or `GaussianMixture` of positions.
            A score is in the coordinates that the score was trained in: where that was with ``support=``, the
            unbounded ones, in which a uniform prior is logistic. By default standard normal in the score's standard
            coordinates, which is right where theta was brought to prior-normal coordinates and not standardised again.
        method: ``"gauss"``, ``"jac"`` or ``"fnpse"``.
        moments: means (n, d) and covariances (n, d, d) of the law under each observation, in positions, with the
            coordinates in the order of `jax.flatten_util.ravel_pytree`, where they are known.
        key: random key, for the draws that they are found from where they are not.
        num_draws: how many under each observation.
        chunk_size: how many observations are evaluated side by side for each particle, to bound memory; None for all.

    Returns:
        A path of the posterior of all observations together.

    Raises:
        TypeError: if `score` takes no conditions, or is traced, or `prior` is neither score nor density.
        ValueError: if an observation does not fit the score, the axis of n is missing, `key` is, a setting is unknown,
            the prior's coordinates cannot be brought to the score's, or moments are not finite.

    Warns:
        UserWarning: if the score is not valid at noise of a tenth of the smallest scale of the combined law.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.paths import VP, PerturbedScore
        >>> score = PerturbedScore(  # theta ~ N(0, 1), x ~ N(theta, 1): theta given x is N(x/2, 1/2)
        ...     lambda y, s, x: (0.5 * y + s**2 * x / 2) / (0.5 + s**2),
        ...     VP(),
        ...     structure=jnp.zeros(1),
        ...     condition=jnp.zeros(1),
        ...     prediction="denoised",
        ...     time="sigma",
        ... )
        >>> path = combine_observations(score, jnp.array([[1.0], [2.0], [3.0]]), key=jax.random.key(0))
        >>> mean, variance = path.data_moments()
        >>> mean.round(2).tolist(), variance.round(2).tolist()
        ([1.5], [0.25])
    """
    singles = _singles(score, observations, method, chunk_size)
    aligned = aligned_prior(prior, score)
    dimension, number = frame_vectors(Frame(), score.structure)[0].size, singles.number
    log_snr_range = _common_range(score, aligned)
    if moments is None:
        if key is None:
            raise ValueError(
                "`key` is needed: means and covariances under each observation are found from draws. Pass "
                "key=jax.random.key(0), or the `moments` where they are known."
            )
        means, covariances = single_moments(singles, *log_snr_range, _checked_draws(num_draws, dimension), key)
    else:
        means, covariances = _given_moments(moments, score, number, dimension)
    prior_mean, prior_covariance = _prior_moments(aligned, max(num_draws, 2 * dimension + 2), key)
    count = sum(
        int(not np.isfinite(m).all() or not np.isfinite(c).all()) for m, c in zip(means, covariances, strict=True)
    )
    if count or not np.isfinite(prior_covariance).all():
        raise ValueError(
            f"`score`: the moments under {count} of {number} `observations`, or those of the prior, are not finite. Is "
            "the score finite there over all of its `log_snr_range`?"
        )
    precisions, regularised = _cut_precisions(covariances, prior_covariance, number)
    prior_precision = np.linalg.inv(prior_covariance)
    precision = precisions.sum(axis=0) + (1 - number) * prior_precision
    covariance = np.linalg.inv(precision)
    covariance = 0.5 * (covariance + covariance.T)
    shift = np.einsum("nij,nj->i", precisions, means - prior_mean)
    mean = prior_mean + covariance @ shift
    _warn_of_range(log_snr_range[1], float(np.sqrt(np.linalg.eigvalsh(covariance)[0])), number)
    as_array = lambda value: jnp.asarray(value, dtype=float)  # noqa: E731
    shared: dict[str, Any] = {
        "singles": singles,
        "prior": aligned,
        "log_snr_range": as_array(log_snr_range),
        "frame": score.frame,
        "structure": score.structure,
        "constrain": score.constrain,
        "single_precisions": as_array(precisions),
        "prior_precision": as_array(prior_precision),
    }
    if method == "fnpse":
        return BridgedScore(means=as_array(means), prior_mean=as_array(prior_mean), **shared)
    return CombinedScore(
        method=method,
        process=score.process,
        mean=as_array(mean),
        covariance=as_array(covariance),
        single_regularised=jnp.asarray(regularised),
        **shared,
    )


def _singles(score: Any, observations: Condition, method: str, chunk_size: int | None) -> Singles:
    if not isinstance(score, AbstractPerturbedScore) or not isinstance(score, ConditionalPath):
        raise TypeError(
            f"`score` must be a conditional noised score, got {type(score).__name__}. Train one with "
            "fit_score(theta, conditions=x)."
        )
    check_concrete(score)
    if isinstance(score, CentredScore):
        raise ValueError(
            "`score` lives in coordinates that move with the observation, so the scores under several cannot be added. "
            'Train it with fit_posterior(..., coordinates="prior"), and take posterior.given_all(observations).'
        )
    if score.frame.mixing is not None:
        raise ValueError("`score` has a frame with a mixing matrix. Combine scores of plain coordinates.")
    if method not in get_args(Combination):
        raise ValueError(f"`method` must be one of {list(get_args(Combination))}, got {method!r}.")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"`chunk_size` must be at least 1, or None for all observations, got {chunk_size}.")
    path = score.given(observations)
    axes = path.condition_axes()
    if axes is None:
        raise ValueError(
            "`observations` must have a leading axis, one slice for each observation, but they have the shape of a "
            "single one. For one observation: score.given(observation), or observation[None]."
        )
    marks = jax.tree.map(lambda axis: axis is not None, axes, is_leaf=lambda leaf: leaf is None)
    return Singles(path, jax.tree.leaves(eqx.filter(path, marks))[0].shape[0], chunk_size)


def _checked_draws(num_draws: int, dimension: int) -> int:
    if num_draws < 2 * dimension + 2:
        raise ValueError(
            f"`num_draws` must be at least {2 * dimension + 2} in {dimension} dimensions, got {num_draws}."
        )
    return num_draws


def _common_range(score: AbstractPerturbedScore, prior: AlignedPrior) -> tuple[float, float]:
    """Where the score and the prior, whose noise is `ratio` times as large, are both valid."""
    low, high = np.asarray(score.log_snr_range, np.float64)
    if isinstance(prior.path, PerturbedDensity):
        return float(low), float(high)
    prior_low, prior_high = np.asarray(prior.path.log_snr_range, np.float64) + float(np.log(np.asarray(prior.ratio)))
    low, high = max(low, prior_low), min(high, prior_high)
    if not low < high:
        raise ValueError(
            f"`prior`: no noise level is left where both it (log-SNR {prior_low:.3g} to {prior_high:.3g}) and the "
            f"score ({float(score.log_snr_range[0]):.3g} to {float(score.log_snr_range[1]):.3g}) are valid."
        )
    return float(low), float(high)


def _given_moments(
    moments: tuple[Any, Any], score: AbstractPerturbedScore, number: int, dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    means, covariances = (np.asarray(value, np.float64) for value in moments)
    want = (number, dimension), (number, dimension, dimension)
    if (means.shape, covariances.shape) != want:
        raise ValueError(
            f"`moments` must be means {want[0]} and covariances {want[1]}, got {means.shape} and {covariances.shape}."
        )
    location, scale = frame_vectors(score.frame, score.structure)
    covariances = covariances / np.outer(scale, scale)
    if not np.isfinite(covariances).all() or np.linalg.eigvalsh(covariances).min() <= 0:
        raise ValueError("`moments`: the covariances must be finite and positive definite.")
    return (means - location) / scale, covariances


def _prior_moments(prior: AlignedPrior, num_draws: int, key: Array | None) -> tuple[np.ndarray, np.ndarray]:
    """Of the prior in the score's standard coordinates, exact where it is normal."""
    exact = density_moments(prior.path.density) if isinstance(prior.path, PerturbedDensity) else None
    if exact is not None:
        return exact
    if key is None:
        raise ValueError("`key` is needed: the covariance of a prior that is not normal is found from draws.")
    mean, covariance = path_moments(prior.path, num_draws, jax.random.fold_in(key, 1))
    ratio = float(np.asarray(prior.ratio))
    return (mean - np.asarray(prior.offset, np.float64)) / ratio, covariance / ratio**2


def _cut_precisions(covariances: np.ndarray, prior: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse covariances (n, d, d), none below the prior's, and which were (n,)."""
    root = np.linalg.cholesky(prior)
    relative = np.linalg.solve(root, np.swapaxes(np.linalg.solve(root, covariances), 1, 2))
    values, axes = np.linalg.eigh(0.5 * (relative + np.swapaxes(relative, 1, 2)))
    least = float(np.finfo(np.float32).eps)
    cut = (values[:, -1] > 1 + _WIDER) | (values[:, 0] < least)
    values = np.clip(values, least, 1.0 if number > 1 else np.inf)
    inverse = np.linalg.inv(root)
    turned = inverse.T @ axes
    return (turned / values[:, None, :]) @ np.swapaxes(turned, 1, 2), cut


def _warn_of_range(high: float, scale: float, number: int) -> None:
    """One UserWarning where the score ends at more noise than the combined law can be told from."""
    noise = float(np.exp(-high))
    if noise > 1.001 * _STOP_FRACTION * scale:
        warnings.warn(
            f"the posterior of {number} observations has a smallest scale of {scale:.3g} in standard coordinates, but "
            f"the score is valid down to noise of {noise:.3g} only, more than a tenth of it: draws will be too wide. "
            f"Train with sigma_range=({_STOP_FRACTION * scale:.2g}, ...), or declare a wider `log_snr_range` where the "
            "score holds there.",
            UserWarning,
            stacklevel=3,
        )
