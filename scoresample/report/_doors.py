"""What `compare` checks before any work is done."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from scoresample.diagnostics import ManifoldHealth, Memorisation, ModeWeights, SamplingBudget, ScoreHealth, coordinates
from scoresample.inference import Draws
from scoresample.report._coordinates import in_common_coordinates
from scoresample.report._format import listed
from scoresample.report._statistics import RunStatistics


def validated_runs(results: Any, reference: Any) -> tuple[dict[str, Draws], str | None, list[str]]:
    """The runs by name in one set of coordinates, the reference among them; its name; and what was done to them."""
    if not isinstance(results, Mapping):
        raise TypeError(f"`results` must map names to Draws, but a {type(results).__name__} came: {{'NUTS': draws}}.")
    if not results:
        raise ValueError("`results` is empty: pass at least one run, as {'NUTS': draws}.")
    for name, draws in results.items():
        if not isinstance(name, str) or not isinstance(draws, Draws):
            came = f"{type(name).__name__} -> {type(draws).__name__}"
            raise TypeError(
                f"`results` must map names to Draws, but {came} came. Pass what `sample` returned; chains of other "
                "programs become Draws by Draws.from_arviz, Draws.from_numpyro_mcmc or Draws.from_blackjax."
            )
    runs, name = dict(results), None
    if isinstance(reference, Draws):
        name = next((known for known, draws in runs.items() if draws is reference), None)
        if name is None:
            name = next(free for free in ("reference", *(f"reference {k}" for k in range(2, 99))) if free not in runs)
            runs[name] = reference
    elif isinstance(reference, str):
        if reference not in runs:
            raise ValueError(f"`reference` is {reference!r}, but the results are {listed(list(runs), 20)}. Name one.")
        name = reference
    elif reference is not None:
        raise TypeError(f"`reference` must be a name from `results` or Draws, but a {type(reference).__name__} came.")
    runs, notes = in_common_coordinates(runs)
    first = next(iter(runs))
    for other, draws in runs.items():
        if _layout(draws) != _layout(runs[first]):
            raise ValueError(
                f"`results`: {other!r} has positions {_layout(draws)}, but {first!r} has {_layout(runs[first])}. "
                "Compare draws of one target, in the same coordinates."
            )
    return runs, name, notes


def validated_scores(scores: Any) -> dict[str, ScoreHealth]:
    """The scores' health by name; empty if there is none."""
    return _validated(scores, "scores", ScoreHealth, "score_health")


def validated_manifolds(manifolds: Any) -> dict[str, ManifoldHealth]:
    """What is known of the manifolds by name of the score; empty if there is nothing."""
    return _validated(manifolds, "manifolds", ManifoldHealth, "manifold_health")


def validated_budgets(budgets: Any, runs: Mapping[str, Draws]) -> dict[str, SamplingBudget]:
    """The budgets by name of the run; empty if there are none."""
    return _validated(budgets, "budgets", SamplingBudget, "sampling_budget", runs)


def validated_memorisation(memorisation: Any, runs: Mapping[str, Draws]) -> dict[str, Memorisation]:
    """What was found about copies of the training set, by name of the run; empty if nothing was."""
    return _validated(memorisation, "memorisation", Memorisation, "memorisation", runs)


def _validated[Found](
    values: Any, argument: str, kind: type[Found], maker: str, runs: Mapping[str, Draws] | None = None
) -> dict[str, Found]:
    """What a diagnostic found, by name of the score or, where `runs` are given, of one of them."""
    if values is None:
        return {}
    names = "names" if runs is None else "names of runs"
    example = "'learned score'" if runs is None else "'SDE'"
    if not isinstance(values, Mapping):
        came = f"a {type(values).__name__} came: {{{example}: {maker}(...)}}"
        raise TypeError(f"`{argument}` must map {names} to {kind.__name__}, but {came}.")
    for name, found in values.items():
        if not isinstance(name, str) or not isinstance(found, kind):
            came = f"{type(name).__name__} -> {type(found).__name__}"
            raise TypeError(
                f"`{argument}` must map {names} to {kind.__name__}, but {came} came. Pass what `{maker}` returned."
            )
        if runs is not None and name not in runs:
            raise ValueError(f"`{argument}` names {name!r}, but the results are {listed(list(runs), 20)}. Name one.")
    return dict(values)


def _layout(draws: Draws) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(draws.position)
    return ", ".join(
        f"{jax.tree_util.keystr(path, simple=True, separator='.') or 'x'}{list(leaf.shape[2:])}"
        for path, leaf in leaves
    )


def mode_positions(modes: Any, draws: Draws) -> np.ndarray:
    """The modes as a matrix of shape (modes, dimension)."""
    dimension = coordinates(draws).shape[-1]
    if isinstance(modes, (np.ndarray, jax.Array, list, tuple)):
        centres = np.asarray(modes, dtype=np.float64)
        if centres.ndim == 1 and dimension == 1:
            centres = centres[:, None]
    elif jax.tree.structure(modes) == jax.tree.structure(draws.position):
        leaves = [np.asarray(leaf, dtype=np.float64) for leaf in jax.tree.leaves(modes)]
        centres = np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
    else:
        raise ValueError(f"`modes` must be an array or a tree like the positions, but a {type(modes).__name__} came.")
    if centres.ndim != 2 or centres.shape[1] != dimension or not np.all(np.isfinite(centres)):
        raise ValueError(f"`modes` must be finite and of shape (modes, {dimension}), but {centres.shape} came.")
    return centres


def expected_mode_weights(
    centres: np.ndarray | None, weights: Any, runs: dict[str, RunStatistics], reference: str | None
) -> np.ndarray | ModeWeights | None:
    """What the modes' weights are held against: the true ones, the reference's, or nothing."""
    if centres is None:
        if weights is not None:
            raise ValueError("`mode_weights` came without `modes`: pass the modes' positions too.")
        return None
    if weights is None:
        return None if reference is None else runs[reference].modes
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (len(centres),) or np.any(values < 0) or not np.isclose(np.sum(values), 1.0, atol=1e-4):
        raise ValueError(
            f"`mode_weights` must be {len(centres)} non-negative numbers that sum to one, but {values} came. "
            "Give one for each mode."
        )
    return values / np.sum(values)
