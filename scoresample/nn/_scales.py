"""One network for the fields of several scales."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float

from scoresample.nn._residual_conv import ResidualConv
from scoresample.scores import Position


class SharedAcrossScales(eqx.Module):
    """A network of local convolutions that serves several scales, each with a field and a condition of its own size.

    Attributes:
        network: the network, which is told the number of the scale.
    """

    network: ResidualConv

    def __call__(
        self, x: Sequence[Array], log_sigma: Float[Array, ""], condition: Sequence[Array]
    ) -> tuple[Position, ...]:
        """What it gives for the fields of all scales at one noise level, under the condition of each."""
        pairs = enumerate(zip(x, condition, strict=True))
        return tuple(self.network(field, log_sigma, known, scale) for scale, (field, known) in pairs)


class AtScale(eqx.Module):
    """A shared network at one of its scales.

    Attributes:
        network: the network.
        scale: the number of the scale.
    """

    network: ResidualConv
    scale: int = eqx.field(static=True)

    def __call__(self, x: Position, log_sigma: Float[Array, ""], condition: Position) -> Position:
        """What it gives for one field of this scale."""
        return self.network(x, log_sigma, condition, self.scale)
