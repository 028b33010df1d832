"""The samplers by name, read off the classes."""

import inspect
from typing import Any

from scoresample.samplers._base import AbstractParticleSampler, AbstractSampler


def available_samplers() -> dict[str, type[AbstractSampler] | type[AbstractParticleSampler[Any]]]:
    """Every public sampler class by its `name`.

    Returns:
        Chain samplers first, then path samplers, each in alphabetical order.

    Examples:
        >>> "nuts" in available_samplers()
        True
    """
    import scoresample.samplers

    classes = [
        value
        for value in vars(scoresample.samplers).values()
        if inspect.isclass(value)
        and issubclass(value, AbstractSampler | AbstractParticleSampler)
        and not inspect.isabstract(value)
    ]
    classes.sort(key=lambda c: (not issubclass(c, AbstractSampler), c.name))
    return {c.name: c for c in classes}
