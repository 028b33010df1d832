"""What `sample` checks before any work is done."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractCascadedPath, AbstractPerturbedScore, AbstractScorePath
from scoresample.scores import AbstractScore, Position, check_structure, structure_of

_MOST_NAMED = 8
"""Chains that an error names."""


def check_key(key: Any) -> Array:
    """A typed key, also from an old raw one.

    Raises:
        TypeError: if it is not one random key.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(f"`key` must be one random key, such as jax.random.key(0), got {key!r}.")


def check_count(name: str, value: Any, least: int, remedy: str = "") -> int:
    """The value as a Python integer, if it is a whole number of at least `least`.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.{' ' + remedy if remedy else ''}")
    return int(value)


def check_store(store: Any) -> Path | None:
    """The place of a store, or None.

    Raises:
        TypeError: if it is no path.
        ValueError: if it is a path of something else.
    """
    if store is None:
        return None
    if not isinstance(store, str | Path):
        raise TypeError(f'`store` must be a path, such as "run.zarr", got {store!r}.')
    path = Path(store).expanduser()
    if path.exists() and not (path / "zarr.json").is_file():
        raise ValueError(
            f"`store`: {path} is there and is no run of scoresample. It was left as it is. Name a new place."
        )
    return path


def score_for_chains(target: Any) -> AbstractScore:
    """The score that chains run on: the target itself, or a path at its last level.

    Raises:
        TypeError: if the target is neither a score nor a path.
    """
    if isinstance(target, AbstractScore):
        return target
    if isinstance(target, AbstractPerturbedScore):
        return target.at(target.process.time(target.log_snr_range[1]))
    if isinstance(target, AbstractScorePath):
        return target.at(0.0)
    if isinstance(target, AbstractCascadedPath):
        raise TypeError(
            f"`target`: {type(target).__name__} is a cascade of paths, on which path samplers run stage by stage, such "
            "as ReverseSDE() or ParallelMALA(). For chains on the whole position take its density: "
            "CascadedDensity(path)."
        )
    raise TypeError(_not_a_target(target))


def _not_a_target(target: Any) -> str:
    hint = "Wrap a log density in DensityScore(fn), a score function in Score(fn), a NumPyro model with from_numpyro."
    return f"`target` must be a score or a path, got {type(target).__name__}. {hint}"


def check_target(target: Any) -> None:
    """Raise a TypeError unless the target is a score, a path or a cascade of paths."""
    if not isinstance(target, AbstractScore | AbstractScorePath | AbstractCascadedPath):
        raise TypeError(_not_a_target(target))


def starts(score: AbstractScore, initial_position: Position | None, num_chains: int, key: Array) -> Position:
    """One finite start for each chain, at which the score is finite and of the right structure.

    Raises:
        ValueError: if there is no start, or it does not fit, or it or the score there is not finite.
    """
    positions = _find_starts(score, initial_position, num_chains, key)
    finite = _finite_by_chain(positions)
    if not finite.all():
        raise ValueError(
            f"`initial_position`: the starts of the chains {_numbers(~finite)} are not finite. Give "
            "finite numbers, in unconstrained space."
        )
    one = jax.tree.map(lambda x: x[0], positions)
    try:
        value = eqx.filter_eval_shape(score, one)
    except TypeError as error:
        raise ValueError(
            f"`target`: the score cannot be evaluated at the start {structure_of(one)}: {error}"
        ) from error
    _check_score_value(value, one)
    finite = _finite_by_chain(_scores(score, positions))
    if not finite.all():
        raise ValueError(
            f"`target`: the score is not finite at the starts of the chains {_numbers(~finite)}. Give "
            "an `initial_position` inside the support, or check the density there."
        )
    return positions


def _numbers(which: np.ndarray) -> str:
    """The numbers of some chains, the first of them where they are many."""
    found = np.flatnonzero(which).tolist()
    return str(found) if len(found) <= _MOST_NAMED else f"{found[:_MOST_NAMED]} and {len(found) - _MOST_NAMED} more"


def _find_starts(score: AbstractScore, initial_position: Position | None, num_chains: int, key: Array) -> Position:
    if initial_position is None:
        if score.init_position is None:
            raise ValueError(
                "`initial_position`: this target does not know where to start. Give one position, or one for each "
                "chain with a leading axis."
            )
        return _draw_starts(score.init_position, jax.random.split(key, num_chains))
    position = jax.tree.map(_as_floating, initial_position)
    structure = score.structure
    if structure is None:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_chains, *x.shape)), position)
    got = [x.shape for x in jax.tree.leaves(position)]
    want = [(num_chains, *leaf.shape) for leaf in jax.tree.leaves(structure)]
    if jax.tree.structure(position) == jax.tree.structure(structure) and got == want:
        return jax.tree.map(lambda x, leaf: x.astype(leaf.dtype), position, structure)
    try:
        check_structure(position, structure, name="initial_position")
    except ValueError as error:
        raise ValueError(f"{error} Or give as many starts as chains, along a leading axis: {num_chains}.") from None
    return jax.tree.map(
        lambda x, leaf: jnp.broadcast_to(x.astype(leaf.dtype), (num_chains, *leaf.shape)), position, structure
    )


def _as_floating(leaf: Any) -> Array:
    array = jnp.asarray(leaf)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


@eqx.filter_jit
def _draw_starts(init_position: Any, keys: Array) -> Position:
    return jax.vmap(init_position)(keys)


@eqx.filter_jit
def _scores(score: AbstractScore, positions: Position) -> Position:
    return jax.vmap(score)(positions)


def _finite_by_chain(tree: Position) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.all([np.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1) for leaf in leaves], axis=0)


def _check_score_value(value: Any, position: Position) -> None:
    got, want = (
        (jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(structure_of(tree))])
        for tree in (value, position)
    )
    if got != want:
        raise ValueError(
            f"`target`: the score returned {structure_of(value)}, but a score looks like its position, "
            f"{structure_of(position)}. Return the gradient with respect to each array of the position."
        )
