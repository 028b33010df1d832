"""The exact score of noised points: of a training set, of draws, of any data."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from scoresample.paths._base import AbstractDensityPath
from scoresample.paths._frame import Frame, make_frame
from scoresample.paths._gaussian_average import gaussian_average
from scoresample.paths._perturbed import AbstractPerturbedScore, checked_range
from scoresample.paths._perturbed_density import SIGMA_MIN_FRACTION
from scoresample.paths._points import PointSet, make_point_set, moved, spacing
from scoresample.paths._process import AbstractNoiseProcess, check_process
from scoresample.scores import Constrain, Position, Structure, named_sites, structure_of

_SPACING_FRACTION = 0.003
"""Sampling of single points ends where sigma/alpha is this fraction of their spacing ..."""
_ROUNDING_LEVELS = 64.0
"""... or where it is so many roundings of a coordinate."""
_FARTHEST_CONDITION = 8.0
"""Kernel bandwidths beyond which a condition is refused."""


class EmpiricalPerturbedScore(AbstractPerturbedScore, AbstractDensityPath):
    """The exact score of a set of points with noise added; made by [`perturb`][scoresample.perturb].

    In standard coordinates the noised points are a mixture of as many normal laws, ``p_t(z) = sum_i w_i N(z; alpha x_i,
    (sigma^2 + alpha^2 h^2) I)``, with the score ``(alpha E[x | z] - z)/(sigma^2 + alpha^2 h^2)``: an average of the
    points under their posterior weights. It is what a network of unlimited size learns from the points by denoising
    score matching (Vincent 2011, Neural Computation 23(7)), and it remembers them: with a bandwidth h of zero every
    draw of a sampler that goes on to t=0 is one of the points (Pidstrigach 2022, arXiv 2206.01018). Stop
    early (`delta` of the samplers), or smooth: with h > 0 this is the score of the points' kernel density estimate.

    Exact up to rounding at all levels of noise, also where single precision cannot tell squared distances apart by
    their expansion. Points are read in chunks: memory grows with the number of positions times a few hundred, not with
    the product of positions and points.

    Attributes:
        points: the points, in standard coordinates.
        process: the noise process.
        bandwidth: h, in standard coordinates, a scalar.
        spacing: median distance between a point and its nearest neighbour, in standard coordinates, a scalar.
        log_snr_range: from the process's t=1 to a small fraction of the bandwidth, or without one of the spacing.
        condition: what was conditioned on, or None.
        log_evidence: log of the points' weight under the condition, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.paths import VE, perturb
        >>> path = perturb(jnp.array([[-1.0], [1.0]]), VE(sigma_min=0.01, sigma_max=10.0))
        >>> t = path.process.time(-jnp.log(0.1))
        >>> round(float(path.denoise(jnp.array([0.4]), t)[0]), 4)
        1.0
    """

    points: PointSet
    process: AbstractNoiseProcess
    bandwidth: Array
    spacing: Array
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain
    moments: tuple[Position, Position]
    labels: Any = eqx.field(static=True)
    feature_location: Array | None
    feature_scale: Array | None
    condition: Array | None
    log_evidence: Array | None

    def __init__(
        self,
        data: Position,
        process: AbstractNoiseProcess,
        *,
        weights: ArrayLike | None = None,
        bandwidth: float | str | None = None,
        conditions: ArrayLike | None = None,
        condition_bandwidth: ArrayLike | None = None,
        location: Position | None = None,
        scale: Position | None = None,
        constrain: Constrain = named_sites,
    ) -> None:
        """Noise points; see [`perturb`][scoresample.perturb]."""
        check_process(process)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(data)):
            raise TypeError(
                "`data`: points are laid out from concrete values, but these are traced (inside jit, grad or vmap). "
                "Make the path outside, and pass it in."
            )
        data = jax.tree.map(np.asarray, data)
        _check_data(data)
        self.structure = structure_of(jax.tree.map(lambda x: jnp.asarray(x[0], jnp.asarray(0.0).dtype), data))
        self.frame = make_frame(location, scale, self.structure)
        self.process, self.constrain = process, constrain
        standard = _standard(data, self.frame)
        number = len(standard)
        log_weights = _log_weights(weights, number)
        self.labels, frame, features = _features(conditions, condition_bandwidth, number)
        self.feature_location, self.feature_scale = frame
        self.points = make_point_set(standard, log_weights, features)
        own = spacing(standard)
        width = _bandwidth(bandwidth, own)
        self.bandwidth, self.spacing = (jnp.asarray(value, dtype=float) for value in (width, own))
        self.moments = self._moments(standard, np.exp(log_weights), width)
        self.condition, self.log_evidence = None, None
        self.log_snr_range = _range(self.points, process, width, own)

    def _moments(self, standard: np.ndarray, weights: np.ndarray, width: float) -> tuple[Position, Position]:
        mean = weights @ standard
        variance = weights @ (standard - mean) ** 2 + width**2
        return self._as_tree(jnp.asarray(mean, dtype=float)), self._as_tree(jnp.asarray(variance, dtype=float))

    def _as_tree(self, vector: Array) -> Position:
        leaves, tree = jax.tree.flatten(self.structure)
        parts = jnp.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
        return jax.tree.unflatten(tree, [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])

    def in_frame(self, location: Position | None = None, scale: Position | None = None) -> "EmpiricalPerturbedScore":
        """The score of the same points with noise that is isotropic in other standard coordinates.

        Conditions and what was conditioned on stay.

        Arguments:
            location: what is subtracted before noise is added, a tree like a position or a number.
            scale: what the points are divided by, likewise.

        Raises:
            ValueError: if there is a bandwidth, which would be another one for each coordinate, or a setting does not
                fit the points.
        """
        if float(self.bandwidth) > 0:
            raise ValueError(
                "`bandwidth`: smoothed points stay in the standard coordinates that they were smoothed in. Make them "
                "in the others: perturb(points, process, bandwidth=..., location=..., scale=...)."
            )
        frame = make_frame(location, scale, self.structure)
        (old_location, old_scale), (new_location, new_scale) = (
            tuple(_vector(part, self.structure, start) for part, start in ((f.location, 0.0), (f.scale, 1.0)))
            for f in (self.frame, frame)
        )
        factor, shift = old_scale / new_scale, (old_location - new_location) / new_scale
        points = moved(self.points, factor, shift)
        standard = (np.asarray(leaf, np.float64) for leaf in (points.centre, points.points))
        standard = np.add(*standard).reshape(-1, factor.size)
        weights, own = np.exp(np.asarray(points.log_weights, np.float64)).ravel(), spacing(standard)
        moments = self._moments(standard, weights / weights.sum(), 0.0)
        return eqx.tree_at(
            lambda s: (s.points, s.frame, s.moments, s.spacing, s.log_snr_range),
            self,
            (points, frame, moments, jnp.asarray(own, dtype=float), _range(points, self.process, 0.0, own)),
            is_leaf=lambda node: isinstance(node, Frame),
        )

    def given(self, condition: ArrayLike) -> "EmpiricalPerturbedScore":
        """The score of the points given a condition: each counts by how well its own condition fits.

        Labels (whole numbers) have to be equal. Real conditions are compared by a normal kernel, so that
        ``p(x | c) = sum_i K(c - c_i) delta_{x_i} / sum_i K(c - c_i)`` (Nadaraya 1964; Watson 1964): the law behind the
        points as their number grows and the kernel's bandwidth shrinks.

        Arguments:
            condition: one condition, shaped like one of the conditions that came with the data; or many, with a leading
                axis: one for each particle of a run.

        Raises:
            ValueError: if there are no conditions, the shape does not fit, or no point has the label.
        """
        if self.points.features is None:
            raise ValueError("`condition`: these points came without conditions. Make them: perturb(..., conditions=).")
        wanted, shared = self._coded(np.asarray(condition))
        log_evidence, best = jax.lax.map(self._log_evidence, jnp.atleast_2d(wanted))
        if self.labels is not None and bool(jnp.any(jnp.isneginf(best))):
            raise ValueError("`condition`: all points with this label have weight zero.")
        if not bool(jnp.all(best > -0.5 * _FARTHEST_CONDITION**2)):
            raise ValueError(
                f"`condition`: the nearest of the points' conditions is more than {_FARTHEST_CONDITION:g} bandwidths "
                "of the kernel away, so no point says anything about it. Widen `condition_bandwidth`, or bring data "
                "from there."
            )
        log_evidence = log_evidence[0] if shared else log_evidence
        return eqx.tree_at(
            lambda s: (s.condition, s.log_evidence), self, (wanted, log_evidence), is_leaf=lambda x: x is None
        )

    def _coded(self, condition: np.ndarray) -> tuple[Array, bool]:
        """A condition, or many, as features; and whether it is one for all."""
        if self.labels is not None:
            shape, known = self.labels
            codes = {label: code for code, label in enumerate(known)}
        else:
            assert self.feature_scale is not None
            shape, codes = self.feature_scale.shape, None
        if condition.size == 0 or (condition.shape != shape and condition.shape[1:] != shape):
            raise ValueError(f"`condition` must have shape {shape}, or {('particles', *shape)}, got {condition.shape}.")
        shared = condition.shape == shape
        rows = condition.reshape(1 if shared else condition.shape[0], -1)
        if codes is None:
            if not np.isfinite(rows).all():
                raise ValueError("`condition` must be finite.")
            location, scale = (np.asarray(a, np.float64) for a in (self.feature_location, self.feature_scale))
            features = jnp.asarray((rows - location.reshape(-1)) / scale.reshape(-1), dtype=float)
        else:
            missing = [row for row in rows.tolist() if tuple(row) not in codes]
            if missing:
                raise ValueError(f"`condition`: no point has the label {missing[0]}. There are {len(codes)} labels.")
            features = jnp.asarray([[codes[tuple(row)]] for row in rows.tolist()], dtype=float)
        return (features[0] if shared else features), shared

    def _log_evidence(self, wanted: Array) -> tuple[Array, Array]:
        """The log of the points' weight under a condition, and the largest factor of a point that has weight."""
        assert self.points.features is not None
        factors = self._log_factor(wanted, self.points.features)
        present = jnp.where(jnp.isneginf(self.points.log_weights), -jnp.inf, factors)
        return jax.nn.logsumexp(self.points.log_weights + factors), jnp.max(present)

    def _log_factor(self, wanted: Array, features: Array) -> Array:
        if self.labels is not None:
            return jnp.where(jnp.all(features == wanted, axis=-1), 0.0, -jnp.inf).astype(features.dtype)
        return -0.5 * jnp.sum((features - wanted) ** 2, axis=-1)

    def _average(self, z: Position, t: Array) -> tuple[Array, Array, Array]:
        """The log of the sum of weights, the average of ``x_i - z/alpha``, and the variance ``s^2 + h^2``."""
        leaves = jax.tree.leaves(z)
        dtype = jnp.result_type(*leaves)
        flat = jnp.concatenate([leaf.ravel().astype(dtype) for leaf in leaves])
        alpha = self.process.alpha(t).astype(dtype)
        variance = self.process.variance(t).astype(dtype) / alpha**2 + self.bandwidth.astype(dtype) ** 2
        if self.condition is None:
            return *gaussian_average(flat / alpha, variance, self.points._replace(features=None)), variance
        wanted = self.condition.astype(dtype)
        log_sum, offset = gaussian_average(
            flat / alpha, variance, self.points, lambda features: self._log_factor(wanted, features)
        )
        assert self.log_evidence is not None
        return log_sum - self.log_evidence.astype(dtype), offset, variance

    def standard_score(self, z: Position, t: Array) -> Position:
        """The score of the noised points."""
        _, offset, variance = self._average(z, t)
        score = self._as_tree(offset / (variance * self.process.alpha(t).astype(offset.dtype)))
        return jax.tree.map(lambda s, x: s.astype(x.dtype), score, z)

    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """The normalised log density of the noised points."""
        log_sum, offset, variance = self._average(z, t)
        scale = variance * self.process.alpha(t).astype(offset.dtype) ** 2
        return log_sum - 0.5 * offset.size * jnp.log(2 * jnp.pi * scale)

    def data_moments(self) -> tuple[Position, Position]:
        """The points' mean and coordinate variances, over all conditions."""
        return self.moments

    def smallest_scale(self) -> Array | None:
        """The bandwidth; None without one, since points have no scale."""
        return self.bandwidth if float(self.bandwidth) > 0 else None

    def condition_axes(self) -> Any:
        """None, or a tree that marks the conditions where every particle has its own."""
        if self.log_evidence is None or self.log_evidence.ndim == 0:
            return None
        everything = jax.tree.map(lambda _: None, self)
        return eqx.tree_at(
            lambda s: (s.condition, s.log_evidence), everything, (0, 0), is_leaf=lambda leaf: leaf is None
        )


def _is_real(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)


def _vector(tree: Position | None, structure: Structure, missing: float) -> np.ndarray:
    """The values of a tree like a position side by side, in double precision; in the place of None one value."""
    if tree is None:
        return np.full(sum(leaf.size for leaf in jax.tree.leaves(structure)), missing)
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def _range(points: PointSet, process: AbstractNoiseProcess, width: float, own: float) -> Array:
    """The levels at which the score of points is sampled: down to little noise for their bandwidth, or spacing."""
    rounding = _ROUNDING_LEVELS * float(jnp.finfo(jnp.asarray(0.0).dtype).eps)
    least = SIGMA_MIN_FRACTION * width if width else _SPACING_FRACTION * own
    smallest = max(least, rounding * float(points.squared_radius) ** 0.5)
    lowest, highest = (float(process.log_snr(jnp.asarray(t))) for t in (1.0, 0.0))
    end = min(highest, -float(np.log(smallest))) if smallest > 0 else highest
    return checked_range((lowest, end) if np.isfinite(end) else None, process)


def _check_data(data: Position) -> None:
    leaves = jax.tree.leaves(data)
    if not leaves or not all(_is_real(leaf) for leaf in leaves):
        raise TypeError(
            "`data` must be a density in closed form (Gaussian, GaussianMixture), or points: an array (n, ...), a tree "
            f"of arrays with one leading axis, or Draws; got {data!r:.60}. For another density: learn its noised score "
            "from draws with fit_score(draws), or go there from a reference with TemperedPath(reference, density)."
        )
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < 1 or not any(leaf.size for leaf in leaves):
        raise ValueError(
            "`data` needs one leading axis of points, shared by all arrays; the shapes are "
            f"{[leaf.shape for leaf in leaves]}."
        )
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError("`data`: some values are not finite. Drop those points.")


def _standard(data: Position, frame: Frame) -> np.ndarray:
    """The points in standard coordinates as a matrix, in double precision."""
    parts = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(data)]
    if frame.location is not None:
        parts = [x - np.asarray(m) for x, m in zip(parts, jax.tree.leaves(frame.location), strict=True)]
    if frame.scale is not None:
        parts = [x / np.asarray(s) for x, s in zip(parts, jax.tree.leaves(frame.scale), strict=True)]
    return np.concatenate([x.reshape(len(x), -1) for x in parts], axis=1)


def _log_weights(weights: ArrayLike | None, number: int) -> np.ndarray:
    if weights is None:
        return np.full(number, -np.log(number))
    values = np.asarray(weights, np.float64)
    if values.shape != (number,) or not np.isfinite(values).all() or np.any(values < 0) or not np.any(values > 0):
        raise ValueError(
            f"`weights` must be {number} numbers that are not negative, one for each point, got shape {values.shape}."
        )
    with np.errstate(divide="ignore"):
        return np.log(values / values.sum())


def _bandwidth(bandwidth: float | str | None, own: float) -> float:
    if bandwidth is None:
        return 0.0
    width = own if bandwidth == "spacing" else bandwidth
    if isinstance(width, str) or not 0 < width < np.inf:
        raise ValueError(
            '`bandwidth` must be a positive number, or "spacing" for points that are not all the same, got '
            f"{bandwidth!r}."
        )
    return float(width)


def _features(
    conditions: ArrayLike | None, bandwidth: ArrayLike | None, number: int
) -> tuple[Any, tuple[Array | None, Array | None], np.ndarray | None]:
    """What conditions are compared by: (shape, labels) or None, means and scales, and the features of every point."""
    if conditions is None:
        if bandwidth is not None:
            raise ValueError("`condition_bandwidth` came without `conditions`.")
        return None, (None, None), None
    values = np.asarray(conditions)
    values = values.astype(int) if values.dtype == bool else values
    if values.ndim == 0 or len(values) != number or not _is_real(values):
        raise ValueError(f"`conditions` must be numbers, one for each of the {number} points, got {values.shape}.")
    shape, rows = values.shape[1:], values.reshape(number, -1)
    if np.issubdtype(values.dtype, np.integer):
        if bandwidth is not None:
            raise ValueError("`condition_bandwidth`: whole numbers are labels, which have none. Make them real.")
        labels, codes = np.unique(rows, axis=0, return_inverse=True)
        return (shape, tuple(map(tuple, labels.tolist()))), (None, None), codes.reshape(-1, 1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("`conditions` must be finite.")
    if bandwidth is None:
        scales = rows.std(axis=0) * number ** (-1 / (rows.shape[1] + 4))
    else:
        scales = np.broadcast_to(np.asarray(bandwidth, np.float64), shape).reshape(-1)
    if not (np.isfinite(scales).all() and np.all(scales > 0)):
        raise ValueError(
            f"`condition_bandwidth` must be positive, but it is {scales}. Drop conditions that never vary, or give one."
        )
    # Rounded before they are used, so that points and conditions are moved alike.
    location, scale = (jnp.asarray(a.reshape(shape), dtype=float) for a in (rows.mean(axis=0), scales))
    features = (rows - np.asarray(location, np.float64).reshape(-1)) / np.asarray(scale, np.float64).reshape(-1)
    return None, (location, scale), features
