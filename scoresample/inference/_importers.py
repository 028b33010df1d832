"""Chains that somebody else drew, as the same kind of result as any sampler's."""

import json
from collections.abc import Sequence
from typing import Any, get_args

import jax
import numpy as np
import xarray as xr
from numpyro.infer import MCMC

from scoresample.inference._draws import NAMED_SITES, Draws, Kind
from scoresample.inference._sample import package_versions
from scoresample.scores import Constrain, named_sites

_UNKNOWN = float("nan")

_FROM_NUMPYRO = {"num_steps": "n_steps", "accept_prob": "acceptance_rate"}
_FROM_BLACKJAX = {
    "is_divergent": "diverging",
    "num_integration_steps": "n_steps",
    "num_trajectory_expansions": "tree_depth",
    "is_accepted": "accepted",
}
_FROM_ARVIZ = {"reached_max_tree_depth": "reached_max_treedepth", "divergences": "diverging"}
"""Other names of a statistic, and the one that it has here (ArviZ's)."""

_NOT_STATISTICS = {"momentum", "proposal", "trajectory_leftmost_state", "trajectory_rightmost_state"}
"""Parts of BlackJAX's infos that are positions or momenta."""

_EXACT_NUMPYRO = {"HMC", "NUTS", "HMCGibbs", "DiscreteHMCGibbs", "MixedHMC", "BarkerMH", "SA", "AIES", "ESS"}
_BLACKJAX_NAMES = {
    "NUTSInfo": "NUTS",
    "MALAInfo": "MALA",
    "MCLMCInfo": "MCLMC",
    "BarkerInfo": "Barker proposal",
    "RWInfo": "random walk",
    "SliceInfo": "slice sampling",
    "EllipSliceInfo": "elliptical slice sampling",
}
"""Samplers whose infos no other sampler shares."""

_METROPOLIS = {"acceptance_rate", "accepted", "diverging", "n_steps", "tree_depth"}
"""Statistics that only samplers with an accept-reject step or a trajectory of their own keep."""

_AXES = (("draw",), ("chain", "draw"), ("draw", "chain"))


def from_arviz(
    tree: xr.DataTree,
    *,
    name: str | None = None,
    var_names: Sequence[str] | None = None,
    nfe: float | None = None,
    seconds: float | None = None,
    asymptotically_exact: bool | None = None,
) -> Draws:
    """Draws of an ArviZ DataTree; see `Draws.from_arviz`."""
    posterior = _posterior(tree)
    sites = {site: _chain_draw(f"the variable '{site}'", posterior[site]) for site in _chosen(posterior, var_names)}
    _check_numeric("tree", sites)
    shape = _shape("tree", sites)
    attributes = {str(key): value for key, value in {**posterior.attrs, **tree.attrs}.items()}
    stats: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    if "sample_stats" in tree.children:
        group = tree["sample_stats"].to_dataset()
        attributes = {str(key): value for key, value in group.attrs.items()} | attributes
        stats, left_out = _statistics({str(key): group[key] for key in group.data_vars}, shape, _FROM_ARVIZ)
    known_nfe = _first(nfe, attributes.pop("nfe", None), _mean(stats.get("n_steps")))
    known_seconds = _first(seconds, attributes.pop("seconds", None), attributes.get("sampling_time"))
    kind = attributes.pop("kind", "chains")
    kind = kind if kind in get_args(Kind) else "chains"
    if "resampled" in attributes and kind == "independent":
        kind = "interacting"  # copies of one draw: only the distinct ones count
    warmup = tree["warmup_posterior"].sizes.get("draw") if "warmup_posterior" in tree.children else None
    info = {
        key: attributes.pop(key, default)
        for key, default in (
            ("num_warmup", _first(warmup, attributes.get("tuning_steps"))),
            ("num_evaluations", _UNKNOWN),
            ("compile_seconds", _UNKNOWN),
        )
    }
    exact = _first_known(asymptotically_exact, attributes.get("asymptotically_exact"), _vouched(stats))
    library = attributes.get("inference_library")
    found = {
        "sampler": name or attributes.get("sampler") or (f"{library}, via ArviZ" if library else "unknown, via ArviZ"),
        "settings": attributes.get("settings", "{}"),
        "target": attributes.get("target", "unknown"),
        "versions": attributes.get("versions", package_versions()),
        "device": attributes.get("device", "unknown"),
        "asymptotically_exact": exact,
        "coordinates": NAMED_SITES,
    }
    return _imported(
        sites, stats, left_out, found | {k: v for k, v in attributes.items() if k not in found}, info,
        kind=kind, nfe=known_nfe, seconds=known_seconds, constrain=named_sites,
    )  # fmt: skip


def from_numpyro_mcmc(
    mcmc: MCMC,
    *,
    name: str | None = None,
    var_names: Sequence[str] | None = None,
    nfe: float | None = None,
    seconds: float | None = None,
    asymptotically_exact: bool | None = None,
) -> Draws:
    """Draws of a run of NumPyro's MCMC; see `Draws.from_numpyro_mcmc`."""
    if not isinstance(mcmc, MCMC):
        raise TypeError(
            f"`mcmc` must be a numpyro.infer.MCMC that has run, got {type(mcmc).__name__}. A dictionary of samples "
            'goes through ArviZ: Draws.from_arviz(arviz.from_dict({"posterior": samples})).'
        )
    if mcmc.last_state is None:
        raise ValueError("`mcmc` has not run, so it holds no draws. Call `mcmc.run(key, *model_args)` first.")
    sites = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
    if isinstance(sites, dict):
        sites = {site: sites[site] for site in _chosen(sites, var_names)}
    _check_numeric("mcmc", named_sites(sites))
    shape = _shape("mcmc", sites)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats, left_out = _statistics({key.rsplit(".", 1)[-1] if _is_last(key, fields) else key: value
                                   for key, value in fields.items()}, shape, _FROM_NUMPYRO)  # fmt: skip
    if "potential_energy" in stats:
        stats["lp"] = -stats.pop("potential_energy")
    per_step = _mean(stats.get("n_steps"))
    kernel = mcmc.sampler
    kernel_name = type(kernel).__name__
    exact = _first_known(
        asymptotically_exact,
        getattr(kernel, "asymptotically_exact", None),
        True if kernel_name in _EXACT_NUMPYRO else (False if kernel_name == "HMCECS" else None),
    )
    settings = {
        "num_warmup": mcmc.num_warmup,
        "num_samples": mcmc.num_samples,
        "num_chains": mcmc.num_chains,
        "thinning": mcmc.thinning,
        "chain_method": mcmc.chain_method if isinstance(mcmc.chain_method, str) else "a function",
    }
    model = getattr(kernel, "model", None)
    attributes = {
        "sampler": name or f"NumPyro {kernel_name}",
        "settings": json.dumps(settings),
        "target": "unknown" if model is None else getattr(model, "__name__", type(model).__name__),
        "versions": package_versions(),
        "device": _device(),
        "asymptotically_exact": exact,
        "coordinates": NAMED_SITES,
    }
    return _imported(
        sites, stats, left_out, attributes, {"num_warmup": mcmc.num_warmup},
        kind="chains",
        nfe=_first(nfe, None if per_step is None else mcmc.thinning * per_step),
        seconds=_first(seconds),
        constrain=named_sites,
    )  # fmt: skip


def from_blackjax(
    states: Any,
    infos: Any = None,
    *,
    axes: Sequence[str] | None = None,
    constrain: Constrain | None = None,
    name: str | None = None,
    nfe: float | None = None,
    seconds: float | None = None,
    asymptotically_exact: bool | None = None,
) -> Draws:
    """Draws of a history of BlackJAX states; see `Draws.from_blackjax`."""
    position, logdensity = _blackjax_position(states)
    axes = _blackjax_axes(axes, logdensity)
    position = jax.tree.map(lambda leaf: _ordered("states", np.asarray(leaf), axes), position)
    _check_numeric("states", named_sites(position))
    shape = _shape("states", position)
    found: dict[str, Any] = {}
    if infos is not None:
        found = dict(infos._asdict() if hasattr(infos, "_asdict") else infos) if _is_record(infos) else {}
        if not found:
            raise TypeError(
                f"`infos` must be BlackJAX's infos (a NamedTuple) or a dictionary of arrays, got "
                f"{type(infos).__name__}. Leave it out where there are none."
            )
        found = {key: value for key, value in found.items() if key not in _NOT_STATISTICS}
    kept, left_out = _statistics(
        {key: _ordered("infos", np.asarray(value), axes) if _has_axes(value, axes) else value
         for key, value in found.items()},
        shape,
        _FROM_BLACKJAX,
    )  # fmt: skip
    if infos is not None and not kept:
        raise ValueError(
            f"`infos` holds no statistic of shape {shape}, the chains and draws of `states`. Pass the infos of the "
            "same run, all steps of it."
        )
    stats = dict(kept)
    if logdensity is not None:
        stats["lp"] = _ordered("states", np.asarray(logdensity), axes)
    kind_of_infos = type(infos).__name__
    exact = _first_known(
        asymptotically_exact, False if kind_of_infos == "MCLMCInfo" else None, _vouched({**kept, **_slices(infos)})
    )
    short = _BLACKJAX_NAMES.get(kind_of_infos)
    attributes = {
        "sampler": name or (f"BlackJAX {short}" if short else "BlackJAX"),
        "settings": "{}",
        "target": "unknown",
        "versions": package_versions(),
        "device": _device(),
        "asymptotically_exact": exact,
    }
    return _imported(
        position, stats, left_out, attributes, {"num_warmup": None},
        kind="chains",
        nfe=_first(nfe, _mean(stats.get("n_steps"))),
        seconds=_first(seconds),
        constrain=named_sites if constrain is None else constrain,
    )  # fmt: skip
