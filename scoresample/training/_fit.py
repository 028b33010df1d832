"""Learning a perturbed score from draws."""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from scoresample.nn import (
    DenoiserEnsemble,
    Network,
    Parametrisation,
    PreconditionedDenoiser,
    PreconditionedEnergy,
    ResidualMLP,
    parameter_count,
)
from scoresample.paths import VP, AbstractNoiseProcess, PerturbedEnergy, PerturbedScore, TrainingRecord
from scoresample.training._data import Points, Source, Standardise, gathering_keys, random_rows
from scoresample.training._epoch import (
    Augment,
    Batch,
    LearningRate,
    Settings,
    fix_noise,
    run_round,
    start_members,
    validation_losses,
)
from scoresample.training._layout import Layout, VectorDenoiser, check_augment, layout_of
from scoresample.training._levels import Weighting
from scoresample.training._loss import LossName
from scoresample.training._penalties import PenaltyName
from scoresample.training._resume import Progress, load_progress, run_fingerprint, save_progress
from scoresample.training._scale import smallest_scale, unexplained

Keep = Literal["best", "last"]
"""Which weights a training returns."""

_LEVEL_BANDS = 8
_SECONDS_BEFORE_SHOWN = 2.0
_SECONDS_BETWEEN_WRITES = 10.0
_VALIDATION_SHARE = 0.03
"""Held-out losses are taken so often that they cost about this share of an epoch ..."""
_FEWEST_VALIDATIONS = 30
"""... but at least this many times in a training."""
_LOOKS_OF_PATIENCE = 3
"""... and before the patience is at an end."""
_MOST_EPOCHS = 64
"""Between two of them."""
_EXACT_TRACE_DIMENSIONS = 16
"""Up to so many dimensions penalties take exact traces: the noise of probes slows the training more than they cost."""
_STEP_COST = 3.0
"""Of a training point, in evaluations of the network."""


def fit_score(
    data: Any,
    *,
    key: Array,
    scores: Any = None,
    conditions: Any = None,
    process: AbstractNoiseProcess | None = None,
    network: Network | Callable[[Array], Network] | None = None,
    width: int = 128,
    depth: int = 3,
    parametrisation: Parametrisation = "edm",
    loss: LossName = "denoising",
    weighting: Weighting = "uniform",
    penalties: Mapping[PenaltyName, float] | None = None,
    penalty_points: int = 16,
    penalty_probes: int | None = None,
    num_members: int = 1,
    num_epochs: int = 300,
    batch_size: int = 256,
    learning_rate: LearningRate = 1e-3,
    gradient_clip: float = 5.0,
    ema_decay: float = 0.999,
    validation_fraction: float = 0.1,
    patience: int | None = 100,
    keep: Keep = "best",
    augment: Augment | None = None,
    sigma_range: tuple[float, float] = (0.005, 20.0),
    standardise: Standardise = "coordinates",
    standardise_conditions: Standardise | None = None,
    support: Any = None,
    buffer_size: int = 50_000,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> PerturbedScore | PerturbedEnergy:
    """Learn the score of noised data by score matching.

    Data are standardised; a denoiser learns ``E[z | z + s e]`` for noise levels s; the weights are averaged over steps,
    and the average with the smallest held-out loss is kept (or the last, see `keep`). The denoiser serves any noise
    process. Whole epochs run on the device.

    Arguments:
        data: an array (n, ...), a tree of arrays with one leading axis, or a sampler's `Draws`, whose `constrain` the
            score inherits. Weighted draws are resampled. For data larger than memory: an iterator of batches, or a
            function that opens one (``lambda: iter(loader)``), in the same order each time. Use draws that were *not*
            the ones you will compare with.
        key: random key.
        scores: the score of the target's own density at every draw, shaped like the data, where it is known: the
            training targets then vary much less (target score matching). Not for densities with hard edges.
        conditions: what belongs to each draw, real numbers with the data's leading axis: an array (n, ...), or a tree
            of arrays. The score is then that of the conditional law, ``score.given(condition)``: an amortised posterior
            from simulations, or a fine scale given the coarse ones. Labels: columns of zeros and ones. Beside batches
            that are pairs (points, conditions): ``"paired"``.
        process: the noise process of the returned score, ``VP()`` by default.
        network: a network to train instead of a residual MLP: an Equinox module (x, log sigma) -> tree like x, with
            conditions (x, log sigma, condition) -> tree like x, such as [`UNet`][scoresample.nn.UNet], or a function
            key -> such a module.
        width: width of the MLP.
        depth: number of its residual blocks.
        parametrisation: what the network stands for: ``"edm"``, ``"velocity"``, ``"noise"`` or ``"score"``, see
            [`PreconditionedDenoiser`][scoresample.nn.PreconditionedDenoiser]; or ``"energy"``, a log density whose
            gradient is the score ([`PreconditionedEnergy`][scoresample.nn.PreconditionedEnergy]).
        loss: ``"denoising"`` score matching; ``"sliced"`` or ``"implicit"``, which take the divergence of the score in
            the place of the noise, by one random direction or exactly.
        weighting: how often each noise level is looked at: ``"uniform"`` in log-SNR; ``"edm"``, log-normal (Karras et
            al. 2022); ``"likelihood"``, by its share in the KL divergence (Song et al. 2021, arXiv 2101.09258);
            ``"learned"``, uniform with each loss divided by a learned estimate of it (Karras et al. 2024, arXiv
            2312.02696).
        penalties: weights of penalties, by name: ``"score-fpe"``, the residual of the score Fokker-Planck equation;
            ``"logdensity-fpe"``, that of the log density, for energies. A step then takes several times as long.
        penalty_points: points of each batch at which penalties are evaluated.
        penalty_probes: random directions for their divergences, 0 for the exact trace; by default exact in up to 16
            dimensions and one direction beyond. Few points with exact traces serve better than many with probes.
        num_members: trains an ensemble of so many networks at once; the score is that of their mean.
        num_epochs: passes over the data, or over a buffer of a stream.
        batch_size: points in a step.
        learning_rate: peak of AdamW's learning rate, after a linear warm-up and before a cosine decay to zero; or a
            schedule, step -> rate.
        gradient_clip: gradients of a larger norm are scaled down to it.
        ema_decay: decay of the exponential average of the weights, per step.
        validation_fraction: held-out share of the data, or of the first buffer.
        patience: stop after this many epochs without a new best held-out loss, or None to run them all.
        keep: which averaged weights the score has: ``"best"``, those with the smallest held-out loss, which end the
            training early where it begins to remember its points; or ``"last"``, those after the last epoch, as where
            nothing was held out: to see what a training without that protection does. Both train alike, so a finished
            `checkpoint` gives the ones and the others.
        augment: what makes more of few data: a function (key, point) -> point, or beside conditions (key, point,
            condition) -> (point, condition), of the same shapes, that is applied to every training point whenever it is
            looked at, as standardised. What is learned is the law of the points so changed: mirror images where the law
            is symmetric, observations of which parts are left out. Held-out points stay as they are.
        sigma_range: noise levels, in standard deviations of the data.
        standardise: what is given zero mean and unit variance: ``"coordinates"``, each by itself; ``"arrays"``, each
            array as a whole (images); ``"none"``.
        standardise_conditions: likewise for conditions; as `standardise` by default. Of a condition something may never
            vary.
        support: bounds of the data, where they have any: a pair (low, high), with None for no bound, a dictionary of
            such pairs by name, or a [`Support`][scoresample.Support]. The score is learned, and sampled, in unbounded
            coordinates; draws show the bounded ones.
        buffer_size: points of a stream that are held in memory at once: an epoch runs over so many.
        checkpoint: a file that keeps the state of the training; if it is there already, the training goes on from it,
            to the same result as without interruption.
        progress: show a progress bar; by default only on a terminal.

    With conditions c the denoiser minimises ``E |D(z + s e, s, c) - z|^2`` over pairs (z, c), so it is ``E[z | z + s e,
    c]`` (Batzolis et al. 2021, arXiv 2111.13606, theorem 1), and a network is told the standardised condition.

    Held out are random points; of chains the last draws of each, since neighbours are alike; of weighted draws random
    ones, before the others are resampled; of a stream its first points.

    Returns:
        A [`PerturbedScore`][scoresample.PerturbedScore] in the data's own (unbounded) coordinates, or for energies a
        [`PerturbedEnergy`][scoresample.PerturbedEnergy]. Its `record` is the
        [`TrainingRecord`][scoresample.paths.TrainingRecord], with the smallest scale of the data: sampling should stop
        at noise of a tenth of it or less, which the lower end of `sigma_range` must allow. Of conditional laws it is
        the scale of what a linear regression on the condition leaves over, or where conditions have more than a tenth
        as many numbers as there are points, of all data: both are too large where the law under one condition is
        narrower still.

    Raises:
        TypeError: if `data` holds no arrays.
        ValueError: if the data or a setting cannot be used, or `checkpoint` belongs to another training; the message
            says why.
        RuntimeError: if the loss becomes non-finite.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> score = ss.fit_score(data, key=jax.random.key(1), num_epochs=2, width=16)
        >>> score(data[0], 0.5).shape
        (2,)
    """
    _check_counts(
        num_epochs=num_epochs,
        batch_size=batch_size,
        width=width,
        depth=depth,
        num_members=num_members,
        penalty_points=penalty_points,
        buffer_size=buffer_size,
        **({} if patience is None else {"patience": patience}),
    )
    _check_numbers(learning_rate, gradient_clip, ema_decay, validation_fraction, sigma_range, penalty_probes)
    for name, value, options in (
        ("parametrisation", parametrisation, Parametrisation),
        ("loss", loss, LossName),
        ("weighting", weighting, Weighting),
        ("standardise", standardise, Standardise),
        ("keep", keep, Keep),
        ("standardise_conditions", standardise_conditions or standardise, Standardise),
    ):
        if value not in get_args(options):
            raise ValueError(f"`{name}` must be one of {list(get_args(options))}, got {value!r}.")
    if conditions is None and standardise_conditions is not None:
        raise ValueError("`standardise_conditions`: there are no `conditions`. Leave it out.")
    checked_penalties = _checked_penalties(penalties, parametrisation)
    if loss != "denoising" and scores is not None:
        raise ValueError(f"`scores` are targets of the denoising loss; the {loss} loss has none. Leave one out.")
    if augment is not None and scores is not None:
        raise ValueError("`augment`: `scores` belong to the points as they are. Leave one out.")
    if parametrisation == "energy" and num_members > 1:
        raise ValueError("`num_members`: ensembles of energies are not supported. Train them one by one.")

    started = time.perf_counter()
    key_data, key_network, key_noise, key_epochs = jax.random.split(key, 4)
    source = Source(
        data, scores, key_data, support, standardise, buffer_size, validation_fraction, conditions,
        standardise_conditions or standardise,
    )  # fmt: skip
    layout = layout_of(source.position)
    condition_layout = None if source.condition is None else layout_of(source.condition)
    if augment is not None:
        check_augment(augment, layout, condition_layout, jnp.asarray(0.0).dtype)
    if penalty_probes is None:
        penalty_probes = 0 if source.first.points.shape[1] <= _EXACT_TRACE_DIMENSIONS else 1
    dtype = jnp.asarray(0.0).dtype
    kept, held_out = (source.first.taken(rows) for rows in (~source.first.held_out, source.first.held_out))
    num_held_out, num_train = len(held_out.points), len(kept.points)
    batch_size = min(batch_size, num_train)
    steps_per_epoch = num_train // batch_size
    low, high = float(np.log(sigma_range[0])), float(np.log(sigma_range[1]))
    settings = Settings(
        batch_size, learning_rate, gradient_clip, ema_decay, low, high, loss, weighting,
        checked_penalties, penalty_points, penalty_probes,
    )  # fmt: skip
    num_steps = jnp.asarray(num_epochs * steps_per_epoch)
    members = None if num_members == 1 else num_members
    told = None if condition_layout is None else condition_layout.size
    denoiser = _new_denoiser(network, layout, told, width, depth, parametrisation, key_network, members)
    weights, static = eqx.partition(VectorDenoiser(denoiser, layout, condition_layout), eqx.is_inexact_array)
    validation = fix_noise(*_on_device(held_out, dtype), key_noise, low, high)
    points, clean_scores, known = _on_device(kept, dtype)
    epochs_per_round = (
        1 if source.streams else _epochs_per_round(num_epochs, num_train, validation.clean.shape[0], patience)
    )

    state = start_members(weights, settings, dtype, members)
    done = Progress(0, [], [], [], 0.0)
    fingerprint = ""
    if checkpoint is not None:
        fingerprint = run_fingerprint(
            key,
            settings,
            source.first,
            weights,
            static,
            num_epochs,
            epochs_per_round,
            num_members,
            patience,
            *([] if augment is None else [_name_of_code(augment)]),
        )
        state, done = load_progress(checkpoint, fingerprint, state, done)
        for _ in range(done.epochs - 1 if source.streams else 0):
            source.more()
    before, written = done.seconds, time.perf_counter()
    epoch_seconds: list[float] = []
    show = sys.stderr.isatty() if progress is None else progress
    bar = tqdm(
        total=num_epochs, initial=done.epochs, desc="fit_score", disable=not show, delay=_SECONDS_BEFORE_SHOWN,
        leave=False,
    )  # fmt: skip
    with bar:
        try:
            while done.epochs < num_epochs and not _out_of_patience(done, patience):
                num = min(epochs_per_round, num_epochs - done.epochs)
                if source.streams and done.epochs > 0:
                    buffer = source.more()
                    if buffer is None:
                        warnings.warn(
                            f"`data`: the iterator ended after {done.epochs} of {num_epochs} epochs, before the "
                            "learning rate came down. Pass a function that opens it anew, as lambda: iter(loader), or "
                            f"num_epochs={done.epochs}.",
                            stacklevel=2,
                        )
                        break
                    points, clean_scores, known = _on_device(buffer, dtype)
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key_epochs, done.epochs + jnp.arange(_MOST_EPOCHS))
                first_step, round_started = jnp.asarray(done.epochs * steps_per_epoch), time.perf_counter()
                after, train, held = run_round(
                    state, static, settings, keys, points, clean_scores, known, validation, first_step, num_steps,
                    jnp.asarray(num), members, augment,
                )  # fmt: skip
                train_losses = np.asarray(train, np.float64)[:num].reshape(num, -1).mean(axis=1)
                epoch_seconds.append((time.perf_counter() - round_started) / num)
                held_out_loss = float(held)
                if not np.isfinite([*train_losses, held_out_loss]).all():
                    epoch = done.epochs + int(np.argmin(np.isfinite(train_losses)))
                    loss_was = train_losses[epoch - done.epochs]
                    raise RuntimeError(
                        f"the training loss became {loss_was} in epoch {epoch + 1} (held-out loss {held_out_loss}). "
                        f"Lower `learning_rate` (now {learning_rate}), or look for extreme outliers in the data."
                    )
                # Both at once: an interruption never sees the one without the other.
                elapsed = before + time.perf_counter() - started
                state, done = after, done.extended(train_losses, held_out_loss, elapsed)
                bar.set_postfix(loss=f"{done.train[-1]:.4f}", held_out=f"{done.held_out[-1]:.4f}", refresh=False)
                bar.update(num)
                if checkpoint is not None and time.perf_counter() - written > _SECONDS_BETWEEN_WRITES:
                    save_progress(checkpoint, fingerprint, state, done)
                    written = time.perf_counter()
        finally:
            if checkpoint is not None and done.epochs:
                save_progress(checkpoint, fingerprint, state, done)

    fitted = eqx.combine(state.best if keep == "best" else state.moving.average, static).inner
    if members is not None:
        fitted = DenoiserEnsemble(fitted, members)
    edges, by_level = _loss_by_level(VectorDenoiser(fitted, layout, condition_layout), validation, low, high)
    record = TrainingRecord(
        train_loss=np.array(done.train),
        validation_loss=np.array(done.held_out),
        validation_epochs=np.array(done.held_out_epochs),
        best_epoch=done.best_epoch if keep == "best" else done.held_out_epochs[-1],
        level_edges=edges,
        loss_by_level=by_level,
        num_train=num_train,
        num_validation=num_held_out,
        num_parameters=parameter_count(fitted),
        seconds=before + time.perf_counter() - started,
        epoch_seconds=float(np.median(epoch_seconds[1:])) if len(epoch_seconds) > 1 else math.nan,
        smallest_scale=smallest_scale(unexplained(source.first.points, source.first.conditions)),
    )
    return _as_score(fitted, source, VP() if process is None else process, sigma_range, record)


def held_out_rows(key: Array, num_points: int, validation_fraction: float = 0.1) -> np.ndarray:
    """Which points of an array `fit_score` holds out under a key, booleans of shape (n,)."""
    return random_rows(gathering_keys(jax.random.split(key, 4)[0])[0], num_points, validation_fraction)


def _new_denoiser(
    network: Any,
    layout: Layout,
    condition_size: int | None,
    width: int,
    depth: int,
    parametrisation: Parametrisation,
    key: Array,
    members: int | None,
) -> PreconditionedDenoiser | PreconditionedEnergy:
    """The denoiser to train; in an ensemble every array has a leading axis."""
    energy = parametrisation == "energy"
    if isinstance(network, eqx.Module) and members is not None:
        raise ValueError(
            "`network`: the members of an ensemble start from weights of their own. Pass a function key -> network."
        )

    def make(key: Array) -> Any:
        if network is None:
            outputs = 1 if energy else None
            return ResidualMLP(
                layout.size, width=width, depth=depth, outputs=outputs, condition_size=condition_size, key=key
            )
        return network if isinstance(network, eqx.Module) else network(key)

    made: Any = make(key) if members is None else eqx.filter_vmap(make)(jax.random.split(key, members))
    if not isinstance(made, eqx.Module) or not callable(made):
        raise ValueError(
            f"`network` must be an Equinox module, or a function of a key that makes one, got {type(made).__name__}."
        )
    return PreconditionedEnergy(made) if energy else PreconditionedDenoiser(made, parametrisation)


def _on_device(points: Points, dtype: Any) -> tuple[Array, Array | None, Array | None]:
    """Points, their scores and their conditions."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (points.points, points.scores, points.conditions))


def _epochs_per_round(num_epochs: int, num_train: int, num_terms: int, patience: int | None) -> int:
    """How many epochs go by between two looks at the held-out loss."""
    affordable = math.ceil(num_terms / (_VALIDATION_SHARE * _STEP_COST * num_train))
    fine_enough = num_epochs // _FEWEST_VALIDATIONS
    if patience is not None:
        fine_enough = min(fine_enough, patience // _LOOKS_OF_PATIENCE)
    return max(1, min(affordable, fine_enough, _MOST_EPOCHS))


def _out_of_patience(done: Progress, patience: int | None) -> bool:
    return patience is not None and done.epochs > 0 and done.epochs - 1 - done.best_epoch >= patience


def _loss_by_level(
    denoiser: VectorDenoiser, validation: Batch, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    losses, log_sigma = np.asarray(validation_losses(denoiser, validation)), np.asarray(validation.log_sigma)
    edges = np.linspace(low, high, _LEVEL_BANDS + 1)
    band = np.clip(np.digitize(log_sigma, edges) - 1, 0, _LEVEL_BANDS - 1)
    return np.exp(edges), np.array([losses[band == k].mean() for k in range(_LEVEL_BANDS)])


def _as_score(
    denoiser: PreconditionedDenoiser | PreconditionedEnergy | DenoiserEnsemble,
    source: Source,
    process: AbstractNoiseProcess,
    sigma_range: tuple[float, float],
    record: TrainingRecord,
) -> PerturbedScore | PerturbedEnergy:
    frame, told = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(0.0).dtype), (source.frame, source.condition_frame))
    common: dict[str, Any] = {
        "structure": source.position,
        "log_snr_range": (-float(np.log(sigma_range[1])), -float(np.log(sigma_range[0]))),
        "location": frame.location,
        "scale": frame.scale,
        "constrain": source.constrain,
        "record": record,
    }
    if told is not None:
        common |= {"condition": source.condition, "condition_location": told.location, "condition_scale": told.scale}
    if isinstance(denoiser, PreconditionedEnergy):
        return PerturbedEnergy(denoiser.logdensity, process, **common)
    return PerturbedScore(denoiser, process, prediction="denoised", time="sigma", **common)


def _checked_penalties(
    penalties: Mapping[PenaltyName, float] | None, parametrisation: Parametrisation
) -> tuple[tuple[PenaltyName, float], ...]:
    checked = tuple(sorted((penalties or {}).items()))
    for name, weight in checked:
        if name not in get_args(PenaltyName):
            raise ValueError(f"`penalties`: names are {list(get_args(PenaltyName))}, got {name!r}.")
        if not 0 <= weight < math.inf:
            raise ValueError(f"`penalties`: the weight of {name} must not be negative, got {weight}.")
        if name == "logdensity-fpe" and parametrisation != "energy":
            raise ValueError(
                f'`penalties`: logdensity-fpe needs a log density: set parametrisation="energy" (now '
                f"{parametrisation!r}), or use score-fpe."
            )
    return checked


def _name_of_code(augment: Augment) -> str:
    """Enough to tell one augmentation from another."""
    return f"{getattr(augment, '__module__', '')}.{getattr(augment, '__qualname__', type(augment).__qualname__)}"


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")


def _check_numbers(
    learning_rate: LearningRate,
    gradient_clip: float,
    ema_decay: float,
    validation_fraction: float,
    sigma_range: tuple[float, float],
    penalty_probes: int | None,
) -> None:
    rates = {"gradient_clip": gradient_clip} | ({} if callable(learning_rate) else {"learning_rate": learning_rate})
    for name, value in rates.items():
        if not 0 < value < math.inf:
            raise ValueError(f"`{name}` must be positive, got {value}.")
    for name, value in (("ema_decay", ema_decay), ("validation_fraction", validation_fraction)):
        if not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")
    if not 0 < sigma_range[0] < sigma_range[1] < math.inf:
        raise ValueError(f"`sigma_range` must be two increasing positive numbers, got {sigma_range}.")
    if penalty_probes is not None and penalty_probes < 0:
        raise ValueError(f"`penalty_probes` must be at least 0, got {penalty_probes}.")
