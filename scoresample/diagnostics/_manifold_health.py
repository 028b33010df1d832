"""Whether a perturbed score knows the manifold that its data lie on, level by level, from held-out clean draws."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, ArrayLike

from scoresample.checks import Check
from scoresample.diagnostics._chosen_levels import chosen_levels
from scoresample.diagnostics._clean_points import clean_points
from scoresample.diagnostics._data_dimension import DataDimension, data_dimension, leading_scale, sample_spacing
from scoresample.diagnostics._exact_score import check_perturbed, in_coordinates_of
from scoresample.diagnostics._finite_energy import FiniteEnergy, energy_against_exact, energy_from_loss
from scoresample.diagnostics._manifold_checks import (
    agreement_check,
    break_check,
    energy_check,
    memory_check,
    stopping_check,
)
from scoresample.diagnostics._manifold_measures import intrinsic_dimensions, noised_spectra, noised_squares
from scoresample.diagnostics._manifold_plateau import (
    break_level,
    combined,
    mean_and_error,
    plateau_level,
    spectrum_dimension,
)
from scoresample.diagnostics._manifold_words import manifold_paragraphs
from scoresample.diagnostics._score_measures import as_matrix
from scoresample.paths import AbstractPerturbedScore, Levels, levels_at
from scoresample.scores import Position

_NUM_LEVELS = 12
_NUM_CLEAN = 256
"""Points at which FLIPD is measured, held out and training alike."""
_NUM_SPECTRA = 8
"""Points around which the span of the scores is measured."""
_LARGEST_SPECTRUM = 1024
"""Dimension up to which it is: beyond, 8 matrices of 4 D x D take minutes. Fewer coordinates would not do, since the
normal space of a manifold fills any few of them."""
ENOUGH_POINTS = 2000
"""Draws from which on the blow-up is worth reading."""
_EVERYTHING = 1_000_000_000

_HEADINGS = {
    "blow_up": "blow-up",
    "blow_up_se": "se",
    "dimension": "D - blow-up",
    "flipd": "FLIPD",
    "flipd_se": "FLIPD se",
    "flipd_training": "at training",
    "flipd_training_se": "training se",
    "energy_rate": "energy rate",
    "energy_rate_se": "rate se",
}
"""What stands above the columns where room is short."""


@dataclasses.dataclass(frozen=True, eq=False)
class ManifoldHealth:
    """What `manifold_health` found, in standard coordinates; arrays have one entry a noise level, from noise to data.

    Attributes:
        size: D, the number of coordinates.
        t: times of the levels.
        noise: sigma/alpha in standard coordinates.
        blow_up: ``sigma^2 E|s|^2`` at noised held-out points, near D - k at little noise; `size` less it is the
            dimension.
        blow_up_se: its standard error.
        flipd: mean local intrinsic dimension at held-out points.
        flipd_se: its standard error.
        flipd_training: the same at training points, or None.
        flipd_training_se: its standard error, or None.
        energy: the integral that decides absolute continuity; its `rate` is by level.
        spectrum: singular values of the scores around a point over the largest, decreasing, geometric means over
            points; None beyond 1,024 dimensions.
        spectrum_noise: the level at which it was taken, as sigma/alpha.
        plateau: index of the level where FLIPD changes least, which is that of the spectrum.
        break_noise: the noise from which on, going down, the score is not that of the data's noised law; nan if there
            is none.
        spacing: median distance of nearest neighbours among the training points, or the held-out ones without them.
        dimensions: the estimates of the dimension by name, each with its standard error: "blow-up", "FLIPD" and
            "spectrum" on the plateau, "draws" from the draws alone, and "given".
        stopping_drop: by how much the dimension still grows from twice the last noise to the last.
        stopping_drop_se: its standard error.
        checks: what the numbers were held against.
        num_points: number of held-out draws that were used.
        num_training: number of training points, 0 without them.
    """

    size: int
    t: np.ndarray
    noise: np.ndarray
    blow_up: np.ndarray
    blow_up_se: np.ndarray
    flipd: np.ndarray
    flipd_se: np.ndarray
    flipd_training: np.ndarray | None
    flipd_training_se: np.ndarray | None
    energy: FiniteEnergy
    spectrum: np.ndarray | None
    spectrum_noise: float
    plateau: int
    break_noise: float
    spacing: float
    dimensions: dict[str, DataDimension]
    stopping_drop: float
    stopping_drop_se: float
    checks: list[Check]
    num_points: int
    num_training: int

    @property
    def enough_points(self) -> bool:
        """Whether there were the 2,000 draws that the blow-up needs."""
        return self.num_points >= ENOUGH_POINTS

    @property
    def table(self) -> pd.DataFrame:
        """One row for each noise level."""
        columns = {
            "t": self.t,
            "noise": self.noise,
            "blow_up": self.blow_up,
            "blow_up_se": self.blow_up_se,
            "dimension": self.size - self.blow_up,
            "flipd": self.flipd,
            "flipd_se": self.flipd_se,
            "flipd_training": self.flipd_training,
            "flipd_training_se": self.flipd_training_se,
            "energy_rate": self.energy.rate,
            "energy_rate_se": self.energy.rate_se,
        }
        return pd.DataFrame({name: values for name, values in columns.items() if values is not None})

    def paragraphs(self) -> dict[str, str]:
        """What each measure says, a paragraph under its heading."""
        return manifold_paragraphs(self)

    def levels_text(self) -> str:
        """The table with short headings, for a terminal."""
        return self.table.rename(columns=_HEADINGS).to_string(index=False, float_format=lambda value: f"{value:.3g}")

    def __str__(self) -> str:
        """The table, the paragraphs and the checks, for a terminal."""
        lines = [f"A score and its manifold: {self.num_points} held-out draws in {self.size} dimensions", ""]
        lines += [self.levels_text(), ""]
        lines += [f"{heading}: {text}" for heading, text in self.paragraphs().items()]
        return "\n".join([*lines, "", *(f"- {check}" for check in self.checks)])


def manifold_health(
    score: AbstractPerturbedScore,
    data: Any,
    *,
    key: Array,
    exact: AbstractPerturbedScore | None = None,
    training: Any = None,
    dimension: float | int | None = None,
    levels: ArrayLike | list[float] | tuple[float, ...] | None = None,
    num_points: int = 2048,
) -> ManifoldHealth:
    """Measure whether a perturbed score knows the manifold that its data lie on, or only the sample it was trained on.

    In standard coordinates, ``z = alpha z_0 + sigma e`` with D of them, and ``s = sigma/alpha`` in noise levels:

    * the blow-up ``sigma^2 E|s|^2``, which near a manifold of dimension k tends to D - k: the score has to grow like
      1/sigma in the normal directions (Pidstrigach 2022, arXiv 2206.01018);
    * FLIPD, ``D + sigma^2 (tr grad s + |s|^2)`` at the clean points ``alpha z_0`` (Kamkari et al. 2024, arXiv
      2406.03537). Not at noised points, where its mean is D for every score by Stein's identity. With
      `training`, at training points too: the score of a noised sample has FLIPD 0 at its own points below their
      spacing, and (distance/s)^2 at others, where the true score makes no difference;
    * the noise at which FLIPD breaks, beside the spacing of the points;
    * the span of the scores around a point, which is the normal space (Stanczuk et al. 2022, arXiv 2212.12611)
      at 8 points and the level where FLIPD changes least;
    * the integral of ``sigma^2 E|s - s*|^2`` over log noise, s* the true score. If it is finite, the
      draws of the reverse SDE reach the whole support of the data; if the error is bounded off the data too, they stay
      on it (Girsanov; Pidstrigach 2022). It says nothing of the probability-flow ODE. With `exact` it is
      computed; else the held-out denoising loss less `dimension`, which is the loss of
      the true score near a manifold, stands for the integrand at the last levels; without `dimension` that of the
      draws themselves, by the distances of neighbours (Levina and Bickel 2004);
    * whether the last level resolves the smallest scale: a direction of scale l adds ``l^2/(l^2 + s^2)`` to the
      dimension, so below l/10 it hardly grows any more.

    Arguments:
        score: a perturbed score, learned or exact.
        data: held-out draws of the clean law as positions: an array (n, ...), a tree of arrays with one leading axis,
            or [`Draws`][scoresample.Draws], which are cut down to what they are worth.
        key: random key.
        exact: the perturbed score of the true law. Its process does not matter. A Gaussian or a mixture is brought to
            the score's standard coordinates; another must share its location and scale.
        training: the points that the score was trained on, as `data`.
        dimension: k, where it is known.
        levels: times to look at; by default 12, uniform in log-SNR over the range that samplers use.
        num_points: most held-out draws to use, chosen at random. The blow-up needs 2,000.

    Returns:
        The `ManifoldHealth`: `print` shows it, `table` holds the numbers by level, `paragraphs()` says what they mean,
        `checks` what to think of them.

    Raises:
        TypeError: if `score` or `exact` is no perturbed score, or `data` or `training` holds no floating arrays.
        ValueError: if they do not fit the score, are too few or not finite, `dimension` is not between 0 and D, or a
            level is out of the score's range.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> density = ss.Gaussian(jnp.zeros(2), jnp.array([[1.0, 0.8], [0.8, 1.0]]))
        >>> data = density.sample(jax.random.key(0), 2048)
        >>> health = ss.manifold_health(ss.perturb(density, ss.VP()), data, key=jax.random.key(1))
        >>> round(float(health.flipd[-1]), 1)
        2.0
        >>> [check.name for check in health.checks if not check.passed]
        []
    """
    check_perturbed(score, exact)
    size = sum(leaf.size for leaf in jax.tree.leaves(score.structure))
    if dimension is not None and not 0 <= dimension <= size:
        raise ValueError(f"`dimension` must be between 0 and the {size} coordinates, got {dimension}.")
    keys = jax.random.split(key, 6)
    everything = clean_points(score, data, _EVERYTHING, keys[0])
    if num_points < 50:
        raise ValueError(f"`num_points` must be at least 50, got {num_points}: fewer say too little.")
    points = jax.tree.map(lambda x: x[:num_points], everything)
    sample = None
    if training is not None:
        sample = clean_points(score, training, _EVERYTHING, keys[1], name="training", fewest=2)
    truth = None if exact is None else in_coordinates_of(score, exact)
    ladder = chosen_levels(score, levels, _NUM_LEVELS)
    measured = _measured(score, truth, points, sample, ladder, keys)
    return _judged(score, measured, ladder, keys[5], everything, sample, dimension, has_exact=truth is not None)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """By level and point: see `noised_squares` and `intrinsic_dimensions`; `drop` by point alone."""

    blow_up: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    flipd: np.ndarray
    flipd_training: np.ndarray | None
    drop: np.ndarray
    points: Position


def _measured(
    score: AbstractPerturbedScore,
    truth: AbstractPerturbedScore | None,
    points: Position,
    sample: Position | None,
    ladder: Levels,
    keys: Array,
) -> _Measured:
    """Everything that takes the score; one level more, of twice the last noise, for the drop."""
    lowest = float(np.asarray(score.log_snr_range)[0])
    doubled = levels_at(score, np.array([max(ladder.log_snr[-1] - np.log(2.0), lowest)]))
    longer = Levels(*(np.concatenate([values, other]) for values, other in zip(ladder, doubled, strict=True)))
    found = noised_squares(score, truth, points, longer, keys[2])
    blow_up = found.score
    clean = jax.tree.map(lambda x: x[:_NUM_CLEAN], points)
    flipd = intrinsic_dimensions(score, clean, ladder, keys[3])
    flipd_training = None
    if sample is not None:
        flipd_training = intrinsic_dimensions(score, jax.tree.map(lambda x: x[:_NUM_CLEAN], sample), ladder, keys[4])
    return _Measured(
        blow_up[:-1], found.loss[:-1], found.error[:-1], flipd, flipd_training, blow_up[-1] - blow_up[-2], points
    )


def _judged(
    score: AbstractPerturbedScore,
    measured: _Measured,
    ladder: Levels,
    key: Array,
    everything: Position,
    sample: Position | None,
    dimension: float | int | None,
    *,
    has_exact: bool,
) -> ManifoldHealth:
    """Means and errors over points, the plateau and its spectrum, the integral, and the checks."""
    flat = np.asarray(as_matrix(everything), np.float64)
    trained = None if sample is None else np.asarray(as_matrix(sample), np.float64)
    size, number = flat.shape[1], measured.loss.shape[1]
    noise = np.exp(-ladder.log_snr)
    blow_up, blow_up_se = mean_and_error(measured.blow_up)
    flipd, flipd_se = mean_and_error(measured.flipd)
    at_training = (None, None) if measured.flipd_training is None else mean_and_error(measured.flipd_training)
    spacing = sample_spacing(flat if trained is None else trained)
    broken = break_level(noise, measured.flipd, measured.flipd_training, measured.blow_up, size)
    place = plateau_level(noise, flipd, broken, spacing, leading_scale(flat[:number]))
    spectrum, spectral = _spectrum(score, measured.points, ladder.t[place], key, size)
    dimensions = {
        "blow-up": DataDimension(float(size - blow_up[place]), float(blow_up_se[place])),
        "FLIPD": DataDimension(float(flipd[place]), float(flipd_se[place])),
        "spectrum": DataDimension(spectral, 0.0),
    }
    given = {} if dimension is None else {"given": DataDimension(float(dimension), 0.0)}
    known = dimensions | given
    dimensions = known | {"draws": data_dimension(flat[:number])}
    energy = _energy(measured, noise, size, dimensions, has_exact)
    drop, drop_se = (float(value[0]) for value in mean_and_error(measured.drop[None]))
    finite = [estimate.value for estimate in known.values() if np.isfinite(estimate.value)]
    typical = float(np.median(finite)) if finite else float("nan")
    checks = [
        *(
            []
            if measured.flipd_training is None
            else [memory_check(noise, measured.flipd, measured.flipd_training, typical)]
        ),
        energy_check(energy, size),
        break_check(broken, float(noise[-1])),
        agreement_check(combined(list(known.values())), typical),
        stopping_check(drop, drop_se, typical, float(noise[-1])),
    ]
    return ManifoldHealth(
        size=size,
        t=ladder.t,
        noise=noise,
        blow_up=blow_up,
        blow_up_se=blow_up_se,
        flipd=flipd,
        flipd_se=flipd_se,
        flipd_training=at_training[0],
        flipd_training_se=at_training[1],
        energy=energy,
        spectrum=spectrum,
        spectrum_noise=float(noise[place]),
        plateau=place,
        break_noise=broken,
        spacing=spacing,
        dimensions=dimensions,
        stopping_drop=drop,
        stopping_drop_se=drop_se,
        checks=checks,
        num_points=number,
        num_training=0 if trained is None else len(trained),
    )


def _energy(
    measured: _Measured, noise: np.ndarray, size: int, dimensions: dict[str, DataDimension], has_exact: bool
) -> FiniteEnergy:
    """The integral by the best that is known: the true score, the dimension, or that of the draws."""
    if has_exact:
        return energy_against_exact(measured.error, noise, size)
    given = "given" in dimensions
    value, error = dimensions["given" if given else "draws"]
    source = "dimension" if given else "neighbours"
    return energy_from_loss(measured.loss, measured.blow_up, noise, size, value, error, source=source)


def _spectrum(
    score: AbstractPerturbedScore, points: Position, time: float, key: Array, size: int
) -> tuple[np.ndarray | None, float]:
    """Geometric means of the singular values over points, divided by the largest; and the dimension they show."""
    if size > _LARGEST_SPECTRUM:
        return None, float("nan")
    around = jax.tree.map(lambda x: jnp.asarray(x[:_NUM_SPECTRA]), points)
    values = noised_spectra(score, around, float(time), key)
    mean = np.exp(np.mean(np.log(np.maximum(values, np.finfo(np.float64).tiny)), axis=0))
    if not np.isfinite(mean).all():
        return mean, float("nan")
    return mean / mean[0], spectrum_dimension(mean)
