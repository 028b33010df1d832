"""Draws to ArviZ."""

import arviz
import numpy as np
import xarray as xr

from scoresample.inference._draws import Draws

_RESAMPLING_SEED = 0

_FACTS = ("num_warmup", "num_evaluations", "compile_seconds", "noise_left", "smallest_scale", "point_spacing")
"""What goes with the draws of `Draws.info`: all that `Draws.from_arviz` can give back."""


def to_datatree(draws: Draws) -> xr.DataTree:
    """An ArviZ DataTree of draws; see `Draws.to_arviz`."""
    posterior, stats = draws.sites(), dict(draws.stats)
    attributes = {**draws.attributes, "kind": draws.kind, "nfe": draws.nfe, "seconds": draws.seconds}
    attributes |= {name: draws.info[name] for name in _FACTS if name in draws.info}
    if draws.log_weights is not None:
        index = _systematic(np.asarray(draws.log_weights).reshape(-1))
        shape = (draws.num_chains, draws.num_draws)

        def take(value: np.ndarray) -> np.ndarray:
            flat = value.reshape(-1, *value.shape[2:])
            return flat[index].reshape(*shape, *flat.shape[1:])

        posterior = {name: take(value) for name, value in posterior.items()}
        stats = {name: take(value) for name, value in stats.items()}
        attributes["resampled"] = "weighted draws, systematic resampling with replacement"
    groups = {"posterior": posterior, "sample_stats": stats}
    tree = arviz.from_dict({name: group for name, group in groups.items() if group}, attrs={"/": attributes})
    tree.attrs.update(attributes)
    tree["posterior"].attrs.update(attributes)
    return tree


def _systematic(log_weights: np.ndarray) -> np.ndarray:
    """Indices of systematic resampling by the weights."""
    weights = np.exp(log_weights - log_weights.max(), dtype=np.float64)
    edges = np.cumsum(weights / weights.sum())
    edges[-1] = 1.0
    num = len(weights)
    return np.searchsorted(edges, (np.arange(num) + np.random.default_rng(_RESAMPLING_SEED).random()) / num)
