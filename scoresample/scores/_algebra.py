"""Sums of scores (products of densities) and tempering."""

from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores._base import (
    AbstractDensityScore,
    AbstractScore,
    Constrain,
    Position,
    Structure,
    check_structure,
    named_sites,
)


def _add(a: Position, b: Position) -> Position:
    return jax.tree.map(jnp.add, a, b)


def _shared(parts: tuple[AbstractScore, ...]) -> tuple[Structure, Constrain, Callable[[Array], Position] | None]:
    """The structure, named sites and starts of a combination: those of the first part that has its own."""
    known = [part.structure for part in parts if part.structure is not None]
    structure = known[0] if known else None
    for other in known[1:]:
        check_structure(other, structure, name="other", what="score's position")
    constrain = next((part.constrain for part in parts if part.constrain is not named_sites), named_sites)
    init_position = next((part.init_position for part in parts if part.init_position is not None), None)
    return structure, constrain, init_position


class SumScore(AbstractScore):
    """The score of a product of densities of which at least one has no known log density.

    Attributes:
        parts: the scores that are added.
    """

    parts: tuple[AbstractScore, ...]
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, *parts: AbstractScore) -> None:
        """Add scores; see [`add_scores`][scoresample.scores.add_scores]."""
        self.parts = parts
        self.structure, self.constrain, self.init_position = _shared(parts)

    def __call__(self, position: Position) -> Position:
        """The sum of the scores at one position."""
        total = self.parts[0](position)
        for part in self.parts[1:]:
            total = _add(total, part(position))
        return total


class SumDensityScore(AbstractDensityScore):
    """The score of a product of densities, all of them known.

    Attributes:
        parts: the density scores that are added.
    """

    parts: tuple[AbstractDensityScore, ...]
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, *parts: AbstractDensityScore) -> None:
        """Add density scores; see [`add_scores`][scoresample.scores.add_scores]."""
        self.parts = parts
        self.structure, self.constrain, self.init_position = _shared(parts)

    def logdensity(self, position: Position) -> Array:
        """The sum of the log densities: a scalar."""
        total = self.parts[0].logdensity(position)
        for part in self.parts[1:]:
            total = total + part.logdensity(position)
        return total

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The sums of the log densities and of the scores."""
        value, score = self.parts[0].value_and_score(position)
        for part in self.parts[1:]:
            other_value, other_score = part.value_and_score(position)
            value, score = value + other_value, _add(score, other_score)
        return value, score


class TemperedScore(AbstractScore):
    """The score of ``p(x)^beta`` where the log density is not known.

    Attributes:
        score: the score that is scaled.
        inverse_temperature: the power beta, a scalar array.
    """

    score: AbstractScore
    inverse_temperature: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, score: AbstractScore, inverse_temperature: float | Array) -> None:
        """Scale a score; see [`temper`][scoresample.scores.temper]."""
        self.score = score
        self.inverse_temperature = jnp.asarray(inverse_temperature, dtype=float)
        self.structure, self.constrain, self.init_position = _shared((score,))

    def __call__(self, position: Position) -> Position:
        """``beta s(x)``."""
        return jax.tree.map(lambda s: self.inverse_temperature.astype(s.dtype) * s, self.score(position))


class TemperedDensityScore(AbstractDensityScore):
    """The score of ``p(x)^beta`` with its log density.

    Attributes:
        score: the density score that is scaled.
        inverse_temperature: the power beta, a scalar array.
    """

    score: AbstractDensityScore
    inverse_temperature: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, score: AbstractDensityScore, inverse_temperature: float | Array) -> None:
        """Scale a density score; see [`temper`][scoresample.scores.temper]."""
        self.score = score
        self.inverse_temperature = jnp.asarray(inverse_temperature, dtype=float)
        self.structure, self.constrain, self.init_position = _shared((score,))

    def logdensity(self, position: Position) -> Array:
        """``beta log p(x)``, a scalar."""
        value = self.score.logdensity(position)
        return self.inverse_temperature.astype(value.dtype) * value

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """``beta log p(x)`` and ``beta s(x)``."""
        value, score = self.score.value_and_score(position)
        scaled = jax.tree.map(lambda s: self.inverse_temperature.astype(s.dtype) * s, score)
        return self.inverse_temperature.astype(value.dtype) * value, scaled


def add_scores(*scores: AbstractScore) -> AbstractScore:
    """The score of the product of densities, such as a prior times a likelihood; also written ``a + b``.

    Arguments:
        *scores: two or more scores of the same structure.

    Returns:
        A score with a density if all of them have one, else a score without.

    Raises:
        TypeError: if one of them is not a score.
        ValueError: if their structures differ.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> product = Gaussian(jnp.zeros(1), 1.0) + Gaussian(jnp.ones(1), 1.0)
        >>> product(jnp.array([0.5])).tolist()
        [0.0]
    """
    parts: list[AbstractScore] = []
    for score in scores:
        if not isinstance(score, AbstractScore):
            raise TypeError(
                f"only scores can be added, got {type(score).__name__}. Wrap a log density in DensityScore, "
                "a score function in Score."
            )
        parts.extend(score.parts if isinstance(score, SumScore | SumDensityScore) else (score,))
    densities = [part for part in parts if isinstance(part, AbstractDensityScore)]
    return SumDensityScore(*densities) if len(densities) == len(parts) else SumScore(*parts)


def temper(score: AbstractScore, inverse_temperature: float | Array) -> AbstractScore:
    """The score of ``p(x)^beta``; also written ``beta * score``.

    Arguments:
        score: any score.
        inverse_temperature: the power beta, a positive number. 1 is the target itself, smaller is flatter.

    Returns:
        A score with a density if `score` has one, else a score without.

    Raises:
        ValueError: if `inverse_temperature` is not a positive number.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> temper(Gaussian(jnp.zeros(1), 1.0), 0.5)(jnp.array([2.0])).tolist()
        [-1.0]
    """
    if not isinstance(inverse_temperature, jax.core.Tracer):
        value = np.asarray(inverse_temperature)
        if value.ndim != 0 or not 0 < value < np.inf:
            raise ValueError(f"`inverse_temperature` must be one positive number, got {inverse_temperature!r}.")
    if isinstance(score, AbstractDensityScore):
        return TemperedDensityScore(score, inverse_temperature)
    return TemperedScore(score, inverse_temperature)
