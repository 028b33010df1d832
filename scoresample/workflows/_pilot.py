"""A learned score of a density that can be sampled by MCMC: pilot draws, then training."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from scoresample.inference import Draws, sample
from scoresample.paths import PerturbedEnergy, PerturbedScore
from scoresample.samplers import NUTS, AbstractSampler
from scoresample.scores import AbstractDensityScore, Position
from scoresample.training import fit_score


def fit_score_to_density(
    density: AbstractDensityScore,
    *,
    key: Array,
    sampler: AbstractSampler | None = None,
    num_pilot: int = 20_000,
    num_chains: int = 4,
    num_warmup: int = 1000,
    num_epochs: int = 80,
    progress: bool | None = None,
    **settings: Any,
) -> tuple[PerturbedScore | PerturbedEnergy, Draws]:
    """Learn a perturbed score of a density from pilot draws by MCMC and the density's own score at them.

    What the pilot run misses, the learned score misses too: look at the pilot's own diagnostics.

    Arguments:
        density: a score with a density, such as ``from_numpyro(model, ...)``.
        key: random key, of the pilot run and the training. Do not use it for the draws you compare with.
        sampler: the chain sampler of the pilot run; ``NUTS()`` if None.
        num_pilot: total number of pilot draws.
        num_chains: chains of the pilot run.
        num_warmup: warm-up steps of each chain.
        num_epochs: passes over the pilot draws in training.
        progress: show progress bars; by default only on a terminal.
        **settings: passed to [`fit_score`][scoresample.fit_score].

    Returns:
        The learned score, whose `record` tells of the training, and the pilot draws.
    """
    key_pilot, key_fit = jax.random.split(key)
    pilot = sample(
        density,
        NUTS() if sampler is None else sampler,
        key=key_pilot,
        num_samples=-(-num_pilot // num_chains),
        num_chains=num_chains,
        num_warmup=num_warmup,
        progress=progress,
    )
    scores = _scores_at(density, pilot.position)
    return fit_score(pilot, scores=scores, key=key_fit, progress=progress, num_epochs=num_epochs, **settings), pilot


@eqx.filter_jit
def _scores_at(density: AbstractDensityScore, positions: Position) -> Position:
    return jax.vmap(jax.vmap(density))(positions)
