"""What posterior-predictive checks compare by default: the numbers that the data have."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import AbstractSimulator, named_sites
from scoresample.workflows._encoding import Observation

Statistics = Callable[[Observation], Mapping[str, Array]]
"""Observation -> named scalars or arrays."""


def observed_sites(simulator: AbstractSimulator, observation: Observation) -> dict[str, Any]:
    """The arrays of an observation by name."""
    name = simulator.observed_name
    return {name: observation} if name is not None else dict(named_sites(observation))


def present_statistics(simulator: AbstractSimulator, observation: Observation, *, exchangeable: bool) -> Statistics:
    """Every number that is there; of exchangeable parts, whose order tells nothing, summaries over all of them.

    Arguments:
        simulator: what makes observations.
        observation: the data.
        exchangeable: whether the first axis of the observation holds exchangeable parts.
    """
    if exchangeable:

        def of_parts(observation: Observation) -> dict[str, Array]:
            found = {}
            for name, value in observed_sites(simulator, observation).items():
                found |= {
                    f"mean of {name}": jnp.nanmean(value, axis=0),
                    f"sd of {name}": jnp.nanstd(value, axis=0),
                    f"least {name}": jnp.nanmin(value, axis=0),
                    f"largest {name}": jnp.nanmax(value, axis=0),
                }
            return found

        return of_parts
    present = jax.tree.map(lambda x: ~np.isnan(np.asarray(x)), observed_sites(simulator, observation))

    def of_numbers(observation: Observation) -> dict[str, Array]:
        found = {}
        for name, value in observed_sites(simulator, observation).items():
            if present[name].all():
                found[name] = value
            else:
                places = (place for place in np.ndindex(value.shape) if present[name][place])
                found |= {f"{name}[{', '.join(map(str, place))}]": value[place] for place in places}
        return found

    return of_numbers
