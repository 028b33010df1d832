"""The step size of Langevin moves at one level of a path."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, estimate_lipschitz, score_particles
from scoresample.scores import Position, random_like

StepRule = Literal["noise", "jacobian", "snr"]
"""How step sizes follow the levels, by name."""


def check_step_rule(rule: StepRule | Callable[[Array], Array]) -> None:
    """Refuse a rule that is neither a name nor a function."""
    if not callable(rule) and rule not in get_args(StepRule):
        raise ValueError(
            f"`step_rule` must be one of {list(get_args(StepRule))} or a function t -> Lipschitz constant, got {rule!r}."
        )


def level_step_size(
    path: AbstractScorePath,
    particles: Position,
    t: Array,
    *,
    rule: StepRule | Callable[[Array], Array],
    step_size: float,
    key: Array,
) -> Array:
    """The step h_t of ``x + h s(x, t) + sqrt(2 h) z`` at one level.

    * ``"noise"``: ``h = c / L`` with the path's own Lipschitz constant, ``1/sigma_t^2`` for noised data; where the path
      has none, as below.
    * ``"jacobian"``: ``h = c / L`` with L the largest singular value of the score's Jacobian over some particles.
    * ``"snr"``: ``h = 2 (c mean|z| / mean|s|)^2``, the signal-to-noise rule of Song et al. 2021, arXiv 2011.13456,
      algorithm 4. It does not know the curvature: keep c near .16.
    * a function t -> L: ``h = c / L(t)``.

    Arguments:
        path: the path.
        particles: where it is, in standard coordinates, with a leading axis.
        t: the level.
        rule: the rule.
        step_size: c.
        key: random key of what is estimated.

    Returns:
        A positive scalar, shared by all particles.
    """
    if callable(rule):
        return step_size / jnp.asarray(rule(t)).astype(t.dtype)
    if rule == "snr":
        noise, scores = random_like(key, particles), score_particles(path, particles, t)
        ratio = jnp.mean(_norms(noise)) / jnp.maximum(jnp.mean(_norms(scores)), np.finfo(t.dtype).tiny)
        return 2 * (step_size * ratio) ** 2
    lipschitz = path.lipschitz(t) if rule == "noise" else None
    if lipschitz is None:
        lipschitz = estimate_lipschitz(path, particles, t, key=key)
    return step_size / lipschitz


def _norms(x: Position) -> Array:
    squares = jax.tree.map(lambda a: jnp.sum(a.reshape(a.shape[0], -1) ** 2, axis=1), x)
    return jnp.sqrt(jax.tree.reduce(jnp.add, squares))
