"""How far the draws of a reverse SDE can be from the data: Girsanov's bound, term by term, from data alone."""

import dataclasses
from typing import Any, cast, get_args

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array

from scoresample.diagnostics._budget_terms import Frozen, StepSquares, StepWeights, start_divergence, step_squares
from scoresample.diagnostics._clean_points import clean_points
from scoresample.diagnostics._exact_score import check_perturbed, in_coordinates_of, with_density
from scoresample.diagnostics._score_measures import as_matrix
from scoresample.paths import AbstractPerturbedScore, Grid, GridName, Levels, check_grid, noise_levels
from scoresample.samplers import ExponentialAdams, ExponentialIntegrator, ReverseSDE
from scoresample.scores import Position

_SURE = 2.0
"""Standard errors by which a loss has to exceed another before it counts: chance alone would add up over the steps."""

_APPLIES = (
    "Girsanov's bound needs steps of the reverse SDE (eta=1) in which either the score or the denoiser keeps its value "
    "from the start of the step: elsewhere the states that a step looks at are not distributed as in the forward "
    "process. Use ReverseSDE(solver='exponential-integrator') or ReverseSDE(solver='ddpm')."
)


@dataclasses.dataclass(frozen=True, eq=False)
class SamplingBudget:
    """What `sampling_budget` found, in nats; arrays have one entry for each step, from noise to data.

    Attributes:
        start: divergence of the noised data from the Gaussian that the sampler starts with, or a bound on it.
        start_se: its standard error.
        discretisation: what the steps cost an exact score; with no exact score, what they change in the score itself.
        discretisation_se: its standard error.
        score_error: what the score's errors at the levels of the steps cost; with no exact score, at least this.
        score_error_se: its standard error.
        interaction: the cross term of the last two. Zero for a frozen denoiser, and wherever alpha is constant.
        interaction_se: its standard error.
        total: the sum of the four.
        total_se: its standard error.
        is_bound: whether the exact score was known, so that the total is an upper bound.
        sampler: the sampler in words.
        frozen: what the sampler keeps fixed over a step, "score" or "denoiser".
        num_steps: number of steps.
        num_points: number of draws of the data that were used.
        dimension: number of coordinates.
        t: times at which the steps begin.
        t_next: times at which they end.
        noise: sigma/alpha where they begin, in standard deviations of the data (root mean square over coordinates);
            in standard coordinates if the data do not vary.
        last_noise: the same where the last step ends.
        step_discretisation: shares of `discretisation`.
        step_discretisation_se: their standard errors.
        step_score_error: shares of `score_error`.
        step_score_error_se: their standard errors.
        score_distance: ``E|s - s*|^2`` where the steps begin, in standard coordinates, or None without an exact score.
        score_distance_se: its standard errors, or None.
    """

    start: float
    start_se: float
    discretisation: float
    discretisation_se: float
    score_error: float
    score_error_se: float
    interaction: float
    interaction_se: float
    total: float
    total_se: float
    is_bound: bool
    sampler: str
    frozen: Frozen
    num_steps: int
    num_points: int
    dimension: int
    t: np.ndarray
    t_next: np.ndarray
    noise: np.ndarray
    last_noise: float
    step_discretisation: np.ndarray
    step_discretisation_se: np.ndarray
    step_score_error: np.ndarray
    step_score_error_se: np.ndarray
    score_distance: np.ndarray | None
    score_distance_se: np.ndarray | None

    @property
    def table(self) -> pd.DataFrame:
        """One row for each step."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        return pd.DataFrame({name.removeprefix("step_"): value for name, value in arrays.items()})

    @property
    def terms(self) -> pd.DataFrame:
        """The terms and their standard errors in nats, one row each, as they are shown.

        An interaction that is zero is left out, and a start that chance took below zero is zero.
        """
        names = {
            "start": "start",
            "discretisation": "discretisation",
            "score error" if self.is_bound else "score error, at least": "score_error",
            "interaction": "interaction",
            "total" if self.is_bound else "total, no bound": "total",
        }
        if self.interaction == 0:
            del names["interaction"]
        rows = {words: (getattr(self, name), getattr(self, f"{name}_se")) for words, name in names.items()}
        rows["start"] = (max(self.start, 0.0), self.start_se)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["nats", "se"])

    @property
    def total_variation(self) -> float | None:
        """At most this, by Pinsker's inequality, ``sqrt(total/2)``; None where the total is no bound."""
        return float(min(1.0, np.sqrt(max(self.total, 0.0) / 2))) if self.is_bound else None

    @property
    def meaning(self) -> str:
        """What the total says, in a few sentences."""
        laws = (
            f"the divergence KL(data || draws) of the data, with noise of {self.last_noise:.2g} standard deviations "
            "added, from the sampler's draws before its last move (denoising is not counted)"
        )
        if not self.is_bound:
            return (
                f"The total does not bound {laws}. The exact score is not known: data alone cannot bound the score's "
                "error from above, which would take the Fisher information of the noised data. What counts here is by "
                "how much its denoising loss exceeds that of scores made without training, so the error is at least "
                "that, and the discretisation is that of the score itself. Pass exact= for a bound."
            )
        return (
            "If the data are draws of the exact score's law, the total is an upper bound, up to its standard error, of "
            f"{laws}; by Pinsker's inequality their total "
            f"variation is at most {self.total_variation:.2g}. It is loose by design, since it compares whole paths: "
            "with N steps the discretisation falls like 1/N, what it adds to the divergence itself like 1/N^2."
        )

    def __str__(self) -> str:
        """The terms and what they mean, for a terminal."""
        heading = (
            f"Budget of {self.sampler}, {self.num_steps} steps with the {self.frozen} frozen, on {self.num_points:,} "
            f"draws in {self.dimension} dimension{'' if self.dimension == 1 else 's'}"
        )
        return "\n".join([heading, "", self.terms.to_string(float_format=lambda x: f"{x:.3g}"), "", self.meaning])


def sampling_budget(
    score: AbstractPerturbedScore,
    sampler: ReverseSDE | Grid,
    data: Any,
    *,
    key: Array,
    exact: AbstractPerturbedScore | None = None,
    num_points: int = 1024,
) -> SamplingBudget:
    """Bound how far a reverse SDE's draws are from the data, from noised data alone: nothing is sampled.

    Between two levels the exact reverse process and the sampler are diffusions with the same noise, and Girsanov's
    theorem gives the divergence of their paths, which is no less than that of their ends. With the log-SNR lambda, the
    exact score s and denoiser D at time t, and the sampler's own at the start t_k of the step, a step costs

    * with the score frozen (``solver="exponential-integrator"``):
      ``integral of sigma_t^2 E|s_t(z_t) - shat_k(z_k)|^2 dlambda`` (Chen et al. 2023, arXiv 2209.11215, proof of
      theorem 2);
    * with the denoiser frozen (``solver="ddpm"``): ``integral of exp(2 lambda) E|D_t(z_t) - Dhat_k(z_k)|^2 dlambda``.

    The pairs (z_t, z_k) are those of the forward process, data with noise added, so the expectations are means over
    the data. The total is the sum over steps and ``KL(p_start || start)``. It splits into what the steps cost an exact
    score, ``E|s_t - s_k|^2``, and the score's error at t_k, ``E|s_k - shat_k|^2``. For the denoiser ``D_k`` is the mean
    of ``D_t`` given z_k, and nothing else remains (Benton et al. 2024, arXiv 2308.03686, use the same
    martingale); for the score that holds only while alpha is constant, and the cross term is reported by itself.

    A Gaussian or mixture made by [`perturb`][scoresample.perturb] is its own exact score: the data must be draws of it.
    Without an exact score there is no bound: see `is_bound`. The discretisation then uses the score itself at both
    ends, and the error is at least the excess of its denoising loss over the lesser of two: of the normal law and of
    the noised empirical measure of the other draws. Only an excess beyond two standard errors counts.

    Arguments:
        score: the perturbed score that the sampler uses.
        sampler: a [`ReverseSDE`][scoresample.ReverseSDE] with one of the two solvers and eta=1; or a grid, by name or
            as decreasing times, for the exponential integrator on it (a name: with ReverseSDE's default steps).
        data: draws of the clean law as positions: an array (n, ...), a tree of arrays with one leading axis, or
            [`Draws`][scoresample.Draws], which are cut down to what they are worth. Use draws that were not trained on.
        key: random key of the noise.
        exact: the perturbed score of the true law, such as ``perturb(density, VP())``. Its process does not matter. A
            Gaussian or a mixture is brought to the score's standard coordinates; another must share its location and
            scale.
        num_points: most draws to use, chosen at random.

    Returns:
        The `SamplingBudget`: `print` shows it, `table` holds the steps. It takes at least six score evaluations for
        each step and draw.

    Raises:
        TypeError: if `score` or `exact` is no perturbed score, `sampler` is neither a ReverseSDE nor a grid, or `data`
            holds no floating arrays.
        ValueError: if the sampler is one for which the bound does not hold, or the data do not fit the score, are too
            few or not finite.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> density = ss.Gaussian(jnp.zeros(1), 1.0)
        >>> sampler = ss.ReverseSDE(num_steps=20, solver="ddpm")
        >>> data = density.sample(jax.random.key(0), 512)
        >>> budget = ss.sampling_budget(ss.perturb(density, ss.VP()), sampler, data, key=jax.random.key(1))
        >>> budget.is_bound, budget.score_error, 1.0 < budget.total < 1.3
        (True, 0.0, True)
    """
    check_perturbed(score, exact)
    frozen, words, levels = _plan_of(score, sampler)
    key_data, key_start, key_steps = jax.random.split(key, 3)
    points = clean_points(score, data, num_points, key_data)
    truth = None if exact is None else in_coordinates_of(score, exact)
    density = with_density(score if truth is None else truth)
    truth = truth if density is None or truth is None else density
    known = truth is not None or density is not None
    start = start_divergence(score, density, points, levels, key_start)
    squares, weights = step_squares(score, truth, points, levels, key_steps, frozen=frozen, losses=not known)
    return _summed(start, squares, weights, points, levels, known, words, frozen)


def _plan_of(score: AbstractPerturbedScore, sampler: Any) -> tuple[Frozen, str, Levels]:
    """What a sampler keeps fixed over a step, its name, and its levels."""
    if isinstance(sampler, str):
        if sampler not in get_args(GridName):
            raise ValueError(
                f"`sampler` must be a ReverseSDE or a grid, one of {list(get_args(GridName))} or times, got "
                f"{sampler!r}. A solver's name goes into ReverseSDE(solver=...)."
            )
        sampler = ReverseSDE(solver="exponential-integrator", grid=cast(GridName, sampler))
    elif isinstance(sampler, np.ndarray | jax.Array | tuple | list):
        sampler = ReverseSDE(solver="exponential-integrator", grid=check_grid(sampler))
    if not isinstance(sampler, ReverseSDE):
        raise TypeError(f"`sampler` must be a ReverseSDE or a grid, got {sampler!r}. {_APPLIES}")
    frozen: Frozen
    match sampler.solver:
        case "exponential-integrator" | ExponentialIntegrator():
            frozen, words = "score", "the exponential integrator"
        case "ddpm" | ExponentialAdams(order=1, corrector=False):
            frozen, words = "denoiser", "DDPM"
        case other:
            raise ValueError(f"`sampler`: there is no such bound for solver={other!r}. {_APPLIES}")
    if sampler.eta not in (None, 1):
        raise ValueError(f"`sampler`: there is no such bound for eta={sampler.eta}. {_APPLIES}")
    return frozen, words, noise_levels(score, sampler.num_steps, sampler.grid, sampler.delta)


def _summed(
    start: np.ndarray,
    squares: StepSquares,
    weights: StepWeights,
    points: Position,
    levels: Levels,
    known: bool,
    words: str,
    frozen: Frozen,
) -> SamplingBudget:
    """Means over points, whose sums over steps are independent, with their standard errors."""
    if known:
        by_step = weights.fisher[:, None] * squares.fisher
    else:
        by_step = weights.excess[:, None] * _least_excess(squares)
    interaction = np.sum(weights.interaction[:, None] * squares.interaction, axis=0)
    discretisation, score_error = np.sum(squares.discretisation, axis=0), np.sum(by_step, axis=0)
    parts = {
        "start": start,
        "discretisation": discretisation,
        "score_error": score_error,
        "interaction": interaction,
        "total": start + discretisation + score_error + interaction,
    }
    numbers = {}
    for name, values in parts.items():
        mean, error = _mean_and_error(values)
        numbers |= {name: float(mean), f"{name}_se": float(error)}
    flat = np.asarray(as_matrix(points), np.float64)
    noise = np.exp(-levels.log_snr) / (np.sqrt(np.mean(np.var(flat, axis=0))) or 1.0)
    step_discretisation, step_discretisation_se = _mean_and_error(squares.discretisation)
    step_score_error, step_score_error_se = _mean_and_error(by_step)
    distance, distance_se = _mean_and_error(squares.fisher) if known else (None, None)
    return SamplingBudget(
        **numbers,
        is_bound=known,
        sampler=words,
        frozen=frozen,
        num_steps=len(noise) - 1,
        num_points=flat.shape[0],
        dimension=flat.shape[1],
        t=levels.t[:-1],
        t_next=levels.t[1:],
        noise=noise[:-1],
        last_noise=float(noise[-1]),
        step_discretisation=step_discretisation,
        step_discretisation_se=step_discretisation_se,
        step_score_error=step_score_error,
        step_score_error_se=step_score_error_se,
        score_distance=distance,
        score_distance_se=distance_se,
    )


def _least_excess(squares: StepSquares) -> np.ndarray:
    """The greater of the two excess losses of each step, and zero where chance may explain it."""
    both = np.stack([squares.excess_gaussian, squares.excess_empirical])
    best = np.argmax(np.mean(both, axis=2), axis=0)
    chosen = np.take_along_axis(both, best[None, :, None], axis=0)[0]
    mean, error = _mean_and_error(chosen)
    return np.where((mean > _SURE * error)[:, None], chosen, 0.0)


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the last axis with standard errors; infinite where a value is not finite, as of a broken score."""
    finite = np.isfinite(values).all(axis=-1)
    safe = np.where(finite[..., None], values, 0.0)
    error = np.std(safe, axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    return np.where(finite, np.mean(safe, axis=-1), np.inf), np.where(finite, error, np.nan)
