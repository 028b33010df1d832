"""Any of BlackJAX's algorithms, as it is."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, burn_in, for_each_chain
from scoresample.samplers._density import promoted, require_density, statistics_of
from scoresample.scores import AbstractScore, Position, logdensity_fn


class BlackJAX(AbstractSampler):
    """Any BlackJAX sampling algorithm with parameters of your own: ``BlackJAX(blackjax.ghmc, step_size=0.1, ...)``.

    The algorithm is called as ``algorithm(logdensity_fn, **parameters)`` and must return BlackJAX's
    `SamplingAlgorithm`. It leaves invariant what the algorithm leaves invariant. Nothing is tuned: the warm-up only
    burns in. NUTS, HMC, MALA, MCLMC and others have ready samplers here that tune themselves.

    Arrays among the parameters are data: other values do not compile again. Everything else (numbers, functions) is
    part of the compiled program.

    Attributes:
        algorithm: BlackJAX's algorithm, such as ``blackjax.rmh``, or any function with the same signature.
        parameters: its keyword arguments.
        evaluations_per_step: score evaluations of one step, or of one integration step where BlackJAX reports their
            number: 1 for leapfrog, 2 for the microcanonical samplers.

    Examples:
        >>> import blackjax, jax, jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> sampler = BlackJAX(blackjax.mala, step_size=0.5)
        >>> score = Gaussian(jnp.zeros(2), 1.0)
        >>> state = sampler.init(score, jnp.ones(2), key=jax.random.key(0))
        >>> sampler.step(score, state, key=jax.random.key(1))[0].position.shape
        (2,)
    """

    name: ClassVar[str] = "blackjax"
    reference: ClassVar[str] = "Cabezas et al. 2024"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    algorithm: Any = eqx.field(static=True)
    parameters: dict[str, Any]
    evaluations_per_step: int = eqx.field(static=True)

    def __init__(self, algorithm: Any, *, evaluations_per_step: int = 1, **parameters: Any) -> None:
        """Take an algorithm and its parameters.

        Arguments:
            algorithm: ``algorithm(logdensity_fn, **parameters)``.
            evaluations_per_step: see the attribute.
            **parameters: passed on.

        Raises:
            TypeError: if the algorithm is not a function.
            ValueError: if `evaluations_per_step` is not positive.
        """
        if not callable(algorithm):
            raise TypeError(f"`algorithm` must be one of BlackJAX's, such as blackjax.ghmc, got {algorithm!r}.")
        if evaluations_per_step < 1:
            raise ValueError(f"`evaluations_per_step` must be at least 1, got {evaluations_per_step}.")
        self.algorithm = algorithm
        self.parameters = {
            name: jnp.asarray(value) if isinstance(value, np.ndarray) else value for name, value in parameters.items()
        }
        self.evaluations_per_step = evaluations_per_step

    def _bound(self, score: AbstractScore) -> Any:
        algorithm = self.algorithm(logdensity_fn(require_density(self, score)), **self.parameters)
        if not (hasattr(algorithm, "init") and hasattr(algorithm, "step")):
            raise TypeError(
                f"`algorithm`: {self.algorithm!r} returned {type(algorithm).__name__}, not a SamplingAlgorithm with "
                "`init` and `step`."
            )
        return algorithm

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """The algorithm's state at a position."""
        state = self._bound(score).init(promoted(position), key)
        if not hasattr(state, "position"):
            raise TypeError(
                f"`algorithm`: the states of {self.algorithm!r} have no `position`, so its chains cannot be read. "
                "Wrap it so that they do."
            )
        return state

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One step of the algorithm."""
        state, info = self._bound(score).step(key, state)
        steps = getattr(info, "num_integration_steps", 1)
        return state, statistics_of(state, info, self.evaluations_per_step * steps)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "BlackJAX", dict[str, Array]]:
        """Burn in: `num_warmup` steps of every chain, nothing is tuned."""
        states, evaluations = burn_in(self, score, positions, num_warmup, key=key)
        return states, for_each_chain(self, evaluations.shape[0]), {"num_evaluations": evaluations + 1}
