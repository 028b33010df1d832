"""`perturb`: the exact noised score of a density in closed form, or of points."""

from typing import Any, overload

import numpy as np
from jaxtyping import ArrayLike

from scoresample.paths._empirical import EmpiricalPerturbedScore
from scoresample.paths._perturbed_density import PerturbedDensity
from scoresample.paths._process import AbstractNoiseProcess, check_process
from scoresample.scores import AbstractExactDensity, AbstractScore, DrawsLike, Position, named_sites, pooled


@overload
def perturb(  # pyright: ignore[reportOverlappingOverload]: points may be any tree
    data: AbstractExactDensity, process: AbstractNoiseProcess
) -> PerturbedDensity: ...


@overload
def perturb(
    data: Any,
    process: AbstractNoiseProcess,
    *,
    weights: ArrayLike | None = None,
    bandwidth: float | str | None = None,
    conditions: ArrayLike | None = None,
    condition_bandwidth: ArrayLike | None = None,
    location: Position | None = None,
    scale: Position | None = None,
) -> EmpiricalPerturbedScore: ...


def perturb(
    data: Any,
    process: AbstractNoiseProcess,
    *,
    weights: ArrayLike | None = None,
    bandwidth: float | str | None = None,
    conditions: ArrayLike | None = None,
    condition_bandwidth: ArrayLike | None = None,
    location: Position | None = None,
    scale: Position | None = None,
) -> PerturbedDensity | EmpiricalPerturbedScore:
    """The exact path to noise: from a density in closed form, or from a set of points.

    Points are taken for what they are, a law that consists of them: its score remembers them, and samplers that go all
    the way return them. See [`EmpiricalPerturbedScore`][scoresample.EmpiricalPerturbedScore].

    Arguments:
        data: a [`Gaussian`][scoresample.Gaussian], [`GaussianMixture`][scoresample.GaussianMixture] or
            [`GaussianField`][scoresample.GaussianField]; or points: an array (n, ...), a tree of arrays with one
            leading axis, or a sampler's [`Draws`][scoresample.Draws] with their weights.
        process: the noise process, such as ``VP()``.
        weights: of points, shape (n,), not negative; equal by default.
        bandwidth: of points: standard deviation of the normal law that stands in the place of each, in standard
            coordinates. ``"spacing"`` takes the median distance to the nearest other point. None, for none, keeps the
            points themselves.
        conditions: of points: what belongs to each, shape (n, ...). Whole numbers are labels, real ones are compared by
            a normal kernel. ``path.given(condition)`` then conditions on one, or on one for each particle; without it
            the path is that of all points.
        condition_bandwidth: the kernel's standard deviations, a number or one for each coordinate of a condition; by
            default Scott's rule, ``n^(-1/(m+4))`` standard deviations of the conditions, of which there are m numbers.
        location: of points: what is subtracted before noise is added, a tree like a position or a number.
        scale: of points: what they are divided by; the noise is isotropic in these standard coordinates.

    Returns:
        A perturbed score with every log density. Sampling ends at 3% of the density's smallest scale or of the
        bandwidth; of points without a bandwidth at .3% of their spacing, where every draw is one of them.

    Raises:
        TypeError: if the density has no closed form (learn its score with `fit_score`, or use `TemperedPath`), `data`
            holds no numbers, or `process` is no noise process.
        ValueError: if points are not finite, or a setting does not fit them.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> from scoresample.paths import VP
        >>> path = perturb(Gaussian(jnp.zeros(1), 1.0), VP())
        >>> path(jnp.array([2.0]), 0.5).tolist()
        [-2.0]
        >>> points = jax.random.normal(jax.random.key(0), (100, 2))
        >>> perturb(points, VP())(points[0], 0.5).shape
        (2,)
    """
    check_process(process)
    settings: dict[str, Any] = {
        "weights": weights, "bandwidth": bandwidth, "conditions": conditions,
        "condition_bandwidth": condition_bandwidth, "location": location, "scale": scale,
    }  # fmt: skip
    if isinstance(data, AbstractExactDensity):
        given = [name for name, value in settings.items() if value is not None]
        if given:
            raise TypeError(f"`{given[0]}` is for points; {type(data).__name__} is noised as it is. Leave it out.")
        return PerturbedDensity(data, process)
    if isinstance(data, AbstractScore):
        raise TypeError(
            f"`data` must be points, or a density with a closed-form perturbation (Gaussian, GaussianMixture), got "
            f"{type(data).__name__}. Learn the noised score from draws with fit_score(draws), or go from a reference "
            "to this density with TemperedPath(reference, density)."
        )
    constrain = named_sites
    if isinstance(data, DrawsLike):
        if weights is not None:
            raise ValueError("`weights`: draws bring their own. Leave it out.")
        constrain = data.constrain
        data, log_weights = pooled(data)
        if log_weights is not None:
            settings["weights"] = np.exp(log_weights - np.max(log_weights))
    return EmpiricalPerturbedScore(data, process, constrain=constrain, **settings)
