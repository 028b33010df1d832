"""What a path sampler's finite number of steps costs: the same run with more steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array

from scoresample.checks import Check, graded_check
from scoresample.diagnostics._moments import MomentErrors, compare_moments, moment_estimates
from scoresample.diagnostics._null import Distance, sliced_wasserstein_to_reference
from scoresample.diagnostics._quantities import coordinates
from scoresample.inference import sample
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractPathSampler, ProbabilityFlowODE

_WARN, _FAIL = 0.05, 0.2
"""Of a standard deviation: what a reader of a posterior mean begins to see, and what misleads them."""


@dataclass(frozen=True)
class DiscretisationError:
    """How much draws change when steps are halved.

    The finer run is not exact: for a method of order p the error of the coarse one is ``1/(1 - 2^-p)`` times this
    change, twice it for order 1.

    Attributes:
        moments: mean errors and sd ratios of the coarse run against the fine one, with Monte-Carlo standard errors.
        distance: sliced Wasserstein-2 distance of the two, in standard deviations of the fine run, beside its null.
        pathwise: root mean square of the change of single draws in standard deviations, for the ODE, whose two runs
            have the same starts; None for samplers with noise.
        nfe: score evaluations per draw of the coarse run and of the fine one.
    """

    moments: MomentErrors
    distance: Distance
    pathwise: float | None
    nfe: tuple[float, float]

    def check(self) -> Check:
        """The largest change of a mean or of the logarithm of a standard deviation.

        Only what is beyond three standard errors counts, unless both runs move the same starts without noise.
        """
        change = np.abs(np.concatenate([self.moments.mean_error, np.log(self.moments.sd_ratio)]))
        error = np.concatenate([self.moments.mean_error_se, self.moments.log_sd_ratio_se])
        if self.pathwise is not None:
            error = np.zeros_like(error)
        return graded_check(
            "change when steps are halved",
            float(np.max(np.maximum(change - 3 * error, 0.0))),
            warn=_WARN,
            fail=_FAIL,
            cause="The draws depend on the number of steps.",
            remedy="Take more steps, or a solver of higher order.",
        )


def discretisation_error(
    path: AbstractScorePath,
    sampler: AbstractPathSampler[Any],
    *,
    key: Array,
    num_samples: int = 4000,
    factor: int = 2,
) -> DiscretisationError:
    """Run a path sampler with its own steps and with `factor` times as many, and compare the draws.

    Arguments:
        path: what to sample.
        sampler: any path sampler.
        key: random key; both runs start from the same draws of the reference.
        num_samples: draws of each run.
        factor: how many times as many steps (or how much smaller a tolerance) the finer run takes.

    Returns:
        The `DiscretisationError`. Its `check()` is a [`Check`][scoresample.checks.Check].

    Raises:
        TypeError: if the sampler is not a path sampler.
        ValueError: if `factor` is less than 2.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
        >>> error = discretisation_error(path, ss.ProbabilityFlowODE(num_steps=10), key=jax.random.key(0))
        >>> error.nfe, error.pathwise < 0.01
        ((11.0, 21.0), True)
    """
    if not isinstance(sampler, AbstractPathSampler):
        raise TypeError(f"`sampler` must be a path sampler such as ReverseSDE(), got {sampler!r}.")
    if factor < 2:
        raise ValueError(f"`factor` must be at least 2, got {factor}.")
    coarse, fine = (
        sample(path, each, key=key, num_samples=num_samples, num_chains=1, progress=False)
        for each in (sampler, sampler.refined(factor))
    )
    x, y = (coordinates(draws)[0] for draws in (coarse, fine))
    pathwise = None
    if isinstance(sampler, ProbabilityFlowODE):
        pathwise = float(np.sqrt(np.mean(((x - y) / y.std(axis=0)) ** 2)))
    return DiscretisationError(
        compare_moments(moment_estimates(coarse), moment_estimates(fine)),
        sliced_wasserstein_to_reference(x, y),
        pathwise,
        (coarse.nfe, fine.nfe),
    )
