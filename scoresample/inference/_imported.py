"""What all chains have in common that somebody else drew: shapes, statistics, and what is not known about them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from scoresample.inference._draws import Draws, Kind
from scoresample.scores import Constrain, Position, named_sites

UNKNOWN = "unknown"
"""An attribute that nobody recorded."""

NAMED_SITES = "named sites"
"""The attribute `coordinates` of draws whose positions are the named sites themselves, in the model's own coordinates
and with deterministic sites among them: the sampler moved elsewhere."""

_ACCEPTING = {"acceptance_rate", "accepted", "subiter"}
"""Statistics that only samplers keep that leave their target invariant: they accept, or move along slices.

Not among them: the depth of a tree, which ArviZ makes up of any sampler's number of steps, and divergences, which
unadjusted samplers report too.
"""


def imported_draws(
    position: Position,
    stats: dict[str, np.ndarray],
    *,
    source: str,
    kind: Kind = "chains",
    constrain: Constrain = named_sites,
    nfe: object = None,
    seconds: object = None,
    attributes: dict[str, Any],
    info: Mapping[str, Any],
) -> Draws:
    """Draws with everything that is known about them; numbers that are not known are nan.

    Arguments:
        position: tree of arrays, (chain, draw, ...).
        stats: (chain, draw) arrays by their names here.
        source: the argument that the chains came in, for messages.
        kind: how draws depend on each other.
        constrain: position -> named sites.
        nfe: score evaluations per draw, or None.
        seconds: wall clock, or None.
        attributes: sampler, settings, target and the like.
        info: facts of the run; those that are None are left out.

    Raises:
        ValueError: if the positions are no numbers, or have no two leading axes in common.
    """
    shape = leading_shape(source, position)
    for site, value in named_sites(position).items():
        if value.dtype.kind not in "biuf":
            raise ValueError(
                f"`{source}`: the site '{site}' holds {value.dtype}, but draws are real numbers. Leave it out, or map "
                "it to numbers."
            )
    flags = [~np.isfinite(leaf).reshape(*shape, -1).all(axis=-1) for leaf in jax.tree.leaves(position)]
    return Draws(
        position=position,
        kind=kind,
        log_weights=None,
        stats={**stats, "non_finite": np.any(flags, axis=0)},
        info={
            "num_evaluations": math.nan,
            "compile_seconds": math.nan,
            "checks": [],
            **{name: value for name, value in info.items() if value is not None},
        },
        nfe=_known("nfe", nfe),
        seconds=_known("seconds", seconds),
        constrain=constrain,
        attributes=attributes,
    )


def leading_shape(source: str, position: Position) -> tuple[int, int]:
    """Chains and draws of a tree of arrays.

    Raises:
        ValueError: if there are none, or the arrays differ in them.
    """
    shapes = {site: np.shape(value) for site, value in named_sites(position).items()}
    found = {shape[:2] for shape in shapes.values()}
    if len(found) != 1 or len(next(iter(found))) != 2 or 0 in next(iter(found)):
        raise ValueError(
            f"`{source}`: every array needs the same leading axes (chain, draw), and at least one draw, but the shapes "
            f"are {shapes or 'none at all'}."
        )
    chains, length = found.pop()
    return chains, length


def statistics(
    values: Mapping[str, Any], shape: tuple[int, int], renamed: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The statistics that are one real number a draw, by ArviZ's names, and the names of all others.

    Arguments:
        values: arrays by the names they had.
        shape: chains and draws.
        renamed: old name -> name here.
    """
    kept: dict[str, np.ndarray] = {}
    left_out = []
    for name, value in values.items():
        array = np.asarray(value) if hasattr(value, "shape") else None
        if array is not None and array.shape == shape and array.dtype.kind in "biuf":
            kept[renamed.get(name, name)] = array
        else:
            left_out.append(name)
    return kept, left_out


def chosen(source: str, names: Sequence[str], var_names: Sequence[str] | None) -> list[str]:
    """The sites to keep: those asked for, or all.

    Raises:
        TypeError: if one string came instead of several.
        ValueError: if a site is unknown.
    """
    if var_names is None:
        return list(names)
    if isinstance(var_names, str):
        raise TypeError(f"`var_names` must be a list of names, got {var_names!r}. Write [{var_names!r}].")
    unknown = [name for name in var_names if name not in names]
    if unknown or not var_names:
        raise ValueError(f"`var_names`: {unknown or 'an empty list'} came, but `{source}` holds {sorted(names)}.")
    return list(var_names)


def exactness(*known: object, stats: Mapping[str, Any]) -> int | str:
    """Whether the sampler is asymptotically exact: the first answer that is known, else what its statistics tell."""
    for value in known:
        if value is not None and value != UNKNOWN:
            return int(bool(value))
    return 1 if _ACCEPTING & set(stats) else UNKNOWN


def mean_steps(stats: Mapping[str, np.ndarray]) -> float | None:
    """Score evaluations per draw, where each step of a trajectory was counted."""
    return float(np.mean(stats["n_steps"])) if "n_steps" in stats else None


def first_known(*values: object) -> Any:
    """The first value that is not None, else None."""
    return next((value for value in values if value is not None), None)


def _known(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or value < 0:
        raise ValueError(f"`{name}` must be a number that is not negative, or None if nobody knows it, got {value!r}.")
    return float(value)
