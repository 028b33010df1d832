"""Saving a learned score and loading it again: data, never code."""

import os
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import (
    DenoiserEnsemble,
    PreconditionedDenoiser,
    PreconditionedEnergy,
    ResidualConv,
    ResidualMLP,
    UNet,
)
from scoresample.paths import (
    EDM,
    OU,
    VE,
    VP,
    AbstractNoiseProcess,
    AbstractPerturbedScore,
    PerturbedEnergy,
    PerturbedScore,
    ReclockedScore,
    SubVP,
    TrainingRecord,
)
from scoresample.scores import Constrain, Position, Structure, Support, named_sites
from scoresample.training._archive import read_archive, write_archive

_KIND = "score"
_PROCESSES = {cls.__name__: cls for cls in (VP, VE, SubVP, OU, EDM)}
_NETWORKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ResidualMLP": (ResidualMLP, ("dimension", "width", "depth", "outputs", "noise_level", "condition_size")),
    "ResidualConv": (
        ResidualConv,
        ("num_axes", "width", "blocks", "channels", "condition_channels", "num_scales", "periodic"),
    ),
    "UNet": (UNet, ("shape", "width", "num_levels", "blocks", "channels", "periodic", "condition_shape")),
}
"""Networks that a file can name, and the settings that make one of the same shapes."""
_OF_CONDITIONS = {"condition_size", "condition_shape"}
"""Settings that files of networks without conditions do not have."""
_COUNTS = {"depth", "blocks", "num_levels"}
"""Settings that count parts with arrays of their own: no file can make the reader build more than it holds."""
_OTHER = "other"

Arrays = dict[str, Any]


def save_score(score: AbstractPerturbedScore, path: str | os.PathLike[str]) -> None:
    """Write a learned score to a file.

    One safetensors file holds the arrays, and in its header, as JSON, the settings, a format version and a checksum.
    The file replaces an old one only once it is complete. The training record goes along.

    Arguments:
        score: what [`fit_score`][scoresample.fit_score] returned, also under another noise process. A network of your
            own class is written too: give one of the same class and sizes to `load_score`.
        path: the file, by convention with the suffix ``.safetensors``.

    Raises:
        TypeError: if the score was not made by `fit_score`, or its positions hold containers other than dictionaries,
            lists and tuples.

    Examples:
        >>> import tempfile, jax
        >>> import scoresample as ss
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> score = ss.fit_score(data, key=jax.random.key(1), num_epochs=2, width=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_score(score, f"{folder}/score.safetensors")
        ...     again = load_score(f"{folder}/score.safetensors")
        >>> bool((again(data[0], 0.5) == score(data[0], 0.5)).all())
        True
    """
    arrays: Arrays = {}
    write_archive(path, _KIND, _score_content(score, arrays), arrays)


def load_score(
    path: str | os.PathLike[str], *, network: Any = None, constrain: Constrain | None = None
) -> PerturbedScore | PerturbedEnergy | ReclockedScore:
    """Read a learned score that [`save_score`][scoresample.save_score] wrote. No code in the file is run.

    Arguments:
        path: the file.
        network: for a network of your own class: one of the same class and sizes, whose arrays are replaced.
        constrain: position -> named sites, such as ``posterior.constrain`` of the NumPyro model that the score belongs
            to: functions are not written to files. Bounds given as ``support=`` are.

    Returns:
        The score, with the same values to the last bit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or damaged, was written by a later release, or arrays have other shapes
            than its settings, or your `network`, call for.
    """
    content, arrays = read_archive(path, _KIND)
    try:
        return _score_from(content, dict(arrays), network, constrain)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"`path`: {os.fspath(path)} does not hold a score that this release knows ({error!r})."
        ) from error


def _score_content(score: Any, arrays: Arrays) -> dict[str, Any]:
    if isinstance(score, ReclockedScore):
        return {
            "class": "ReclockedScore",
            "process": _process_content(score.process),
            "inner": _score_content(score.inner, arrays),
        }
    energy = isinstance(score, PerturbedEnergy)
    denoiser = getattr(score.fn, "__self__", None) if energy else getattr(score, "fn", None)
    known = (PreconditionedDenoiser, PreconditionedEnergy, DenoiserEnsemble)
    fitted = isinstance(score, PerturbedScore) and (score.prediction, score.time) == ("denoised", "sigma")
    if not (fitted or energy) or not isinstance(denoiser, known) or score.args:
        raise TypeError(
            f"`score` must be one that fit_score returned, got {type(score).__name__}. Other functions are code, which "
            "is not written to files: save their weights, and wrap them in PerturbedScore again."
        )
    arrays["log_snr_range"] = score.log_snr_range
    for name in ("location", "scale"):
        for place, leaf in enumerate(jax.tree.leaves(getattr(score.frame, name))):
            arrays[f"{name}.{place}"] = leaf
    for name, leaf in _named_arrays(denoiser):
        arrays[f"fn{name}"] = leaf
    told = {} if score.conditioning is None else {"condition": _conditioning_content(score.conditioning, arrays)}
    return told | {
        "class": type(score).__name__,
        "process": _process_content(score.process),
        "structure": _structure_content(score.structure),
        "has_location": score.frame.location is not None,
        "has_scale": score.frame.scale is not None,
        "denoiser": _denoiser_content(denoiser),
        "constrain": _constrain_content(score.constrain, arrays),
        "record": _record_content(score.record, arrays),
    }


def _score_from(content: dict[str, Any], arrays: Arrays, network: Any, constrain: Constrain | None) -> Any:
    process = _process_from(content["process"])
    if content["class"] == "ReclockedScore":
        if content["inner"]["class"] == "ReclockedScore":
            raise KeyError("a process of a process")
        return ReclockedScore(_score_from(content["inner"], arrays, network, constrain), process)
    cls = {"PerturbedScore": PerturbedScore, "PerturbedEnergy": PerturbedEnergy}[content["class"]]
    structure = _structure_from(content["structure"])
    low, high = (float(x) for x in arrays["log_snr_range"])
    denoiser = _filled(_denoiser_skeleton(content["denoiser"], network, len(arrays)), arrays)
    settings: dict[str, Any] = {
        "structure": structure,
        "log_snr_range": (low, high),
        "location": _tree_from(structure, "location", arrays) if content["has_location"] else None,
        "scale": _tree_from(structure, "scale", arrays) if content["has_scale"] else None,
        "constrain": _constrain_from(content["constrain"], structure, arrays, constrain),
        "record": _record_from(content["record"], arrays),
    }
    told = content.get("condition")
    if told is not None:
        settings |= _conditioning_settings(told, arrays)
    if cls is PerturbedEnergy:
        score = PerturbedEnergy(denoiser.logdensity, process, **settings)
    else:
        score = PerturbedScore(denoiser, process, prediction="denoised", time="sigma", **settings)
    if told is None or not told["has_value"]:
        return score
    # Given once for its checks; the file holds the standardised numbers themselves.
    value = _tree_from(settings["condition"], "condition.value", arrays)
    blank = score.given(jax.tree.map(lambda leaf: np.zeros(leaf.shape), value))
    return eqx.tree_at(lambda s: s.conditioning.value, blank, value)


def _conditioning_content(conditioning: Any, arrays: Arrays) -> dict[str, Any]:
    parts = {**vars(conditioning.frame), "value": conditioning.value}
    for name, part in parts.items():
        for place, leaf in enumerate(jax.tree.leaves(part)):
            arrays[f"condition.{name}.{place}"] = leaf
    structure = {"structure": _structure_content(conditioning.structure)}
    return structure | {f"has_{name}": part is not None for name, part in parts.items()}


def _conditioning_settings(content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    structure = _structure_from(content["structure"])
    frame = {
        f"condition_{name}": _tree_from(structure, f"condition.{name}", arrays) if content[f"has_{name}"] else None
        for name in ("location", "scale")
    }
    return {"condition": structure} | frame


def _process_content(process: AbstractNoiseProcess) -> dict[str, Any]:
    name = type(process).__name__
    if _PROCESSES.get(name) is not type(process):
        raise TypeError(f"`score`: {name} is no noise process of this package. Save score.with_process(VP()) instead.")
    return {"class": name, "settings": {key: float(value) for key, value in vars(process).items()}}


def _process_from(content: dict[str, Any]) -> AbstractNoiseProcess:
    return _PROCESSES[content["class"]](**content["settings"])


def _denoiser_content(denoiser: Any) -> dict[str, Any]:
    if isinstance(denoiser, DenoiserEnsemble):
        return {
            "class": "DenoiserEnsemble",
            "num_members": denoiser.num_members,
            "member": _denoiser_content(denoiser.members),
        }
    content = {"class": type(denoiser).__name__, "network": _network_content(denoiser.network)}
    if isinstance(denoiser, PreconditionedDenoiser):
        content["parametrisation"] = denoiser.parametrisation
    return content


def _network_content(network: Any) -> dict[str, Any]:
    for name, (cls, fields) in _NETWORKS.items():
        if type(network) is cls:
            settings = {field: getattr(network, field) for field in fields}
            kept = {
                field: value for field, value in settings.items() if value is not None or field not in _OF_CONDITIONS
            }
            return {"class": name, "settings": kept}
    return {"class": _OTHER, "name": type(network).__name__}


def _denoiser_skeleton(content: dict[str, Any], network: Any, num_arrays: int) -> Any:
    """The denoiser with shapes in the place of arrays."""
    if content["class"] == "DenoiserEnsemble":
        one, num = _denoiser_skeleton(content["member"], network, num_arrays), int(content["num_members"])
        members = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num, *x.shape), x.dtype) if _is_shape(x) else x, one)
        return DenoiserEnsemble(members, num)
    made = _network_skeleton(content["network"], network, num_arrays)
    if content["class"] == "PreconditionedEnergy":
        return PreconditionedEnergy(made)
    if content["class"] != "PreconditionedDenoiser":
        raise KeyError(content["class"])
    return PreconditionedDenoiser(made, content["parametrisation"])


def _network_skeleton(content: dict[str, Any], network: Any, num_arrays: int) -> Any:
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


def _filled(skeleton: Any, arrays: Arrays) -> Any:
    """The skeleton with the file's arrays, each held against the shape and the type that is called for."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(skeleton)
    wanted = {f"fn{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves if _is_shape(leaf)}
    present = {name for name in arrays if name.startswith("fn.")}
    if set(wanted) != present:
        missing, unknown = sorted(set(wanted) - present), sorted(present - set(wanted))
        raise ValueError(f"the file's arrays do not fit its network: missing {missing[:5]}, unknown {unknown[:5]}.")
    filled = []
    for path, leaf in leaves:
        if not _is_shape(leaf):
            filled.append(leaf)
            continue
        name = f"fn{jax.tree_util.keystr(path)}"
        value = arrays[name]
        if tuple(value.shape) != tuple(leaf.shape):
            raise ValueError(f"the file's array {name} has shape {value.shape}, but {tuple(leaf.shape)} is called for.")
        if not _same_kind(value.dtype, leaf.dtype):
            raise ValueError(f"the file's array {name} has the type {value.dtype}, but {leaf.dtype} is called for.")
        filled.append(_as_stored(value))
    return jax.tree.unflatten(tree, filled)


def _named_arrays(module: Any) -> list[tuple[str, Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(module)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves if eqx.is_array(leaf)]


def _same_kind(stored: Any, wanted: Any) -> bool:
    """Whether types are the same, up to single or double precision."""
    precisions = (np.dtype("float32"), np.dtype("float64"))
    return stored == wanted or (stored in precisions and wanted in precisions)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _as_stored(value: np.ndarray) -> Array:
    """An array in the type in which it was written; double precision needs to be enabled."""
    array = jnp.asarray(value)
    if array.dtype != value.dtype:
        raise ValueError(
            f"the file holds {value.dtype} arrays. Enable them: jax.config.update('jax_enable_x64', True)."
        )
    return array


def _structure_content(structure: Structure) -> Any:
    if isinstance(structure, jax.ShapeDtypeStruct):
        return {"array": [list(structure.shape), np.dtype(structure.dtype).name]}
    if type(structure) is dict and all(isinstance(key, str) for key in structure):
        return {"dict": {key: _structure_content(value) for key, value in structure.items()}}
    if type(structure) in (list, tuple):
        return {type(structure).__name__: [_structure_content(value) for value in structure]}
    raise TypeError(
        f"`score`: positions with {type(structure).__name__} cannot be written to a file; dictionaries with names, "
        "lists and tuples can."
    )


def _structure_from(content: Any) -> Structure:
    ((kind, value),) = content.items()
    match kind:
        case "array":
            return jax.ShapeDtypeStruct(tuple(value[0]), np.dtype(value[1]))
        case "dict":
            return {key: _structure_from(inner) for key, inner in value.items()}
        case "list":
            return [_structure_from(inner) for inner in value]
        case "tuple":
            return tuple(_structure_from(inner) for inner in value)
        case _:
            raise KeyError(kind)


def _tree_from(structure: Structure, name: str, arrays: Arrays) -> Position:
    leaves, tree = jax.tree.flatten(structure)
    return jax.tree.unflatten(tree, [_as_stored(arrays[f"{name}.{place}"]) for place in range(len(leaves))])


def _constrain_content(constrain: Constrain, arrays: Arrays) -> str:
    if constrain is named_sites:
        return "names"
    if not isinstance(constrain, Support):
        return "function"
    for name in ("low", "high"):
        for place, leaf in enumerate(jax.tree.leaves(getattr(constrain, name))):
            arrays[f"support.{name}.{place}"] = leaf
    return "support"


def _constrain_from(kind: str, structure: Structure, arrays: Arrays, given: Constrain | None) -> Constrain:
    if given is not None:
        return given
    if kind == "support":
        return Support(*(_tree_from(structure, f"support.{name}", arrays) for name in ("low", "high")))
    if kind == "function":
        warnings.warn(
            "The score's `constrain` is a function, and functions are not written to files: draws will show the "
            "unconstrained coordinates. Pass `constrain=`, such as that of the NumPyro posterior.",
            stacklevel=4,
        )
    return named_sites


_RECORD_ARRAYS = ("train_loss", "validation_loss", "validation_epochs", "level_edges", "loss_by_level")
_RECORD_COUNTS = ("best_epoch", "num_train", "num_validation", "num_parameters")
_RECORD_NUMBERS = ("seconds", "epoch_seconds", "smallest_scale")
"""May be nan, or missing from files of earlier releases."""


def _record_content(record: TrainingRecord | None, arrays: Arrays) -> dict[str, Any] | None:
    if record is None:
        return None
    for name in _RECORD_ARRAYS:
        arrays[f"record.{name}"] = getattr(record, name)
    numbers = {name: getattr(record, name) for name in _RECORD_NUMBERS}
    return {
        **{name: int(getattr(record, name)) for name in _RECORD_COUNTS},
        **{name: None if np.isnan(value) else float(value) for name, value in numbers.items()},
    }


def _record_from(content: dict[str, Any] | None, arrays: Arrays) -> TrainingRecord | None:
    if content is None:
        return None
    values: dict[str, Any] = {name: arrays[f"record.{name}"] for name in _RECORD_ARRAYS}
    values |= {name: int(content[name]) for name in _RECORD_COUNTS}
    values |= {name: np.nan if content.get(name) is None else float(content[name]) for name in _RECORD_NUMBERS}
    return TrainingRecord(**values)
