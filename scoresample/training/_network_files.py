"""Networks in files: their names and sizes as JSON, their arrays by name."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import (
    DenoiserEnsemble,
    Held,
    InformedNetwork,
    MeanNetwork,
    PosteriorNetwork,
    PreconditionedDenoiser,
    PreconditionedEnergy,
    ResidualConv,
    ResidualMLP,
    UNet,
)

_NETWORKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ResidualMLP": (ResidualMLP, ("dimension", "width", "depth", "outputs", "noise_level", "condition_size")),
    "ResidualConv": (
        ResidualConv,
        ("num_axes", "width", "blocks", "channels", "condition_channels", "num_scales", "periodic"),
    ),
    "PosteriorNetwork": (
        PosteriorNetwork,
        ("dimension", "shape", "exchangeable", "has_gaps", "width", "depth", "outputs"),
    ),
    "UNet": (UNet, ("shape", "width", "num_levels", "blocks", "channels", "periodic", "condition_shape")),
}
"""Networks that a file can name, and the settings that make one of the same shapes."""
_CENTRE = ("dimension", "shape", "exchangeable", "has_gaps", "width")
"""Those of a `MeanNetwork`."""
_OF_CONDITIONS = {"condition_size", "condition_shape"}
"""Settings that files of networks without conditions do not have."""
_COUNTS = {"depth", "blocks", "num_levels"}
"""Settings that count parts with arrays of their own: no file can make the reader build more than it holds."""
_OTHER, _INFORMED = "other", "InformedNetwork"

Arrays = dict[str, Any]


def denoiser_content(denoiser: Any) -> dict[str, Any]:
    """What a denoiser is but for its arrays."""
    if isinstance(denoiser, DenoiserEnsemble):
        return {
            "class": "DenoiserEnsemble",
            "num_members": denoiser.num_members,
            "member": denoiser_content(denoiser.members),
        }
    content = {"class": type(denoiser).__name__, "network": _network_content(denoiser.network)}
    if isinstance(denoiser, PreconditionedDenoiser):
        content["parametrisation"] = denoiser.parametrisation
    return content


def _network_content(network: Any) -> dict[str, Any]:
    if isinstance(network, InformedNetwork):
        return {"class": _INFORMED, "network": _network_content(network.network)}
    for name, (cls, fields) in _NETWORKS.items():
        if type(network) is cls:
            settings = {field: getattr(network, field) for field in fields}
            kept = {
                field: value for field, value in settings.items() if value is not None or field not in _OF_CONDITIONS
            }
            return {"class": name, "settings": kept}
    return {"class": _OTHER, "name": type(network).__name__}


def is_informed(denoiser: Any) -> bool:
    """Whether a denoiser's network is shown a gradient, which is code."""
    inner = denoiser.members if isinstance(denoiser, DenoiserEnsemble) else denoiser
    return isinstance(inner.network, InformedNetwork)


def centre_content(centre: Any) -> dict[str, Any]:
    """What the centre of a `CentredScore` is but for its arrays.

    Raises:
        TypeError: if it is no `MeanNetwork`.
    """
    if type(centre) is not MeanNetwork:
        raise TypeError(
            f"`score`: its centre is a {type(centre).__name__}, which is code. Scores of fit_posterior have a "
            "MeanNetwork, which is written to files."
        )
    return {field: getattr(centre, field) for field in _CENTRE}


def centre_skeleton(content: dict[str, Any]) -> Any:
    """The centre with shapes in the place of arrays."""
    settings: dict[str, Any] = {field: content[field] for field in _CENTRE} | {"shape": tuple(content["shape"])}
    return eqx.filter_eval_shape(lambda key: MeanNetwork(**settings, key=key), jax.random.key(0))


def denoiser_skeleton(content: dict[str, Any], network: Any, num_arrays: int, gradient: Held[Any] | None = None) -> Any:
    """The denoiser with shapes in the place of arrays."""
    if content["class"] == "DenoiserEnsemble":
        one, num = denoiser_skeleton(content["member"], network, num_arrays, gradient), int(content["num_members"])
        members = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num, *x.shape), x.dtype) if _is_shape(x) else x, one)
        return DenoiserEnsemble(members, num)
    made = _network_skeleton(content["network"], network, num_arrays, gradient)
    if content["class"] == "PreconditionedEnergy":
        return PreconditionedEnergy(made)
    if content["class"] != "PreconditionedDenoiser":
        raise KeyError(content["class"])
    return PreconditionedDenoiser(made, content["parametrisation"])


def _network_skeleton(content: dict[str, Any], network: Any, num_arrays: int, gradient: Held[Any] | None) -> Any:
    if content["class"] == _INFORMED:
        if gradient is None:
            raise ValueError(
                "the file's network is shown the gradient of a simulator's density. Load it with load_posterior(path, "
                "simulator)."
            )
        inner = _network_skeleton(content["network"], network, num_arrays, None)
        return InformedNetwork(inner, gradient)
    if content["class"] == _OTHER:
        if network is None:
            raise ValueError(
                f"`network` is needed: of the network, a {content['name']}, the file holds the arrays alone. Pass one "
                "of the same class and sizes."
            )
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if eqx.is_array(x) else x, network)
    if network is not None:
        raise ValueError(f"`network`: the file holds a {content['class']} of its own. Leave it out.")
    cls, fields = _NETWORKS[content["class"]]
    given = content["settings"]
    if not set(given) <= set(fields):
        raise ValueError(f"the file has settings of {content['class']} that this release does not know: {set(given)}.")
    for name in _COUNTS & set(given):
        if not 0 < given[name] <= num_arrays:
            raise ValueError(f"the file's {name}={given[name]} does not fit its {num_arrays} arrays.")
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return eqx.filter_eval_shape(lambda key: cls(**settings, key=key), jax.random.key(0))


def filled(skeleton: Any, arrays: Arrays, name: str) -> Any:
    """The skeleton with the arrays that the file has under a name, each held against the shape and type called for.

    Raises:
        ValueError: if one is missing, too many, or of another shape or type.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(skeleton)
    wanted = {f"{name}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves if _is_shape(leaf)}
    present = {label for label in arrays if label.startswith(f"{name}.")}
    if set(wanted) != present:
        missing, unknown = sorted(set(wanted) - present), sorted(present - set(wanted))
        raise ValueError(f"the file's arrays do not fit its network: missing {missing[:5]}, unknown {unknown[:5]}.")
    found = []
    for path, leaf in leaves:
        if not _is_shape(leaf):
            found.append(leaf)
            continue
        label = f"{name}{jax.tree_util.keystr(path)}"
        value = arrays[label]
        if tuple(value.shape) != tuple(leaf.shape):
            raise ValueError(
                f"the file's array {label} has shape {value.shape}, but {tuple(leaf.shape)} is called for."
            )
        if not _same_kind(value.dtype, leaf.dtype):
            raise ValueError(f"the file's array {label} has the type {value.dtype}, but {leaf.dtype} is called for.")
        found.append(as_stored(value))
    return jax.tree.unflatten(tree, found)


def named_arrays(module: Any, name: str) -> Arrays:
    """A module's arrays, by name and place."""
    leaves = jax.tree_util.tree_leaves_with_path(module)
    return {f"{name}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves if eqx.is_array(leaf)}


def _same_kind(stored: Any, wanted: Any) -> bool:
    """Whether types are the same, up to single or double precision."""
    precisions = (np.dtype("float32"), np.dtype("float64"))
    return stored == wanted or (stored in precisions and wanted in precisions)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def as_stored(value: np.ndarray) -> Array:
    """An array in the type in which it was written; double precision needs to be enabled."""
    array = jnp.asarray(value)
    if array.dtype != value.dtype:
        raise ValueError(
            f"the file holds {value.dtype} arrays. Enable them: jax.config.update('jax_enable_x64', True)."
        )
    return array
