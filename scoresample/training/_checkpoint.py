"""Saving a learned score and loading it again: data, never code."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from scoresample.nn import DenoiserEnsemble, Encoded, Held, PreconditionedDenoiser, PreconditionedEnergy
from scoresample.paths import (
    EDM,
    OU,
    VE,
    VP,
    AbstractNoiseProcess,
    AbstractPerturbedScore,
    CentredScore,
    PerturbedEnergy,
    PerturbedScore,
    ReclockedScore,
    SubVP,
    TrainingRecord,
)
from scoresample.scores import Constrain, Position, Structure, Support, named_sites
from scoresample.training._archive import read_archive, write_archive
from scoresample.training._network_files import (
    Arrays,
    as_stored,
    centre_content,
    centre_skeleton,
    denoiser_content,
    denoiser_skeleton,
    filled,
    is_informed,
    named_arrays,
)

_KIND = "score"
_PROCESSES = {cls.__name__: cls for cls in (VP, VE, SubVP, OU, EDM)}

Gradient = Callable[[Any], Callable[..., Any]]
"""From the centre of a score to the gradient that its network is shown."""


def save_score(score: AbstractPerturbedScore, path: str | os.PathLike[str]) -> None:
    """Write a learned score to a file.

    One safetensors file holds the arrays, and in its header, as JSON, the settings, a format version and a checksum.
    The file replaces an old one only once it is complete. The training record goes along.

    Arguments:
        score: what [`fit_score`][scoresample.fit_score] returned, also under another noise process; or the score of a
            [`fit_posterior`][scoresample.fit_posterior] that is not informed, which
            [`save_posterior`][scoresample.save_posterior] writes with all that belongs to it. A network of your own
            class is written too: give one of the same class and sizes to `load_score`.
        path: the file, by convention with the suffix ``.safetensors``.

    Raises:
        TypeError: if the score was not made by `fit_score` or `fit_posterior`, its network is shown the gradient of a
            simulator, or its positions hold containers other than dictionaries, lists and tuples.

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
    content = score_content(score, arrays)
    if _shown_a_gradient(score):
        raise TypeError(
            "`score`: its network is shown the gradient of a simulator's density, which is code. Write the posterior "
            "with save_posterior, and load it beside the simulator."
        )
    write_archive(path, _KIND, content, arrays)


def load_score(
    path: str | os.PathLike[str], *, network: Any = None, constrain: Constrain | None = None
) -> PerturbedScore | PerturbedEnergy | CentredScore | ReclockedScore:
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
        return score_from(content, dict(arrays), network, constrain)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"`path`: {os.fspath(path)} does not hold a score that this release knows ({error!r})."
        ) from error


def _shown_a_gradient(score: Any) -> bool:
    while isinstance(score, ReclockedScore | CentredScore):
        score = score.inner
    return isinstance(score, PerturbedScore) and is_informed(score.fn)


def score_content(score: Any, arrays: Arrays) -> dict[str, Any]:
    """What a learned score is but for its arrays, which are added to those that there are.

    Raises:
        TypeError: if it was not made by `fit_score` or `fit_posterior`.
    """
    if isinstance(score, ReclockedScore):
        return {
            "class": "ReclockedScore",
            "process": _process_content(score.process),
            "inner": score_content(score.inner, arrays),
        }
    if isinstance(score, CentredScore):
        centre = centre_content(score.centre)
        arrays |= named_arrays(score.centre, "centre")
        arrays |= {"centred.location": score.frame.location, "centred.mixing": score.frame.mixing}
        return {
            "class": "CentredScore",
            "centre": centre,
            "inner": score_content(score.inner, arrays),
            "constrain": _constrain_content(score.constrain, arrays),
        }
    energy = isinstance(score, PerturbedEnergy)
    denoiser = getattr(score.fn, "__self__", None) if energy else getattr(score, "fn", None)
    known = (PreconditionedDenoiser, PreconditionedEnergy, DenoiserEnsemble)
    fitted = isinstance(score, PerturbedScore) and (score.prediction, score.time) == ("denoised", "sigma")
    if not (fitted or energy) or not isinstance(denoiser, known) or score.args:
        raise TypeError(
            f"`score` must be one that fit_score returned, or that of fit_posterior, got {type(score).__name__}. Other "
            "functions are code, which is not written to files: save their weights, and wrap them in PerturbedScore "
            "again."
        )
    arrays["log_snr_range"] = score.log_snr_range
    for name in ("location", "scale"):
        for place, leaf in enumerate(jax.tree.leaves(getattr(score.frame, name))):
            arrays[f"{name}.{place}"] = leaf
    arrays |= named_arrays(denoiser, "fn")
    told = {} if score.conditioning is None else {"condition": _conditioning_content(score.conditioning, arrays)}
    return told | {
        "class": type(score).__name__,
        "process": _process_content(score.process),
        "structure": structure_content(score.structure),
        "has_location": score.frame.location is not None,
        "has_scale": score.frame.scale is not None,
        "denoiser": denoiser_content(denoiser),
        "constrain": _constrain_content(score.constrain, arrays),
        "record": _record_content(score.record, arrays),
    }


def score_from(
    content: dict[str, Any],
    arrays: Arrays,
    network: Any,
    constrain: Constrain | None,
    gradient: Gradient | None = None,
    shown: Held[Any] | None = None,
) -> Any:
    """The score of a content and its arrays.

    Arguments:
        content: what `score_content` gave.
        arrays: the arrays.
        network: a network of a class that files cannot name, or None.
        constrain: position -> named sites, in the place of the file's.
        gradient: what an informed network is shown, from the centre of the score.
        shown: the same, once the centre is there.
    """
    if content["class"] == "CentredScore":
        if content["inner"]["class"] != "PerturbedScore":
            raise KeyError(content["inner"]["class"])
        centre = filled(centre_skeleton(content["centre"]), arrays, "centre")
        shown = None if gradient is None else Held(gradient(centre))
        inner = score_from(content["inner"], arrays, network, named_sites, None, shown)
        mixing, location = (as_stored(arrays[f"centred.{name}"]) for name in ("mixing", "location"))
        named = _constrain_from(content["constrain"], inner.structure, arrays, constrain)
        made = CentredScore(inner, centre, mixing, constrain=named)
        return eqx.tree_at(lambda s: s.frame.location, made, location)
    process = _process_from(content["process"])
    if content["class"] == "ReclockedScore":
        if content["inner"]["class"] == "ReclockedScore":
            raise KeyError("a process of a process")
        return ReclockedScore(score_from(content["inner"], arrays, network, constrain, gradient), process)
    cls = {"PerturbedScore": PerturbedScore, "PerturbedEnergy": PerturbedEnergy}[content["class"]]
    structure = structure_from(content["structure"])
    low, high = (float(x) for x in arrays["log_snr_range"])
    denoiser = filled(denoiser_skeleton(content["denoiser"], network, len(arrays), shown), arrays, "fn")
    settings: dict[str, Any] = {
        "structure": structure,
        "log_snr_range": (low, high),
        "location": tree_from(structure, "location", arrays) if content["has_location"] else None,
        "scale": tree_from(structure, "scale", arrays) if content["has_scale"] else None,
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
    value = tree_from(settings["condition"], "condition.value", arrays)
    blank = score.given(jax.tree.map(lambda leaf: np.zeros(leaf.shape), value))
    return eqx.tree_at(lambda s: s.conditioning.value, blank, value)


def _conditioning_content(conditioning: Any, arrays: Arrays) -> dict[str, Any]:
    parts = {**vars(conditioning.frame), "value": conditioning.value}
    for name, part in parts.items():
        for place, leaf in enumerate(jax.tree.leaves(part)):
            arrays[f"condition.{name}.{place}"] = leaf
    structure = {"structure": structure_content(conditioning.structure)}
    return structure | {f"has_{name}": part is not None for name, part in parts.items()}


def _conditioning_settings(content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    structure = structure_from(content["structure"])
    frame = {
        f"condition_{name}": tree_from(structure, f"condition.{name}", arrays) if content[f"has_{name}"] else None
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


def structure_content(structure: Structure) -> Any:
    """Shapes, types and containers of a tree.

    Raises:
        TypeError: if there are other containers than files know.
    """
    if isinstance(structure, jax.ShapeDtypeStruct):
        return {"array": [list(structure.shape), np.dtype(structure.dtype).name]}
    if type(structure) is Encoded:
        return {"encoded": [structure_content(value) for value in structure if value is not None]}
    if type(structure) is dict and all(isinstance(key, str) for key in structure):
        return {"dict": {key: structure_content(value) for key, value in structure.items()}}
    if type(structure) in (list, tuple):
        return {type(structure).__name__: [structure_content(value) for value in structure]}
    raise TypeError(
        f"`score`: positions with {type(structure).__name__} cannot be written to a file; dictionaries with names, "
        "lists and tuples can."
    )


def structure_from(content: Any) -> Structure:
    """The tree of `jax.ShapeDtypeStruct` of a content."""
    ((kind, value),) = content.items()
    match kind:
        case "array":
            return jax.ShapeDtypeStruct(tuple(value[0]), np.dtype(value[1]))
        case "dict":
            return {key: structure_from(inner) for key, inner in value.items()}
        case "encoded":
            return Encoded(*(structure_from(inner) for inner in value))
        case "list":
            return [structure_from(inner) for inner in value]
        case "tuple":
            return tuple(structure_from(inner) for inner in value)
        case _:
            raise KeyError(kind)


def tree_from(structure: Structure, name: str, arrays: Arrays) -> Position:
    """The arrays that a file has under a name, in the containers of a structure."""
    leaves, tree = jax.tree.flatten(structure)
    return jax.tree.unflatten(tree, [as_stored(arrays[f"{name}.{place}"]) for place in range(len(leaves))])


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
        return Support(*(tree_from(structure, f"support.{name}", arrays) for name in ("low", "high")))
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
