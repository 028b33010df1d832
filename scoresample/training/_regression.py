"""Learning a conditional mean, and the covariance of what it leaves over."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from scoresample.nn import MeanNetwork

_WEIGHT_DECAY = 1e-3
_RIDGE = 1e-6
_ERRORS = 2.0
"""Standard errors by which residuals must differ to be taken for larger."""
_LOOKS = 40
"""How often the held-out loss is taken."""
_DECAY = 0.99
"""Of the average of the weights, a step."""


class _Training(NamedTuple):
    weights: Any
    optimiser: Any
    average: Any


def fit_mean(
    network: MeanNetwork,
    targets: Float[Array, "n d"],
    conditions: Any,
    held_out: Array,
    *,
    key: Array,
    num_epochs: int,
    batch_size: int,
    learning_rate: float,
) -> tuple[MeanNetwork, float]:
    """A conditional mean by least squares: its linear part exactly, then the network, in units of what is left over.

    Points that a mean was fitted to lie closer to it than new ones do. What it leaves over of them has to be multiplied
    by the second result before anything is learned from it; the mixing is that of residuals so multiplied.

    Arguments:
        network: the network to train.
        targets: points, (n, d).
        conditions: what each belongs to, a tree of arrays with a leading axis of n.
        held_out: which are held out, booleans of shape (n,): the network is kept as it was when their loss was least,
            which may be before the first step.
        key: random key of the order.
        num_epochs: passes over the others.
        batch_size: points in a step.
        learning_rate: peak of AdamW's rate, before a cosine decay to zero.

    Returns:
        The trained network, and by how much its residuals at the points that were not held out are too small: the root
        of the ratio of mean squares, or 1 where they differ by less than two standard errors.
    """
    train, test = jnp.flatnonzero(~held_out), jnp.flatnonzero(held_out)
    batch_size = min(batch_size, train.size)
    steps = max(num_epochs * (train.size // batch_size) // _LOOKS, 1)
    network = _linear_part(network, targets, conditions, train)
    whitened = jnp.linalg.solve(network.root, (targets - jax.vmap(network.linear)(conditions)).T).T
    weights, static = eqx.partition(network, eqx.is_inexact_array)
    state = _Training(weights, _optimiser(learning_rate, steps).init(weights), weights)
    best, least = weights, float(_loss(weights, static, whitened, conditions, test))
    for look in range(_LOOKS):
        state, loss = _some_steps(
            state, static, whitened, conditions, train, test, jax.random.fold_in(key, look), steps, batch_size,
            learning_rate,
        )  # fmt: skip
        if float(loss) < least:
            best, least = state.average, float(loss)
    # Weight decay has no business with what least squares found.
    fitted = eqx.tree_at(_by_least_squares, eqx.combine(best, static), _by_least_squares(network))
    rest = np.asarray(whitened - jax.vmap(fitted.shift)(conditions), np.float64)
    inflation = _inflation(*(np.mean(rest[np.asarray(rows)] ** 2, axis=1) for rows in (train, test)))
    rest[np.asarray(train)] *= inflation
    root = _symmetric_root(rest.T @ rest / len(rest))
    return eqx.tree_at(lambda n: n.mixing, fitted, fitted.root @ jnp.asarray(root, targets.dtype)), inflation


def _inflation(within: np.ndarray, outside: np.ndarray) -> float:
    """The root of the ratio of the means of two samples, where it is above 1 by more than chance."""
    ratio = outside.mean() / within.mean()
    error = ratio * np.hypot(*(x.std() / np.sqrt(x.size) / x.mean() for x in (within, outside)))
    return float(np.sqrt(ratio)) if ratio > 1 + _ERRORS * error else 1.0


def _optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(learning_rate, steps * _LOOKS)
    return optax.adamw(schedule, weight_decay=_WEIGHT_DECAY)


def _by_least_squares(network: MeanNetwork) -> Any:
    return network.slope, network.intercept, network.root


def _linear_part(network: MeanNetwork, targets: Array, conditions: Any, train: Array) -> MeanNetwork:
    """The network with the linear part of least squares, and the symmetric root of the covariance it leaves."""
    seen = np.asarray(jax.vmap(network.summary)(conditions), np.float64)[np.asarray(train)]
    wanted = np.asarray(targets, np.float64)[np.asarray(train)]
    known = np.column_stack([seen, np.ones(len(seen))])
    gram = known.T @ known + _RIDGE * len(seen) * np.eye(known.shape[1])
    solved = np.linalg.solve(gram, known.T @ wanted)
    left = wanted - known @ solved
    root = _symmetric_root(left.T @ left / max(len(left) - known.shape[1], 1))
    found = tuple(jnp.asarray(part, targets.dtype) for part in (solved[:-1].T, solved[-1], root))
    return eqx.tree_at(_by_least_squares, network, found)


def _symmetric_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, _RIDGE * values.max()))) @ vectors.T


@eqx.filter_jit
def _loss(weights: Any, static: Any, whitened: Array, conditions: Any, rows: Array) -> Array:
    """The mean squared error in whitened coordinates."""
    network = eqx.combine(weights, static)
    shift = jax.vmap(network.shift)(jax.tree.map(lambda x: x[rows], conditions))
    return jnp.mean((whitened[rows] - shift) ** 2)


@eqx.filter_jit
def _some_steps(
    state: _Training,
    static: Any,
    whitened: Array,
    conditions: Any,
    train: Array,
    test: Array,
    key: Array,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> tuple[_Training, Array]:
    optimiser = _optimiser(learning_rate, steps)

    def step(state: _Training, key: Array) -> tuple[_Training, None]:
        rows = train[jax.random.randint(key, (batch_size,), 0, train.size)]
        gradient = jax.grad(_loss)(state.weights, static, whitened, conditions, rows)
        updates, inner = optimiser.update(gradient, state.optimiser, state.weights)
        weights: Any = optax.apply_updates(state.weights, updates)
        average = jax.tree.map(lambda a, w: _DECAY * a + (1 - _DECAY) * w, state.average, weights)
        return _Training(weights, inner, average), None

    state, _ = jax.lax.scan(step, state, jax.random.split(key, steps))
    return state, _loss(state.average, static, whitened, conditions, test)
