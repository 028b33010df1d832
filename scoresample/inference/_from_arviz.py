"""ArviZ to draws."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import xarray as xr

from scoresample.inference._draws import Draws, Kind
from scoresample.inference._imported import (
    NAMED_SITES,
    UNKNOWN,
    chosen,
    exactness,
    first_known,
    imported_draws,
    leading_shape,
    mean_steps,
    statistics,
)

_RENAMED = {"reached_max_tree_depth": "reached_max_treedepth"}
"""ArviZ's converters do not agree on this one."""

_ABOUT_THE_TREE = ("created_at", "creation_library", "creation_library_version", "creation_library_language")
"""Attributes that ArviZ writes about the object, not about the run."""

_OF_THE_RUN = ("num_warmup", "num_evaluations", "compile_seconds", "noise_left", "smallest_scale", "point_spacing")


def draws_from_arviz(
    tree: xr.DataTree,
    *,
    name: str | None,
    var_names: Sequence[str] | None,
    nfe: float | None,
    seconds: float | None,
    asymptotically_exact: bool | None,
) -> Draws:
    """Draws of an ArviZ DataTree; see `Draws.from_arviz`."""
    posterior, attributes = _posterior(tree), _attributes(tree)
    sites = {
        site: _chain_first(posterior[site], "`var_names`: name the sites to keep")
        for site in chosen("tree", [str(key) for key in posterior.data_vars], var_names)
    }
    shape = leading_shape("tree", sites)
    stats: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    if "sample_stats" in tree.children:
        group = tree["sample_stats"].to_dataset()
        values = {str(key): _chain_first(array) for key, array in group.data_vars.items()}
        stats, left_out = statistics(values, shape, _RENAMED)
    kind = attributes.pop("kind", "chains")
    if kind not in get_args(Kind):
        kind = "chains"
    if kind == "independent" and "resampled" in attributes:
        kind = "interacting"  # resampling copies draws, and only the distinct ones count
    warmup = tree["warmup_posterior"].sizes.get("draw") if "warmup_posterior" in tree.children else None
    library = attributes.get("inference_library")
    return imported_draws(
        sites,
        stats,
        source="tree",
        kind=kind,
        nfe=first_known(nfe, attributes.pop("nfe", None), mean_steps(stats)),
        seconds=first_known(seconds, attributes.pop("seconds", None), attributes.get("sampling_time")),
        info={
            "num_warmup": first_known(warmup, attributes.get("tuning_steps")),
            "left_out": left_out,
            **{key: attributes.pop(key) for key in _OF_THE_RUN if key in attributes},
        },
        attributes={
            "settings": "{}",
            "target": UNKNOWN,
            "device": UNKNOWN,
            **attributes,
            "sampler": first_known(name, attributes.get("sampler"), library, UNKNOWN),
            "asymptotically_exact": exactness(
                asymptotically_exact, attributes.get("asymptotically_exact"), stats=stats
            ),
            "coordinates": NAMED_SITES,
        },
    )


def _posterior(tree: Any) -> xr.Dataset:
    if not isinstance(tree, xr.DataTree):
        raise TypeError(
            f"`tree` must be an ArviZ DataTree, got {type(tree).__name__}. A file is read by `arviz.from_netcdf`, "
            'a dictionary of arrays by `arviz.from_dict({"posterior": {...}})`; an InferenceData of ArviZ 0 is saved '
            "by its `to_netcdf` and read again."
        )
    if "posterior" not in tree.children:
        raise ValueError(
            f"`tree` has no group `posterior`, only {sorted(tree.children)}. Put the draws into a group of that name."
        )
    return tree["posterior"].to_dataset()


def _attributes(tree: xr.DataTree) -> dict[str, Any]:
    """All that was written about the run, wherever it stands; the root has the last word."""
    nodes = [tree[name] for name in ("sample_stats", "posterior") if name in tree.children]
    found = {str(key): value for node in [*nodes, tree] for key, value in node.attrs.items()}
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in found.items()
        if key not in _ABOUT_THE_TREE and key != "sample_dims"
    }


def _chain_first(array: xr.DataArray, remedy: str | None = None) -> np.ndarray | None:
    """The values with chain and draw in front; where either is missing, an error with a remedy or None."""
    if {"chain", "draw"} <= set(array.dims):
        return array.transpose("chain", "draw", ...).values
    if remedy is None:
        return None
    raise ValueError(
        f"`tree`: '{array.name}' in the group `posterior` has the dimensions {array.dims}, but draws need `chain` and "
        f"`draw`. One chain is a chain axis of length one (`expand_dims('chain')`). {remedy}."
    )
