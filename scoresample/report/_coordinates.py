"""One set of coordinates for runs that came with different ones."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scoresample.inference import NAMED_SITES, Draws
from scoresample.report._format import listed
from scoresample.scores import named_sites

_ROUND_OFF = 8
"""An entry whose range is below this many units in the last place is taken for a constant."""

_MAX_NAMED = 8
"""Most names in a note."""


def in_common_coordinates(runs: dict[str, Draws]) -> tuple[dict[str, Draws], list[str]]:
    """Bring all runs to the named sites, where one of them knows nothing else.

    Samplers here move in unconstrained coordinates. Chains that were drawn elsewhere are known by their named sites
    only: constrained, and with deterministic sites among them. Where one run is of that kind, all are compared in the
    named sites that they share. Entries that are constant in every run (the zeros of a Cholesky factor) are no
    coordinates.

    Arguments:
        runs: the runs by name.

    Returns:
        The runs, changed only where one was drawn elsewhere; and sentences that say what was done.

    Raises:
        ValueError: if they share no site, or a site has different shapes.
    """
    if all(draws.attributes.get("coordinates") != NAMED_SITES for draws in runs.values()):
        return runs, []
    sites = {name: draws.sites() for name, draws in runs.items()}
    first, *others = sites
    shared = [site for site in sites[first] if all(site in sites[other] for other in others)]
    if not shared:
        found = "; ".join(f"{name!r} has {sorted(named)}" for name, named in sites.items())
        raise ValueError(
            f"`results`: no named site is in all runs: {found}. "
            "Compare draws of one target, with one set of names (for draws of your own score: its `constrain`)."
        )
    for site in shared:
        shapes = {name: sites[name][site].shape[2:] for name in sites}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"`results`: the site '{site}' has different shapes: {shapes}. Compare draws of one target."
            )
    split, constants = _split_constants({site: [sites[name][site] for name in sites] for site in shared})
    if not split:  # nothing moved in any run, and the checks will say so
        split, constants = {site: [sites[name][site] for name in sites] for site in shared}, []
    notes = []
    if any(draws.attributes.get("coordinates") != NAMED_SITES for draws in runs.values()):
        notes.append(
            "Some runs were drawn elsewhere and are known by their named sites only: all are compared there, in the "
            "model's own coordinates."
        )
    left_out = sorted({site for named in sites.values() for site in named} - set(shared))
    if left_out:
        notes.append(f"Not in every run, so not compared: {listed(left_out, _MAX_NAMED)}.")
    if constants:
        notes.append(f"Constant in every draw, so not compared: {listed(constants, _MAX_NAMED)}.")
    moved = {
        name: dataclasses.replace(
            draws, position={label: values[place] for label, values in split.items()}, constrain=named_sites
        )
        for place, (name, draws) in enumerate(runs.items())
    }
    return moved, notes


def _split_constants(sites: dict[str, list[np.ndarray]]) -> tuple[dict[str, list[np.ndarray]], list[str]]:
    """The sites of all runs without the entries that are constant in every one, and the names of those.

    A site that holds such entries comes back as scalars, each by its own name.
    """
    kept: dict[str, list[np.ndarray]] = {}
    constants = []
    for site, values in sites.items():
        places = list(np.ndindex(values[0].shape[2:]))
        entries = {place: [value[(..., *place)] for value in values] for place in places}
        fixed = {place for place in places if _constant(entries[place])}
        if not fixed:
            kept[site] = values
            continue
        for place in places:
            label = f"{site}[{', '.join(map(str, place))}]" if place else site
            if place in fixed:
                constants.append(label)
            else:
                kept[label] = entries[place]
    return kept, constants


def _constant(values: Sequence[np.ndarray]) -> bool:
    """Whether all runs hold one and the same value in every draw, up to round-off."""
    if not all(np.all(np.isfinite(value)) for value in values):
        return False
    low, high = min(float(value.min()) for value in values), max(float(value.max()) for value in values)
    floating = [np.finfo(value.dtype).eps for value in values if np.issubdtype(value.dtype, np.floating)]
    return bool(high - low <= _ROUND_OFF * max(floating, default=0.0) * max(abs(low), abs(high)))
