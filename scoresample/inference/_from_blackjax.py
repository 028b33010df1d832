"""A history of BlackJAX states to draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from scoresample.inference._about import run_attributes
from scoresample.inference._draws import Draws
from scoresample.inference._imported import (
    UNKNOWN,
    exactness,
    first_known,
    imported_draws,
    leading_shape,
    mean_steps,
    statistics,
)
from scoresample.scores import Constrain, Position, named_sites

_RENAMED = {
    "is_divergent": "diverging",
    "num_integration_steps": "n_steps",
    "num_trajectory_expansions": "tree_depth",
    "is_accepted": "accepted",
    "logdensity": "lp",
}

_NO_STATISTICS = ("momentum", "proposal", "trajectory_leftmost_state", "trajectory_rightmost_state")
"""Positions and momenta: in one dimension they have the shape of a statistic."""

_SAMPLERS = {
    "NUTSInfo": "NUTS",
    "MALAInfo": "MALA",
    "MCLMCInfo": "MCLMC",
    "BarkerInfo": "Barker's proposal",
    "RWInfo": "random walk",
    "SliceInfo": "slice sampling",
    "EllipSliceInfo": "elliptical slice sampling",
}
"""Samplers whose infos no other sampler shares; `HMCInfo` is that of many."""

_EXACT = {"MCLMCInfo": False}

_AXES = (("draw",), ("chain", "draw"), ("draw", "chain"))
_SAY_AXES = (
    'Say axes=("draw",) for one chain, axes=("chain", "draw") for vmapped runs, or axes=("draw", "chain") for one scan '
    "over vmapped steps."
)


def draws_from_blackjax(
    states: Any,
    infos: Any,
    *,
    axes: Sequence[str] | None,
    constrain: Constrain | None,
    name: str | None,
    nfe: float | None,
    seconds: float | None,
    asymptotically_exact: bool | None,
) -> Draws:
    """Draws of a history of BlackJAX states; see `Draws.from_blackjax`."""
    position, logdensity = _history(states)
    order = _checked_axes(axes, logdensity)
    position = jax.tree.map(lambda leaf: _chain_first("states", leaf, order), position)
    shape = leading_shape("states", position)
    stats, left_out = _statistics(infos, shape, order)
    if logdensity is not None:
        stats["lp"] = _chain_first("states", logdensity, order)
    source = type(infos).__name__
    sampler = f"BlackJAX {_SAMPLERS[source]}" if source in _SAMPLERS else "BlackJAX"
    return imported_draws(
        position,
        stats,
        source="states",
        constrain=named_sites if constrain is None else constrain,
        nfe=first_known(nfe, mean_steps(stats)),
        seconds=seconds,
        info={"left_out": left_out},
        attributes={
            **run_attributes(name or sampler, "{}", None),
            "target": UNKNOWN,
            "asymptotically_exact": exactness(asymptotically_exact, _EXACT.get(source), stats=stats),
        },
    )


def _history(states: Any) -> tuple[Position, Any]:
    """The positions, and their log density where the states hold it."""
    if hasattr(states, "position"):
        return states.position, getattr(states, "logdensity", None)
    if type(states) is tuple and states and any(hasattr(part, "position") for part in states):
        raise TypeError(
            "`states` is a tuple with states inside. `run_inference_algorithm` returns (final state, (states, infos)): "
            "pass the two parts of its second result, Draws.from_blackjax(*history)."
        )
    if type(states).__module__.partition(".")[0] == "blackjax":
        raise TypeError(
            f"`states`: {type(states).__name__} has no `position`. Pass the tree of positions itself, with `axes`."
        )
    return states, None


def _checked_axes(axes: Sequence[str] | None, logdensity: Any) -> tuple[str, ...]:
    if axes is not None:
        if isinstance(axes, str) or tuple(axes) not in _AXES:
            raise ValueError(f"`axes` names the leading axes in their order, got {axes!r}. {_SAY_AXES}")
        return tuple(axes)
    if logdensity is None:
        raise ValueError(f"`axes`: positions alone do not tell which axes are chains and which are draws. {_SAY_AXES}")
    shape = np.shape(logdensity)
    if len(shape) == 1:
        return ("draw",)
    if len(shape) == 2:
        raise ValueError(
            f"`axes`: the log density has the shape {shape}. Are these {shape[0]} chains of {shape[1]} draws (a vmap "
            f"of whole runs), or {shape[1]} chains of {shape[0]} (a scan over vmapped steps)? Taken for each other "
            f"they hide that chains disagree. {_SAY_AXES}"
        )
    raise ValueError(
        f"`states`: their log density has the shape {shape}, but (draw,) or two axes are needed. Pass the history of "
        "states, not the last one."
    )


def _chain_first(source: str, leaf: Any, axes: tuple[str, ...]) -> np.ndarray:
    array = np.asarray(leaf)
    if array.ndim < len(axes):
        raise ValueError(f"`{source}`: an array has the shape {array.shape}, which does not have the axes {axes}.")
    if axes == ("draw",):
        return array[None]
    return array if axes == ("chain", "draw") else np.swapaxes(array, 0, 1)


def _statistics(infos: Any, shape: tuple[int, int], axes: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    if infos is None:
        return {}, []
    fields = infos._asdict() if hasattr(infos, "_asdict") else infos
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"`infos` must be BlackJAX's infos (a NamedTuple) or a dictionary of arrays, got {type(infos).__name__}."
        )
    values = {
        name: _chain_first("infos", value, axes)
        for name, value in fields.items()
        if name not in _NO_STATISTICS and hasattr(value, "shape") and np.ndim(value) >= len(axes)
    }
    stats, _ = statistics(values, shape, _RENAMED)
    if not stats:
        found = {name: np.shape(value) for name, value in fields.items() if hasattr(value, "shape")}
        raise ValueError(
            f"`infos`: nothing in them is one number for each of the {shape[0]} x {shape[1]} draws of `states`, their "
            f"shapes are {found}. Pass the infos of the same run, every step of it."
        )
    return stats, [name for name in fields if _RENAMED.get(name, name) not in stats]
