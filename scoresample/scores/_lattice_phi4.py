"""The scalar phi^4 model on a periodic lattice."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores._base import AbstractDensityScore, Constrain, Position, Structure, named_sites, structure_of


class _LevelStart(eqx.Module):
    """A start for a chain: a standard normal level for the whole field, and independent normal numbers of half that."""

    zeros: jax.ShapeDtypeStruct = eqx.field(static=True)

    def __call__(self, key: Array) -> Array:
        key_level, key_noise = jax.random.split(key)
        level = jax.random.normal(key_level, (), self.zeros.dtype)
        return level + 0.5 * jax.random.normal(key_noise, self.zeros.shape, self.zeros.dtype)


def _both_neighbours(fields: Array, axis: int) -> Array:
    """The sum of the two neighbours along an axis, by one wrapped copy: a fifth faster than two rolls on a CPU."""
    last, first = (jax.lax.slice_in_dim(fields, start, start + 1, axis=axis) for start in (fields.shape[axis] - 1, 0))
    wrapped = jnp.concatenate([last, fields, first], axis)
    before, after = (jax.lax.slice_in_dim(wrapped, s, s + fields.shape[axis], axis=axis) for s in (0, 2))
    return before + after


class LatticePhi4(AbstractDensityScore):
    """The scalar phi^4 model on a periodic lattice of any dimension, with its score in closed form.

    A position is one field, an array with a number phi_x at every site x. Its log density is -S, without the constant,
    with the lattice action in the hopping parameters of the field theory,

    ``S = sum_x [-2 kappa sum_mu phi_x phi_(x+mu) + phi_x^2 + lam (phi_x^2 - 1)^2]``,

    where mu runs over the axes. It is symmetric under ``phi -> -phi`` and under translations, and normalisable if lam
    is positive, or if it is zero and kappa less than half over the number of axes: then it is normal with the spectrum
    ``E|F_w|^2 / sites = 1 / (2 - 4 kappa sum_mu cos w_mu)``, F the discrete Fourier transform. In two dimensions with
    lam = 1 the symmetry breaks spontaneously, on large lattices, near kappa = .34: chains that move locally, as all
    here do, then seldom change the sign of the mean field. A move to ``-phi`` costs nothing and is always accepted.

    With lam = 1 and kappa = beta / 2 it is, but for a constant, ``-beta sum_<xy> phi_x phi_y + sum_x (phi_x^4 -
    phi_x^2)``, the energy of Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003.

    Source: Montvay and Muenster 1994, *Quantum Fields on a Lattice*, section 2.1.1; on two-dimensional lattices
    Kaupuzs, Melnik and Rimsans 2014, arXiv 1406.7491, with beta = 2 kappa.

    Attributes:
        kappa: the coupling of neighbours, a scalar.
        lam: the coupling of the quartic term, a scalar.
        structure: see [`AbstractScore`][scoresample.AbstractScore].
        constrain: names the field ``x``.
        init_position: a start with a level of its own for the whole field, so that chains begin in both phases.

    Examples:
        >>> import jax.numpy as jnp
        >>> model = LatticePhi4((4, 4), kappa=0.34)
        >>> field = jnp.ones((4, 4))
        >>> round(float(model.action_density(field)), 6), round(float(model(field)[0, 0]), 6)
        (-0.36, 0.72)
    """

    kappa: Array
    lam: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, shape: Sequence[int], kappa: float | Array, lam: float | Array = 1.0) -> None:
        """Make the model on a lattice.

        Arguments:
            shape: the number of sites along each axis, such as ``(32, 32)``.
            kappa: the coupling of neighbours. Other values of it and of `lam` do not compile again.
            lam: the coupling of the quartic term.

        Raises:
            ValueError: if an axis has fewer than two sites, a coupling is no finite number, or the density has no
                finite integral.
        """
        shape = tuple(int(length) for length in shape)
        if not shape or min(shape) < 2:
            raise ValueError(f"`shape` must be the numbers of sites along one or more axes, at least 2, got {shape}.")
        for name, value in (("kappa", kappa), ("lam", lam)):
            if np.shape(value) != () or not np.isfinite(float(value)):
                raise ValueError(f"`{name}` must be one finite number, got {value!r}.")
        if not (float(lam) > 0 or (float(lam) == 0 and abs(float(kappa)) < 0.5 / len(shape))):
            raise ValueError(
                f"`lam` must be positive, or zero with `kappa` within ±{0.5 / len(shape):g} on {len(shape)} axes: else "
                f"exp(-S) has no finite integral. Got lam={float(lam):g}, kappa={float(kappa):g}."
            )
        self.kappa, self.lam = jnp.asarray(kappa, float), jnp.asarray(lam, float)
        self.structure = structure_of(jnp.zeros(shape))
        self.constrain = named_sites
        self.init_position = _LevelStart(self.structure)

    def _local(self, fields: Array) -> tuple[Array, Array, Array]:
        """The hopping term and the potential at every site of fields with any leading axes, and their derivative."""
        kappa, lam = self.kappa.astype(fields.dtype), self.lam.astype(fields.dtype)
        axes = range(fields.ndim - len(self.structure.shape), fields.ndim)
        neighbours = sum((_both_neighbours(fields, axis) for axis in axes), jnp.zeros_like(fields))
        excess = fields**2 - 1
        hopping, pull = -kappa * fields * neighbours, 2 * (fields - kappa * neighbours) + 4 * lam * fields * excess
        return hopping, fields**2 + lam * excess**2, pull

    def action_density(self, fields: Array) -> Array:
        """The action per site, S over the number of sites, of fields with any leading axes."""
        hopping, potential, _ = self._local(fields)
        axes = tuple(range(fields.ndim - len(self.structure.shape), fields.ndim))
        return jnp.mean(hopping + potential, axis=axes)

    def logdensity(self, position: Array) -> Array:
        """Minus the action of a field, a scalar."""
        return self.value_and_score(position)[0]

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        """Minus the action of a field, and its gradient, from one sum over the neighbours."""
        hopping, potential, pull = self._local(position)
        return -jnp.sum(hopping + potential), -pull
