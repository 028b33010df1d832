"""The score contract: ``x -> grad log p(x)``, with or without the log density behind it."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, PyTree

Position = PyTree
"""A tree of arrays: one point of the space that is sampled."""

Structure = PyTree
"""A tree of `jax.ShapeDtypeStruct`, one for each array of a position."""

Constrain = Callable[[Position], dict[str, Array]]
"""A map from a position to the named quantities that a person wants to read."""


def structure_of(position: Position) -> Structure:
    """The shapes and dtypes of a position.

    Arguments:
        position: a tree of arrays, numbers or `jax.ShapeDtypeStruct`.

    Returns:
        The same tree with a `jax.ShapeDtypeStruct` for every leaf.

    Examples:
        >>> import jax.numpy as jnp
        >>> structure_of({"mu": jnp.zeros(3)})
        {'mu': ShapeDtypeStruct(shape=(3,), dtype=float32)}
    """

    def describe(leaf: Any) -> jax.ShapeDtypeStruct:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))

    return jax.tree.map(describe, position)


def check_structure(value: Position, structure: Structure, *, name: str, what: str = "position") -> None:
    """Raise unless `value` has the tree and the shapes of `structure`.

    Arguments:
        value: a tree of arrays, or of anything with a shape.
        structure: the tree of `jax.ShapeDtypeStruct` that it must match. Dtypes are not compared.
        name: the argument's name, for the message.
        what: what the value stands for, for the message.

    Raises:
        ValueError: if the trees or the shapes differ.
    """
    got, want = jax.tree.structure(value), jax.tree.structure(structure)
    if got != want:
        raise ValueError(f"`{name}`: this {what} has the tree {got}, but {want} is needed. Pass the same containers.")
    leaves = jax.tree_util.tree_leaves_with_path(structure)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(value), strict=True):
        if tuple(jnp.shape(other)) != tuple(leaf.shape):
            where = jax.tree_util.keystr(path) or "the array"
            raise ValueError(
                f"`{name}`: {where} of this {what} has shape {tuple(jnp.shape(other))}, but {tuple(leaf.shape)} is "
                "needed. Positions are unbatched: one point, without chain or draw axes."
            )


def random_like(key: Array, tree: Structure, *batch: int) -> Position:
    """Independent standard normal numbers.

    Arguments:
        key: random key.
        tree: arrays, or `jax.ShapeDtypeStruct`, whose shapes and dtypes the numbers have.
        *batch: lengths of leading axes.

    Returns:
        A tree like `tree`, with the leading axes on every array.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> random_like(jax.random.key(0), {"mu": jnp.zeros(3)}, 5)["mu"].shape
        (5, 3)
    """
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    noise = [jax.random.normal(k, (*batch, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def inner_product(a: Position, b: Position) -> Array:
    """The sum of the products of all numbers of two trees: a scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(inner_product({"mu": jnp.array([1.0, 2.0])}, {"mu": jnp.array([3.0, 4.0])}))
        11.0
    """
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def named_sites(position: Position) -> dict[str, Any]:
    """Name the arrays of a position: the identity `constrain`.

    A dictionary keeps its names, a bare array is called ``x``, and deeper trees join their keys with dots.

    Arguments:
        position: any tree of arrays.

    Returns:
        The arrays of the tree by name.

    Examples:
        >>> sorted(named_sites({"mu": 1.0, "effects": {"a": 2.0}}))
        ['effects.a', 'mu']
    """
    leaves = jax.tree_util.tree_leaves_with_path(position)
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "x": leaf for path, leaf in leaves}


class AbstractScore(eqx.Module):
    """The gradient of a log density, ``s(x) = grad log p(x)``, on any tree of arrays.

    The sign is that of the gradient of the *log density* (not of a potential or an energy). A score is unbatched:
    it takes one position. `scoresample.sample` vectorises it.

    Attributes:
        structure: tree of `jax.ShapeDtypeStruct` of one position, or None where only a start will tell.
        constrain: position -> named sites, applied to draws before they are shown.
        init_position: key -> a start for a chain, or None where the user must bring `initial_position`.
    """

    structure: AbstractVar[Structure]
    constrain: AbstractVar[Constrain]
    init_position: AbstractVar[Callable[[Array], Position] | None]

    @abc.abstractmethod
    def __call__(self, position: Position) -> Position:
        """The score at one position: a tree like the position."""

    def __add__(self, other: "AbstractScore") -> "AbstractScore":
        """The score of the product of two densities, such as prior times likelihood."""
        from scoresample.scores._algebra import add_scores

        return add_scores(self, other)

    def __mul__(self, inverse_temperature: float | Array) -> "AbstractScore":
        """The score of the density to the power `inverse_temperature`."""
        from scoresample.scores._algebra import temper

        return temper(self, inverse_temperature)

    def __rmul__(self, inverse_temperature: float | Array) -> "AbstractScore":
        """The score of the density to the power `inverse_temperature`."""
        return self * inverse_temperature


class AbstractDensityScore(AbstractScore):
    """A score that also knows its log density, up to a constant.

    Having a density is a type: samplers that accept or reject (NUTS, HMC, MALA) take only this one.
    """

    @abc.abstractmethod
    def logdensity(self, position: Position) -> Array:
        """The log density at one position, up to a constant: a scalar."""

    @abc.abstractmethod
    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density and its gradient at one position, at the price of the gradient."""

    def __call__(self, position: Position) -> Position:
        """The score at one position: a tree like the position."""
        return self.value_and_score(position)[1]
