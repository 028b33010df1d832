"""More of few simulations: sets of which some parts are left out."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.nn import Encoded


class LeftOutParts(eqx.Module):
    """An augmentation for posteriors of exchangeable parts: the same parameters beside some of their parts.

    Parts that are left out of a set leave a draw of the joint law of parameters and fewer parts, so what is learned
    beside the posterior of the whole set is that of every smaller one. A network that saw one set of parts for each
    parameter remembers them; here it sees another set every time.

    Attributes:
        share: of the sets from which parts are left out, a scalar: their number is then uniform from 1 to that of those
            that are there.
    """

    share: Array

    def __call__(self, key: Array, position: Array, observation: Encoded) -> tuple[Array, Encoded]:
        """The position, and its observation without some parts."""
        key_share, key_number, key_order = jax.random.split(key, 3)
        values, present = observation
        assert present is not None
        there = present.reshape(present.shape[0], -1).max(axis=1) > 0
        number = jax.random.randint(key_number, (), 1, jnp.maximum(there.sum(), 1) + 1)
        order = jnp.where(there, jax.random.uniform(key_order, there.shape), jnp.inf)
        rank = jnp.argsort(jnp.argsort(order))
        keep = (rank < number) | (jax.random.uniform(key_share) >= self.share)
        keep = keep.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
        return position, Encoded(values * keep, present * keep)
