"""Learning the scores of fields, scale by scale."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import (
    AtScale,
    Network,
    PreconditionedDenoiser,
    ResidualConv,
    ResidualMLP,
    SharedAcrossScales,
)
from scoresample.paths import VP, AbstractNoiseProcess, PerturbedEnergy, PerturbedScore, make_frame
from scoresample.scores import Constrain, DrawsLike, named_sites, pooled
from scoresample.training import fit_score
from scoresample.wavelets import WaveletPath, WaveletTransform

_COARSEST = 8
"""By default fields are halved until their shortest axis has so many sites, or fewer."""
_MOST_FOR_MLP = 256
"""Up to so many numbers the coarsest field of aperiodic fields is learned by a multilayer perceptron ..."""
_MLP_WIDTH, _MLP_DEPTH = 256, 4
"""... of this size."""

NetworkMaker = Callable[[tuple[int, ...], tuple[int, ...] | None, Array], Network]
"""(shape of the part, shape of the coarser field or None, key) -> network."""


def fit_wavelet(
    fields: Any,
    *,
    key: Array,
    scores: Any = None,
    wavelet: str = "db2",
    levels: int | None = None,
    process: AbstractNoiseProcess | None = None,
    shared: bool = False,
    network: NetworkMaker | None = None,
    width: int = 32,
    blocks: int = 4,
    periodic: bool = False,
    num_epochs: int | Sequence[int] = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> WaveletPath:
    """Learn the law of fields or images across the scales of a wavelet transform.

    The coarsest field has a score of its own; the details of each scale have a conditional one given the coarser field,
    learned by conditional denoising score matching, ``E |D(d + s e, s, x_low) - d|^2``, with every band divided by its
    standard deviation. Conditional laws are close to local, so networks of convolutions without a bottleneck serve;
    most of the work is done at a quarter of the sites, or fewer.

    Arguments:
        fields: an array (n, height, width) or (n, length), or unweighted [`Draws`][scoresample.Draws] of one such
            array.
        key: random key.
        scores: the score of the target's own density at every field, shaped like the fields, where it is known: given
            the field at half the size, its part along the finest details is their conditional score. The finest scale
            is then learned from it with less noise (target score matching, as in [`fit_score`][scoresample.fit_score]).
        wavelet: the name of an orthogonal wavelet of PyWavelets.
        levels: how often fields are halved; by default until the shortest axis has 8 sites or fewer.
        process: the noise process of all scales, ``VP()`` by default.
        shared: one network for the details of all scales, which is told the scale, instead of one for each. It sees
            more data; the finest scale has most of its loss.
        network: makes the networks in the place of the default ones, (shape of the part, shape of the coarser field or
            None, key) -> Equinox module (x, log sigma[, condition]) -> array like x.
        width: channels of the default networks.
        blocks: residual blocks of the default networks.
        periodic: whether fields go on at the other side, as on a lattice. (The transform does so in any case.)
        num_epochs: passes over the data, one number or one for each stage, coarse to fine; with `shared` two.
        checkpoint: a folder that keeps the state of the trainings; one that was interrupted goes on from it.
        **settings: of every training, passed to [`fit_score`][scoresample.fit_score].

    Returns:
        The path. ``path.stages[k].record`` is the [`TrainingRecord`][scoresample.paths.TrainingRecord] of a stage.

    Raises:
        TypeError: if `fields` holds no arrays.
        ValueError: if the fields or a setting cannot be used.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> fields = jax.random.normal(jax.random.key(0), (200, 8, 8))
        >>> path = ss.fit_wavelet(fields, key=jax.random.key(1), levels=1, width=8, blocks=1, num_epochs=1)
        >>> path.stage_names()
        ('coarsest field 4 x 4', 'details 4 x 4')
    """
    values, constrain = _fields(fields)
    clean = None if scores is None else _checked_scores(scores, values)
    shape = values.shape[1:]
    transform = WaveletTransform(shape, wavelet, _levels(shape) if levels is None else levels)
    if shared and clean is not None:
        raise ValueError(
            "`scores` are taken by the finest scale alone, and `shared` details have one network. Leave one."
        )
    if clean is not None and settings.get("loss", "denoising") != "denoising":
        raise ValueError(f"`scores` are targets of the denoising loss; the {settings['loss']} loss has none.")
    number = 2 if shared else transform.levels + 1
    epochs = [num_epochs] * number if isinstance(num_epochs, int | np.integer) else list(num_epochs)
    if len(epochs) != number:
        raise ValueError(f"`num_epochs` must be one number, or {number} of them, got {len(epochs)}.")
    if shared and (settings.get("parametrisation") == "energy" or settings.get("num_members", 1) > 1):
        raise ValueError("`shared`: energies and ensembles are learned scale by scale. Leave `shared` out.")
    if shared and network is not None:
        raise ValueError("`network`: the details share one of the default networks. Leave `network` or `shared` out.")
    for name in ("conditions", "standardise", "standardise_conditions", "support"):
        if name in settings:
            raise ValueError(f"`{name}` cannot be chosen: scales have their own. Leave it out.")
    keys = jax.random.split(key, number)
    places = [
        None if checkpoint is None else Path(checkpoint) / f"stage-{index}.safetensors" for index in range(number)
    ]
    if checkpoint is not None:
        Path(checkpoint).mkdir(parents=True, exist_ok=True)
    make = _default_networks(width, blocks, periodic) if network is None else network
    low, details = _split(transform, values)
    # A band that is constant is not exactly zero after rounding.
    least = 100 * float(np.finfo(values.dtype).eps) * float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
    scaled = [_normalised(part, least) for part in details]
    common: dict[str, Any] = {"process": VP() if process is None else process, **settings}
    stages: list[Any] = [
        fit_score(
            low[0],
            key=keys[0],
            network=lambda key: make(low[0].shape[1:], None, key),
            standardise="arrays",
            num_epochs=epochs[0],
            checkpoint=places[0],
            **common,
        )
    ]
    known_scores: list[np.ndarray | None] = [None] * len(details)
    if clean is not None:
        finest = np.asarray(transform.split(jnp.asarray(clean))[1])
        known_scores[-1] = (finest * scaled[-1][1]).astype(finest.dtype)
    if shared:
        net = ResidualConv(
            len(shape), width=width, blocks=blocks, channels=details[0].shape[1], condition_channels=1,
            num_scales=len(details), periodic=periodic, key=keys[1],
        )  # fmt: skip
        fitted = fit_score(
            tuple(part for part, _ in scaled),
            conditions=tuple(low),
            key=jax.random.fold_in(keys[1], 1),
            network=SharedAcrossScales(net),
            standardise="none",
            standardise_conditions="arrays",
            num_epochs=epochs[1],
            checkpoint=places[1],
            **common,
        )
        stages += [_at_scale(fitted, index, scale) for index, (_, scale) in enumerate(scaled)]
    else:
        for index, (part, scale) in enumerate(scaled, start=1):
            known = low[index - 1]
            fitted = fit_score(
                part,
                conditions=known,
                scores=known_scores[index - 1],
                key=keys[index],
                network=lambda key, part=part, known=known: make(part.shape[1:], known.shape[1:], key),
                standardise="none",
                standardise_conditions="arrays",
                num_epochs=epochs[index],
                checkpoint=places[index],
                **common,
            )
            stages.append(_in_units(fitted, scale))
    return WaveletPath(transform, stages, constrain=constrain)


def _fields(fields: Any) -> tuple[np.ndarray, Constrain]:
    """The fields as one array, in single or double precision as JAX has it."""
    constrain = named_sites
    if isinstance(fields, DrawsLike):
        constrain = fields.constrain
        fields, log_weights = pooled(fields)
        if log_weights is not None:
            raise ValueError("`fields`: these draws are weighted. Resample them, and pass the fields as an array.")
    leaves = jax.tree.leaves(fields)
    if len(leaves) != 1 or jax.tree.structure(fields) != jax.tree.structure(0):
        raise TypeError(f"`fields` must be one array (n, height, width) or (n, length), got {type(fields).__name__}.")
    values = np.asarray(fields)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise ValueError(
            f"`fields` must be an array of real numbers (n, height, width) or (n, length), got shape {values.shape} of "
            f"{values.dtype}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`fields`: {int((~np.isfinite(values)).sum())} values are not finite. Drop those fields.")
    return values.astype(np.asarray(jnp.asarray(0.0)).dtype), constrain


def _checked_scores(scores: Any, values: np.ndarray) -> np.ndarray:
    """The scores beside the fields, in their precision."""
    found = np.asarray(scores)
    if found.shape != values.shape or not np.isfinite(found).all():
        raise ValueError(
            f"`scores` must be finite and shaped like the fields, {values.shape}, got {found.shape} with "
            f"{int((~np.isfinite(found)).sum())} values that are not finite."
        )
    return found.astype(values.dtype)


def _levels(shape: tuple[int, ...]) -> int:
    """So many that the shortest axis has at most 8 sites."""
    return max(1, math.ceil(math.log2(min(shape) / _COARSEST)))


def _split(transform: WaveletTransform, values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The coarser fields and the details of every scale, coarse to fine."""
    low, details = [], []
    field = jnp.asarray(values)
    for _ in range(transform.levels):
        field, part = transform.split(field)
        low.append(np.asarray(field))
        details.append(np.asarray(part))
    return low[::-1], details[::-1]


def _normalised(details: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Details with every band divided by its root mean square, and those, (bands, 1, ...)."""
    axes = (0, *range(2, details.ndim))
    scale = np.sqrt(np.mean(details.astype(np.float64) ** 2, axis=axes))
    if not np.all(scale > least):
        raise ValueError("`fields`: a band of details is zero in all fields. Take fewer `levels`, or drop that axis.")
    scale = scale.reshape(-1, *[1] * (details.ndim - 2))
    return (details / scale).astype(details.dtype), scale


def _in_units[Score: PerturbedScore | PerturbedEnergy](score: Score, scale: np.ndarray) -> Score:
    """The score of normalised details as that of the details."""
    leaf = score.structure
    whole = jnp.asarray(np.broadcast_to(scale, leaf.shape), leaf.dtype)
    return eqx.tree_at(lambda s: s.frame, score, make_frame(None, whole, leaf))


def _at_scale(score: Any, index: int, scale: np.ndarray) -> PerturbedScore:
    """One scale of a score that was learned for all of them."""
    denoiser, told = score.fn, score.conditioning
    own = PreconditionedDenoiser(AtScale(denoiser.network.network, index), denoiser.parametrisation)
    alone = PerturbedScore(
        own,
        score.process,
        prediction=score.prediction,
        time=score.time,
        structure=score.structure[index],
        log_snr_range=(float(score.log_snr_range[0]), float(score.log_snr_range[1])),
        condition=told.structure[index],
        condition_location=told.frame.location[index],
        condition_scale=told.frame.scale[index],
        record=score.record,
    )
    return _in_units(alone, scale)


def _default_networks(width: int, blocks: int, periodic: bool) -> NetworkMaker:
    def make(shape: tuple[int, ...], known: tuple[int, ...] | None, key: Array) -> Network:
        if known is None and not periodic and math.prod(shape) <= _MOST_FOR_MLP:
            return ResidualMLP(math.prod(shape), width=_MLP_WIDTH, depth=_MLP_DEPTH, key=key)
        return ResidualConv(
            len(shape) if known is None else len(known),
            width=width,
            blocks=blocks,
            channels=None if known is None else shape[0],
            condition_channels=0 if known is None else 1,
            periodic=periodic,
            key=key,
        )

    return make
