"""Checks at the doors of what takes draws and a density."""

import jax

from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore, check_structure


def check_draws(draws: object) -> None:
    """Raise unless they are draws."""
    if not isinstance(draws, Draws):
        raise TypeError(
            f"`draws` must be Draws, got {type(draws).__name__}. `sample` returns them; Draws.from_arviz and its "
            "siblings make them of chains from elsewhere."
        )


def check_target(name: str, density: object, draws: Draws) -> None:
    """Raise unless a density score fits draws."""
    if not isinstance(density, AbstractDensityScore):
        raise TypeError(
            f"`{name}` must be a score with a log density, got {type(density).__name__}. A noised score has one by "
            "ProbabilityFlowDensity(path), a path with densities by path.at(t), and a bare score that is a gradient by "
            "LineIntegralDensity(score, origin)."
        )
    if density.structure is not None:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), draws.position)
        check_structure(one, density.structure, name=name, what="density's draw")


def check_at_least(least: int, **values: object) -> None:
    """Raise unless all are whole numbers of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
