"""One epoch of denoising score matching, compiled once for all networks and data of the same shapes."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from scoresample.training._loss import denoising_loss, stratified_log_sigma

_CLIP_NORM = 5.0
_WEIGHT_DECAY = 1e-4
_WARMUP_FRACTION = 0.05
_FEWEST_VALIDATION_TERMS = 4096
"""Held-out points are noised often enough to have at least this many terms in the validation loss."""


class Schedule(NamedTuple):
    """The numbers an epoch is compiled for."""

    num_steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    log_sigma_low: float
    log_sigma_high: float

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW with clipped gradients, a linear warm-up and a cosine decay to zero."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, max(int(_WARMUP_FRACTION * self.num_steps), 1), max(self.num_steps, 2)
        )
        return optax.chain(optax.clip_by_global_norm(_CLIP_NORM), optax.adamw(rate, weight_decay=_WEIGHT_DECAY))


class Training(NamedTuple):
    """What changes from epoch to epoch."""

    weights: Any
    optimiser: Any
    average: Any
    best: Any
    best_loss: Array


class Validation(NamedTuple):
    """Held-out points with their fixed noise."""

    clean: Array
    clean_score: Array | None
    noise: Array
    log_sigma: Array


@eqx.filter_jit
def start_training(weights: Any, schedule: Schedule, dtype: Any) -> Training:
    """The state before the first epoch."""
    return Training(weights, schedule.optimiser().init(weights), weights, weights, jnp.asarray(jnp.inf, dtype))


@eqx.filter_jit
def run_epoch(
    state: Training,
    static: Any,
    schedule: Schedule,
    key: Array,
    points: Array,
    clean_scores: Array | None,
    validation: Validation,
    first_step: Array,
) -> tuple[Training, Array, Array]:
    """All batches of one pass over the points, then the held-out loss of the averaged weights.

    Arguments:
        state: where the training stands.
        static: the part of the denoiser that is not trained, as `equinox.partition` leaves it.
        schedule: the settings.
        key: random key of this epoch.
        points: the data, (n, d).
        clean_scores: the clean density's score at them, or None.
        validation: held-out points.
        first_step: number of optimiser steps before this epoch.

    Returns:
        The new state, the mean training loss and the held-out loss.
    """
    optimiser, batch_size = schedule.optimiser(), schedule.batch_size
    key_order, key_steps = jax.random.split(key)
    num_batches = points.shape[0] // batch_size
    order = jax.random.permutation(key_order, points.shape[0])[: num_batches * batch_size]

    def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
        weights, optimiser_state, average = carry
        indices, key, number = inputs
        key_sigma, key_noise = jax.random.split(key)
        clean, clean_score = jax.tree.map(lambda x: x[indices], (points, clean_scores))
        noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
        log_sigma = stratified_log_sigma(
            key_sigma, batch_size, schedule.log_sigma_low, schedule.log_sigma_high, clean.dtype
        )

        def loss(weights: Any) -> Array:
            return _each_loss(eqx.combine(weights, static), clean, clean_score, noise, log_sigma).mean()

        value, gradient = jax.value_and_grad(loss)(weights)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
        weights = optax.apply_updates(weights, updates)
        # A young average follows the weights: decay (1 + n)/(10 + n) until it reaches ema_decay.
        decay = jnp.minimum(schedule.ema_decay, (1 + number) / (10 + number)).astype(clean.dtype)
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
    held_out = _each_loss(eqx.combine(average, static), *validation).mean()
    better = held_out < state.best_loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), average, state.best)
    best_loss = jnp.where(better, held_out, state.best_loss)
    return Training(weights, optimiser_state, average, best, best_loss), losses.mean(), held_out


@eqx.filter_jit
def fix_noise(points: Array, clean_scores: Array | None, key: Array, schedule: Schedule) -> Validation:
    """Held-out points, repeated, with noise and stratified levels that stay the same in all epochs."""
    repeats = -(-_FEWEST_VALIDATION_TERMS // points.shape[0])
    clean, clean_score = jax.tree.map(lambda x: jnp.tile(x, (repeats, 1)), (points, clean_scores))
    key_sigma, key_noise = jax.random.split(key)
    noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
    log_sigma = stratified_log_sigma(
        key_sigma, clean.shape[0], schedule.log_sigma_low, schedule.log_sigma_high, clean.dtype
    )
    return Validation(clean, clean_score, noise, log_sigma)


@eqx.filter_jit
def validation_losses(denoiser: Any, validation: Validation) -> Array:
    """The loss of every held-out term."""
    return _each_loss(denoiser, *validation)


def _each_loss(denoiser: Any, clean: Array, clean_score: Array | None, noise: Array, log_sigma: Array) -> Array:
    def one(z: Array, g: Array | None, e: Array, u: Array) -> Array:
        return denoising_loss(denoiser, z, g, e, jnp.exp(u))

    return jax.vmap(one)(clean, clean_score, noise, log_sigma)
