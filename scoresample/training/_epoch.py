"""Rounds of epochs, compiled once for all networks and data of the same shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from scoresample.training._layout import VectorDenoiser
from scoresample.training._levels import Weighting, stratified_log_sigma
from scoresample.training._loss import LossName, denoising_loss, implicit_loss
from scoresample.training._penalties import PenaltyName, logdensity_fpe_penalty, score_fpe_penalty

_WEIGHT_DECAY = 1e-4
_WARMUP_FRACTION = 0.05
_FEWEST_VALIDATION_TERMS = 4096
"""Held-out points are noised often enough to have at least this many terms in the validation loss."""
_LEVEL_KNOTS = 33
"""Where the logarithm of the loss is learned, over the range of noise levels."""
_LOSS_STREAM, _PENALTY_STREAM, _AUGMENT_STREAM = 2, 3, 4
"""What is folded into a step's key for these three; two keys are split from it for the noise."""

LearningRate = float | Callable[[Any], Any]
Augment = Callable[..., Any]


class Settings(NamedTuple):
    """What an epoch is compiled for.

    Attributes:
        batch_size: points in a step.
        learning_rate: peak of the default schedule, or a schedule of the user's own.
        gradient_clip: largest norm of a gradient.
        ema_decay: decay of the average of the weights.
        log_sigma_low: the least noise.
        log_sigma_high: the most noise.
        loss: the loss.
        weighting: how often each noise level is looked at.
        penalties: names and weights of the penalties.
        penalty_points: points of each batch at which penalties are evaluated.
        penalty_probes: directions for their divergences.
    """

    batch_size: int
    learning_rate: LearningRate
    gradient_clip: float
    ema_decay: float
    log_sigma_low: float
    log_sigma_high: float
    loss: LossName
    weighting: Weighting
    penalties: tuple[tuple[PenaltyName, float], ...]
    penalty_points: int
    penalty_probes: int

    def optimiser(self, num_steps: Array | int) -> optax.GradientTransformation:
        """AdamW with clipped gradients; by default a linear warm-up and a cosine decay to zero at `num_steps`.

        The number of steps may be traced: longer trainings do not compile again.
        """
        rate = self.learning_rate
        return optax.chain(
            optax.clip_by_global_norm(self.gradient_clip),
            optax.adamw(rate if callable(rate) else _schedule(rate, num_steps), weight_decay=_WEIGHT_DECAY),
        )


def _schedule(peak: float, num_steps: Array | int) -> Callable[[Any], Array]:
    num_warmup = jnp.maximum(jnp.floor(_WARMUP_FRACTION * jnp.asarray(num_steps)), 1)

    def rate(step: Any) -> Array:
        rising = step / num_warmup
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (step - num_warmup) / jnp.maximum(num_steps - num_warmup, 1)))
        return peak * jnp.where(step < num_warmup, rising, falling)

    return rate


class Trainable(NamedTuple):
    """What is trained: the denoiser's arrays and, where weights of the levels are learned, their log losses."""

    weights: Any
    log_losses: Array | None


class Moving(NamedTuple):
    """What every step changes."""

    trainable: Trainable
    optimiser: Any
    average: Any


class Training(NamedTuple):
    """What changes from epoch to epoch; for ensembles every array but the loss has a leading axis of members."""

    moving: Moving
    best: Any
    best_loss: Array


class Batch(NamedTuple):
    """Clean points with their noise and its levels, and what belongs to each where the law is conditional."""

    clean: Array
    clean_score: Array | None
    noise: Array
    log_sigma: Array
    condition: Array | None


def _start(weights: Any, settings: Settings, dtype: Any) -> Moving:
    log_losses = jnp.zeros(_LEVEL_KNOTS, dtype) if settings.weighting == "learned" else None
    trainable: Any = Trainable(weights, log_losses)
    return Moving(trainable, settings.optimiser(1).init(trainable), weights)


@eqx.filter_jit
def start_members(weights: Any, settings: Settings, dtype: Any, num_members: int | None) -> Training:
    """The state before the first epoch of one network, or of several whose arrays have a leading axis."""

    def one(weights: Any) -> Moving:
        return _start(weights, settings, dtype)

    moving = one(weights) if num_members is None else jax.vmap(one)(weights)
    return Training(moving, weights, jnp.asarray(jnp.inf, dtype))


@eqx.filter_jit
def run_round(
    state: Training,
    static: Any,
    settings: Settings,
    keys: Array,
    points: Array,
    clean_scores: Array | None,
    conditions: Array | None,
    validation: Batch,
    first_step: Array,
    num_steps: Array,
    num_epochs: Array,
    num_members: int | None = None,
    augment: Augment | None = None,
) -> tuple[Training, Array, Array]:
    """Some epochs, each all batches of one pass over the points, then the held-out loss of the averaged weights.

    Arguments:
        state: where the training stands.
        static: the part of the denoiser of vectors that is not trained, as `equinox.partition` leaves it.
        settings: the settings.
        keys: random keys of these epochs, and of as many more as rounds can have.
        points: the data, (n, d).
        clean_scores: the clean density's score at them, or None.
        conditions: what belongs to each, (n, m), or None.
        validation: held-out points.
        first_step: number of optimiser steps before.
        num_steps: number of optimiser steps of the whole training.
        num_epochs: number of these epochs; traced, so that rounds of any length share one compilation.
        num_members: size of the ensemble, whose members have orders and noises of their own; None for one network.
        augment: what changes every point of a step, see `fit_score`, or None.

    Returns:
        The new state, the mean training loss of each epoch (and member), with zeros up to the number of keys, and the
        held-out loss, in an ensemble its mean: all members keep the weights of one epoch.
    """

    def one(moving: Moving, keys: Array) -> tuple[Moving, Array, Array]:
        return _one_round(
            moving, static, settings, keys, points, clean_scores, conditions, validation, first_step, num_steps,
            num_epochs, augment,
        )  # fmt: skip

    if num_members is None:
        moving, train_losses, held_out = one(state.moving, keys)
    else:
        members = jax.vmap(lambda key: jax.random.split(key, num_members), out_axes=0)(keys)
        moving, train_losses, each = jax.vmap(one, in_axes=(0, 1), out_axes=(0, 1, 0))(state.moving, members)
        held_out = each.mean()
    better = held_out < state.best_loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), moving.average, state.best)
    return Training(moving, best, jnp.where(better, held_out, state.best_loss)), train_losses, held_out


def _one_round(
    moving: Moving,
    static: Any,
    settings: Settings,
    keys: Array,
    points: Array,
    clean_scores: Array | None,
    conditions: Array | None,
    validation: Batch,
    first_step: Array,
    num_steps: Array,
    num_epochs: Array,
    augment: Augment | None,
) -> tuple[Moving, Array, Array]:
    optimiser, batch_size = settings.optimiser(num_steps), settings.batch_size
    num_batches = points.shape[0] // batch_size

    def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
        trainable, optimiser_state, average = carry
        indices, key, number = inputs
        key_sigma, key_noise = jax.random.split(key)
        clean, clean_score, condition = jax.tree.map(lambda x: x[indices], (points, clean_scores, conditions))
        if augment is not None:
            keys = jax.random.split(jax.random.fold_in(key, _AUGMENT_STREAM), batch_size)
            clean, condition = jax.vmap(static.augmented, (None, 0, 0, 0))(augment, keys, clean, condition)
        noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
        low, high = settings.log_sigma_low, settings.log_sigma_high
        log_sigma = stratified_log_sigma(key_sigma, batch_size, low, high, clean.dtype, settings.weighting)
        batch = Batch(clean, clean_score, noise, log_sigma, condition)

        def objective(trainable: Trainable) -> tuple[Array, Array]:
            denoiser = eqx.combine(trainable.weights, static)
            losses = _losses(denoiser, batch, settings.loss, key)
            total = losses.mean()
            if trainable.log_losses is not None:
                knots = jnp.linspace(low, high, _LEVEL_KNOTS, dtype=clean.dtype)
                log_loss = jnp.interp(log_sigma, knots, trainable.log_losses)
                total = jnp.mean(losses * jnp.exp(-log_loss) + log_loss)
            for name, weight in settings.penalties:
                total = total + weight * _penalty(denoiser, name, batch, settings, key)
            return total, losses.mean()

        (_, value), gradient = jax.value_and_grad(objective, has_aux=True)(trainable)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, trainable)
        trainable: Any = optax.apply_updates(trainable, updates)
        # A young average follows the weights: decay (1 + n)/(10 + n) until it reaches ema_decay.
        decay = jnp.minimum(settings.ema_decay, (1 + number) / (10 + number)).astype(clean.dtype)
        average = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, trainable.weights)
        return (trainable, optimiser_state, average), value

    def epoch(number: Array, carry: Any) -> Any:
        carry, train_losses = carry
        key_order, key_steps = jax.random.split(keys[number])
        order = jax.random.permutation(key_order, points.shape[0])[: num_batches * batch_size]
        steps = (
            order.reshape(num_batches, batch_size),
            jax.random.split(key_steps, num_batches),
            first_step + number * num_batches + jnp.arange(num_batches),
        )
        carry, losses = jax.lax.scan(step, carry, steps)
        return carry, train_losses.at[number].set(losses.mean())

    before = tuple(moving), jnp.zeros(keys.shape[0], points.dtype)
    (trainable, optimiser_state, average), train_losses = jax.lax.fori_loop(0, num_epochs, epoch, before)
    held_out = _losses(eqx.combine(average, static), validation, "denoising", None).mean()
    return Moving(trainable, optimiser_state, average), train_losses, held_out


@eqx.filter_jit
def fix_noise(
    points: Array, clean_scores: Array | None, conditions: Array | None, key: Array, low: float, high: float
) -> Batch:
    """Held-out points, repeated, with noise and stratified levels that stay the same in all epochs.

    The levels are uniform in log sigma whatever the weighting, so held-out losses of all trainings compare.
    """
    repeats = -(-_FEWEST_VALIDATION_TERMS // points.shape[0])
    repeated = jax.tree.map(lambda x: jnp.tile(x, (repeats, 1)), (points, clean_scores, conditions))
    clean, clean_score, condition = repeated
    key_sigma, key_noise = jax.random.split(key)
    noise = jax.random.normal(key_noise, clean.shape, clean.dtype)
    log_sigma = stratified_log_sigma(key_sigma, clean.shape[0], low, high, clean.dtype)
    return Batch(clean, clean_score, noise, log_sigma, condition)


@eqx.filter_jit
def validation_losses(denoiser: VectorDenoiser, validation: Batch) -> Array:
    """The denoising loss of every held-out term."""
    return _losses(denoiser, validation, "denoising", None)


def _losses(denoiser: VectorDenoiser, batch: Batch, loss: LossName, key: Array | None) -> Array:
    if loss == "denoising":

        def one(z: Array, g: Array | None, e: Array, u: Array, c: Array | None) -> Array:
            return denoising_loss(denoiser.given(c), z, g, e, jnp.exp(u))

        return jax.vmap(one)(*batch)
    assert key is not None
    key = jax.random.fold_in(key, _LOSS_STREAM)
    probes = None if loss == "implicit" else jax.random.rademacher(key, batch.clean.shape, batch.clean.dtype)

    def other(z: Array, e: Array, u: Array, c: Array | None, probe: Array | None) -> Array:
        return implicit_loss(denoiser.given(c), z + jnp.exp(u) * e, jnp.exp(u), probe)

    return jax.vmap(other)(batch.clean, batch.noise, batch.log_sigma, batch.condition, probes)


def _penalty(denoiser: VectorDenoiser, name: PenaltyName, batch: Batch, settings: Settings, key: Array) -> Array:
    penalty = {"score-fpe": score_fpe_penalty, "logdensity-fpe": logdensity_fpe_penalty}[name]
    num = min(settings.penalty_points, batch.clean.shape[0])
    parts: Any = (batch.clean, batch.noise, batch.log_sigma, batch.condition)
    clean, noise, log_sigma, condition = jax.tree.map(lambda x: x[:num], parts)
    keys = jax.random.split(jax.random.fold_in(key, _PENALTY_STREAM), num)

    def one(z: Array, e: Array, u: Array, c: Array | None, key: Array) -> Array:
        return penalty(denoiser.given(c), z + jnp.exp(u) * e, u, key, settings.penalty_probes)

    return jax.vmap(one)(clean, noise, log_sigma, condition, keys).mean()
