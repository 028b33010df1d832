"""Learning a perturbed score from draws."""

import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from scoresample.nn import PreconditionedDenoiser, ResidualMLP, parameter_count
from scoresample.paths import VP, AbstractNoiseProcess, PerturbedScore
from scoresample.training._data import TrainingData, prepare
from scoresample.training._epoch import Schedule, Validation, fix_noise, run_epoch, start_training, validation_losses
from scoresample.training._record import TrainingRecord

_LEVEL_BANDS = 8
_SECONDS_BEFORE_SHOWN = 2.0


def fit_score(
    data: Any,
    *,
    key: Array,
    scores: Any = None,
    process: AbstractNoiseProcess | None = None,
    network: Callable[[Array, Array], Array] | None = None,
    width: int = 128,
    depth: int = 3,
    num_epochs: int = 300,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.999,
    validation_fraction: float = 0.1,
    patience: int | None = 100,
    sigma_range: tuple[float, float] = (0.005, 20.0),
    progress: bool | None = None,
) -> PerturbedScore:
    """Learn the score of noised data by denoising score matching.

    Data are standardised; a denoiser learns ``E[z | z + s e]`` for noise levels s uniform in log s; the weights are
    averaged over steps, and the average with the smallest held-out loss is kept. The denoiser serves any noise process.

    Arguments:
        data: an array (n, ...), a tree of arrays with one leading axis, or a sampler's `Draws`, whose `constrain` the
            score inherits. Weighted draws are resampled. Use draws that were *not* the ones you will compare with.
        key: random key.
        scores: the score of the target's own density at every draw, shaped like the data, where it is known: the
            training targets then vary much less (target score matching). Not for densities with hard edges.
        process: the noise process of the returned score, ``VP()`` by default.
        network: a map (vector, log sigma) -> vector of the same length to train instead of a residual MLP.
        width: width of the MLP.
        depth: number of its residual blocks.
        num_epochs: passes over the data.
        batch_size: points in a step.
        learning_rate: peak of AdamW's learning rate, after a linear warm-up and before a cosine decay to zero.
        ema_decay: decay of the exponential average of the weights, per step.
        validation_fraction: held-out share of the data.
        patience: stop after this many epochs without a new best held-out loss, or None to run them all.
        sigma_range: noise levels, in standard deviations of the data.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        A [`PerturbedScore`][scoresample.PerturbedScore] in the data's own coordinates. Its `record` is the
        [`TrainingRecord`][scoresample.training.TrainingRecord].

    Raises:
        TypeError: if `data` holds no arrays.
        ValueError: if the data or a setting cannot be used; the message says why.
        RuntimeError: if the loss becomes non-finite.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> score = ss.fit_score(data, key=jax.random.key(1), num_epochs=2, width=16)
        >>> score(data[0], 0.5).shape
        (2,)
    """
    _check_settings(
        num_epochs, batch_size, width, depth, learning_rate, ema_decay, validation_fraction, patience, sigma_range
    )
    started = time.perf_counter()
    key_data, key_network, key_split, key_noise, key_epochs = jax.random.split(key, 5)
    prepared = prepare(data, scores, key_data)
    dimension = prepared.points.shape[1]
    if network is None:
        network = ResidualMLP(dimension, width=width, depth=depth, key=key_network)
    denoiser = PreconditionedDenoiser(network)
    order = jax.random.permutation(key_split, prepared.points.shape[0])
    num_validation = max(int(validation_fraction * prepared.points.shape[0]), 10)
    held_out, kept = order[:num_validation], order[num_validation:]
    batch_size = min(batch_size, len(kept))
    steps_per_epoch = len(kept) // batch_size
    low, high = float(np.log(sigma_range[0])), float(np.log(sigma_range[1]))
    schedule = Schedule(num_epochs * steps_per_epoch, batch_size, learning_rate, ema_decay, low, high)
    (points, clean_scores), (points_out, scores_out) = (
        jax.tree.map(lambda x, rows=rows: x[rows], (prepared.points, prepared.scores)) for rows in (kept, held_out)
    )
    validation = fix_noise(points_out, scores_out, key_noise, schedule)
    weights, static = eqx.partition(denoiser, eqx.is_inexact_array)
    state = start_training(weights, schedule, points.dtype)

    train_losses, held_out_losses, best_epoch = [], [], 0
    show = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=num_epochs, desc="fit_score", disable=not show, delay=_SECONDS_BEFORE_SHOWN, leave=False) as bar:
        for epoch in range(num_epochs):
            key_epoch, first_step = jax.random.fold_in(key_epochs, epoch), jnp.asarray(epoch * steps_per_epoch)
            state, loss, held_out = run_epoch(
                state, static, schedule, key_epoch, points, clean_scores, validation, first_step
            )
            train_losses.append(float(loss))
            held_out_losses.append(float(held_out))
            if not np.isfinite(train_losses[-1]):
                raise RuntimeError(
                    f"the training loss became {train_losses[-1]} in epoch {epoch + 1}. Lower `learning_rate` "
                    f"(now {learning_rate}), or look for extreme outliers in the data."
                )
            if held_out_losses[-1] <= min(held_out_losses):
                best_epoch = epoch
            bar.set_postfix(loss=f"{train_losses[-1]:.4f}", held_out=f"{held_out_losses[-1]:.4f}", refresh=False)
            bar.update()
            if patience is not None and epoch - best_epoch >= patience:
                break

    fitted = eqx.combine(state.best, static)
    edges, by_level = _loss_by_level(fitted, validation, low, high)
    record = TrainingRecord(
        train_loss=np.array(train_losses),
        validation_loss=np.array(held_out_losses),
        best_epoch=best_epoch,
        level_edges=edges,
        loss_by_level=by_level,
        num_train=points.shape[0],
        num_validation=num_validation,
        num_parameters=parameter_count(fitted),
        seconds=time.perf_counter() - started,
    )
    return _as_score(fitted, prepared, VP() if process is None else process, sigma_range, record)


def _loss_by_level(
    denoiser: PreconditionedDenoiser, validation: Validation, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    losses, log_sigma = np.asarray(validation_losses(denoiser, validation)), np.asarray(validation.log_sigma)
    edges = np.linspace(low, high, _LEVEL_BANDS + 1)
    band = np.clip(np.digitize(log_sigma, edges) - 1, 0, _LEVEL_BANDS - 1)
    return np.exp(edges), np.array([losses[band == k].mean() for k in range(_LEVEL_BANDS)])


def _as_score(
    denoiser: PreconditionedDenoiser,
    prepared: TrainingData,
    process: AbstractNoiseProcess,
    sigma_range: tuple[float, float],
    record: TrainingRecord,
) -> PerturbedScore:
    return PerturbedScore(
        denoiser,
        process,
        structure=prepared.position,
        prediction="denoised",
        time="sigma",
        log_snr_range=(-float(np.log(sigma_range[1])), -float(np.log(sigma_range[0]))),
        location=prepared.location,
        scale=prepared.scale,
        constrain=prepared.constrain,
        record=record,
    )


def _check_settings(
    num_epochs: int,
    batch_size: int,
    width: int,
    depth: int,
    learning_rate: float,
    ema_decay: float,
    validation_fraction: float,
    patience: int | None,
    sigma_range: tuple[float, float],
) -> None:
    counts = {"num_epochs": num_epochs, "batch_size": batch_size, "width": width, "depth": depth}
    for name, value in (counts | ({} if patience is None else {"patience": patience})).items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"`learning_rate` must be positive, got {learning_rate}.")
    for name, value in (("ema_decay", ema_decay), ("validation_fraction", validation_fraction)):
        if not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")
    if not 0 < sigma_range[0] < sigma_range[1] < float("inf"):
        raise ValueError(f"`sigma_range` must be two increasing positive numbers, got {sigma_range}.")
