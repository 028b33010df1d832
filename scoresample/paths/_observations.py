"""Scores of one observation each and of the prior, in one set of coordinates, where they can be added."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.paths._base import of_particles
from scoresample.paths._frame import Frame
from scoresample.paths._perturbed import AbstractPerturbedScore
from scoresample.paths._perturbed_density import PerturbedDensity
from scoresample.scores import AbstractExactDensity, Gaussian, GaussianMixture, Structure

_SAME_RATIO = 1e-5
"""Scales of two frames that differ by one factor, up to single precision."""


class Singles(eqx.Module):
    """The scores under each of n observations, as functions of y = z/alpha, a vector, and of log(alpha/sigma).

    Attributes:
        path: the score, with a condition for each of n particles.
        number: n.
        chunk_size: how many are evaluated side by side; None for all.
    """

    path: AbstractPerturbedScore
    number: int = eqx.field(static=True)
    chunk_size: int | None = eqx.field(static=True)

    def one(self, index: int) -> AbstractPerturbedScore:
        """The score under one of the observations."""
        return of_particles(self.path, index)

    def split(self) -> tuple[Any, Any]:
        """The path in two: the conditions, with their leading axis of n, and all that they share."""
        marks = jax.tree.map(lambda axis: axis is not None, self.path.condition_axes(), is_leaf=lambda x: x is None)
        return eqx.partition(self.path, marks)

    def total(self, function: Callable[[AbstractPerturbedScore, Any], Any], beside: Any = None) -> Any:
        """The sum over observations of ``function(score, what is beside it)``, at most `chunk_size` at a time.

        Arguments:
            function: from the score under one observation to a tree of arrays.
            beside: arrays with a leading axis of n, one slice for each observation, or None.
        """
        own, shared = self.split()

        def added(part: Any) -> Any:
            values = jax.vmap(lambda one: function(eqx.combine(one[0], shared), one[1]))(part)
            return jax.tree.map(lambda v: jnp.sum(v, axis=0), values)

        everything, size = (own, beside), self.chunk_size
        if size is None or size >= self.number:
            return added(everything)
        whole = self.number - self.number % size
        chunks = jax.tree.map(lambda x: x[:whole].reshape(whole // size, size, *x.shape[1:]), everything)
        start = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(added, _first(chunks)))
        total, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, added(part)), None), start, chunks)
        if whole == self.number:
            return total
        return jax.tree.map(jnp.add, total, added(jax.tree.map(lambda x: x[whole:], everything)))


class AlignedPrior(eqx.Module):
    """The diffused prior, seen from a score's coordinates: ``y_prior = offset + ratio y``.

    Attributes:
        path: the prior's noised score, in its own standard coordinates.
        offset: a vector.
        ratio: one number, so that isotropic noise stays isotropic.
    """

    path: AbstractPerturbedScore
    offset: Array
    ratio: Array

    def __call__(self, y: Array, log_snr: Array) -> Array:
        """The score with noise sigma/alpha at y, both in the coordinates of the score that it goes with."""
        ratio = self.ratio.astype(y.dtype)
        moved = self.offset.astype(y.dtype) + ratio * y
        return ratio * level_score(self.path, moved, log_snr - jnp.log(ratio))


def level_score(path: AbstractPerturbedScore, y: Array, log_snr: Array) -> Array:
    """The score in y = z/alpha, a vector, of a path at one log(alpha/sigma)."""
    t = path.process.time(log_snr).astype(y.dtype)
    alpha = path.process.alpha(t)
    return alpha * flat(path.standard_score(unflat(alpha * y, path.structure), t))


def flat(tree: Any) -> Array:
    """All numbers of a position as one vector."""
    return ravel_pytree(tree)[0]


def unflat(vector: Any, structure: Structure) -> Any:
    """The position of a structure with these numbers."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)
    return ravel_pytree(zeros)[1](vector)


def frame_vectors(frame: Frame, structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale of a frame as vectors of double precision."""

    def vector(tree: Any, value: float) -> np.ndarray:
        if tree is None:
            tree = jax.tree.map(lambda leaf: np.full(leaf.shape, value), structure)
        full = jax.tree.map(lambda x, leaf: np.broadcast_to(np.asarray(x, np.float64), leaf.shape), tree, structure)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(full)])

    return vector(frame.location, 0.0), vector(frame.scale, 1.0)


def aligned_prior(prior: Any, score: AbstractPerturbedScore) -> AlignedPrior:
    """The prior's score in the standard coordinates of another score.

    Normal densities and mixtures of them are moved there exactly, whatever the scales. Other scores carry noise that is
    isotropic in their own standard coordinates, so their scales may differ from the score's by one factor only.

    Raises:
        TypeError: if the prior is neither a noised score nor a density that can be noised.
        ValueError: if its positions or its scales do not fit.
    """
    if prior is None:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), score.structure)
        return _as_it_is(PerturbedDensity(Gaussian(zeros, 1.0), score.process), score)
    if not isinstance(prior, AbstractPerturbedScore | Gaussian | GaussianMixture):
        raise TypeError(
            "`prior` must be a noised score, such as perturb(Gaussian(...), process) or one that fit_score learned "
            f"from draws of the prior, or a Gaussian or GaussianMixture of positions, got {type(prior).__name__}."
        )
    if prior.structure != score.structure:
        raise ValueError(
            f"`prior` is a law of positions like {prior.structure}, but the score's are {score.structure}. Both must "
            "be of the same (unbounded) coordinates."
        )
    location, scale = frame_vectors(score.frame, score.structure)
    frame = prior.frame if isinstance(prior, AbstractPerturbedScore) else Frame()
    own_location, own_scale = frame_vectors(frame, score.structure)
    offset, ratios = (location - own_location) / own_scale, scale / own_scale
    density = prior.density if isinstance(prior, PerturbedDensity) else prior
    if isinstance(density, Gaussian | GaussianMixture):
        return _as_it_is(PerturbedDensity(_moved(density, offset, ratios), score.process), score)
    assert isinstance(prior, AbstractPerturbedScore)
    if ratios.max() > ratios.min() * (1 + _SAME_RATIO):
        raise ValueError(
            "`prior`: its standard coordinates have other relative scales than the score's, so its noise is not "
            f"isotropic there: the ratios go from {ratios.min():.4g} to {ratios.max():.4g}. Learn the prior's score "
            'from draws that are divided by the scales of the score, with fit_score(..., standardise="none"), and wrap '
            "it with those scales; or train both without standardisation; or give a Gaussian or a GaussianMixture."
        )
    return AlignedPrior(prior, jnp.asarray(offset, dtype=float), jnp.asarray(ratios.mean(), dtype=float))


def _as_it_is(path: AbstractPerturbedScore, score: AbstractPerturbedScore) -> AlignedPrior:
    size = frame_vectors(Frame(), score.structure)[0].size
    return AlignedPrior(path, jnp.zeros(size), jnp.ones(()))


def _moved(density: Gaussian | GaussianMixture, offset: np.ndarray, ratios: np.ndarray) -> AbstractExactDensity:
    """The density of ``(x - offset) / ratios``."""
    if isinstance(density, Gaussian):
        if density.axes is None:
            variances = np.concatenate([np.ravel(v) for v in jax.tree.leaves(density.variances)])
            move = lambda v: jax.tree.map(np.asarray, unflat(jnp.asarray(v, dtype=float), density.structure))  # noqa: E731
            mean = np.concatenate([np.ravel(np.asarray(m, np.float64)) for m in jax.tree.leaves(density.mean)])
            moved = jax.tree.map(jnp.asarray, move((mean - offset) / ratios))
            return Gaussian(moved, move(variances / ratios**2))
        mean, covariance = _gaussian_moments(density)
        return Gaussian(jnp.asarray((mean - offset) / ratios, dtype=float), covariance / np.outer(ratios, ratios))
    axes = np.eye(offset.size) if density.axes is None else np.asarray(density.axes, np.float64)
    variances = np.asarray(density.variances, np.float64)
    axes = np.broadcast_to(axes, (*variances.shape, offset.size))
    covariances = np.einsum("kij,kj,klj->kil", axes, variances, axes)
    weights = np.exp(np.asarray(density.log_weights, np.float64))
    means = (np.asarray(density.means, np.float64) - offset) / ratios
    return GaussianMixture(weights, means, covariances / np.outer(ratios, ratios))


def density_moments(density: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The mean (d,) and the covariance (d, d) of a normal density, or None for others."""
    return _gaussian_moments(density) if isinstance(density, Gaussian) else None


def _gaussian_moments(density: Gaussian) -> tuple[np.ndarray, np.ndarray]:
    mean = np.concatenate([np.ravel(np.asarray(m, np.float64)) for m in jax.tree.leaves(density.mean)])
    variances = np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in jax.tree.leaves(density.variances)])
    axes = np.eye(mean.size) if density.axes is None else np.asarray(density.axes, np.float64)
    return mean, (axes * variances) @ axes.T


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)
