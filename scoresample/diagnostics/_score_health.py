"""How good a perturbed score is, level by level, from held-out draws of the clean law."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, ArrayLike

from scoresample.checks import Check, asymmetry
from scoresample.diagnostics._chosen_levels import chosen_levels
from scoresample.diagnostics._clean_points import clean_points
from scoresample.diagnostics._exact_score import check_perturbed, in_coordinates_of
from scoresample.diagnostics._null import Distance, sliced_wasserstein_to_reference
from scoresample.diagnostics._quantities import coordinates
from scoresample.diagnostics._score_checks import score_checks
from scoresample.diagnostics._score_measures import LARGEST_EXACT, Measured, as_matrix, measured_squares
from scoresample.inference import sample
from scoresample.paths import (
    AbstractPerturbedScore,
    Levels,
    PerturbedEnergy,
    PerturbedScore,
    ReclockedScore,
    TrainingRecord,
)
from scoresample.samplers import ProbabilityFlowODE, ReverseSDE
from scoresample.scores import Position

_NUM_LEVELS = 8
_NUM_DRAWS = 1000
"""Draws of the ODE; twice as many of the SDE give the null."""
_ODE_STEPS, _SDE_STEPS = 50, 100
"""On exact scores of mixtures the error of so many steps is far below the null of a thousand draws."""

_HEADINGS = {
    "fokker_planck": "residual",
    "fokker_planck_noise": "in noise",
    "denoising_loss": "loss",
    "denoising_loss_se": "se",
    "constant_loss": "constant",
    "gaussian_loss": "Gaussian",
    "empirical_loss": "draws",
    "fisher_divergence": "Fisher",
    "fisher_divergence_se": "Fisher se",
}
"""What stands above the columns where room is short."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreHealth:
    """What `score_health` found: arrays with one entry for each noise level, from noise to data.

    Attributes:
        t: times of the levels.
        noise: sigma/alpha in standard deviations of the data (root mean square over the coordinates).
        fokker_planck: residual of the score Fokker-Planck equation over the rate at which the score changes, both as
            root mean squares. At little noise the true score hardly changes, and every network comes near 1 or above.
        fokker_planck_noise: the same residual in units of the noise, sigma times its root mean square over points and
            coordinates, for one e-fold of sigma/alpha.
        asymmetry: share of the Jacobian that no density can have, at noised positions.
        denoising_loss: held-out mean over points and coordinates of ``(sigma s + e)^2``, the error of the predicted
            noise.
        denoising_loss_se: its standard error.
        constant_loss: the loss of the best constant prediction, the variance of the noise.
        gaussian_loss: the loss of the normal law with the coordinates' means and variances.
        empirical_loss: the loss of the score of the other held-out draws, noised: what the draws tell without training.
        fisher_divergence: ``sigma^2 E|s - s*|^2 / d`` against the exact score s*, or None.
        fisher_divergence_se: its standard error, or None.
        ode_sde_gap: distance between draws of the probability-flow ODE and of the reverse SDE, or None.
        checks: what the numbers were held against.
        record: the history of the training that the score carries, or None.
        num_points: number of held-out draws that were used.
    """

    t: np.ndarray
    noise: np.ndarray
    fokker_planck: np.ndarray
    fokker_planck_noise: np.ndarray
    asymmetry: np.ndarray
    denoising_loss: np.ndarray
    denoising_loss_se: np.ndarray
    constant_loss: np.ndarray
    gaussian_loss: np.ndarray
    empirical_loss: np.ndarray
    fisher_divergence: np.ndarray | None
    fisher_divergence_se: np.ndarray | None
    ode_sde_gap: Distance | None
    checks: list[Check]
    record: TrainingRecord | None
    num_points: int

    @property
    def table(self) -> pd.DataFrame:
        """One row for each noise level."""
        columns = [field.name for field in dataclasses.fields(self)]
        arrays = {name: getattr(self, name) for name in columns}
        return pd.DataFrame({name: value for name, value in arrays.items() if isinstance(value, np.ndarray)})

    def levels_text(self) -> str:
        """The table with short headings, for a terminal."""
        return self.table.rename(columns=_HEADINGS).to_string(index=False, float_format=lambda value: f"{value:.3g}")

    def __str__(self) -> str:
        """The table, the training and the checks, for a terminal."""
        lines = [f"Health of a score on {self.num_points} held-out draws", "", self.levels_text(), ""]
        if self.ode_sde_gap is not None:
            gap = self.ode_sde_gap
            lines.append(f"ODE against SDE: sliced W2 {gap.value:.3g} (95% of its null: {gap.null_95:.3g})")
        if self.record is not None:
            lines.append(f"Training: {self.record}")
        return "\n".join([*lines, *(f"- {check}" for check in self.checks)])


def score_health(
    score: AbstractPerturbedScore,
    data: Any,
    *,
    key: Array,
    exact: AbstractPerturbedScore | None = None,
    levels: ArrayLike | list[float] | tuple[float, ...] | None = None,
    num_points: int = 1024,
    sampling: bool = True,
) -> ScoreHealth:
    """Measure a perturbed score at held-out draws, noised to several levels.

    In standard coordinates, ``z_t = alpha z_0 + sigma e``, and d of them:

    * the score Fokker-Planck equation, which ties the levels to each other (Lai et al. 2023, arXiv 2210.04296, eq. 7):
      the residual ``r = d_t s - grad [g^2/2 (div s + |s|^2) - f <z, s>]`` over the change of the score along
      ``z = alpha(t) y``, ``d_t s + f (J z + s)``. The two change alike with the process and its clock, so their ratio
      is that of the variance-exploding process whatever the score's own is; ``d_t s`` alone vanishes for standard
      normal data under a variance-preserving process. Up to 16 dimensions the divergence is an exact trace; beyond,
      ``E <r_1, r_2>`` with two independent estimates by random signs is unbiased for the mean square;
    * the asymmetry of the Jacobian: see [`asymmetry`][scoresample.asymmetry];
    * the denoising loss ``E |sigma s + e|^2 / d`` (Vincent 2011, Neural Computation 23(7), eq. 9; Ho et al. 2020, arXiv
      2006.11239, eq. 14) beside three that need no training: the best constant; the normal law with the data's
      coordinate means and variances; and the noised empirical measure of the other held-out draws. A score that beats
      the constant and not the Gaussian has learned nothing but mean and scale; one that does not reach the empirical
      measure misses what the draws themselves show;
    * with `exact`, the Fisher divergence ``sigma^2 E|s - s*|^2 / d``;
    * the ODE-SDE gap: the probability-flow ODE and the reverse SDE have the same law if the score is that of one noised
      density (Lai et al. 2023, section 3). Sliced Wasserstein-2 distance of their draws, beside its null.

    Arguments:
        score: a perturbed score, learned or exact.
        data: held-out draws of the clean law as positions: an array (n, ...), a tree of arrays with one leading axis,
            or [`Draws`][scoresample.Draws], which are cut down to what they are worth. Use draws that were not trained
            on.
        key: random key.
        exact: the perturbed score of the true law, such as ``perturb(density, VP())``. Its process does not matter. A
            Gaussian or a mixture is brought to the score's standard coordinates; another must share its location and
            scale.
        levels: times to look at; by default 8, uniform in log-SNR over the range that samplers use.
        num_points: most draws to use, chosen at random.
        sampling: measure the ODE-SDE gap, which draws 1,000 and 2,000 points.

    Returns:
        The `ScoreHealth`: `print` shows it, `table` holds the numbers, `checks` what to think of them.

    Raises:
        TypeError: if `score` or `exact` is no perturbed score, or `data` holds no floating arrays.
        ValueError: if the data do not fit the score, are too few or not finite, or a level is out of its range.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> density = ss.Gaussian(jnp.zeros(2), jnp.array([[1.0, 0.8], [0.8, 1.0]]))
        >>> data = density.sample(jax.random.key(0), 512)
        >>> health = ss.score_health(ss.perturb(density, ss.VP()), data, key=jax.random.key(1), sampling=False)
        >>> [check.name for check in health.checks if not check.passed]
        []
    """
    check_perturbed(score, exact)
    key_data, key_noise, key_asymmetry, key_sampling = jax.random.split(key, 4)
    points = clean_points(score, data, num_points, key_data)
    truth = None if exact is None else in_coordinates_of(score, exact)
    ladder = chosen_levels(score, levels, _NUM_LEVELS)
    found, noised = measured_squares(score, truth, points, ladder, key_noise)
    level_keys = jax.random.split(key_asymmetry, len(ladder.t))
    asymmetries = [
        asymmetry(score.at(t), jax.tree.map(lambda z, k=k: z[k], noised), key=level_keys[k])
        for k, t in enumerate(ladder.t)
    ]
    gap = _ode_sde_gap(score, key_sampling) if sampling else None
    return _judged(score, found, np.array(asymmetries), ladder, gap, points, truth is not None)


def _ode_sde_gap(score: AbstractPerturbedScore, key: Array) -> Distance:
    """The distance of the two laws, from draws; infinite if draws are not finite."""
    key_ode, key_sde = jax.random.split(key)
    runs = (
        (ProbabilityFlowODE(num_steps=_ODE_STEPS), key_ode, _NUM_DRAWS),
        (ReverseSDE(num_steps=_SDE_STEPS), key_sde, 2 * _NUM_DRAWS),
    )
    ode, sde = (
        coordinates(sample(score, sampler, key=k, num_samples=num, num_chains=1, throw=False, progress=False))[0]
        for sampler, k, num in runs
    )
    if not (np.isfinite(ode).all() and np.isfinite(sde).all()):
        return Distance(float("inf"), np.ones(1), 0)
    return sliced_wasserstein_to_reference(ode, sde)


def _judged(
    score: AbstractPerturbedScore,
    found: Measured,
    asymmetries: np.ndarray,
    ladder: Levels,
    gap: Distance | None,
    points: Position,
    has_exact: bool,
) -> ScoreHealth:
    """The means over points, their standard errors, and the checks."""
    number = found.loss.shape[1]
    mean = Measured(*(np.mean(value, axis=1) for value in found))
    error = Measured(*(np.std(value, axis=1) / np.sqrt(number) for value in found))
    flat = np.asarray(as_matrix(points), np.float64)
    noise = np.exp(-ladder.log_snr) / np.sqrt(np.mean(np.var(flat, axis=0)))
    residual = np.maximum(mean.residual, 0.0)
    return ScoreHealth(
        t=ladder.t,
        noise=noise,
        fokker_planck=np.sqrt(residual / np.maximum(mean.change, np.finfo(np.float64).tiny)),
        fokker_planck_noise=np.sqrt(residual),
        asymmetry=asymmetries,
        denoising_loss=mean.loss,
        denoising_loss_se=error.loss,
        constant_loss=mean.constant,
        gaussian_loss=mean.gaussian,
        empirical_loss=mean.empirical,
        fisher_divergence=mean.fisher if has_exact else None,
        fisher_divergence_se=error.fisher if has_exact else None,
        ode_sde_gap=gap,
        checks=score_checks(found, asymmetries, noise, gap, probed=flat.shape[1] > LARGEST_EXACT),
        record=_record_of(score),
        num_points=number,
    )


def _record_of(score: AbstractPerturbedScore) -> TrainingRecord | None:
    """The training record of a learned score, also under another process."""
    match score:
        case ReclockedScore():
            return _record_of(score.inner)
        case PerturbedScore() | PerturbedEnergy():
            return score.record if isinstance(score.record, TrainingRecord) else None
        case _:
            return None
