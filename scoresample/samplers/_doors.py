"""Checks at the door that path samplers share."""

from typing import Any

from scoresample.paths import AbstractPerturbedScore, AbstractScorePath
from scoresample.scores import AbstractScore


def check_at_least(least: int, **settings: int) -> None:
    """Raise a ValueError unless the settings are whole numbers of at least `least`."""
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")


def check_positive(**settings: float) -> None:
    """Raise a ValueError unless the settings are positive and finite."""
    for name, value in settings.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")


def check_one_of(options: tuple[Any, ...], **settings: Any) -> None:
    """Raise a ValueError unless the settings are among the options."""
    for name, value in settings.items():
        if value not in options:
            raise ValueError(f"`{name}` must be one of {list(options)}, got {value!r}.")


def check_path(path: Any, needed: type[AbstractScorePath], sampler: object) -> None:
    """Raise a TypeError unless `path` is a path of the kind that a sampler needs.

    The message names the way from what came to what is needed.
    """
    if isinstance(path, needed):
        return
    name, came = type(sampler).__name__, type(path).__name__
    if isinstance(path, AbstractScorePath):
        raise TypeError(
            f"`target`: {name} reverses a noise process, so it needs a perturbed score, but {came} is another kind of "
            "path. Use AnnealedLangevin on it, or learn a perturbed score from draws with fit_score(draws)."
        )
    if isinstance(path, AbstractScore):
        ways = ["fit_score(draws) learns one from draws of it", "TemperedPath(reference, score) tempers a density"]
        if needed is AbstractPerturbedScore:
            ways = ways[:1]
        raise TypeError(
            f"`target`: {name} needs a path from noise to the target, but {came} is the target alone. "
            f"{'; '.join(ways)}; perturb(density, process) is exact for Gaussian and GaussianMixture."
        )
    raise TypeError(f"`target`: {name} needs a path, got {came}. Wrap a network in PerturbedScore(network, process).")
