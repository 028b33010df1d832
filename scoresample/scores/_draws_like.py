"""Draws of a sampler, as rooms that come before samplers see them."""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from scoresample.scores._base import Position


@runtime_checkable
class DrawsLike(Protocol):
    """What draws have: positions with leading axes (chain, draw), and log weights of that shape or None."""

    position: Any
    log_weights: Any
    constrain: Any
    kind: Any


def pooled(draws: DrawsLike) -> tuple[Position, np.ndarray | None]:
    """All draws in one leading axis, chain by chain, and their log weights.

    Arguments:
        draws: the draws.
    """
    position = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), draws.position)
    return position, None if draws.log_weights is None else np.ravel(np.asarray(draws.log_weights))
