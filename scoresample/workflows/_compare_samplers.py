"""Run several samplers on one target and compare them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.diagnostics import ScoreHealth, score_health
from scoresample.inference import Draws, exact_draws, pathfinder, sample
from scoresample.paths import (
    VP,
    AbstractPerturbedScore,
    AbstractScorePath,
    PerturbedDensity,
    PerturbedEnergy,
    PerturbedScore,
    TemperedPath,
    perturb,
)
from scoresample.report import Comparison, compare
from scoresample.samplers import NUTS, AbstractParticleSampler, AbstractSampler, TemperedSMC
from scoresample.scores import AbstractDensityScore, AbstractExactDensity, AbstractScore, Gaussian, GaussianMixture
from scoresample.training import fit_score
from scoresample.workflows._pilot import fit_score_to_density

_LEARNED = "learned score"
_HELD_OUT = 512
"""Draws that a learned score is measured at: enough for its checks, and few enough to cost little beside training."""
_FEWEST_HELD_OUT = 50
"""Fewer draws of a reference say too little of a score."""
_INFLATION = 4.0
"""Of the variances of a tempered path's reference, which has to cover the target."""


def compare_samplers(
    target: AbstractScore | AbstractScorePath,
    samplers: Mapping[str, AbstractSampler | AbstractParticleSampler[Any]],
    *,
    key: Array,
    num_samples: int = 1000,
    num_chains: int = 4,
    num_warmup: int = 1000,
    title: str | None = None,
    progress: bool | None = None,
    report: Callable[[str], None] = lambda _: None,
    **fit_settings: Any,
) -> Comparison:
    """Sample a target with several samplers and compare them with the best reference there is.

    * A density in closed form: the reference is exact draws; chains run on the density, path samplers on its exact
      path under ``VP()``, and the first path sampler once more on a score learned from separate exact draws.
    * Another density, such as a NumPyro posterior: the reference is a NUTS run; path samplers run on a score learned
      from a separate pilot run.
    * `TemperedSMC` runs on a tempered path from a wide Gaussian with the target's own moments where they are known,
      and with those that [`pathfinder`][scoresample.pathfinder] finds where they are not.
    * A path: all samplers run on it; the reference is the first result.

    A score that is learned here is also measured by [`score_health`][scoresample.score_health], at exact draws that it
    has not seen or at draws of the reference, and the report shows what was found.

    Arguments:
        target: a score with a density, or a path.
        samplers: samplers by the names to show them under.
        key: random key; reference, pilot run, training and each sampler get keys of their own.
        num_samples: draws of each chain; path samplers draw ``num_samples * num_chains``.
        num_chains: number of chains.
        num_warmup: warm-up steps of each chain.
        title: heading of the report.
        progress: show progress bars; by default only on a terminal.
        report: called with a line of text before each stage.
        **fit_settings: passed to [`fit_score`][scoresample.fit_score].

    Returns:
        The comparison; ``.save("report.html")`` writes the report.

    Raises:
        TypeError: if a path sampler is asked for on a bare score.
    """
    keys = iter(jax.random.split(key, len(samplers) + 4))
    counts: dict[str, Any] = {
        "num_samples": num_samples,
        "num_chains": num_chains,
        "num_warmup": num_warmup,
        "progress": progress,
    }
    total = num_samples * num_chains
    results: dict[str, Draws] = {}
    notes: list[str] = []
    path: AbstractScorePath | None = target if isinstance(target, AbstractScorePath) else None
    learned: AbstractPerturbedScore | None = None
    again: AbstractPerturbedScore | None = None
    exact: PerturbedDensity | None = None
    tempered = [name for name, sampler in samplers.items() if isinstance(sampler, TemperedSMC) and path is None]
    wants_path = [
        name
        for name, sampler in samplers.items()
        if isinstance(sampler, AbstractParticleSampler) and name not in tempered
    ]
    key_reference, key_learn, key_again = next(keys), next(keys), next(keys)
    reference: str | None = None

    if isinstance(target, AbstractExactDensity):
        reference = "exact draws"
        results[reference] = exact_draws(target, key=key_reference, num_samples=total)
        path = exact = perturb(target, VP())
        if wants_path:
            report("training a score on separate exact draws")
            key_pilot, key_fit = jax.random.split(key_learn)
            pilot = exact_draws(target, key=key_pilot, num_samples=total)
            learned = again = fit_score(pilot, key=key_fit, progress=progress, **fit_settings)
            notes.append(_training_note(learned, f"{total} separate exact draws"))
            notes.append("Path samplers run on the exact score of the noised density, except where a name says so.")
    elif isinstance(target, AbstractDensityScore):
        nuts = {name: sampler for name, sampler in samplers.items() if isinstance(sampler, NUTS)} or {"nuts": NUTS()}
        reference, reference_sampler = next(iter(nuts.items()))
        report("running NUTS for the reference")
        results[reference] = sample(target, reference_sampler, key=key_reference, **counts)
        if wants_path:
            report("running NUTS for separate pilot draws, and training a score on them")
            learned, pilot = fit_score_to_density(
                target,
                key=key_learn,
                sampler=reference_sampler,
                num_chains=num_chains,
                num_warmup=num_warmup,
                progress=progress,
                **fit_settings,
            )
            path = learned
            notes.append(_training_note(learned, f"{pilot.num_chains * pilot.num_draws} draws of a separate NUTS run"))
    elif isinstance(target, AbstractScore) and wants_path + tempered:
        raise TypeError(
            f"`target`: {', '.join(wants_path + tempered)} need a path from noise to the target, but "
            f"{type(target).__name__} is a score without a density. Run ULA on it, or bring a PerturbedScore or a "
            "TemperedPath."
        )

    for name, sampler in samplers.items():
        if name in results:
            next(keys)
            continue
        report(f"running {name}")
        key_path, key_run = jax.random.split(next(keys))
        on = path if isinstance(sampler, AbstractParticleSampler) else target
        if name in tempered:
            assert isinstance(target, AbstractDensityScore)
            on = _tempered(target, key_path)
        assert on is not None
        results[name] = sample(on, sampler, key=key_run, **counts)
    if again is not None:
        name = wants_path[0]
        report(f"running {name} on the learned score")
        results[f"{name} ({_LEARNED})"] = sample(again, samplers[name], key=key_again, **counts)
    scores: dict[str, ScoreHealth] = {}
    if learned is not None and exact is None and total < _FEWEST_HELD_OUT:
        notes.append(f"The learned score was not measured: the reference has fewer than {_FEWEST_HELD_OUT} draws.")
    elif learned is not None:
        assert reference is not None
        report("measuring the learned score")
        key_held_out, key_health = jax.random.split(next(keys))
        held_out: Any = results[reference]
        what = f"draws of the reference, {reference}, which it was not trained on"
        if isinstance(target, AbstractExactDensity):
            held_out, what = target.sample(key_held_out, _HELD_OUT), "exact draws that nothing else has seen"
        health = score_health(learned, held_out, key=key_health, exact=exact, num_points=_HELD_OUT, sampling=False)
        notes.append(f"The learned score was measured at {health.num_points} {what}.")
        scores[_LEARNED] = health
    known = isinstance(target, GaussianMixture)
    return compare(
        results,
        reference=reference or next(iter(results)),
        modes=target.means if known else None,
        mode_weights=jnp.exp(target.log_weights) if known else None,
        scores=scores,
        title=title,
        notes=tuple(notes),
    )


def _tempered(target: AbstractDensityScore, key: Array) -> TemperedPath:
    """A path from a wide Gaussian: with the moments of the target where they are known, else those of Pathfinder."""
    if isinstance(target, AbstractExactDensity):
        mean, variance = target.moments()
        reference = Gaussian(mean, jax.tree.map(lambda v: _INFLATION * v, variance))
    else:
        reference = pathfinder(target, key=key).gaussian(_INFLATION)
    return TemperedPath(reference, target)


def _training_note(score: PerturbedScore | PerturbedEnergy, data: str) -> str:
    return f"The score was learned from {data}: {score.record}."
