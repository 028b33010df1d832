"""Learning a perturbed score from draws."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from tqdm import tqdm

from scoresample.nn import PreconditionedDenoiser, ResidualMLP, parameter_count
from scoresample.paths import VP, AbstractNoiseProcess, PerturbedScore
from scoresample.training._data import TrainingData, prepare
from scoresample.training._loss import denoising_loss, stratified_log_sigma
from scoresample.training._record import TrainingRecord

_CLIP_NORM = 5.0
_WEIGHT_DECAY = 1e-4
_WARMUP_FRACTION = 0.05
_FEWEST_VALIDATION_TERMS = 4096
"""Held-out points are noised often enough to have at least this many terms in the validation loss."""
_LEVEL_BANDS = 8
_SECONDS_BEFORE_SHOWN = 2.0


class _Training(NamedTuple):
    """What changes from epoch to epoch."""

    weights: Any
    optimiser: Any
    average: Any
    best: Any
    best_loss: Array


class _Validation(NamedTuple):
    """Held-out points with their fixed noise."""

    clean: Array
    clean_score: Array | None
    noise: Array
    log_sigma: Array


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
    low, high = float(np.log(sigma_range[0])), float(np.log(sigma_range[1]))

    order = jax.random.permutation(key_split, prepared.points.shape[0])
    num_validation = max(int(validation_fraction * prepared.points.shape[0]), 10)
    held_out, kept = order[:num_validation], order[num_validation:]
    points, clean_scores = prepared.points, prepared.scores
    validation = _fix_noise(
        points[held_out], None if clean_scores is None else clean_scores[held_out], key_noise, low, high
    )
    points, clean_scores = points[kept], None if clean_scores is None else clean_scores[kept]
    batch_size = min(batch_size, points.shape[0])

    num_steps = num_epochs * (points.shape[0] // batch_size)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(int(_WARMUP_FRACTION * num_steps), 1), max(num_steps, 2)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(_CLIP_NORM), optax.adamw(schedule, weight_decay=_WEIGHT_DECAY))
    weights, static = eqx.partition(denoiser, eqx.is_inexact_array)
    state = _Training(weights, optimiser.init(weights), weights, weights, jnp.asarray(jnp.inf, points.dtype))

    @eqx.filter_jit
    def run_epoch(
        state: _Training,
        key: Array,
        points: Array,
        clean_scores: Array | None,
        validation: _Validation,
        first_step: Array,
    ) -> tuple[_Training, Array, Array]:
        key_order, key_steps = jax.random.split(key)
        num_batches = points.shape[0] // batch_size
        order = jax.random.permutation(key_order, points.shape[0])[: num_batches * batch_size]

        def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
            weights, optimiser_state, average = carry
            indices, key, number = inputs
            key_sigma, key_noise = jax.random.split(key)
            clean, clean_score = jax.tree.map(lambda x: x[indices], (points, clean_scores))
            noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
            log_sigma = stratified_log_sigma(key_sigma, batch_size, low, high, clean.dtype)

            def loss(weights: Any) -> Array:
                return _mean_loss(eqx.combine(weights, static), clean, clean_score, noise, log_sigma)

            value, gradient = jax.value_and_grad(loss)(weights)
            updates, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
            weights = optax.apply_updates(weights, updates)
            # A young average follows the weights: decay (1 + n)/(10 + n) until it reaches ema_decay.
            decay = jnp.minimum(ema_decay, (1 + number) / (10 + number)).astype(clean.dtype)
            average = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, weights)
            return (weights, optimiser_state, average), value

        inputs = (
            order.reshape(num_batches, batch_size),
            jax.random.split(key_steps, num_batches),
            first_step + jnp.arange(num_batches),
        )
        (weights, optimiser_state, average), losses = jax.lax.scan(
            step, (state.weights, state.optimiser, state.average), inputs
        )
        held_out = _mean_loss(eqx.combine(average, static), *validation)
        better = held_out < state.best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), average, state.best)
        best_loss = jnp.where(better, held_out, state.best_loss)
        return _Training(weights, optimiser_state, average, best, best_loss), losses.mean(), held_out

    train_losses, held_out_losses, best_epoch = [], [], 0
    show = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=num_epochs, desc="fit_score", disable=not show, delay=_SECONDS_BEFORE_SHOWN, leave=False) as bar:
        for epoch in range(num_epochs):
            first_step = jnp.asarray(epoch * (points.shape[0] // batch_size))
            state, loss, held_out = run_epoch(
                state, jax.random.fold_in(key_epochs, epoch), points, clean_scores, validation, first_step
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


def _each_loss(denoiser: Any, clean: Array, clean_score: Array | None, noise: Array, log_sigma: Array) -> Array:
    def one(z: Array, g: Array | None, e: Array, u: Array) -> Array:
        return denoising_loss(denoiser, z, g, e, jnp.exp(u))

    return jax.vmap(one)(clean, clean_score, noise, log_sigma)


def _mean_loss(denoiser: Any, clean: Array, clean_score: Array | None, noise: Array, log_sigma: Array) -> Array:
    return jnp.mean(_each_loss(denoiser, clean, clean_score, noise, log_sigma))


def _fix_noise(points: Array, clean_scores: Array | None, key: Array, low: float, high: float) -> _Validation:
    """Held-out points, repeated, with noise and stratified levels that stay the same in all epochs."""
    repeats = -(-_FEWEST_VALIDATION_TERMS // points.shape[0])
    clean, clean_score = jax.tree.map(lambda x: jnp.tile(x, (repeats, 1)), (points, clean_scores))
    key_sigma, key_noise = jax.random.split(key)
    noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
    return _Validation(
        clean, clean_score, noise, stratified_log_sigma(key_sigma, clean.shape[0], low, high, clean.dtype)
    )


@eqx.filter_jit
def _losses(denoiser: Any, validation: _Validation) -> Array:
    return _each_loss(denoiser, *validation)


def _loss_by_level(
    denoiser: PreconditionedDenoiser, validation: _Validation, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    losses, log_sigma = np.asarray(_losses(denoiser, validation)), np.asarray(validation.log_sigma)
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
