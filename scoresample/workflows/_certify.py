"""May draws be used as they are, with weights, after some moves, or not at all."""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks import Check
from scoresample.diagnostics import coordinates, effective_sizes, kish_ess, normalized_weights, pareto_smoothed
from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore
from scoresample.workflows._polish import polish as polished_draws
from scoresample.workflows._reweight import reweight

Verdict = Literal["use", "use weighted", "use polished", "do not use"]
"""What to do with draws."""

_MOST_TOTAL_VARIATION = 0.05
"""No event has a probability that is off by more, and no classifier tells draws from the target in more than 52.5% of
the cases: half of it above chance."""
_ERRORS_OF_TOTAL_VARIATION = 2.0
"""Standard errors that are added before an estimate is held against the limit."""
_MOST_PARETO_K = 0.7
"""Vehtari et al. 2024, arXiv 1507.02646: beyond it the number of draws that is needed explodes."""
_MOST_PARETO_K_TO_POLISH = 1.0
"""Beyond it the mean weight need not exist, and nothing says that the draws cover the target."""
_LEAST_SHARE_TO_USE = 0.75
"""Of the effective size in the number of draws: far below what a total variation of 0.05 leaves (0.98 for a shift), so
that less means a few large weights, which the total variation hardly feels."""
_LEAST_SHARE_TO_WEIGH = 0.1
"""A tenth: below it the largest weights, whose size is known worst, make up the answer."""
_LEAST_ESS = 400.0
"""Means to a twentieth of a standard deviation, and four runs of 100 as ArviZ asks for."""
_LEAST_ESS_TO_POLISH = 100.0
"""The share of a mode to 0.5/sqrt(100) = 0.05: moves may leave it where the weights have put it."""
_MOST_FAILED = 0.01
"""Share of draws without a density or with a map that turns over: what they stand for is not in the weights."""


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What `certify` found.

    Attributes:
        verdict: ``"use"``, ``"use weighted"``, ``"use polished"`` or ``"do not use"``.
        total_variation: an estimate of the total variation between the law of the draws as they came and the target:
            the largest difference between the probabilities that the two give to anything.
        total_variation_se: its standard error.
        pareto_k: the shape of the tail of the weights.
        ess: their effective size, ``(sum w)^2 / sum w^2`` before smoothing, times the share of independent ones that
            draws of chains, or copies, are worth.
        ess_share: the effective size over the number of draws.
        log_evidence: the log evidence of the target, where its density lacks its constant.
        log_evidence_se: its standard error, which means little where `pareto_k` is above 0.7.
        checks: each fact with its limit.
        draws: the draws that the verdict is about: as they came, weighted, or polished; the weighted ones, for a look
            at them, where none should be used.
        num_draws: the number of draws.
        num_failed: draws whose weight could not be had, folds among them.
        num_folded: draws at which the sampler's map turns over.
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
    num_draws: int
    num_failed: int
    num_folded: int

    def __str__(self) -> str:
        """The verdict in plain words, what it stands on, and what it cannot see."""
        lines = [
            f"Verdict: {self.verdict}. {_MEANING[self.verdict]}",
            f"Of {self.num_draws} draws, as they came: total variation from the target {self.total_variation:.3f} +- "
            f"{self.total_variation_se:.3f} (the best classifier is right in {50 + 50 * self.total_variation:.1f}% of "
            "the cases).",
            f"Their weights: effective size {self.ess:.0f} ({self.ess_share:.0%}), Pareto k {self.pareto_k:.2f}, log "
            f"evidence {self.log_evidence:.3f} +- {self.log_evidence_se:.3f}, {self.num_failed} without a weight "
            f"({self.num_folded} of them where the sampler's map turns over).",
            *(str(check) for check in self.checks if not check.passed),
            "No weight and no local move can tell of a mode in which there is no draw.",
        ]
        return "\n".join(lines)


_MEANING = {
    "use": "The draws are as good as draws of the target: take them as they came.",
    "use weighted": "Take averages under the weights; copies made by resampling are not independent draws.",
    "use polished": "The draws were resampled by their weights and moved until they forgot where they were.",
    "do not use": "Neither weights nor moves make these draws reliable.",
}


def certify(
    draws: Draws,
    target: AbstractDensityScore,
    proposal: AbstractDensityScore | None = None,
    *,
    key: Array,
    polish: bool = True,
    num_steps: int = 20,
    batch_size: int | None = None,
) -> Certificate:
    """Hold draws against a target whose density is known, and say what they are good for.

    Weights ``w = target/proposal`` know all that is wrong with draws where there are any. The first of these that holds
    is the verdict:

    1. ``"use"``: the draws as they came are good. Their total variation from the target, plus two standard errors, is
       at most 0.05, k at most 0.7, and the effective size at least 75% of their number.
    2. ``"use weighted"``: k is at most 0.7, the effective size at least 10% and 400, and at most 1% of the draws have
       no weight.
    3. ``"use polished"``: chains from draws resampled by their weights ([`polish`][scoresample.polish], MALA) pass all
       their checks, above all that they forget where they were, modes included; k is at most 1, the effective size at
       least 100, and at most 1% have no weight. Modes between which chains do not cross are let pass where the weights
       know their shares: as [`polish`][scoresample.polish] has it, to a total variation of 0.05.
    4. ``"do not use"``, and so wherever a number could not be had.

    With q the law of the draws and ``w`` over its mean, the total variation is ``E_q max(1 - w, 0)``: a mean of numbers
    between 0 and 1, so that it is estimated well whatever the tail. The most that any classifier, such as that of a
    two-sample test, can be right is one half plus half of it.

    Draws may be of any kind. Chains, and particles of which some are copies, count for the number of independent draws
    that they are worth. Draws with weights are held against the target by what they stand for, weights included, and
    `proposal` is then the density that they have with their weights.

    The verdict is about where draws are: **a mode without draws is missed by all of this**, and total variation and k
    are then those of what is seen. Where q has tails far out of which no draw came, the same. And a test for two
    samples that is fed with resampled draws takes copies for independent draws, and finds differences that are none.

    Arguments:
        draws: draws of any kind.
        target: the density to hold them against; it may lack its constant.
        proposal: the density that the draws have, normalised where the log evidence is wanted; None for draws that
            bring their own, by ``WithDensity(ProbabilityFlowODE(...))``.
        key: random key, for the moves.
        polish: whether to try moves where weights are not enough.
        num_steps: moves of each chain.
        batch_size: evaluate and move at most this many draws at a time.

    Returns:
        The verdict, what it stands on, and the draws to use; ``print`` shows it in words.

    Raises:
        TypeError: if `draws` are no Draws, or a density is none.
        ValueError: if the draws do not fit, get no weight, or bring no density, or have weights already, where there is
            no `proposal`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> target = ss.Gaussian(jnp.zeros(2), 1.0)
        >>> flow = ss.WithDensity(ss.ProbabilityFlowODE())
        >>> draws = ss.sample(ss.perturb(target, ss.VP()), flow, key=jax.random.key(0), num_samples=250)
        >>> ss.certify(draws, target, key=jax.random.key(1)).verdict
        'use'
    """
    raw = reweight(draws, target, proposal, smooth=False, batch_size=batch_size)
    assert raw.log_weights is not None
    log_weights = np.asarray(raw.log_weights, np.float64)
    smoothed = pareto_smoothed(log_weights.ravel()).log_weights.reshape(log_weights.shape)
    smoothed = smoothed - smoothed.max()
    weighted = dataclasses.replace(
        raw,
        log_weights=jnp.asarray(smoothed, jnp.result_type(float)),
        info={**raw.info, "ess": kish_ess(np.exp(smoothed)), "smoothed": True},
    )
    facts = _facts(draws, raw, own_density=proposal is None)
    checks = _checks(facts)
    verdict, chosen = _of_weights(facts, draws, weighted)
    if verdict == "do not use" and polish and _may_be_polished(facts):
        polished = polished_draws(raw, target, key=key, num_steps=num_steps, batch_size=batch_size)
        checks = checks + polished.info["checks"]
        if all(check.passed for check in polished.info["checks"]) and not polished.stats["non_finite"].any():
            verdict, chosen = "use polished", polished
    return Certificate(verdict, draws=chosen, checks=checks, **facts._asdict())


class _Facts(NamedTuple):
    """The numbers of a certificate, by the names that they have there."""

    total_variation: float
    total_variation_se: float
    pareto_k: float
    ess: float
    ess_share: float
    log_evidence: float
    log_evidence_se: float
    num_draws: int
    num_failed: int
    num_folded: int


def _facts(draws: Draws, raw: Draws, *, own_density: bool) -> _Facts:
    log_weights = np.asarray(raw.log_weights, np.float64)
    weights = np.exp(log_weights.ravel())
    before = None if draws.log_weights is None else normalized_weights(draws)
    total_variation, error = total_variation_by_weights(weights, before)
    worth = _worth(raw, log_weights)
    ess = kish_ess(weights) * worth
    folded = np.asarray(raw.stats.get("folded", False)) if own_density else np.asarray(False)
    return _Facts(
        total_variation=total_variation,
        total_variation_se=error / worth**0.5,
        pareto_k=raw.info["pareto_k"],
        ess=ess,
        ess_share=ess / weights.size,
        log_evidence=raw.info["log_z"],
        log_evidence_se=raw.info["log_z_se"] / worth**0.5,
        num_draws=weights.size,
        num_failed=raw.info["num_failed_weights"],
        num_folded=int(np.sum(folded)),
    )


def _worth(draws: Draws, log_weights: np.ndarray) -> float:
    """The share of independent draws that chains, or particles among which are copies, are worth."""
    if draws.kind == "independent":
        return 1.0
    flat = np.asarray(coordinates(draws), np.float64)
    # Draws without a weight count for nothing, wherever they are.
    columns = np.concatenate([flat, log_weights[..., None]], axis=-1)
    usable = np.isfinite(columns).all(axis=-1, keepdims=True)
    columns = np.where(usable, columns, np.mean(columns, axis=(0, 1), where=usable))
    values = {str(index): columns[..., index] for index in range(columns.shape[-1])}
    sizes = np.array(list(effective_sizes(dataclasses.replace(draws, log_weights=None), values).values()))
    sizes = sizes[np.isfinite(sizes)]
    return float(np.clip(sizes.min() / log_weights.size, 1 / log_weights.size, 1.0)) if sizes.size else float("nan")


def total_variation_by_weights(weights: np.ndarray, before: np.ndarray | None = None) -> tuple[float, float]:
    """The total variation between the law of independent draws and that under new weights, and its standard error.

    It is ``E max(1 - w, 0)`` with the weights over their mean; the error is that of its influence function, in which
    the mean of the weights is estimated too.

    Arguments:
        weights: (n,), not negative, up to a constant.
        before: (n,), the weights that draws had, of sum 1; None for equal ones.
    """
    before = np.full(weights.size, 1 / weights.size) if before is None else np.asarray(before, np.float64)
    after = np.asarray(weights, np.float64) / np.sum(weights)
    missing = np.maximum(before - after, 0.0)
    value = float(np.sum(missing))
    slope = np.sum(np.where(after < before, after, 0.0))
    influence = missing - value * before + slope * (after - before)
    return value, float(np.sqrt(np.sum(influence**2)))


def _few_failed(facts: _Facts) -> bool:
    return facts.num_failed <= _MOST_FAILED * facts.num_draws


def _of_weights(facts: _Facts, draws: Draws, weighted: Draws) -> tuple[Verdict, Draws]:
    """The verdict without any moves."""
    if not (facts.pareto_k <= _MOST_PARETO_K and facts.ess >= _LEAST_ESS and _few_failed(facts)):
        return "do not use", weighted
    upper = facts.total_variation + _ERRORS_OF_TOTAL_VARIATION * facts.total_variation_se
    if upper <= _MOST_TOTAL_VARIATION and facts.ess_share >= _LEAST_SHARE_TO_USE:
        return "use", draws
    if facts.ess_share >= _LEAST_SHARE_TO_WEIGH:
        return "use weighted", weighted
    return "do not use", weighted


def _may_be_polished(facts: _Facts) -> bool:
    return facts.pareto_k <= _MOST_PARETO_K_TO_POLISH and facts.ess >= _LEAST_ESS_TO_POLISH and _few_failed(facts)


def _checks(facts: _Facts) -> list[Check]:
    upper = facts.total_variation + _ERRORS_OF_TOTAL_VARIATION * facts.total_variation_se
    return [
        Check(
            "total variation of the draws as they came, with two standard errors",
            upper,
            _MOST_TOTAL_VARIATION,
            upper <= _MOST_TOTAL_VARIATION,
            "The draws differ from the target.",
            "Use the weights or the polished draws where the verdict allows it; else improve the score, or take more "
            "steps or draws.",
            "warn",
        ),
        Check(
            "Pareto k of the weights",
            facts.pareto_k,
            _MOST_PARETO_K,
            facts.pareto_k <= _MOST_PARETO_K,
            "The largest weights have too heavy a tail, so that draws miss part of the target; or they are too few.",
            "Draw more, improve the score, or stop at a little more noise so that draws cover the tails.",
        ),
        Check(
            "effective size of the weights",
            facts.ess,
            _LEAST_ESS,
            facts.ess >= _LEAST_ESS,
            "A few draws carry all the weight.",
            "Draw more, or improve the score.",
        ),
        Check(
            "effective size over the number of draws",
            facts.ess_share,
            _LEAST_SHARE_TO_WEIGH,
            facts.ess_share >= _LEAST_SHARE_TO_WEIGH,
            "Most draws count for nothing, and the weights of the others are known badly.",
            "Improve the score or take more steps.",
        ),
        Check(
            "share of draws without a weight",
            facts.num_failed / facts.num_draws,
            _MOST_FAILED,
            _few_failed(facts),
            "A density could not be evaluated, or the sampler's map turns over, so that the density of a draw is not "
            "that of one start alone.",
            "Take more steps; look at the draws with stats['weight_failed'].",
        ),
    ]
