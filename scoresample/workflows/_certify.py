"""Whether draws can be used in the place of draws of a density, and what to use instead."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks import Check, graded_check
from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore
from scoresample.workflows._polish import polish as polished
from scoresample.workflows._reweight import pareto_smoothed, reweight

Verdict = Literal["use", "use weighted", "use polished", "do not use"]

_NEAR = 0.05
"""Total variation up to which draws are as good as the density's own: a perfect classifier is right in 52.5%."""
_WARN_K, _FAIL_K = 0.7, 1.0
"""Of the tail of the weights: from 0.7 averages settle too slowly, from 1 the mean itself does not exist (Vehtari et
al. 2024, section 3)."""
_LEAST_SHARE, _LEAST_SIZE = 0.1, 400.0
"""Of the effective size: enough for weighted averages with an error of a twentieth of a standard deviation ..."""
_LEAST_TO_POLISH = 100.0
"""... and for shares of modes within five percent, which moves do not mend."""


@dataclass(frozen=True)
class Certificate:
    """What is known about draws beside a density; made by [`certify`][scoresample.certify].

    Attributes:
        verdict: ``"use"`` the draws as they are, ``"use weighted"``, ``"use polished"`` or ``"do not use"``.
        total_variation: an estimate of the total variation distance of the draws' law from the density: the largest
            difference between the probabilities that the two give to anything.
        total_variation_se: its standard error.
        pareto_k: shape of the tail of the weights.
        ess: Kish's effective size of the weighted draws.
        ess_share: the same as a share of their number.
        log_evidence: logarithm of the density's integral.
        log_evidence_se: its standard error, which means little where `pareto_k` is above 0.7.
        checks: the facts behind the verdict.
        draws: what to use; under ``"do not use"`` the weighted draws, for a look at them.
    """

    verdict: Verdict
    total_variation: float
    total_variation_se: float
    pareto_k: float
    ess: float
    ess_share: float
    log_evidence: float
    log_evidence_se: float
    checks: list[Check]
    draws: Draws

    def __str__(self) -> str:
        """The verdict in words, with the facts behind it."""
        words = {
            "use": "Use the draws as they are.",
            "use weighted": "Use the draws with their weights (`certificate.draws` has them).",
            "use polished": "Use the draws that were moved (`certificate.draws`): weights alone rest on too few of "
            "them.",
            "do not use": "Do not use these draws: neither weights nor moves make them draws of this density.",
        }
        facts = (
            f"Total variation {self.total_variation:.3f} +- {self.total_variation_se:.3f}, Pareto k "
            f"{self.pareto_k:.2f}, effective size {self.ess:.0f} ({self.ess_share:.0%}), log evidence "
            f"{self.log_evidence:.3f} +- {self.log_evidence_se:.3f}."
        )
        blind = "Weights and moves cannot see a part of the density where no draw is."
        return "\n".join([words[self.verdict], facts, blind, *(str(check) for check in self.checks)])


def certify(
    draws: Draws,
    target: AbstractDensityScore,
    proposal: AbstractDensityScore | None = None,
    *,
    key: Array,
    num_steps: int = 40,
    batch_size: int | None = None,
) -> Certificate:
    """Say whether draws can stand for draws of a density, and mend them where they cannot.

    The draws are weighted by ``w = target/proposal``, whose spread is the distance of the two laws:
    ``TV = E |w / E w - 1| / 2``. Then, in this order:

    1. ``"use"``: the total variation is at most 0.05, two standard errors included, and Pareto's k at most 0.7;
    2. ``"use weighted"``: k is at most 0.7, and the effective size at least 400 and a tenth of the draws;
    3. ``"use polished"``: k is below 1, the effective size at least 100, and the resampled draws, moved by
       [`polish`][scoresample.polish], forgot where they were;
    4. ``"do not use"``.

    A small k alone is not enough: weights can have a light tail and rest on a few draws all the same. And no weight
    tells of a part of the density where no draw is: two certificates, of draws made in different ways, tell more.

    Two-sample tests count the repetitions of draws that were resampled; compare polished draws, or weigh.

    Arguments:
        draws: independent draws, of [`WithDensity`][scoresample.WithDensity] or with a `proposal`.
        target: the density, up to a constant.
        proposal: the density of the draws, where they do not bring it.
        key: random key.
        num_steps: moves of polishing.
        batch_size: evaluate at most this many densities at a time.

    Returns:
        The certificate, with what to use.

    Raises:
        TypeError: if `draws` are no Draws, or a density is none.
        ValueError: if they do not fit, have weights already, or none gets a weight.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> target, near = ss.Gaussian(jnp.zeros(2), 1.0), ss.Gaussian(jnp.full(2, 0.5), 1.3)
        >>> draws = ss.exact_draws(near, key=jax.random.key(0), num_samples=1000)
        >>> ss.certify(draws, target, near, key=jax.random.key(1)).verdict
        'use weighted'
    """
    if isinstance(draws, Draws) and draws.log_weights is not None:
        raise ValueError("`draws` have weights already. Give them as they came: the weights are made here.")
    raw = reweight(draws, target, proposal, batch_size=batch_size)
    log_weights = np.asarray(raw.log_weights, np.float64)
    distance, error = _total_variation(log_weights.ravel())
    smoothed = pareto_smoothed(log_weights)[1]
    weighted = dataclasses.replace(raw, log_weights=jnp.asarray(smoothed - smoothed.max(), jnp.result_type(float)))
    info = weighted.info
    number = log_weights.size
    share = info["ess"] / number
    checks = [_tail_check(info["pareto_k"]), _size_check(share)]
    settled = info["pareto_k"] <= _WARN_K
    found: Draws = weighted
    if settled and distance + 2 * error <= _NEAR:
        verdict, found = "use", draws
    elif settled and info["ess"] >= max(_LEAST_SIZE, _LEAST_SHARE * number):
        verdict = "use weighted"
    elif info["pareto_k"] < _FAIL_K and info["ess"] >= _LEAST_TO_POLISH:
        moved = polished(weighted, target, key=key, num_steps=num_steps)
        checks += moved.info["checks"]
        forgot = all(check.passed or check.severity == "warn" for check in moved.info["checks"])
        verdict, found = ("use polished", moved) if forgot else ("do not use", weighted)
    else:
        verdict = "do not use"
    return Certificate(
        verdict, distance, error, info["pareto_k"], info["ess"], share, info["log_z"], info["log_z_se"], checks, found
    )


def _total_variation(log_weights: np.ndarray) -> tuple[float, float]:
    """``E |w / E w - 1| / 2`` under the proposal, and its standard error by the delta method."""
    weights = np.exp(log_weights - log_weights.max())
    weights = weights / weights.mean()
    apart = 0.5 * np.abs(weights - 1)
    # The mean of the weights is estimated too: its error moves every term.
    slope = 0.5 * np.mean(np.sign(weights - 1) * weights)
    influence = apart - apart.mean() - slope * (weights - 1)
    return float(apart.mean()), float(influence.std() / np.sqrt(weights.size))


def _tail_check(shape: float) -> Check:
    return graded_check(
        "Pareto k of the weights",
        shape,
        warn=_WARN_K,
        fail=_FAIL_K,
        cause="A few draws carry most of the weight: their law has thinner tails than the density, or misses a part.",
        remedy="Train on more simulations, or for longer; or sample the density itself, with NUTS or TemperedSMC.",
    )


def _size_check(share: float) -> Check:
    return graded_check(
        "effective share of the weighted draws",
        share,
        warn=_LEAST_SHARE,
        fail=0.01,
        cause="Averages rest on this share of the draws.",
        remedy="Take more draws, or train on more simulations.",
        smaller_is_better=False,
    )
