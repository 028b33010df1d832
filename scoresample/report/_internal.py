"""The checks that a run can make on itself, without knowing the target."""

import math

import numpy as np

from scoresample.checks import Check, graded_check, point_stop_check, stop_check
from scoresample.diagnostics import ChainStatistics, coordinates, kish_ess, normalized_weights
from scoresample.report._format import counted, human, percent
from scoresample.report._statistics import RunStatistics

R_HAT_LIMITS = (1.01, 1.05)
"""Warning: Vehtari et al. (2021), section 4. Failure: Stan's advice not to use such draws."""

SEPARATED_R_HAT = 1.1
"""From here on chains look at different places; below, they may only be slow."""

ESS_LIMITS = (400.0, 100.0)
"""Warning: Vehtari et al. (2021), section 4, 100 for each of four chains. Failure: a quarter of it."""

DIVERGENCE_LIMITS = (0.0, 0.01)
"""Fractions of draws: any divergence warns, more than one in a hundred fails."""

TREE_DEPTH_LIMIT = 0.01
"""Fraction of draws whose trajectory may be cut short without a warning."""


def internal_checks(run: RunStatistics) -> list[Check]:
    """Check a run by itself.

    Arguments:
        run: statistics of the run.

    Returns:
        The checks that apply to its kind: causes, which were found while sampling, before what they lead to.
    """
    checks, in_chains = _finite(run), run.chains is not None and run.draws.kind == "chains"
    if in_chains:
        checks += _moved(run)
    checks += [*run.draws.info.get("checks", ()), *_stopped(run)]
    if run.chains is not None:
        if in_chains:
            checks += [_several_chains(run), *_r_hat(run, run.chains)]
        checks += _effective(run, run.chains)
    return [*checks, *_divergences(run), *_tree_depth(run)]


def _finite(run: RunStatistics) -> list[Check]:
    total = run.shape[0] * run.shape[1]
    limit = f"{run.non_finite:,} of {counted(total, 'draw')}"
    checks = [
        Check(
            "draws that are not finite",
            float(run.non_finite),
            0.0,
            run.non_finite == 0,
            f"Not finite: {limit}. Nothing else about this run was computed.",
            "Look for the first step that went wrong: shorten the steps, start elsewhere, or mend the score where it "
            "overflows.",
        )
    ]
    flags = run.stat("non_finite")
    flagged = 0 if flags is None else int(np.sum(flags > 0))
    if flagged and not run.non_finite:
        cause = f"The score or the density was not finite at {flagged:,} of {counted(total, 'draw')}."
        remedy = "Evaluate the score at the edge of the target's support, and mend it where it overflows."
        checks.append(
            Check("draws that met a score that is not finite", float(flagged), 0.0, False, cause, remedy, "warn")
        )
    return checks


def _moved(run: RunStatistics) -> list[Check]:
    chains, length = run.shape
    if length < 2:
        return []
    frozen = np.any(np.ptp(coordinates(run.draws), axis=1) == 0, axis=-1)
    stuck = int(np.sum(frozen))
    which = "The chain" if chains == 1 else f"{stuck} of {chains} chains"
    cause = f"{which} never moved in at least one coordinate: every proposal was rejected, or the score vanishes there."
    remedy = "Use a smaller step size or a longer warm-up, and check the score at the starting position."
    return [Check("chains that never moved", float(stuck), 0.0, stuck == 0, cause, remedy)]


def _several_chains(run: RunStatistics) -> Check:
    chains = run.shape[0]
    cause = "A single chain cannot show that it missed a region: no R-hat was computed."
    return Check("number of chains", float(chains), 2.0, chains >= 2, cause, "Run at least four chains.", "warn")


def _r_hat(run: RunStatistics, chains: ChainStatistics) -> list[Check]:
    if np.all(np.isnan(chains.r_hat)):
        return []
    place = int(np.nanargmax(chains.r_hat))
    quantity, value = chains.names[place], float(chains.r_hat[place])
    return [
        graded_check(
            f"R-hat, worst of all quantities ({quantity})",
            value,
            warn=R_HAT_LIMITS[0],
            fail=R_HAT_LIMITS[1],
            cause=f"The chains disagree on {quantity} (R-hat {human(value)}): "
            + ("" if value > SEPARATED_R_HAT else "they are too short for their autocorrelation, or ")
            + "they have not mixed between regions (modes).",
            remedy="Run longer, or use a sampler that moves between modes: a path sampler on perturb(...) or on "
            "fit_score(...).",
        )
    ]


def _effective(run: RunStatistics, chains: ChainStatistics) -> list[Check]:
    if run.draws.log_weights is not None:
        weights = normalized_weights(run.draws)
        share = kish_ess(weights) / len(weights)
        cause = f"The weights are uneven: the draws are worth {percent(share)} of their number."
        remedy = "Take more draws, or bring the proposal closer to the target: more steps, or a better score."
        return [_ess("ESS of the weighted draws", float(np.min(chains.ess_bulk)), cause, remedy)]
    if run.draws.kind != "chains":
        value = float(np.min(chains.ess_bulk))
        noun = "distinct draws" if run.draws.kind == "interacting" else "independent draws"
        cause = f"{human(value, 6)} {noun} leave a large Monte-Carlo error."
        return [_ess(f"number of {noun}", value, cause, "Take more draws: they cost little here.")]
    checks = []
    for part, column in (("bulk", chains.ess_bulk), ("tail", chains.ess_tail)):
        if np.all(np.isnan(column)):
            cause = "The chains are too short for an effective sample size."
            checks.append(_ess(f"{part} ESS", float("nan"), cause, "Take more draws."))
            continue
        place = int(np.nanargmin(column))
        quantity, value = chains.names[place], float(column[place])
        where = "means and medians" if part == "bulk" else "5% and 95% quantiles"
        checks.append(
            _ess(
                f"{part} ESS, worst of all quantities ({quantity})",
                value,
                f"{quantity} is worth only {human(value)} independent draws: its {where} are imprecise, and R-hat is "
                "not reliable.",
                "Run longer; if ESS does not grow in proportion, tune the sampler or reparametrise the model.",
            )
        )
    return checks


def _ess(name: str, value: float, cause: str, remedy: str) -> Check:
    warn, fail = ESS_LIMITS
    return graded_check(name, value, warn=warn, fail=fail, cause=cause, remedy=remedy, smaller_is_better=False)


def _divergences(run: RunStatistics) -> list[Check]:
    flags = run.stat("diverging")
    if flags is None:
        return []
    number, share = int(np.sum(flags > 0)), float(np.mean(flags > 0))
    return [
        graded_check(
            "fraction of divergent transitions",
            share,
            warn=DIVERGENCE_LIMITS[0],
            fail=DIVERGENCE_LIMITS[1],
            cause=f"{counted(number, 'transition')} of {flags.size:,} diverged: the sampler cannot follow the target "
            "where it bends most, and avoids that region.",
            remedy="Raise the target acceptance rate (smaller steps), or reparametrise: a non-centred form of a "
            "hierarchical scale.",
        )
    ]


def _tree_depth(run: RunStatistics) -> list[Check]:
    flags = run.stat("reached_max_treedepth")
    if flags is None:
        return []
    share = float(np.mean(flags > 0))
    cause = f"{percent(share)} of the trajectories were cut short at the largest tree depth: the chains move slowly."
    remedy = "Raise the tree depth, adapt the mass matrix for longer, or rescale the parameters."
    passed = share <= TREE_DEPTH_LIMIT
    return [Check("fraction at maximal tree depth", share, TREE_DEPTH_LIMIT, passed, cause, remedy, "warn")]


def _stopped(run: RunStatistics) -> list[Check]:
    """Where a path sampler stopped, if the data's smallest scale is known, or the spacing of points behind the path."""
    left, scale, spacing = (run.draws.info.get(name) for name in ("noise_left", "smallest_scale", "point_spacing"))
    if left is None:
        return []
    checks = [] if scale is None else [stop_check(float(left), float(scale))]
    if spacing is None:
        return checks
    # The scale of points is their bandwidth, which keeps draws apart from them as noise does.
    return [*checks, point_stop_check(math.hypot(float(left), float(scale or 0.0)), float(spacing))]
