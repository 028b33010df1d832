"""Local energies of fields across wavelet scales, by score matching in closed form."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.wavelets._field_kernels import field_kernels
from scoresample.wavelets._lattice_terms import has_lower_bound, num_terms
from scoresample.wavelets._likelihood import likeliest
from scoresample.wavelets._local_energy import LocalEnergyPath
from scoresample.wavelets._path import WaveletPath
from scoresample.wavelets._score_matching import ScoreMatching, Solve, Terms
from scoresample.wavelets._transform import WaveletTransform

_FEWEST = 100
_MOST_FOR_LIKELIHOOD = 16
"""So many sites of a coarsest field, or fewer, are learned by maximum likelihood."""
_CONFINING = 0.05
"""The quartic coupling of a site that is given to an energy without a lower bound of its own."""
_MOST_CHANGE, _MOST_NOISE = 0.1, 2.0
"""Relative change of a score by terms that were left out, beyond which it is told."""


def fit_wavelet_energies(
    fields: Any, *, wavelet: str = "haar", levels: int | None = None, even: bool = False, seed: int = 0
) -> WaveletPath:
    """Learn the law of stationary periodic fields across scales as local energies: in closed form, without a network.

    The law of the coarsest field, and that of the details of each scale given the coarser field, is ``exp(-E)`` with an
    energy linear in its couplings ([`LocalEnergyPath`][scoresample.LocalEnergyPath]). Score matching (Hyvarinen 2005)
    over what is random at that scale, ``min_c E[|grad c.T|^2 / 2 - c.Laplace T]``, is then a linear system, and no
    normalising constant is needed. (A coarsest field of 16 sites or fewer is learned by maximum likelihood: its modes
    have shares that score matching hardly sees.) Where the law has such an energy, scores that were matched are
    consistent: their error falls with the root of the number of fields times sites. Where the energy has no lower bound
    with all terms, some are left out, or a small quartic one is given to it, with a warning if that changes the score
    by a tenth.

    Draw with [`ParallelMALA`][scoresample.ParallelMALA], which leaves the law of each energy invariant. Chains of the
    coarsest field start near some of the fields. If it has modes that are apart, short chains keep the shares of the
    modes that they start with, and the check of their memory fails.

    For lattice models and textures, which are the same everywhere. Not for images of objects: use
    [`fit_wavelet`][scoresample.fit_wavelet].

    Arguments:
        fields: an array (n, height, width) or (n, length).
        wavelet: the name of an orthogonal wavelet of PyWavelets.
        levels: how often fields are halved; by default until the shortest axis has two sites.
        even: whether x and -x have the same law: then odd terms are left out, and the mean is 0, whatever that of the
            fields. They may all be of one sign.
        seed: of the importance sampling of the constant of a coarsest field of 16 sites or fewer.

    Returns:
        The path; ``path.stages[k].couplings`` are those of a stage.

    Raises:
        TypeError: if `fields` is no array of real numbers.
        ValueError: if there are fewer than a hundred fields, a number is not finite, or the energy of a scale has no
            lower bound.

    Source: Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> fields = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0)).sample(jax.random.key(0), 500)
        >>> ss.fit_wavelet_energies(fields, levels=1, even=True).stage_names()
        ('coarsest field 2 x 2', 'details 2 x 2')
    """
    values = _checked(fields)
    transform = WaveletTransform(values.shape[1:], wavelet, levels)
    stages: list[LocalEnergyPath] = []
    field = jnp.asarray(values)
    for _ in range(transform.levels):
        step = WaveletTransform(field.shape[1:], wavelet, 1)
        low, details = step.split(field)
        stages.append(fit_energy(field, details, step, even=even, seed=seed))
        field = low
    stages.append(fit_energy(field, field, None, even=even, seed=seed))
    return WaveletPath(transform, stages[::-1])


def _checked(fields: Any) -> np.ndarray:
    values = np.asarray(fields)
    if values.dtype.kind not in "iuf" or values.ndim not in (2, 3):
        raise TypeError(
            f"`fields` must be real numbers (n, height, width) or (n, length), got {values.dtype} of shape "
            f"{values.shape}."
        )
    if len(values) < _FEWEST:
        raise ValueError(f"`fields`: at least {_FEWEST} fields are needed, got {len(values)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"`fields`: {int((~np.isfinite(values)).sum())} values are not finite. Drop those fields.")
    return values.astype(np.asarray(jnp.asarray(0.0)).dtype)


def fit_energy(field: Array, part: Array, step: WaveletTransform | None, *, even: bool, seed: int) -> LocalEnergyPath:
    """The energy of one stage: of a part of the fields, their details or they themselves.

    Raises:
        ValueError: if a band does not vary, or there is no energy with a lower bound.
    """
    space = field.shape[1:]
    mean = 0.0 if even else float(jnp.mean(field))
    deviation = float(jnp.sqrt(jnp.mean((field - mean) ** 2)))
    axes = (0, *range(2 - int(step is None), part.ndim))
    deviations = jnp.sqrt(jnp.mean((part - (mean if step is None else 0.0)) ** 2, axis=axes, keepdims=True))[0]
    if not (deviation > 0 and bool(jnp.all(deviations > 0))):
        raise ValueError("`fields`: a band does not vary. Take fewer `levels`, or drop that axis.")
    of_mean = start = None
    if step is None:
        start = field_kernels((part - mean) / deviations, even=even, seed=seed)
        means = jnp.mean(part, axis=tuple(range(1, part.ndim))) - mean
        of_mean = float(jnp.sqrt(jnp.mean(means**2))) / deviation
    terms = Terms(mean, deviation, of_mean, even)
    matching = ScoreMatching(field, step, terms)
    quadratic, quartic = num_terms(len(space))
    everything = np.ones(terms.count(field[0]), bool)
    alone, without, normal = everything.copy(), everything.copy(), everything.copy()
    alone[quadratic + 1 : quadratic + quartic] = False
    without[quadratic : quadratic + quartic] = False
    normal[quadratic : None if even else -1] = False
    nothing = np.zeros(len(everything))
    confined = nothing.copy()
    confined[quadratic] = _CONFINING
    solve: Solve = matching.solve
    if step is None and np.prod(space) <= _MOST_FOR_LIKELIHOOD:
        solve = _likelihood_or(matching, likeliest(part, terms, seed), everything)
    for kept, held in (
        (everything, nothing), (alone, nothing), (without, nothing), (without, confined), (normal, nothing),
    ):  # fmt: skip
        couplings = solve(kept, held)
        if couplings is not None and has_lower_bound(couplings, space, step):
            if kept is not everything:
                all_of_them = solve(everything, nothing)
                assert all_of_them is not None
                # Couplings of terms that are not there are noise of this size.
                noise = float(np.sqrt((~kept).sum() / part.size))
                _warn_of_change(matching.change(couplings, all_of_them) - _MOST_NOISE * noise, space)
            return LocalEnergyPath(
                jnp.asarray(couplings, field.dtype), jax.ShapeDtypeStruct(part.shape[1:], part.dtype), step,
                mean=mean, deviation=deviation, scale=jnp.broadcast_to(deviations, part.shape[1:]), even=even,
                mean_deviation=of_mean, start=start,
            )  # fmt: skip
    raise ValueError(
        f"`fields`: no energy with a lower bound was found for a field of {' x '.join(map(str, space))} sites. More "
        "fields may help, or `fit_wavelet`."
    )


def _likelihood_or(matching: ScoreMatching, likelihood: Solve, everything: np.ndarray) -> Solve:
    """The likelihood, if it is within reach."""
    if likelihood(everything, np.zeros(len(everything))) is not None:
        return likelihood
    warnings.warn(
        "The coarsest field was learned by score matching: its likelihood was out of reach. If it has modes that are "
        "apart, their shares are not learned. Take more `levels`, or more fields.",
        stacklevel=4,
    )
    return matching.solve


def _warn_of_change(change: float, space: tuple[int, ...]) -> None:
    """Tell that terms were left out, where it matters."""
    if change > _MOST_CHANGE:
        warnings.warn(
            f"The energy of fields of {' x '.join(map(str, space))} sites has no lower bound with all its terms, so "
            f"some were left out, which changes its score by {change:.0%}. More fields may help.",
            stacklevel=4,
        )
