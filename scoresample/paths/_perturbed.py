"""Perturbed scores: the scores of data with Gaussian noise added, from any network."""

import abc
from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array

from scoresample.paths._base import AbstractScorePath, as_time
from scoresample.paths._conditioning import (
    Condition,
    ConditionalPath,
    Conditioning,
    condition_like,
    conditioning_axes,
    given,
    given_condition,
    make_conditioning,
)
from scoresample.paths._frame import Frame, make_frame
from scoresample.paths._process import AbstractNoiseProcess, check_process
from scoresample.paths._record import recorded_scale
from scoresample.scores import (
    Constrain,
    Position,
    Structure,
    named_sites,
    structure_of,
)

Prediction = Literal["score", "noise", "denoised", "velocity"]
"""What a network returns."""

TimeInput = Literal["t", "sigma", "log_snr", "index"]
"""What a network takes as its second argument."""

_DEFAULT_SIGMA_MIN = 2e-3
"""The end of sampling for scores whose smallest scale is not known, in units of the data's scale."""

_MOST_INITIAL_SCALES = 20.0
"""Sampling starts where sigma/alpha is at most this many data standard deviations."""


class AbstractPerturbedScore(AbstractScorePath):
    """The score of data noised by a process: ``z_t = alpha(t) z_0 + sigma(t) noise`` in standard coordinates.

    Attributes:
        process: the noise process.
        log_snr_range: (lowest, highest) log(alpha/sigma) at which the score is valid, an array of two.
    """

    process: AbstractVar[AbstractNoiseProcess]
    log_snr_range: AbstractVar[Array]

    @abc.abstractmethod
    def data_moments(self) -> tuple[Position, Position]:
        """The mean and the coordinates' variances of the data in standard coordinates (0 and 1 where unknown)."""

    @abc.abstractmethod
    def smallest_scale(self) -> Array | None:
        """The smallest standard deviation of the data in standard coordinates, in any direction and any mode, if known.

        Sampling should stop where the noise is at most a tenth of it. Read on the host, from a concrete path.
        """

    def lipschitz(self, t: Array) -> Array:
        """``1/sigma(t)^2``, the curvature of the noise."""
        return 1 / self.process.variance(t)

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        """Draws from the Gaussian with the moments of the noised data, in standard coordinates."""
        t = as_time(t, self.structure)
        alpha, noise_variance = self.process.alpha(t), self.process.variance(t)
        leaves, tree = jax.tree.flatten(self.structure)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))

        def draw(key: Array, leaf: jax.ShapeDtypeStruct, mean: Array, variance: Array) -> Array:
            noise = jax.random.normal(key, (num_particles, *leaf.shape), leaf.dtype)
            scale = jnp.sqrt(alpha**2 * variance + noise_variance).astype(leaf.dtype)
            return (alpha * mean).astype(leaf.dtype) + scale * noise

        return jax.tree.map(draw, keys, self.structure, *self.data_moments())

    def reference_logdensity(self, z: Position, t: Array | float = 1.0) -> Array:
        """The log density of the reference at one point in standard coordinates, a scalar; see `sample_reference`."""
        t = as_time(t, z)
        alpha, noise_variance = self.process.alpha(t), self.process.variance(t)

        def logs(x: Array, mean: Array, variance: Array) -> Array:
            total = (alpha**2 * variance + noise_variance).astype(x.dtype)
            square = (x - (alpha * mean).astype(x.dtype)) ** 2 / total
            return -0.5 * jnp.sum(square + jnp.log(2 * np.pi * total).astype(x.dtype))

        return jax.tree.reduce(jnp.add, jax.tree.map(logs, z, *self.data_moments()))

    def standard_denoise(self, z: Position, t: Array) -> Position:
        """The posterior mean of the clean point given the noised one, in standard coordinates (Tweedie's formula)."""
        return tweedie(z, self.standard_score(z, t), self.process.alpha(t), self.process.variance(t))

    def denoise(self, position: Position, t: Array | float) -> Position:
        """``E[x_0 | x_t = position]``: ``(z + sigma^2 s)/alpha`` in standard coordinates (Robbins 1956; Efron 2011)."""
        t = as_time(t, position)
        return self.frame.to_position(self.standard_denoise(self.frame.to_standard(position), t))

    def with_process(self, process: AbstractNoiseProcess) -> "ReclockedScore":
        """The same data noised by another process.

        A denoiser in the coordinates ``z/alpha`` depends on ``sigma/alpha`` alone, so the process is only a clock and
        a scale (Karras et al. 2022, arXiv 2206.00364, section 2).
        """
        inner = self.inner if isinstance(self, ReclockedScore) else self
        return ReclockedScore(inner, process)


def tweedie(z: Position, score: Position, alpha: Array, variance: Array) -> Position:
    """``(z + sigma^2 s)/alpha``, leaf by leaf."""
    return jax.tree.map(lambda x, s: (x + variance.astype(x.dtype) * s) / alpha.astype(x.dtype), z, score)


def denoise_particles(path: AbstractPerturbedScore, particles: Position, t: Array) -> Position:
    """The denoised standard coordinates of all particles at level t; see `score_particles`."""
    return jax.vmap(lambda p, z: p.standard_denoise(z, t), in_axes=(path.condition_axes(), 0))(path, particles)


def start_log_snr(path: AbstractPerturbedScore) -> float:
    """Where sampling starts: the noisiest valid level, but not beyond twenty data standard deviations."""
    _, variance = path.data_moments()
    largest = max(float(np.max(np.asarray(v))) for v in jax.tree.leaves(variance)) ** 0.5
    lowest = max(float(_log_snr_at_one(path.process)), float(np.asarray(path.log_snr_range)[0]))
    return max(lowest, -float(np.log(_MOST_INITIAL_SCALES * largest)))


@eqx.filter_jit
def _log_snr_at_one(process: AbstractNoiseProcess) -> Array:
    return process.log_snr(jnp.asarray(1.0))


class PerturbedScore(AbstractPerturbedScore):
    """A perturbed score around any function or network, in any of the usual parametrisations.

    In standard coordinates, with ``z = alpha z_0 + sigma e``, `fn` predicts one of

    * ``"score"``: s itself;
    * ``"noise"``: ``E[e | z]``, so ``s = -fn/sigma`` (Ho et al. 2020, arXiv 2006.11239);
    * ``"denoised"``: ``E[z_0 | z]``, so ``s = (alpha fn - z)/sigma^2`` (Karras et al. 2022, arXiv 2206.00364);
    * ``"velocity"``: ``E[alpha e - sigma z_0 | z]`` (Salimans and Ho 2022, arXiv 2202.00512, appendix D).

    A *conditional* score, made with ``condition=``, predicts under a condition that `fn` takes after the time,
    standardised. ``score.given(condition)`` is the score under one condition, or under one for each particle of a run.

    Attributes:
        fn: ``fn(z, time, *args)``, or with conditions ``fn(z, time, condition, *args)``, unbatched.
        args: further arguments of `fn`, such as exported weights.
        process: the noise process that the network was trained with.
        prediction: what `fn` returns.
        time: what `fn` takes: ``"t"`` in [0, 1]; ``"log_snr"``, log(alpha/sigma); ``"sigma"``, the ratio sigma/alpha,
            in which case `fn` also takes z/alpha (EDM's convention; the same thing where alpha is 1) but still predicts
            in z; ``"index"``,
            ``t * (num_levels - 1)``.
        num_levels: the number of levels behind ``"index"``.
        log_snr_range: levels at which the network is valid.
        frame: the standardisation that was used in training.
        record: the history of the training, or None.
        conditioning: the shapes, the standardisation and the value of conditions; None where there are none.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.paths import VP
        >>> standard_normal = PerturbedScore(lambda z, t: -z, VP(), structure=jnp.zeros(2))
        >>> standard_normal(jnp.array([1.0, -1.0]), 0.3).tolist()
        [-1.0, 1.0]
        >>> around = PerturbedScore(
        ...     lambda y, s, c: (y + s**2 * c) / (1 + s**2),
        ...     VP(),
        ...     structure=jnp.zeros(1),
        ...     condition=jnp.zeros(1),
        ...     prediction="denoised",
        ...     time="sigma",
        ... )
        >>> around.given(jnp.array([3.0]))(jnp.array([1.0]), 0.5).tolist()
        [-0.156]
    """

    fn: Callable[..., Position]
    args: tuple[Any, ...]
    process: AbstractNoiseProcess
    prediction: Prediction = eqx.field(static=True)
    time: TimeInput = eqx.field(static=True)
    num_levels: int = eqx.field(static=True)
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain
    record: Any = eqx.field(static=True)
    conditioning: Conditioning | None

    def __init__(
        self,
        fn: Callable[..., Position],
        process: AbstractNoiseProcess,
        *,
        structure: Position,
        prediction: Prediction = "score",
        time: TimeInput = "t",
        args: tuple[Any, ...] = (),
        num_levels: int = 1000,
        log_snr_range: tuple[float, float] | None = None,
        location: Position | None = None,
        scale: Position | None = None,
        constrain: Constrain = named_sites,
        record: Any = None,
        condition: Condition = None,
        condition_location: Condition = None,
        condition_scale: Condition = None,
    ) -> None:
        """Wrap a network.

        Arguments:
            fn: ``fn(z, time, *args) -> tree like z``, unbatched. A Flax module: ``lambda z, t, p: net.apply(p, z, t)``
                with ``args=(params,)``.
            process: the noise process that the network was trained with.
            structure: one position, or its tree of `jax.ShapeDtypeStruct`.
            prediction: ``"score"``, ``"noise"``, ``"denoised"`` or ``"velocity"``.
            time: ``"t"``, ``"sigma"``, ``"log_snr"`` or ``"index"``.
            args: passed to `fn` after the time; arrays here are traced, so retrained weights never compile again.
            num_levels: number of discrete levels, for ``time="index"``.
            log_snr_range: (lowest, highest) log(alpha/sigma) at which the network is valid. By default from the
                process's t=1 to sigma/alpha = 0.002, or to t=0 if the process ends above that.
            location: the data's mean that was subtracted before training.
            scale: the data's standard deviation by which it was divided.
            constrain: position -> named sites.
            record: the history of the training, to keep with the score. It must compare equal to every other record.
            condition: for a conditional score: one condition, or its tree of `jax.ShapeDtypeStruct`. `fn` then takes
                the standardised condition after the time.
            condition_location: what is subtracted from conditions, a tree like one or a number.
            condition_scale: what they are then divided by, likewise.

        Raises:
            TypeError: if `fn` is no function or `process` no noise process.
            ValueError: if a name is unknown, the shapes do not fit, or `fn` does not return a tree like z.
        """
        if not callable(fn):
            raise TypeError(f"`fn` must be a function of (z, time), got {type(fn).__name__}.")
        check_process(process)
        for name, value, options in (("prediction", prediction, Prediction), ("time", time, TimeInput)):
            if value not in get_args(options):
                raise ValueError(f"`{name}` must be one of {list(get_args(options))}, got {value!r}.")
        self.fn, self.args = fn, tuple(args)
        self.process = process
        self.prediction, self.time, self.num_levels = prediction, time, num_levels
        self.structure = structure_of(structure)
        self.frame = make_frame(location, scale, self.structure)
        self.constrain = constrain
        self.record = record
        self.log_snr_range = checked_range(log_snr_range, process)
        self.conditioning = make_conditioning(condition, condition_location, condition_scale)
        _check_prediction(self)

    def _input(self, z: Position, t: Array) -> tuple[Position, Array]:
        match self.time:
            case "t":
                return z, t
            case "log_snr":
                return z, self.process.log_snr(t)
            case "index":
                return z, t * (self.num_levels - 1)
            case "sigma":
                alpha = self.process.alpha(t)
                return jax.tree.map(lambda x: x / alpha, z), self.process.sigma(t) / alpha

    def standard_score(self, z: Position, t: Array) -> Position:
        """The network's prediction as a score."""
        alpha, variance = self.process.alpha(t), self.process.variance(t)
        sigma = jnp.sqrt(variance)
        output = self.fn(*self._input(z, t), *given_condition(self.conditioning, z), *self.args)
        match self.prediction:
            case "score":
                return output
            case "noise":
                return jax.tree.map(lambda e: -e / sigma, output)
            case "denoised":
                return jax.tree.map(lambda d, x: (alpha * d - x) / variance, output, z)
            case "velocity":
                total = sigma * (alpha**2 + variance)
                return jax.tree.map(lambda v, x: -(alpha * v + sigma * x) / total, output, z)

    def data_moments(self) -> tuple[Position, Position]:
        """Zero mean and unit variance: the meaning of standard coordinates."""
        return unit_moments(self.structure)

    def smallest_scale(self) -> Array | None:
        """The one that `fit_score` found in the training data, if there is a record of it."""
        return recorded_scale(self.record)

    def given(self, condition: Condition) -> "PerturbedScore":
        """The score under a condition; one that was given before is replaced.

        Arguments:
            condition: one condition for all particles; or many, with a leading axis on every array: one for each
                particle of a run.

        Raises:
            TypeError: if it holds anything but real numbers.
            ValueError: if this is no conditional score, a shape does not fit, or a number is not finite.
        """
        return given(self, condition)

    def condition_axes(self) -> Any:
        """None, or a tree that marks the conditions where every particle has its own."""
        return conditioning_axes(self)


def unit_moments(structure: Structure) -> tuple[Position, Position]:
    """Zero mean and unit variance, trees like a position."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)
    return zeros, jax.tree.map(jnp.ones_like, zeros)


def checked_range(log_snr_range: tuple[float, float] | None, process: AbstractNoiseProcess) -> Array:
    """The range of log(alpha/sigma) where a score is valid; by default all that the process reaches, to 0.002."""
    lowest = float(process.log_snr(jnp.asarray(1.0)))
    highest = min(-float(jnp.log(_DEFAULT_SIGMA_MIN)), float(process.log_snr(jnp.asarray(0.0))))
    low, high = (lowest, highest) if log_snr_range is None else log_snr_range
    if not float("-inf") < low < high < float("inf"):
        raise ValueError(f"`log_snr_range` must be two increasing finite numbers, got ({low}, {high}).")
    return jnp.asarray([low, high], dtype=float)


def _check_prediction(score: PerturbedScore) -> None:
    def evaluate(z: Position, *condition: Condition) -> Position:
        return score.fn(*score._input(z, as_time(0.5, z)), *condition, *score.args)

    dtype = jnp.result_type(*jax.tree.leaves(score.structure))
    output = jax.eval_shape(evaluate, score.structure, *condition_like(score.conditioning, dtype))
    got, want = jax.tree.structure(output), jax.tree.structure(score.structure)
    shapes = [leaf.shape for leaf in jax.tree.leaves(output)], [leaf.shape for leaf in jax.tree.leaves(score.structure)]
    if got != want or shapes[0] != shapes[1]:
        raise ValueError(
            f"`fn` returned {output}, but a prediction must look like one position, {score.structure}. Networks are "
            "unbatched: one point in, one point out."
        )


class ReclockedScore(AbstractPerturbedScore):
    """A perturbed score under another noise process; made by `score.with_process(process)`.

    Attributes:
        inner: the score under its own process.
        process: the process it is seen under.
    """

    inner: AbstractPerturbedScore
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(self, inner: AbstractPerturbedScore, process: AbstractNoiseProcess) -> None:
        """See a perturbed score under another process."""
        check_process(process)
        self.inner, self.process = inner, process
        self.log_snr_range = inner.log_snr_range
        self.frame, self.structure, self.constrain = inner.frame, inner.structure, inner.constrain

    def standard_score(self, z: Position, t: Array) -> Position:
        """``r s_inner(r z, t_inner)`` with r the ratio of the two alphas at equal log-SNR."""
        t_inner = self.inner.process.time(self.process.log_snr(t)).astype(t.dtype)
        ratio = self.inner.process.alpha(t_inner) / self.process.alpha(t)
        scaled = self.inner.standard_score(jax.tree.map(lambda x: ratio * x, z), t_inner)
        return jax.tree.map(lambda s: ratio * s, scaled)

    def data_moments(self) -> tuple[Position, Position]:
        """Those of the inner score."""
        return self.inner.data_moments()

    def smallest_scale(self) -> Array | None:
        """That of the inner score."""
        return self.inner.smallest_scale()

    def given(self, condition: Condition) -> "ReclockedScore":
        """The score under a condition; see the inner score's own `given`.

        Raises:
            ValueError: if the inner score takes no conditions, or this one does not fit.
        """
        if not isinstance(self.inner, ConditionalPath):
            raise ValueError(f"`condition`: a {type(self.inner).__name__} has no conditions.")
        return ReclockedScore(self.inner.given(condition), self.process)

    def condition_axes(self) -> Any:
        """Those of the inner score."""
        axes = self.inner.condition_axes()
        if axes is None:
            return None
        everything = jax.tree.map(lambda _: None, self)
        # The frame is the inner score's, and moves with its condition.
        return eqx.tree_at(
            lambda s: (s.inner, s.frame), everything, (axes, axes.frame), is_leaf=lambda leaf: leaf is None
        )
