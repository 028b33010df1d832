"""Moving draws by steps that leave a density invariant."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.checks import short_chain_checks
from scoresample.diagnostics import normalized_weights, systematic_resample
from scoresample.inference import Draws
from scoresample.paths import AbstractDensityPath, Frame
from scoresample.samplers import ParallelMALA
from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure
from scoresample.workflows._doors import check_draws, check_target


class _AroundDraws(AbstractDensityPath):
    """A density in the coordinates in which draws have no correlations: the same at all levels."""

    target: AbstractDensityScore
    frame: Frame
    structure: Structure
    constrain: Constrain

    def standard_score(self, z: Position, t: Array) -> Position:
        """The target's score."""
        return self.frame.score_to_standard(self.target(self.frame.to_position(z)))

    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """The target's log density, up to a constant."""
        return self.target.logdensity(self.frame.to_position(z))

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        """Standard normal points."""
        return jax.random.normal(key, (num_particles, *self.structure.shape), self.structure.dtype)

    def lipschitz(self, t: Array) -> None:
        """Not known."""
        return None

    def condition_axes(self) -> Any:
        """None: nothing is particle by particle."""
        return None


def polish(draws: Draws, target: AbstractDensityScore, *, key: Array, num_steps: int = 40) -> Draws:
    """Draws near a density moved by steps that leave it invariant: Metropolis-adjusted Langevin chains from each.

    Weighted draws are resampled first. Every draw is then the start of a chain of its own, in coordinates in which the
    draws are uncorrelated; half of the steps tune the step size that all share, and the others leave the target exactly
    invariant ([`ParallelMALA`][scoresample.ParallelMALA]). What is left of an error in the starts shrinks with every
    step where the density has one mode. Steps do not cross between modes: shares of modes stay those of the starts
    (which weights have mended, where draws were in all of them), and a mode without draws stays missed.

    Arguments:
        draws: draws near the target, of any kind, weighted or not.
        target: the density.
        key: random key.
        num_steps: moves of every chain.

    Returns:
        The draws at the ends of the chains, without weights. ``info["checks"]`` tells whether the chains forgot where
        they were; ``info["distinct_starts"]`` is the number of different draws that they started from; `nfe` counts
        the evaluations of the target beside those that the draws took.

    Raises:
        TypeError: if `draws` are no Draws or the target has no density.
        ValueError: if they do not fit, or there are fewer than two moves.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> target = ss.Gaussian(jnp.zeros(2), 1.0)
        >>> near = ss.exact_draws(ss.Gaussian(jnp.full(2, 0.3), 1.2), key=jax.random.key(0), num_samples=500)
        >>> moved = ss.polish(near, target, key=jax.random.key(1))
        >>> bool(jnp.abs(moved.position.mean()) < 0.1)
        True
    """
    check_draws(draws)
    check_target("target", target, draws)
    sampler = ParallelMALA(num_steps=num_steps)
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), draws.position)
    number = jax.tree.leaves(flat)[0].shape[0]
    chosen = np.arange(number)
    if draws.log_weights is not None:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        chosen = systematic_resample(normalized_weights(draws), number, seed=seed)
        flat = jax.tree.map(lambda x: x[chosen], flat)
    vectors, density, unravel = _as_vectors(flat, target)
    path = _AroundDraws(
        target=density,
        frame=_frame(vectors),
        structure=jax.ShapeDtypeStruct(vectors.shape[1:], vectors.dtype),
        constrain=target.constrain,
    )
    plan = sampler.plan(path, key=key)
    ended, stats = _run(path, sampler, plan, vectors, key)
    shape = jax.tree.leaves(draws.position)[0].shape[:2]
    position = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), jax.vmap(unravel)(ended))
    finite = np.isfinite(np.asarray(ended)).all(axis=1).reshape(shape)
    return dataclasses.replace(
        draws,
        position=position,
        log_weights=None,
        stats={"non_finite": ~finite},
        info={
            **{name: value for name, value in draws.info.items() if name not in _OF_WEIGHTS},
            **{name: np.asarray(value) for name, value in stats.items()},
            "checks": short_chain_checks({name: np.asarray(value) for name, value in stats.items()}),
            "distinct_starts": int(np.unique(chosen).size),
        },
        nfe=draws.nfe + plan.nfe,
    )


_OF_WEIGHTS = ("pareto_k", "ess", "log_z", "log_z_se", "num_failed_weights")


def _as_vectors(flat: Position, target: AbstractDensityScore) -> tuple[Array, AbstractDensityScore, Any]:
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], flat))[1]
    vectors = jax.vmap(lambda p: ravel_pytree(p)[0])(flat)
    return vectors, _OfVectors(target, unravel), unravel


class _OfVectors(AbstractDensityScore):
    """A density score of positions laid out in vectors."""

    inner: AbstractDensityScore
    unravel: Any = eqx.field(static=True)
    structure: Structure
    constrain: Constrain
    init_position: Any

    def __init__(self, inner: AbstractDensityScore, unravel: Any) -> None:
        self.inner, self.unravel = inner, unravel
        self.structure, self.constrain, self.init_position = None, inner.constrain, None

    def logdensity(self, position: Array) -> Array:
        """The inner log density."""
        return self.inner.logdensity(self.unravel(position))

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        """The inner log density and score."""
        value, score = self.inner.value_and_score(self.unravel(position))
        return value, ravel_pytree(score)[0]


def _frame(vectors: Array) -> Frame:
    """The coordinates in which draws have unit covariance."""
    points = np.asarray(vectors, np.float64)
    centre = points.mean(axis=0)
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(points, rowvar=False)))
    root = (axes * np.sqrt(np.maximum(values, 1e-10 * values.max()))) @ axes.T
    return Frame(jnp.asarray(centre, vectors.dtype), None, jnp.asarray(root, vectors.dtype))


@eqx.filter_jit
def _run(
    path: _AroundDraws, sampler: ParallelMALA, plan: Any, vectors: Array, key: Array
) -> tuple[Array, dict[str, Array]]:
    starts = jax.vmap(path.frame.to_standard)(vectors)
    ended, _, info = sampler.run(path, starts, plan, key=key)
    return jax.vmap(path.frame.to_position)(ended), info.stats
