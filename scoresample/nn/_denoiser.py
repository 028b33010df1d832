"""Denoisers around raw networks, with inputs and outputs of unit scale at every noise level."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import Position, inner_product

Network = Callable[..., Position]
"""(x of unit variance, log s) -> tree like x, or with conditions (x, log s, condition) -> tree like x; unbatched."""

Parametrisation = Literal["edm", "velocity", "noise", "score", "energy"]
"""What a network stands for."""


class PreconditionedDenoiser(eqx.Module):
    """An estimate of ``E[z_0 | z_0 + s e = y]`` for data of unit variance, from a network F.

    F sees ``x = y / sqrt(1 + s^2)``, which has unit variance at every noise level s, log s and, where the law is
    conditional, the condition. It stands for

    * ``"edm"``: ``D = y / (1 + s^2) + s / sqrt(1 + s^2) F``, a target of unit variance at every level (Karras et al.
      2022, arXiv 2206.00364, table 1 with sigma_data = 1);
    * ``"velocity"``: ``D = y / (1 + s^2) - s / sqrt(1 + s^2) F``, with the target ``alpha e - sigma z_0`` (Salimans and
      Ho 2022, arXiv 2202.00512, appendix D): the same with the other sign;
    * ``"noise"``: ``D = y - s F``, with the target e (Ho et al. 2020, arXiv 2006.11239, eq. 12). Errors at much noise
      are multiplied by it;
    * ``"score"``: ``D = y + s^2 / sqrt(1 + s^2) F``, with F the score of x.

    Attributes:
        network: F, a map (tree like y, log s) -> tree like y; a condition is a third argument.
        parametrisation: what F stands for.

    Examples:
        >>> import jax.numpy as jnp
        >>> gaussian = PreconditionedDenoiser(lambda x, log_s: jnp.zeros_like(x))
        >>> gaussian(jnp.array([2.0]), jnp.array(1.0)).tolist()
        [1.0]
    """

    network: Network
    parametrisation: Parametrisation = eqx.field(static=True, default="edm")

    def __check_init__(self) -> None:
        """Check the parametrisation."""
        if self.parametrisation not in get_args(Parametrisation)[:-1]:
            raise ValueError(
                f"`parametrisation` must be one of {list(get_args(Parametrisation)[:-1])}, got "
                f"{self.parametrisation!r}. An energy is made by PreconditionedEnergy."
            )

    def __call__(self, y: Position, s: Array, condition: Any = None) -> Position:
        """The denoised point, a tree like y."""
        total = 1 + s**2
        root = jnp.sqrt(total)
        keep, gain = {
            "edm": (1 / total, s / root),
            "velocity": (1 / total, -s / root),
            "noise": (jnp.ones_like(s), -s),
            "score": (jnp.ones_like(s), s**2 / root),
        }[self.parametrisation]
        return jax.tree.map(lambda leaf, out: keep * leaf + gain * out, y, self._output(y, s, condition))

    def score(self, y: Position, s: Array, condition: Any = None) -> Position:
        """``(D - y) / s^2``, the score of the noised data at y, without the cancellation at little noise."""
        total = 1 + s**2
        root = jnp.sqrt(total)
        pull, gain = {
            "edm": (-1 / total, 1 / (s * root)),
            "velocity": (-1 / total, -1 / (s * root)),
            "noise": (jnp.zeros_like(s), -1 / s),
            "score": (jnp.zeros_like(s), 1 / root),
        }[self.parametrisation]
        return jax.tree.map(lambda leaf, out: pull * leaf + gain * out, y, self._output(y, s, condition))

    def _output(self, y: Position, s: Array, condition: Any) -> Position:
        root = jnp.sqrt(1 + s**2)
        return self.network(jax.tree.map(lambda leaf: leaf / root, y), jnp.log(s), *_told(condition))


class PreconditionedEnergy(eqx.Module):
    """A log density of data of unit variance with noise, from a network: its gradient is a score by construction.

    ``log p_s(y) = log N(y; 0, (1 + s^2) I) + F(y / sqrt(1 + s^2), log s)``: the network is the logarithm of a ratio of
    densities, of order one at all noise levels. A network whose output looks like x instead of a scalar enters as the
    inner product of the two. Calling it denoises: ``D(y, s) = y + s^2 grad log p_s(y)`` (Tweedie's formula).

    It is normalised only as far as the training has made it so. Denoising alone leaves the constant of every level
    free; the log-density Fokker-Planck penalty ties them together.

    Attributes:
        network: F, a map (tree like y, log s) -> scalar, or tree like y; a condition is a third argument.
    """

    network: Network

    def logdensity(self, y: Position, s: Array, condition: Any = None) -> Array:
        """The log density of the noised data at y: a scalar."""
        total = 1 + s**2
        x = jax.tree.map(lambda leaf: leaf / jnp.sqrt(total), y)
        output = self.network(x, jnp.log(s), *_told(condition))
        if jax.tree.structure(output) != jax.tree.structure(0) or jnp.ndim(output) != 0:
            _check_like(output, x)
            output = inner_product(output, x)
        size = sum(leaf.size for leaf in jax.tree.leaves(y))
        return output - 0.5 * inner_product(x, x) - 0.5 * size * (jnp.log(total) + np.log(2 * np.pi).item())

    def __call__(self, y: Position, s: Array, condition: Any = None) -> Position:
        """The denoised point, a tree like y."""
        return jax.tree.map(lambda leaf, g: leaf + s**2 * g, y, self.score(y, s, condition))

    def score(self, y: Position, s: Array, condition: Any = None) -> Position:
        """The gradient of the log density."""
        return jax.grad(self.logdensity)(y, s, condition)


class DenoiserEnsemble(eqx.Module):
    """The mean of several denoisers: itself a denoiser, and their spread tells where they have not been taught.

    Attributes:
        members: denoisers of one kind in one tree: every array has a leading axis of members.
        num_members: their number.
    """

    members: PreconditionedDenoiser
    num_members: int = eqx.field(static=True)

    def every(self, y: Position, s: Array, condition: Any = None) -> Position:
        """What each member says: trees like y with a leading axis of members."""
        return eqx.filter_vmap(lambda member: member(y, s, condition), in_axes=(eqx.if_array(0),))(self.members)

    def __call__(self, y: Position, s: Array, condition: Any = None) -> Position:
        """The mean of the denoised points, a tree like y."""
        return jax.tree.map(lambda x: x.mean(axis=0), self.every(y, s, condition))

    def spread(self, y: Position, s: Array, condition: Any = None) -> Array:
        """Root mean square deviation of the members' noise predictions ``(y - D)/s`` from their mean: a scalar.

        In units of the noise. At much noise, where the data hardly matter, the ``"edm"`` and ``"velocity"``
        parametrisations agree by construction, and it falls like 1/s.
        """
        deviations = jax.tree.map(lambda x: ((x - x.mean(axis=0)) / s) ** 2, self.every(y, s, condition))
        leaves = jax.tree.leaves(deviations)
        return jnp.sqrt(sum(leaf.sum() for leaf in leaves) / sum(leaf.size for leaf in leaves))

    def member(self, index: int) -> PreconditionedDenoiser:
        """One of the denoisers."""
        return jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, self.members)


def parameter_count(module: eqx.Module) -> int:
    """The number of numbers in a module's floating arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array)))


def _told(condition: Any) -> tuple[Any, ...]:
    """The third argument of a network of a conditional law; networks without conditions take two."""
    return () if condition is None else (condition,)


def _check_like(output: Position, x: Position) -> None:
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (output, x)]
    if jax.tree.structure(output) != jax.tree.structure(x) or shapes[0] != shapes[1]:
        raise ValueError(
            f"`network`: an energy needs a scalar, or an output like its input, got arrays of shapes {shapes[0]} for "
            f"an input of {shapes[1]}."
        )
