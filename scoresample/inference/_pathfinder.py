"""Starts for chains, and a Gaussian near the target, by BlackJAX's Pathfinder."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.vi import multipathfinder
from jaxtyping import Array

from scoresample.inference._doors import check_count, check_key, score_for_chains, starts
from scoresample.paths import AbstractScorePath
from scoresample.scores import AbstractDensityScore, AbstractScore, Gaussian, Position, logdensity_fn


@dataclasses.dataclass(frozen=True, eq=False)
class PathfinderFit:
    """What Pathfinder found: approximate draws, one set for each path.

    Attributes:
        position: approximate draws, a tree with leading axes (path, draw), in unconstrained coordinates.
        log_weights: (path, draw) smoothed importance weights of all draws together, which sum to one.
        pareto_k: shape of the weights' tail: above 0.7 the draws are too far from the target to be weighted.
    """

    position: Position
    log_weights: np.ndarray
    pareto_k: float

    def starts(self) -> Position:
        """The first draw of every path: `initial_position` for as many chains as there are paths.

        Paths that end in different modes give starts in different modes, so that R-hat can tell.
        """
        return jax.tree.map(lambda x: jnp.asarray(x[:, 0]), self.position)

    def gaussian(self, inflation: float = 4.0) -> Gaussian:
        """A diagonal Gaussian with the mean and the inflated variances of all draws, as a tempered path's reference.

        Arguments:
            inflation: factor on the variances; the reference has to cover the target.

        Raises:
            ValueError: if `inflation` is not positive.
        """
        if not inflation > 0:
            raise ValueError(f"`inflation` must be positive, got {inflation}.")
        flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), self.position)
        mean = jax.tree.map(lambda x: jnp.asarray(x.mean(axis=0)), flat)
        return Gaussian(mean, jax.tree.map(lambda x: jnp.asarray(inflation * x.var(axis=0)), flat))


def pathfinder(
    target: AbstractScore | AbstractScorePath,
    *,
    key: Array,
    num_paths: int = 4,
    num_draws: int = 200,
    max_iterations: int = 100,
    initial_position: Position | None = None,
) -> PathfinderFit:
    """Follow L-BFGS from several starts, and keep the Gaussian on each path that is closest to the target.

    For starts in the bulk where the usual ones are far from it: ``sample(target, NUTS(), key=key,
    initial_position=pathfinder(target, key=key).starts())``. The draws are approximate: start from them, do not report
    them.

    Arguments:
        target: a score with a density, or a path, whose last level is taken.
        key: random key.
        num_paths: number of starts, and so of paths.
        num_draws: approximate draws of each path.
        max_iterations: of L-BFGS on each path.
        initial_position: one start for all paths, or one for each with a leading axis; needed only where the target
            does not know where to start.

    Returns:
        A [`PathfinderFit`][scoresample.PathfinderFit].

    Raises:
        TypeError: if the target has no density.
        ValueError: if a start is wrong.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> fit = ss.pathfinder(ss.Gaussian(jnp.array([3.0, -1.0]), 0.5), key=jax.random.key(0))
        >>> fit.starts().shape
        (4, 2)
        >>> [round(float(m), 1) for m in fit.gaussian().mean]
        [3.0, -1.0]

    Source: Zhang et al. 2022, Journal of Machine Learning Research 23, arXiv 2108.03782.
    """
    key_start, key_run = jax.random.split(check_key(key))
    score = score_for_chains(target)
    if not isinstance(score, AbstractDensityScore):
        raise TypeError(
            f"`target`: Pathfinder compares log densities, but {type(score).__name__} is a bare score. Wrap it: "
            "LineIntegralDensity(score, origin=a position in the bulk)."
        )
    num_paths = check_count("num_paths", num_paths, 1)
    num_draws = check_count("num_draws", num_draws, 1)
    max_iterations = check_count("max_iterations", max_iterations, 1)
    positions = starts(score, initial_position, num_paths, key_start)
    found, log_weights, pareto_k = _run(score, positions, key_run, num_draws, max_iterations)
    return PathfinderFit(
        jax.tree.map(np.asarray, found), np.asarray(log_weights).reshape(num_paths, num_draws), float(pareto_k)
    )


@eqx.filter_jit
def _run(
    score: AbstractDensityScore, positions: Position, key: Array, num_draws: int, max_iterations: int
) -> tuple[Any, Array, Array]:
    state, _ = multipathfinder.multi_approximate(
        key, logdensity_fn(score), positions, num_draws, maxiter=max_iterations
    )
    log_weights, pareto_k = multipathfinder.psis_weights(state)
    return state.samples, log_weights, pareto_k
