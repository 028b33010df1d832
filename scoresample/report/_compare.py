"""`compare`: hold runs against each other, or each against a reference, and say which can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scoresample.checks import Check
from scoresample.diagnostics import ManifoldHealth, Memorisation, ModeWeights, SamplingBudget, ScoreHealth
from scoresample.inference import Draws
from scoresample.report._against import distrust, reference_checks, unverified_check
from scoresample.report._budgets import BUDGET_COLUMNS, budget_cells
from scoresample.report._comparison import Comparison
from scoresample.report._doors import (
    expected_mode_weights,
    mode_positions,
    validated_budgets,
    validated_manifolds,
    validated_memorisation,
    validated_runs,
    validated_scores,
)
from scoresample.report._fields import field_statistics
from scoresample.report._format import counted, listed
from scoresample.report._internal import internal_checks
from scoresample.report._memorisation import MEMORISATION_COLUMNS, memorisation_cells
from scoresample.report._mode_check import mode_check
from scoresample.report._spectrum_check import spectrum_check
from scoresample.report._statistics import Deviation, RunStatistics, deviation_from, run_statistics
from scoresample.report._table import build_table, table_row
from scoresample.report._verdict import form_verdict


def compare(
    results: Mapping[str, Draws],
    *,
    reference: str | Draws | None = None,
    modes: Any = None,
    mode_weights: Any = None,
    scores: Mapping[str, ScoreHealth] | None = None,
    manifolds: Mapping[str, ManifoldHealth] | None = None,
    budgets: Mapping[str, SamplingBudget] | None = None,
    memorisation: Mapping[str, Memorisation] | None = None,
    fields: bool | str | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Compare runs of any samplers, and form a verdict for each.

    Every run is checked by itself: finite draws, chains that move and agree (R-hat), effective sample sizes,
    divergences, and whatever was noticed while sampling. With a reference, every other run is held against it as
    well: means, standard deviations, sliced Wasserstein-2 and energy distances beside their nulls. Differences count
    only if they are both beyond Monte-Carlo error and large enough to matter. Distances are between positions in the
    space that the samplers moved in; means and standard deviations are also those of deterministic sites. Runs that
    were drawn elsewhere (`Draws.from_arviz`, `Draws.from_numpyro_mcmc`) are known in the model's own coordinates only:
    with one of them, all are compared in the named sites that they share, and a note says so.

    A reference that fails its own checks is no judge: disagreement with it then only warns. Draws without chains, and
    chains of samplers that are not asymptotically exact, carry no evidence about their own bias, so without a trusted
    reference they are to be used with care.

    Arguments:
        results: the runs by name.
        reference: the run to trust: a name from `results`, or draws of their own.
        modes: one position in each mode, where they are known: an array of shape (modes, dimension) in the order of
            `jax.flatten_util.ravel_pytree`, or a tree like the positions with a leading axis. In the samplers'
            (unconstrained) space; with runs that were drawn elsewhere, a dictionary of the named sites.
        mode_weights: the true weights of the modes, shape (modes,), summing to one. Every run is held against them,
            the reference too. Without them the others are held against the reference's.
        scores: what [`score_health`][scoresample.score_health] found about the scores behind the runs, by name. They
            are shown with checks of their own, which no verdict on a run depends on.
        manifolds: what [`manifold_health`][scoresample.manifold_health] found about them, by the same names where both
            are given: its checks then join the score's verdict.
        budgets: what [`sampling_budget`][scoresample.sampling_budget] found about the samplers behind runs, by name of
            the run. They are shown beside the measured distances, and no verdict depends on them.
        memorisation: what [`memorisation`][scoresample.memorisation] found about the draws of runs, by name of the run.
            Its checks count for the verdict on the run: copies of the training set agree with any reference.
        fields: whether to show the draws as fields or images, and to hold their power spectra against the
            reference's. By default where the position is one array of shape (h, w), (channels, h, w) or (h, w,
            channels), with 1 or 3 channels and at least 8 by 8 sites; False never; the name of a site where there are
            several.
        title: heading of the report.
        notes: sentences to show with it.
        seed: seed of every subsample, projection and split; the same seed gives the same report.

    Returns:
        A `Comparison`.

    Raises:
        TypeError: if `results` is not a mapping of names to `Draws`, `reference` is neither, `scores` is not one of
            names to `ScoreHealth`, `manifolds` not one to `ManifoldHealth`, `budgets` not one to `SamplingBudget`,
            `memorisation` not one to `Memorisation`, or `fields` neither a truth value nor a name.
        ValueError: if there are no results, a name is unknown, runs have different coordinates, modes and their weights
            do not fit, or `fields` asks for fields where there are none, or several.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> target = ss.Gaussian(jax.numpy.zeros(2), jax.numpy.eye(2))
        >>> nuts = ss.sample(target, ss.NUTS(), key=jax.random.key(0), initial_position=jax.numpy.zeros(2))
        >>> compare({"NUTS": nuts}).verdicts["NUTS"].level
        'use'
    """
    came = results
    results, reference_name, changes = validated_runs(results, reference)
    came = dict(came)
    if isinstance(reference, Draws) and reference_name not in came:
        came[str(reference_name)] = reference
    # Fields are looked for in the draws as they came: common coordinates may have split them.
    images = field_statistics(came, fields)
    learned, known_budgets = validated_scores(scores), validated_budgets(budgets, results)
    copies = validated_memorisation(memorisation, results)
    centres = None if modes is None else mode_positions(modes, next(iter(results.values())))
    runs = {name: run_statistics(name, draws, modes=centres, seed=seed) for name, draws in results.items()}
    expected = expected_mode_weights(centres, mode_weights, runs, reference_name)
    own = {name: internal_checks(run) for name, run in runs.items()}
    if centres is not None and isinstance(expected, np.ndarray):
        own = {name: [*checks, *mode_check(runs[name], expected, centres)] for name, checks in own.items()}
    own |= {name: [*own[name], *found.checks] for name, found in copies.items()}
    trusted = reference_name is not None and form_verdict(own[reference_name]).level != "do not use"

    deviations: dict[str, Deviation] = {}
    verdicts = {}
    for name, run in runs.items():
        if name == reference_name:
            verdicts[name] = form_verdict(own[name])
            continue
        against: list[Check] = []
        deviation = None if reference_name is None else deviation_from(run, runs[reference_name], seed=seed)
        if reference_name is not None and deviation is not None:
            deviations[name] = deviation
            if centres is not None and isinstance(expected, ModeWeights):
                against += mode_check(run, expected, centres)
            against += reference_checks(run, deviation)
            if name in images and reference_name in images:
                against += spectrum_check(run, images[name], images[reference_name])
            against = against if trusted else distrust(against, reference_name)
        if not trusted and run.non_finite == 0:
            why = "no reference was given" if reference_name is None else f"the reference ({reference_name}) failed"
            against += unverified_check(run, why)
        verdicts[name] = form_verdict([*own[name], *against])

    rows = {
        name: table_row(run, deviations.get(name))
        | budget_cells(known_budgets.get(name))
        | memorisation_cells(copies.get(name))
        for name, run in runs.items()
    }
    return Comparison(
        title=title or f"Comparison of {listed(list(results), 6)}",
        reference=reference_name,
        verdicts=verdicts,
        table=build_table(
            rows, (*(BUDGET_COLUMNS if known_budgets else ()), *(MEMORISATION_COLUMNS if copies else ()))
        ),
        notes=(*notes, *changes, *_notes(runs, deviations, reference_name, trusted, centres, expected)),
        runs=runs,
        deviations=deviations,
        modes=centres,
        expected_modes=expected,
        scores=learned,
        manifolds=validated_manifolds(manifolds),
        budgets=known_budgets,
        memorisation=copies,
        fields=images,
        seed=seed,
    )


def _notes(
    runs: dict[str, RunStatistics],
    deviations: dict[str, Deviation],
    reference: str | None,
    trusted: bool,
    centres: np.ndarray | None,
    expected: np.ndarray | ModeWeights | None,
) -> list[str]:
    """What a reader has to know about how this was computed."""
    notes = []
    if reference is None:
        notes.append("No reference was given: each run was checked only by what it shows of itself.")
    elif not trusted:
        notes.append(f"The reference {reference} failed its own checks: disagreement with it only warns.")
    if centres is not None and expected is None:
        notes.append("The modes' true weights are not known (no mode_weights, no reference): shown, not checked.")
    sizes = {name: deviation.sliced_wasserstein.size for name, deviation in deviations.items()}
    for size in sorted(set(sizes.values()), reverse=True):
        names = listed([name for name in sizes if sizes[name] == size], 20)
        notes.append(f"Distances of {names}: {counted(size, 'effective draw')} against as many of {reference}.")
    vague = [name for name, deviation in deviations.items() if not deviation.conclusive]
    if vague:
        notes.append(f"Too few effective draws to judge by distances: {listed(vague, 20)}.")
    for name, run in runs.items():
        if run.draws.log_weights is not None:
            notes.append(f"{name} is weighted: moments use the weights, distances and plots resample by them.")
        if run.draws.kind == "interacting":
            notes.append(f"The particles of {name} interact: their ESS is an upper bound.")
    return notes
