"""NumPyro's MCMC to draws."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

from scoresample.inference._about import run_attributes
from scoresample.inference._draws import Draws
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

_RENAMED = {"num_steps": "n_steps", "accept_prob": "acceptance_rate"}

_FIELDS = {*_RENAMED, "potential_energy", "diverging", "energy", "mean_accept_prob", "step_size"}
"""Fields that keep their last name alone: `hmc_state.num_steps` of a Gibbs kernel, `adapt_state.step_size`."""

_EXACT = {
    **dict.fromkeys(("HMC", "NUTS", "HMCGibbs", "DiscreteHMCGibbs", "MixedHMC", "BarkerMH", "SA"), True),
    "HMCECS": False,  # its proxy of the likelihood perturbs the posterior
}


def draws_from_numpyro_mcmc(
    mcmc: MCMC,
    *,
    name: str | None,
    var_names: Sequence[str] | None,
    nfe: float | None,
    seconds: float | None,
    asymptotically_exact: bool | None,
) -> Draws:
    """Draws of a run of NumPyro's MCMC; see `Draws.from_numpyro_mcmc`."""
    if not isinstance(mcmc, MCMC):
        raise TypeError(
            f"`mcmc` must be a numpyro.infer.MCMC that has run, got {type(mcmc).__name__}. A dictionary of samples "
            'comes through ArviZ: Draws.from_arviz(arviz.from_dict({"posterior": samples})).'
        )
    if mcmc.last_state is None:
        raise ValueError("`mcmc` has not run, so it holds no draws. Call `mcmc.run(key, *model_args)` first.")
    sites = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
    if isinstance(sites, dict):
        sites = {site: sites[site] for site in chosen("mcmc", list(sites), var_names)}
    shape = leading_shape("mcmc", sites)
    fields = _short_names(mcmc.get_extra_fields(group_by_chain=True))
    stats, left_out = statistics(fields, shape, _RENAMED)
    if "potential_energy" in stats:
        stats["lp"] = -stats.pop("potential_energy")
    steps, kernel = mean_steps(stats), type(mcmc.sampler).__name__
    own = getattr(mcmc.sampler, "asymptotically_exact", None)
    return imported_draws(
        sites,
        stats,
        source="mcmc",
        nfe=first_known(nfe, None if steps is None else mcmc.thinning * steps),
        seconds=seconds,
        info={"num_warmup": mcmc.num_warmup, "left_out": left_out},
        attributes={
            **run_attributes(name or f"NumPyro {kernel}", json.dumps(_settings(mcmc)), None),
            "target": _model_name(mcmc.sampler),
            "asymptotically_exact": exactness(asymptotically_exact, own, _EXACT.get(kernel), stats={}),
            "coordinates": NAMED_SITES,
        },
    )


def _short_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        short = name.rsplit(".", 1)[-1]
        found[short if short in _FIELDS and short not in found else name] = value
    return found


def _settings(mcmc: MCMC) -> dict[str, Any]:
    method = mcmc.chain_method
    return {
        "num_warmup": mcmc.num_warmup,
        "num_samples": mcmc.num_samples,
        "num_chains": mcmc.num_chains,
        "thinning": mcmc.thinning,
        "chain_method": method if isinstance(method, str) else "a function",
    }


def _model_name(kernel: Any) -> str:
    model = getattr(kernel, "model", None)
    return UNKNOWN if model is None else getattr(model, "__name__", type(model).__name__)
