"""The sampler that suits a target, where the user names none."""

from typing import Any

from scoresample.paths import (
    AbstractCascadedPath,
    AbstractPerturbedScore,
    AbstractScorePath,
    PerturbedDensity,
    ReclockedScore,
)
from scoresample.samplers._annealed_langevin import AnnealedLangevin
from scoresample.samplers._base import AbstractParticleSampler, AbstractSampler
from scoresample.samplers._hamiltonian import NUTS
from scoresample.samplers._probability_flow import ProbabilityFlowODE
from scoresample.samplers._reverse_sde import ReverseSDE
from scoresample.scores import AbstractDensityScore, AbstractScore

_ETA_ON_LEARNED_SCORES = 0.5
"""A little noise forgets the errors of a learned score; an ODE stops improving with more steps."""


def default_sampler(
    target: AbstractScore | AbstractScorePath | AbstractCascadedPath,
) -> AbstractSampler | AbstractParticleSampler[Any]:
    """The sampler that suits a target.

    | target | sampler | why |
    |---|---|---|
    | exact noised density | `ProbabilityFlowODE()` | the fewest evaluations when the score is right |
    | any other perturbed score | `ReverseSDE(eta=0.5)` | noise forgets the errors of a learned score |
    | another path | `AnnealedLangevin()` | needs no noise process |
    | density | `NUTS()` | exact in the long run, and checks itself |
    | cascade of paths | that of its first stage | |

    Arguments:
        target: a score, a path, or a cascade of paths.

    Returns:
        A sampler.

    Raises:
        TypeError: for a score without density: its step size has no default.

    Examples:
        >>> import jax.numpy as jnp
        >>> import scoresample as ss
        >>> default_sampler(ss.Gaussian(jnp.zeros(2), 1.0)).name
        'nuts'
    """
    if isinstance(target, AbstractCascadedPath):
        return default_sampler(target.stage(0, None))
    inner = target.inner if isinstance(target, ReclockedScore) else target
    if isinstance(inner, PerturbedDensity):
        return ProbabilityFlowODE()
    if isinstance(inner, AbstractPerturbedScore):
        return ReverseSDE(eta=_ETA_ON_LEARNED_SCORES)
    if isinstance(inner, AbstractScorePath):
        return AnnealedLangevin()
    if isinstance(inner, AbstractDensityScore):
        return NUTS()
    raise TypeError(
        "`sampler`: a score without its density has no default sampler. Name one, such as ULA(step_size=...), or "
        "recover the density with LineIntegralDensity and use NUTS()."
    )
