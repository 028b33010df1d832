"""Scores from a user's own functions: a log density, or a score alone."""

from collections.abc import Callable

import jax
from jaxtyping import Array

from scoresample.scores._base import (
    AbstractDensityScore,
    AbstractScore,
    Constrain,
    Position,
    Structure,
    named_sites,
    structure_of,
)


def _check_function(fn: object, argument: str) -> None:
    if not callable(fn):
        raise TypeError(f"`{argument}` must be a function of a position, got {type(fn).__name__}.")


class DensityScore(AbstractDensityScore):
    """The score of a log density that you wrote: ``s(x) = d/dx fn(x, *args)`` by automatic differentiation.

    Arrays in `args` are data of the score, not constants of the compiled program: a new data set of the same shape
    never compiles again. Arrays that `fn` closes over are baked in, and a new `lambda` compiles again.

    Attributes:
        fn: ``fn(position, *args) -> scalar``, the log density up to a constant, of one unconstrained position.
        args: what is passed to `fn` after the position.
        structure: see [`AbstractScore`][scoresample.AbstractScore].
        constrain: position -> named sites; the identity by default.
        init_position: key -> start of a chain, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> def logdensity(x, scale):
        ...     return -0.5 * jnp.sum((x / scale) ** 2)
        >>> score = DensityScore(logdensity, 2.0, structure=jnp.zeros(2))
        >>> score(jnp.array([1.0, -2.0])).tolist()
        [-0.25, 0.5]
    """

    fn: Callable[..., Array]
    args: tuple[object, ...]
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(
        self,
        fn: Callable[..., Array],
        *args: object,
        structure: Position | None = None,
        constrain: Constrain = named_sites,
        init_position: Callable[[Array], Position] | None = None,
    ) -> None:
        """Make the score of a log density.

        Arguments:
            fn: ``fn(position, *args) -> scalar``.
            *args: passed to `fn` after the position.
            structure: one position, or its tree of `jax.ShapeDtypeStruct`. Without it every run needs an
                `initial_position`.
            constrain: position -> named sites.
            init_position: key -> start of a chain.

        Raises:
            TypeError: if `fn` is not a function.
        """
        _check_function(fn, "fn")
        self.fn = fn
        self.args = args
        self.structure = None if structure is None else structure_of(structure)
        self.constrain = constrain
        self.init_position = init_position

    def logdensity(self, position: Position) -> Array:
        """``fn(position, *args)``, a scalar."""
        return self.fn(position, *self.args)

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density and its gradient by reverse-mode differentiation."""
        return jax.value_and_grad(self.logdensity)(position)


class Score(AbstractScore):
    """A score that you wrote and whose log density is not known: ``s(x) = fn(x, *args)``.

    Samplers that never accept or reject take it as it is. Metropolised samplers need a log density: wrap it in
    [`LineIntegralDensity`][scoresample.LineIntegralDensity], and read there when that is right.

    Attributes:
        fn: ``fn(position, *args) -> tree like the position``, the gradient of the log density (positive sign).
        args: what is passed to `fn` after the position.
        structure: see [`AbstractScore`][scoresample.AbstractScore].
        constrain: position -> named sites; the identity by default.
        init_position: key -> start of a chain, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> Score(lambda x: -x, structure=jnp.zeros(2))(jnp.array([1.0, -2.0])).tolist()
        [-1.0, 2.0]
    """

    fn: Callable[..., Position]
    args: tuple[object, ...]
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(
        self,
        fn: Callable[..., Position],
        *args: object,
        structure: Position | None = None,
        constrain: Constrain = named_sites,
        init_position: Callable[[Array], Position] | None = None,
    ) -> None:
        """Make a score from a function.

        Arguments:
            fn: ``fn(position, *args) -> tree like the position``.
            *args: passed to `fn` after the position.
            structure: one position, or its tree of `jax.ShapeDtypeStruct`. Without it every run needs an
                `initial_position`.
            constrain: position -> named sites.
            init_position: key -> start of a chain.

        Raises:
            TypeError: if `fn` is not a function.
        """
        _check_function(fn, "fn")
        self.fn = fn
        self.args = args
        self.structure = None if structure is None else structure_of(structure)
        self.constrain = constrain
        self.init_position = init_position

    def __call__(self, position: Position) -> Position:
        """``fn(position, *args)``."""
        return self.fn(position, *self.args)
