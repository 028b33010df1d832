"""Checks at the door that samplers share."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from scoresample.paths import AbstractCascadedPath, AbstractPerturbedScore, AbstractScorePath, TemperedPath
from scoresample.scores import AbstractScore


def check_at_least(least: int, **settings: int) -> None:
    """Raise a ValueError unless the settings are whole numbers of at least `least`."""
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")


def check_positive(**settings: Any) -> None:
    """Raise a ValueError unless the settings, numbers or arrays, are positive and finite.

    None (not given) and traced values pass.
    """
    for name, value in settings.items():
        if value is None or isinstance(value, jax.core.Tracer):
            continue
        if not np.all((np.asarray(value) > 0) & np.isfinite(value)):
            raise ValueError(f"`{name}` must be positive and finite, got {value}.")


def check_share(**settings: float) -> None:
    """Raise a ValueError unless the settings lie between 0 and 1."""
    for name, value in settings.items():
        if not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, got {value!r}.")


def require_tuned(sampler: Any, *names: str) -> None:
    """Raise a ValueError where a sampler would have to run without a warm-up and without these parameters."""
    for name in names:
        if getattr(sampler, name) is None:
            raise ValueError(
                f"`num_warmup` is 0, but {type(sampler).__name__} has no `{name}`. Give one, or let the warm-up tune "
                "it: num_warmup=1000."
            )


def as_parameter(value: Any) -> Any:
    """A setting as an array, so that another value does not compile again; None stays None."""
    return None if value is None else jnp.asarray(value, dtype=float)


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
    if isinstance(path, AbstractCascadedPath):
        raise TypeError(
            f"`path`: {name} makes the plan of one path, but {came} is a cascade of several. Plan stage by stage, "
            "sampler.plan(path.stage(index, known), key=key) with any `known` of the right shape, or leave it to "
            "`sample`."
        )
    if needed is TemperedPath:
        raise TypeError(
            f"`target`: {name} tempers a density from a reference that can be drawn from, but {came} is no "
            "TemperedPath. Make one of a density: TemperedPath(pathfinder(score, key=key).gaussian(), score)."
        )
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


def check_noise_to_stop_at(path: AbstractScorePath, delta: float | None) -> None:
    """Raise a ValueError where a variance of noise to stop at is given for a path that has no noise."""
    if delta is not None and not isinstance(path, AbstractPerturbedScore):
        raise ValueError(
            f"`delta`: a {type(path).__name__} has no noise to stop at: it ends at the target itself. Leave "
            "`delta` out, or sample a noised path, such as perturb(density, process) or fit_score(draws)."
        )
