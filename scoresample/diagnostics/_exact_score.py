"""A perturbed score and the exact one that it is held against, in one set of coordinates."""

import jax
import jax.numpy as jnp
import numpy as np

from scoresample.paths import (
    AbstractPerturbedScore,
    EmpiricalPerturbedScore,
    PerturbedDensity,
    ReclockedScore,
    check_concrete,
    perturb,
)
from scoresample.scores import AbstractExactDensity, Gaussian, GaussianMixture, Position, check_structure


def check_perturbed(score: AbstractPerturbedScore, exact: AbstractPerturbedScore | None) -> None:
    """Raise unless a score, and an exact one if there is one, are concrete perturbed scores without conditions.

    Raises:
        TypeError: if one is no perturbed score, or is traced.
        ValueError: if one holds a condition for each particle.
    """
    for name, path in (("score", score), ("exact", exact)):
        if not (isinstance(path, AbstractPerturbedScore) or (name == "exact" and path is None)):
            raise TypeError(
                f"`{name}` must be a perturbed score, got {type(path).__name__}. Make one with fit_score(draws), "
                "PerturbedScore(network, process) or perturb(density, process)."
            )
    check_concrete(score)
    for name, path in (("score", score), ("exact", exact)):
        if path is not None and path.condition_axes() is not None:
            raise ValueError(f"`{name}` holds a condition for each particle. Measure it under one condition at a time.")


def in_coordinates_of(score: AbstractPerturbedScore, exact: AbstractPerturbedScore) -> AbstractPerturbedScore:
    """The exact score of the same law in the score's standard coordinates and under its process.

    Noise of one size in standard coordinates has different sizes in positions, so the law itself has to be moved.
    """
    check_structure(exact.structure, score.structure, name="exact")
    frames = [_affine(path) for path in (score, exact)]
    same = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-5, atol=1e-6)), *frames)
    if not all(jax.tree.leaves(same)):
        match exact.inner if isinstance(exact, ReclockedScore) else exact:
            case PerturbedDensity(density=Gaussian() | GaussianMixture() as density):
                exact = perturb(_standardised(density, *frames[0]), score.process)
            case EmpiricalPerturbedScore() as points if float(points.bandwidth) == 0:
                exact = points.in_frame(*frames[0])
            case _:
                raise ValueError(
                    "`exact` has another `location` and `scale` than `score`, so the two are noised differently. Give "
                    "it those of `score`, or pass perturb(density, process) of a Gaussian or a GaussianMixture, or "
                    "perturb(points, process) without a bandwidth."
                )
    return exact.with_process(score.process)


def with_density(path: AbstractPerturbedScore) -> PerturbedDensity | None:
    """The path itself where it is that of a density in closed form, also under another process; else None."""
    match path:
        case PerturbedDensity():
            return path
        case ReclockedScore(inner=PerturbedDensity(density=density)):
            return perturb(density, path.process)
        case _:
            return None


def _affine(path: AbstractPerturbedScore) -> tuple[Position, Position]:
    """Location and scale of a path's frame, as trees like a position."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), path.structure)
    location = zeros if path.frame.location is None else path.frame.location
    return location, jax.tree.map(jnp.ones_like, zeros) if path.frame.scale is None else path.frame.scale


def _standardised(density: Gaussian | GaussianMixture, location: Position, scale: Position) -> AbstractExactDensity:
    """The law of ``(X - location) / scale``, in double precision until the last step."""
    if isinstance(density, Gaussian) and density.axes is None:
        mean = jax.tree.map(lambda m, x, s: (m - x) / s, density.mean, location, scale)
        return Gaussian(mean, jax.tree.map(lambda v, s: v / s**2, density.variances, scale))
    location, scale = np.asarray(location, np.float64), np.asarray(scale, np.float64)
    variances = np.asarray(density.variances, np.float64)
    covariances: np.ndarray = variances / scale**2
    if density.axes is not None:
        axes = np.asarray(density.axes, np.float64) / scale[:, None]
        covariances = (axes * variances[..., None, :]) @ np.swapaxes(axes, -1, -2)
    if isinstance(density, Gaussian):
        return Gaussian(
            jnp.asarray((np.asarray(density.mean) - location) / scale, density.variances.dtype), covariances
        )
    means = jnp.asarray((np.asarray(density.means) - location) / scale, density.means.dtype)
    return GaussianMixture(jnp.exp(density.log_weights), means, covariances)
