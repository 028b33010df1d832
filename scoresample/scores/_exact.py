"""Densities whose score, draws and Gaussian perturbation are known in closed form."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores._base import (
    AbstractDensityScore,
    Constrain,
    Position,
    Structure,
    named_sites,
    random_like,
    structure_of,
)


class AbstractExactDensity(AbstractDensityScore):
    """A normalised density with exact draws whose convolution with a Gaussian stays in the family."""

    @abc.abstractmethod
    def sample(self, key: Array, num_samples: int) -> Position:
        """Independent exact draws, with a leading axis of length `num_samples`."""

    @abc.abstractmethod
    def perturbed(self, alpha: Array, variance: Array) -> "AbstractExactDensity":
        """The law of ``alpha X + sqrt(variance) Z`` with Z standard normal, independent of X."""

    @abc.abstractmethod
    def moments(self) -> tuple[Position, Position]:
        """The mean and the variance of each coordinate."""

    @abc.abstractmethod
    def smallest_scale(self) -> Array:
        """The smallest standard deviation in any direction of any component."""


class _OverdispersedStart(eqx.Module):
    """A start for a chain: a normal draw with the density's mean and twice its standard deviations."""

    mean: Position
    variance: Position

    def __call__(self, key: Array) -> Position:
        return jax.tree.map(
            lambda m, v, z: m + 2 * jnp.sqrt(v) * z[0], self.mean, self.variance, random_like(key, self.mean, 1)
        )


def _decompose(covariance: np.ndarray, shape: tuple[int, ...], name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Variances and eigenvectors of a covariance given as a number, variances or a matrix."""
    if covariance.shape == (*shape, *shape) and len(shape) == 1:
        if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-6 * np.abs(covariance).max()):
            raise ValueError(f"`{name}` must be symmetric.")
        eigenvalues, eigenvectors = np.linalg.eigh(covariance.astype(np.float64))
    elif covariance.shape in ((), shape):
        eigenvalues, eigenvectors = np.broadcast_to(covariance, shape), None
    else:
        raise ValueError(
            f"`{name}` must be a variance, an array of variances of shape {shape}, or a matrix of shape "
            f"{(*shape, *shape)}, got shape {covariance.shape}."
        )
    if not (np.all(np.isfinite(eigenvalues)) and np.all(eigenvalues > 0)):
        raise ValueError(f"`{name}` must be positive definite, its eigenvalues are {np.ravel(eigenvalues)[:5]}.")
    return np.array(eigenvalues), eigenvectors


def _float_array(value: object, name: str) -> jax.Array:
    array = jnp.asarray(
        value,
        dtype=jnp.result_type(
            float, *([value] if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating) else [])
        ),
    )
    if not bool(jnp.all(jnp.isfinite(array))):
        raise ValueError(f"`{name}` must be finite.")
    return array


class Gaussian(AbstractExactDensity):
    """The normal density N(mean, covariance), with its score ``-covariance^-1 (x - mean)``.

    Attributes:
        mean: an array, or any tree of arrays; a matrix covariance needs a vector.
        variances: tree like `mean`: variances along `axes`, or along the coordinates where `axes` is None.
        axes: orthonormal eigenvectors of the covariance as columns, or None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> density = Gaussian(jnp.zeros(2), jnp.array([1.0, 4.0]))
        >>> density(jnp.array([1.0, 2.0])).tolist()
        [-1.0, -0.5]
        >>> density.sample(jax.random.key(0), 5).shape
        (5, 2)
    """

    mean: Position
    variances: Position
    axes: Array | None
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, mean: Position, covariance: Position) -> None:
        """Make a normal density.

        Arguments:
            mean: a number, an array, or a tree of arrays.
            covariance: one variance for all coordinates, variances in a tree like `mean`, or for a vector of length d
                a (d, d) matrix.

        Raises:
            ValueError: if the shapes do not fit or the covariance is not positive definite.
        """
        if isinstance(mean, list | tuple) and all(np.ndim(m) == 0 for m in jax.tree.leaves(mean)):
            mean = np.asarray(mean)
        self.mean = jax.tree.map(lambda m: _float_array(m, "mean"), mean)
        if isinstance(self.mean, jax.Array):
            covariance = np.asarray(covariance)
        elif jax.tree.structure(covariance) == jax.tree.structure(0.0) and jnp.ndim(covariance) == 0:
            covariance = jax.tree.map(lambda _: covariance, self.mean)
        if jax.tree.structure(covariance) != jax.tree.structure(self.mean):
            raise ValueError(
                f"`covariance` must be one variance, or a tree like the mean, {jax.tree.structure(self.mean)}, got "
                f"{jax.tree.structure(covariance)}."
            )
        parts = [
            _decompose(np.asarray(c), m.shape, "covariance")
            for c, m in zip(jax.tree.leaves(covariance), jax.tree.leaves(self.mean), strict=True)
        ]
        if not isinstance(self.mean, jax.Array) and any(axes is not None for _, axes in parts):
            raise ValueError("`covariance` can be a matrix only where the mean is a single vector.")
        tree = jax.tree.structure(self.mean)
        variances = [jnp.asarray(v, m.dtype) for (v, _), m in zip(parts, jax.tree.leaves(self.mean), strict=True)]
        self.variances = jax.tree.unflatten(tree, variances)
        self.axes = None if parts[0][1] is None else jnp.asarray(parts[0][1], variances[0].dtype)
        self.structure = structure_of(self.mean)
        self.constrain = named_sites
        self.init_position = _OverdispersedStart(*self.moments())

    @classmethod
    def like(cls, structure: Structure, standard_deviation: float = 1.0) -> "Gaussian":
        """The normal density with zero mean and one standard deviation, on positions of a structure.

        Arguments:
            structure: such as ``posterior.structure``.
            standard_deviation: of every coordinate.

        Examples:
            >>> import jax.numpy as jnp
            >>> Gaussian.like({"mu": jnp.zeros(()), "theta": jnp.zeros(8)}, 3.0).variances["mu"].item()
            9.0
        """
        return cls(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure), standard_deviation**2)

    def logdensity(self, position: Position) -> Array:
        """The normalised log density, a scalar."""
        return self.value_and_score(position)[0]

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The normalised log density and the score."""
        offset = jax.tree.map(jnp.subtract, position, self.mean)
        if self.axes is not None:
            offset = offset @ self.axes
        ratio = jax.tree.map(jnp.divide, offset, self.variances)
        terms = jax.tree.map(lambda o, r, v: jnp.sum(o * r + jnp.log(2 * jnp.pi * v)), offset, ratio, self.variances)
        score = jax.tree.map(jnp.negative, ratio if self.axes is None else self.axes @ ratio)
        return -0.5 * jax.tree.reduce(jnp.add, terms), score

    def sample(self, key: Array, num_samples: int) -> Position:
        """Independent draws, a tree like the mean with a leading axis of length `num_samples`."""
        noise = random_like(key, self.mean, num_samples)
        noise = jax.tree.map(lambda z, v: z * jnp.sqrt(v), noise, self.variances)
        return jax.tree.map(jnp.add, noise if self.axes is None else noise @ self.axes.T, self.mean)

    def perturbed(self, alpha: Array, variance: Array) -> "Gaussian":
        """N(alpha mean, alpha^2 covariance + variance I)."""
        mean = jax.tree.map(lambda m: alpha * m, self.mean)
        variances = jax.tree.map(lambda v: alpha**2 * v + variance, self.variances)
        return eqx.tree_at(lambda g: (g.mean, g.variances), self, (mean, variances))

    def moments(self) -> tuple[Position, Position]:
        """The mean and the coordinates' variances."""
        return self.mean, self.variances if self.axes is None else self.axes**2 @ self.variances

    def smallest_scale(self) -> Array:
        """The root of the smallest eigenvalue of the covariance."""
        return jnp.sqrt(jax.tree.reduce(jnp.minimum, jax.tree.map(jnp.min, self.variances)))


class GaussianMixture(AbstractExactDensity):
    """A mixture of normal densities, ``sum_k w_k N(x; m_k, C_k)``, with its exact score.

    The score is the average of the components' scores under their posterior weights.

    Attributes:
        log_weights: (K,) logarithms of the normalised weights.
        means: (K, d) component means.
        variances: (K, d) variances along `axes`, or along the coordinates where `axes` is None.
        axes: (K, d, d) eigenvectors as columns, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> density = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], 0.25)
        >>> round(float(density(jnp.array([-1.0]))[0]), 3)
        0.006
    """

    log_weights: Array
    means: Array
    variances: Array
    axes: Array | None
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, weights: object, means: object, covariances: object) -> None:
        """Make a mixture of K normal densities in d dimensions.

        Arguments:
            weights: (K,) positive weights; normalised here.
            means: (K, d) component means.
            covariances: one variance for all, (K,) variances, (K, d) coordinate variances, or (K, d, d) matrices.

        Raises:
            ValueError: if the shapes do not fit, a weight is not positive or a covariance not positive definite.
        """
        self.means = _float_array(means, "means")
        if self.means.ndim != 2:
            raise ValueError(f"`means` must have shape (components, dimension), got {self.means.shape}.")
        num, dimension = self.means.shape
        weights = _float_array(weights, "weights")
        if weights.shape != (num,) or not bool(jnp.all(weights > 0)):
            raise ValueError(f"`weights` must be {num} positive numbers, one for each row of `means`, got {weights}.")
        self.log_weights = jnp.log(weights / weights.sum())
        covariances = np.asarray(covariances)
        if covariances.shape == () or covariances.shape == (num,):
            covariances = np.broadcast_to(covariances.reshape(-1, 1), (num, dimension))
        if covariances.shape not in ((num, dimension), (num, dimension, dimension)):
            raise ValueError(
                f"`covariances` must have shape (), ({num},), ({num}, {dimension}) or "
                f"({num}, {dimension}, {dimension}), got {covariances.shape}."
            )
        parts = [_decompose(c, (dimension,), "covariances") for c in covariances]
        self.variances = jnp.asarray(np.stack([v for v, _ in parts]), self.means.dtype)
        axes = [a for _, a in parts if a is not None]
        self.axes = jnp.asarray(np.stack(axes), self.means.dtype) if axes else None
        self.structure = structure_of(self.means[0])
        self.constrain = named_sites
        self.init_position = _OverdispersedStart(*self.moments())

    def logdensity(self, position: Array) -> Array:
        """The normalised log density, a scalar."""
        return self.value_and_score(position)[0]

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        """The normalised log density and the score."""
        offset = position - self.means
        if self.axes is not None:
            offset = jnp.einsum("kd,kde->ke", offset, self.axes)
        ratio = offset / self.variances
        log_parts = self.log_weights - 0.5 * jnp.sum(offset * ratio + jnp.log(2 * jnp.pi * self.variances), axis=-1)
        responsibility = jax.nn.softmax(log_parts)
        if self.axes is not None:
            ratio = jnp.einsum("kde,ke->kd", self.axes, ratio)
        return jax.nn.logsumexp(log_parts), -responsibility @ ratio

    def sample(self, key: Array, num_samples: int) -> Array:
        """Independent draws of shape (num_samples, d)."""
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, self.log_weights, shape=(num_samples,))
        noise = jax.random.normal(key_noise, (num_samples, self.means.shape[1]), self.means.dtype)
        noise = noise * jnp.sqrt(self.variances[component])
        if self.axes is not None:
            noise = jnp.einsum("nde,ne->nd", self.axes[component], noise)
        return self.means[component] + noise

    def perturbed(self, alpha: Array, variance: Array) -> "GaussianMixture":
        """The mixture with means ``alpha m_k`` and covariances ``alpha^2 C_k + variance I``."""
        return eqx.tree_at(
            lambda g: (g.means, g.variances), self, (alpha * self.means, alpha**2 * self.variances + variance)
        )

    def moments(self) -> tuple[Array, Array]:
        """The mixture's mean and its coordinates' variances."""
        weights = jnp.exp(self.log_weights)
        mean = weights @ self.means
        own = self.variances if self.axes is None else jnp.einsum("kde,ke->kd", self.axes**2, self.variances)
        return mean, weights @ (own + (self.means - mean) ** 2)

    def smallest_scale(self) -> Array:
        """The root of the smallest eigenvalue of any component's covariance."""
        return jnp.sqrt(jnp.min(self.variances))
