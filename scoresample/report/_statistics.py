"""Everything that the report computes about one run, computed once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scoresample.diagnostics import (
    ChainStatistics,
    Distance,
    ModeWeights,
    MomentErrors,
    MomentEstimates,
    chain_statistics,
    compare_moments,
    coordinates,
    draws_mode_weights,
    effective_draws,
    energy_distance_to_reference,
    moment_estimates,
    quantities,
    sliced_wasserstein_to_reference,
)
from scoresample.inference import Draws

SMALLEST_COMPARISON = 20
"""Fewest draws on each side of a distance; runs worth less are compared by this many all the same."""


@dataclass(frozen=True)
class RunStatistics:
    """What one run shows by itself.

    Attributes:
        name: the name that the user gave the run.
        draws: the run.
        values: its quantities, each of shape (chain, draw).
        non_finite: how many draws hold a quantity that is not finite; if any, the next four are None.
        chains: R-hat and ESS of every quantity.
        moments: mean, sd and kurtosis of every quantity.
        sample: as many unweighted positions as the run is worth, shape (number, dimension).
        modes: weights of the modes that the user named, or None.
    """

    name: str
    draws: Draws
    values: dict[str, np.ndarray]
    non_finite: int
    chains: ChainStatistics | None
    moments: MomentEstimates | None
    sample: np.ndarray | None
    modes: ModeWeights | None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of chains, and of draws in each."""
        chains, length = next(iter(self.values.values())).shape
        return chains, length

    def stat(self, name: str) -> np.ndarray | None:
        """A statistic of the sampler, of shape (chain, draw), or None if it keeps no such record."""
        value: Any = self.draws.stats.get(name)
        return None if value is None else np.asarray(value)


@dataclass(frozen=True)
class Deviation:
    """What a run shows against the reference.

    Attributes:
        reference: name of the reference.
        moments: standardised mean error and sd ratio of every quantity, with standard errors.
        sliced_wasserstein: distance with its null.
        energy: distance with its null.
        conclusive: whether both sides are worth enough draws for the distances to be judged.
    """

    reference: str
    moments: MomentErrors
    sliced_wasserstein: Distance
    energy: Distance
    conclusive: bool


def run_statistics(name: str, draws: Draws, *, modes: np.ndarray | None, seed: int) -> RunStatistics:
    """Compute what one run shows by itself.

    Arguments:
        name: the name of the run.
        draws: the run.
        modes: one position in each mode, shape (modes, dimension), or None.
        seed: seed of every subsample.
    """
    values = quantities(draws)
    finite = np.all(np.isfinite(np.stack(list(values.values()))), axis=0)
    finite &= np.all(np.isfinite(coordinates(draws)), axis=-1)
    non_finite = int(np.sum(~finite))
    if non_finite:
        return RunStatistics(name, draws, values, non_finite, None, None, None, None)
    return RunStatistics(
        name=name,
        draws=draws,
        values=values,
        non_finite=0,
        chains=chain_statistics(draws, values=values),
        moments=moment_estimates(draws, values=values),
        sample=effective_draws(draws, minimum=2 * SMALLEST_COMPARISON, seed=seed),
        modes=None if modes is None else draws_mode_weights(draws, modes),
    )


def deviation_from(run: RunStatistics, reference: RunStatistics, *, seed: int) -> Deviation | None:
    """Compute what a run shows against the reference; None where either holds draws that are not finite.

    Arguments:
        run: statistics of the run.
        reference: statistics of the reference.
        seed: seed of every subsample.
    """
    if run.moments is None or run.sample is None or reference.moments is None or reference.sample is None:
        return None
    worth = min(_worth(run), _worth(reference) / 2)
    return Deviation(
        reference=reference.name,
        moments=compare_moments(run.moments, reference.moments),
        sliced_wasserstein=sliced_wasserstein_to_reference(run.sample, reference.sample, seed=seed),
        energy=energy_distance_to_reference(run.sample, reference.sample, seed=seed),
        conclusive=worth >= SMALLEST_COMPARISON,
    )


def _worth(run: RunStatistics) -> float:
    return 0.0 if run.chains is None else float(np.min(run.chains.ess_bulk))
